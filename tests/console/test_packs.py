"""The bundled rule packs: each detects its kind of fraud on a small stream."""

from typing import Any

import pytest

from console.payments.files import IntakeRow
from console.rules.files import load_pack
from console.scoring.run import admit_rows, run
from console.scoring.truth import GroundTruth, TruthLabel
from domain.durations import DAY_MS

START = 20_000 * DAY_MS
HOUR_MS = 3_600_000
RIO: dict[str, Any] = {"home_latitude": -22.9, "home_longitude": -43.2}
TUNED = ("synccfd", "fdh", "fraudtwin", "sparkov")


def payment(transaction_id: str, at_ms: int, amount_minor: int = 5_000, **changed: Any) -> dict[str, Any]:
    return {
        "transaction_id": transaction_id, "account_id": "anna", "card_id": "card-anna", "amount_minor": amount_minor,
        "currency": "EUR", "event_time": START + at_ms, "merchant_id": "m", "payment_method": "CARD", "channel": "POS",
        "terminal_id": "till", **changed,
    }  # fmt: skip


def habit(days: int, **changed: Any) -> list[dict[str, Any]]:
    """Return two payments of about 50 a day."""
    return [payment(f"h{n}", n * DAY_MS // 2, 4_900 + n % 3 * 100, **changed) for n in range(2 * days)]


def flags(
    pack: str, rows: list[dict[str, Any]], frauds: tuple[str, ...] = (), feedback_ms: int | None = None
) -> set[str]:
    """Return the flagged transactions; rows are decided in the order of their time."""
    ordered = sorted(rows, key=lambda row: row["event_time"])
    labels = {
        n: TruthLabel(row["transaction_id"], row["transaction_id"] in frauds, "") for n, row in enumerate(ordered)
    }
    scored, _ = run(
        admit_rows((IntakeRow(row, None) for row in ordered), GroundTruth(labels, {})), load_pack(pack), feedback_ms
    )
    assert scored.time_ms.size == len(rows)
    return {row["transaction_id"] for row, flagged in zip(ordered, scored.flagged, strict=True) if flagged}


@pytest.mark.parametrize("name", TUNED)
def test_pack_has_its_name_and_lists_no_account(name: str) -> None:
    pack = load_pack(name)
    assert pack.name == name
    assert not pack.lists


@pytest.mark.parametrize("name", TUNED)
def test_regular_payments_are_not_flagged(name: str) -> None:
    assert flags(name, habit(20, latitude=-22.95, longitude=-43.2, **RIO)) == set()


@pytest.mark.parametrize("name", ["synccfd", "fdh"])
def test_a_large_amount_is_flagged(name: str) -> None:
    assert flags(name, [payment("limit", 0, 22_000), payment("above", 1, 22_001)]) == {"above"}


def test_synccfd_far_from_home_begins_at_12_km() -> None:
    """0.1 degrees of latitude are 11.1 km, and 0.11 degrees are 12.2 km."""
    near = payment("near", 0, latitude=-22.8, longitude=-43.2, channel="ECOM", **RIO)
    far = payment("far", DAY_MS, latitude=-22.79, longitude=-43.2, channel="ECOM", **RIO)
    assert flags("synccfd", [near, far]) == {"far"}


def test_synccfd_flags_a_day_of_spending() -> None:
    """The mean of 50 payments rises with the spree, so that the 16th payment of a day is 14 times the mean."""
    spree = [payment(f"s{n:02}", 20 * DAY_MS + 6 * HOUR_MS + n * 60_000) for n in range(16)]
    found = flags("synccfd", habit(20) + spree)
    assert "s15" in found
    assert "s05" not in found


def test_fdh_flags_five_times_the_usual_amount() -> None:
    rows = [*habit(20), payment("twice", 20 * DAY_MS, 10_000), payment("stolen", 20 * DAY_MS + 1, 20_000)]
    assert flags("fdh", rows) == {"stolen"}


@pytest.mark.parametrize(
    ("name", "found"),
    [
        pytest.param("fdh", {"t08", "t09", "t10", "t11"}, id="fdh asks for two confirmed frauds"),
        pytest.param(
            "synccfd", {"t10", "t11"}, id="synccfd asks for three days of them, seven to eight old ones as one"
        ),
    ],
)
def test_compromised_terminal_is_flagged_by_its_confirmed_frauds(name: str, found: set[str]) -> None:
    """A payment a day at each of two terminals, one of which is compromised; the fraud of day 0 is known on day 7,
    that of day 1 on day 8.
    """
    rows = [payment(f"t{day:02}", day * DAY_MS, account_id=f"a{day}", terminal_id="bad") for day in range(12)]
    rows += [payment(f"o{day:02}", day * DAY_MS, account_id=f"b{day}", terminal_id="good") for day in range(12)]
    frauds = tuple(f"t{day:02}" for day in range(12))
    assert flags(name, rows, frauds) == set()
    assert flags(name, rows, frauds, 7 * DAY_MS) == found


def test_default_distinguishes_a_stolen_card_from_a_compromised_merchant() -> None:
    """Known on day 7: three frauds of one card at the butcher's, and one fraud of each of three cards at the
    baker's.
    """
    frauds = [payment(f"f{n}", n, account_id="anna", terminal_id="butcher") for n in range(3)]
    frauds += [payment(f"g{n}", n, account_id=f"a{n}", card_id=f"c{n}", terminal_id="baker") for n in range(3)]
    rows = [
        payment("her-card", 8 * DAY_MS, terminal_id="kiosk"),
        payment("butcher", 8 * DAY_MS, account_id="bob", card_id="c", terminal_id="butcher"),
        payment("baker", 8 * DAY_MS, account_id="bob", card_id="c", terminal_id="baker"),
    ]
    known = tuple(row["transaction_id"] for row in frauds)
    assert flags("default", frauds + rows, known, 7 * DAY_MS) == {"baker"}


def test_fraudtwin_flags_bursts_of_a_card_and_nothing_slower() -> None:
    burst = [payment(f"b{n:02}", n * 3_000, 150 + n, merchant_id=f"m{n % 2}", channel="ECOM") for n in range(20)]
    slower = [payment(f"c{n:02}", n * 16_000, 150, account_id="bob", card_id="card-bob") for n in range(20)]
    assert flags("fraudtwin", burst + slower) == {f"b{n:02}" for n in range(4, 20)}


def test_sparkov_flags_repeated_large_amounts_at_night() -> None:
    rows = [
        *habit(5),
        payment("evening", 5 * DAY_MS + 21 * HOUR_MS, 30_000),
        payment("night", 5 * DAY_MS + 23 * HOUR_MS, 30_000),
        payment("alone", 9 * DAY_MS + 23 * HOUR_MS, 30_000, account_id="bob"),
    ]
    assert flags("sparkov", rows) == {"night"}
