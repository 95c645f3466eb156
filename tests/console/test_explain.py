"""`fraudcase explain` on files: the distance of every rule, and a smallest change that an independent backtest
confirms.
"""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from console.cli.app import app
from console.cli.explain import logs_of, partition_lines
from console.payments.decisions import backtest
from console.payments.files import IntakeRow
from console.rules.dossier import InboundRecord, read_dossier
from console.rules.explain import explain_decision
from console.rules.files import load_pack
from console.rules.smallest_change import format_span
from domain.record_types import to_fields
from domain.risk.default_packs import THREE
from domain.risk.packs import RulePack
from generator.traffic import Traffic, TrafficOptions
from projections.logs.log import LogRecord
from schemas.codec import Decoder
from tests.support.payments import (
    BERLIN,
    DAY_MS,
    LISBON,
    MINUTE_MS,
    NOON,
    RISKY,
    STEADY,
    activated,
    at,
    label,
    payment,
)
from tests.support.records import ENCODER, TEXTS

pytestmark = pytest.mark.no_cover  # line counting makes folds three times slower, and other tests cover this code

PACK = """\
name: shop
version: 1
rules:
  - {name: velocity, family: velocity, typology: t, points: 500, window_ms: 60s, at_least: 3}
  - {name: far, family: far_from_home, typology: t, points: 500, minimum_m: 100_000}
  - {name: new_device, family: new_device, typology: t, points: 500, lookback_ms: 1d, minimum_history: 2}
  - name: dear
    family: expression
    typology: t
    points: 500
    value: amount_minor
    at_least: 5_000
    when: mean(account, 50) * 2 < 8_000 and card_present
"""


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    file = tmp_path / "shop.yaml"
    file.write_text(PACK, encoding="utf-8")
    return file


def run(folder: Path, raws: list[dict[str, Any]], *arguments: str) -> tuple[int, str]:
    file = folder / "payments.jsonl"
    file.write_text("".join(json.dumps(raw) + "\n" for raw in raws), encoding="utf-8")
    result = CliRunner().invoke(app, ["explain", *arguments, "--transactions", str(file)])
    return result.exit_code, result.output


def document(folder: Path, raws: list[dict[str, Any]], *arguments: str) -> dict[str, Any]:
    code, output = run(folder, raws, *arguments, "--json")
    assert code == 0, output
    found: dict[str, Any] = json.loads(output)
    return found


def is_flagged(raws: list[dict[str, Any]], rules: str, transaction_id: str) -> bool:
    """Return whether the backtest, which shares no code with the search, flags the payment."""
    lines = backtest((IntakeRow(raw, None) for raw in raws), load_pack(rules))
    return any(line["rules"] for line in lines if line["transaction_id"] == transaction_id)


NO_CARD = "card that was present at known coordinates"
BIG = payment("big", event_time=NOON + 7 * DAY_MS, amount_minor=12_001)


def test_spike_a_cent_below_its_threshold(tmp_path: Path) -> None:
    """The spike's threshold is 12,002 for this account, computed by hand: three times its mean of 4,000.5."""
    found = document(tmp_path, [*STEADY, BIG], "big", "--rules", "three")
    assert (found["flagged"], found["score"], found["pack"]["name"]) == (False, 0, "three")
    velocity, spike, travel = found["rules"]
    assert (velocity["value"], velocity["threshold"], velocity["distance"], velocity["fired"]) == (1, 5, 4, False)
    assert (spike["value"], spike["threshold"], spike["distance"], spike["fired"]) == (12_001, 12_002, 1, False)
    assert spike["contributing"] == [f"old-{day}" for day in range(6)]
    assert (travel["value"], travel["lacking"]) == (
        None,
        "the payment has no card that was present at known coordinates",
    )
    change = found["smallest_change"]
    assert (change["field"], change["before"], change["after"]) == ("amount_minor", 12_001, 12_002)
    assert (change["step"], change["rules"], change["verified"]) == ("+1 minor units", ["amount_spike"], True)
    assert is_flagged([*STEADY, {**BIG, "amount_minor": 12_002}], "three", "big")


@pytest.mark.parametrize(
    ("raws", "wanted", "field", "step"),
    [
        pytest.param(at(0, 1, MINUTE_MS), "tx-2", "event_time", "later by 0.001 s", id="a burst, at its edge"),
        pytest.param(
            at(0, 1, MINUTE_MS + 5), "tx-2", "event_time", "earlier by 0.005 s", id="5 ms too late for a burst"
        ),
        pytest.param(
            at(0, home_latitude=52.52, home_longitude=13.405, latitude=52.52, longitude=14.875),
            "tx-0",
            "place",
            "0.541 km away from home",
            id="nearly far from home",  # 99,459 m
        ),
        pytest.param(
            at(0, home_latitude=52.52, home_longitude=13.405, latitude=52.52, longitude=14.89),
            "tx-0",
            "place",
            "0.475 km towards home",
            id="just far from home",  # 100,475 m
        ),
        pytest.param(
            at(0, 1_000_000, 2_000_000, device_id=["a", "a", "b"]),
            "tx-2",
            "event_time",
            "",
            id="a new device",
        ),
        pytest.param(
            at(0, amount_minor=5_300), "tx-0", "amount_minor", "-301 minor units", id="an amount slightly too large"
        ),
    ],
)
def test_the_smallest_change_turns_the_decision(
    tmp_path: Path, pack: Path, raws: list[dict[str, Any]], wanted: str, field: str, step: str
) -> None:
    found = document(tmp_path, raws, wanted, "--rules", str(pack))
    assert is_flagged(raws, str(pack), wanted) is found["flagged"]
    assert found["smallest_change"]["field"] == field
    assert found["smallest_change"]["step"].startswith(step)
    for change in found["changes"]:
        fields = {change["field"]: change["after"]}
        if change["field"] == "place":
            fields = dict(zip(("latitude", "longitude"), change["after"], strict=True))
        changed = [{**raw, **fields} if raw["transaction_id"] == wanted else raw for raw in raws]
        assert is_flagged(changed, str(pack), wanted) is not found["flagged"], change


def test_payment_of_another_device_would_not_have_been_flagged(tmp_path: Path, pack: Path) -> None:
    raws = at(0, 1_000_000, 2_000_000, device_id=["a", "a", "b"])
    changes = document(tmp_path, raws, "tx-2", "--rules", str(pack))["changes"]
    assert {"field": "device_id", "before": "b", "after": "a"}.items() <= {
        change["field"]: change for change in changes
    }["device_id"].items()


def test_comparisons_of_an_expression_are_shown(tmp_path: Path, pack: Path) -> None:
    found = document(tmp_path, at(0, amount_minor=6_000, channel="ECOM"), "tx-0", "--rules", str(pack))
    dear = found["rules"][3]
    assert (dear["fired"], dear["value"], dear["threshold"], dear["distance"]) == (False, 6_000, 5_000, 0)
    assert dear["guard"] == {"when": "mean(account, 50) * 2 < 8_000 and card_present", "holds": False}
    assert dear["lacking"] == "its guard is false"
    assert dear["comparisons"] == [
        {"comparison": "mean(account, 50) * 2 < 8_000", "left": -2, "right": 8_000, "holds": True}
    ]


def test_late_payments_are_reported(tmp_path: Path, pack: Path) -> None:
    raws = at(0, 2, 1)
    raws = [{**raw, "transaction_id": name} for raw, name in zip(raws, ("first", "last", "late"), strict=True)]
    found = document(tmp_path, raws, "last", "--rules", str(pack))
    assert (found["flagged"], found["on_arrival"]["flagged"]) == (True, False)
    _, text = run(tmp_path, raws, "last", "--rules", str(pack))
    assert "on arrival it was not flagged; late payments changed the decision" in text


def test_text_output_is_readable(tmp_path: Path) -> None:
    code, text = run(tmp_path, [*STEADY, BIG], "big", "--rules", "three")
    assert code == 0
    for part in (
        "big of acct-anna, 2025-06-22T12:00:00.000+00:00, 12,001 minor units of EUR",
        "not flagged: score 0, flagged from 1 (pack three@1",
        "12,001",
        "The smallest change that would have flagged it, by amount_spike: amount_minor 12,001 -> 12,002 (+1 minor",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("raws", "arguments", "message"),
    [
        pytest.param([BIG], ["nobody"], "there is no payment 'nobody'", id="unknown"),
        pytest.param(
            [BIG, {**BIG, "account_id": "acct-bob"}],
            ["big"],
            "2 accounts have a payment 'big'. Choose one: --account",
            id="two",
        ),
        pytest.param([BIG], ["big", "--account", "x"], "there is no payment 'big' of account 'x'", id="elsewhere"),
        pytest.param([{**BIG, "amount_minor": -1}], ["big"], "negative_amount", id="refused"),
        pytest.param([BIG], ["big", "--digest", "zz"], "no payment 'big' of this account has this digest", id="digest"),
        pytest.param([BIG], ["big", "--rules", "no"], "no is neither a file nor a shipped pack", id="no such pack"),
    ],
)
def test_unexplainable_payment_gives_the_reason(
    tmp_path: Path, raws: list[dict[str, Any]], arguments: list[str], message: str
) -> None:
    code, text = run(tmp_path, raws, *arguments)
    assert code == 1
    assert message in " ".join(text.split())


def test_reused_id_is_explained_by_its_content(tmp_path: Path) -> None:
    raws = [BIG, {**BIG, "amount_minor": 7}]
    first = document(tmp_path, raws, "big")
    (other,) = first["same_id_other_content"]
    second = document(tmp_path, raws, "big", "--digest", other[:8])
    assert (first["amount_minor"], second["amount_minor"], second["content_digest"]) == (12_001, 7, other)


def test_labels_count_as_known_on_arrival() -> None:
    """The merchant's first fraud was known when the payment arrived; the second was not."""
    tx = payment("tx", merchant_id="butcher", event_time=NOON + 1)
    lines = [
        InboundRecord("RulesActivated", to_fields(activated(RISKY)), 0, None),
        InboundRecord("FraudConfirmed", label("x"), 1, None),
        InboundRecord("Transaction", tx, 2, None),
        InboundRecord("FraudConfirmed", label("y"), 3, None),
    ]
    found = explain_decision(lambda: lines, read_dossier(lambda: lines, "acct-anna", "tx"))
    (risk,) = found["rules"]
    assert (risk["value"], risk["fired"], risk["contributing"]) == (1, True, ["x"])
    change = found["smallest_change"]
    assert (change["field"], change["step"]) == ("event_time", "earlier by 0.002 s")  # before that fraud


def test_payment_is_explained_by_the_pack_that_decided_it() -> None:
    lines = [
        InboundRecord("RulesActivated", to_fields(activated(THREE)), 0, None),
        InboundRecord("Transaction", payment("tx"), 1, None),
        InboundRecord("RulesActivated", to_fields(activated(RISKY)), 2, None),
        InboundRecord("Transaction", payment("tx-2", event_time=NOON + 1), 3, None),
    ]
    assert explain_decision(lambda: lines, read_dossier(lambda: lines, "acct-anna", "tx"))["pack"]["name"] == "three"
    assert explain_decision(lambda: lines, read_dossier(lambda: lines, "acct-anna", "tx-2"))["pack"]["name"] == "test"


def test_shifted_time_stays_within_the_limits_of_the_intake() -> None:
    """Five payments in a minute would be a burst, but no payment may be dated more than five minutes after its
    arrival.
    """
    now = NOON + 10 * MINUTE_MS
    raws = [
        *at(*range(now - NOON + 6 * MINUTE_MS, now - NOON + 6 * MINUTE_MS + 4)),
        payment("tx", event_time=now),
    ]
    lines = [InboundRecord("RulesActivated", to_fields(activated(THREE)), 0, None)]
    lines += [InboundRecord("Transaction", raw, number, NOON + DAY_MS) for number, raw in enumerate(raws)]
    free = explain_decision(lambda: lines, read_dossier(lambda: lines, "acct-anna", "tx"))
    assert "event_time" in [change["field"] for change in free["changes"]]
    lines[-1] = lines[-1]._replace(received_ms=now)
    bound = explain_decision(lambda: lines, read_dossier(lambda: lines, "acct-anna", "tx"))
    assert "event_time" not in [change["field"] for change in bound["changes"]]


def test_explanations_of_generated_traffic_agree_with_the_backtest() -> None:
    """For payments of all kinds, the explained decision and each suggested change agree with the backtest."""
    made = [next_ for next_, _ in zip(Traffic(TrafficOptions(seed=7, accounts=12)), range(600), strict=False)]
    raws = [generated.transaction for generated in made]
    lines = [InboundRecord("RulesActivated", to_fields(activated(THREE)), 0, None)]
    lines += [InboundRecord("Transaction", raw, number, None) for number, raw in enumerate(raws)]
    flagged = {
        line["transaction_id"]: bool(line["rules"]) for line in backtest((IntakeRow(raw, None) for raw in raws), THREE)
    }
    for raw in [*raws[::60], *[raw for raw in raws if flagged[raw["transaction_id"]]][::8]]:
        wanted = raw["transaction_id"]
        found = explain_decision(lambda: lines, read_dossier(lambda: lines, raw["account_id"], wanted))
        assert found["flagged"] is flagged[wanted]
        assert any(rule["fired"] for rule in found["rules"]) is flagged[wanted]
        for change in found["changes"]:
            fields = {change["field"]: change["after"]}
            if change["field"] == "place":
                fields = dict(zip(("latitude", "longitude"), change["after"], strict=True))
            changed = [{**other, **fields} if other is raw else other for other in raws]
            assert is_flagged(changed, "three", wanted) is not flagged[wanted], change


@pytest.mark.parametrize(
    ("ms", "text"),
    [(0, "0 s"), (1, "0.001 s"), (61_250, "1 m 1.25 s"), (DAY_MS, "1 d"), (DAY_MS + 3_600_001, "1 d 1 h 0.001 s")],
)
def test_time_spans_are_written_in_words(ms: int, text: str) -> None:
    assert format_span(ms) == text


def test_impossible_travel_from_berlin_to_lisbon(tmp_path: Path) -> None:
    """2,311 km in two and a half hours; 900 km/h would take 2 h 34 min."""
    raws = [payment("here", **BERLIN), payment("there", event_time=NOON + 9_000_000, **LISBON)]
    found = document(tmp_path, raws, "there", "--rules", "three")
    travel = found["rules"][2]
    assert (travel["fired"], travel["value"], travel["contributing"]) == (True, 924, ["here"])
    change = found["smallest_change"]
    assert change["field"] == "event_time"
    assert change["step"].startswith("later by 4 m 8.524 s")


class RecordedLog:
    """Log of two partitions, read as Kafka's are."""

    def __init__(self, partitions: dict[int, list[bytes]]) -> None:
        self._partitions = partitions

    def ends(self, topic: str) -> dict[int, int]:
        assert topic == "payments.inbound"
        return {number: len(values) for number, values in self._partitions.items()}

    def read(self, topic: str, partition: int, until: int) -> Iterator[LogRecord]:
        for offset, value in enumerate(self._partitions[partition][:until]):
            yield LogRecord(topic, partition, offset, NOON + DAY_MS, b"key", value, ())


def test_log_of_the_running_system_is_read_by_partition() -> None:
    """One id in two partitions, under two packs: each payment is explained by the records of its own partition."""
    decoder = Decoder(TEXTS.get)

    def partition(pack: RulePack, account: str) -> list[bytes]:
        raw = payment("tx", account_id=account, merchant_id="butcher", event_time=NOON + 1)
        return [
            ENCODER.encode("RulesActivated", to_fields(activated(pack))),
            b"garbage",
            ENCODER.encode("FraudConfirmed", label("x")),
            ENCODER.encode("Transaction", raw),
        ]

    log = RecordedLog({0: partition(THREE, "acct-anna"), 1: partition(RISKY, "acct-bob")})
    lines = [
        partial(partition_lines, log, "payments.inbound", number, end, decoder) for number, end in enumerate((4, 4))
    ]
    found = logs_of(lines, "tx")
    documents = {each: explain_decision(found[each], read_dossier(found[each], each, "tx")) for each in found}
    assert {each: (made["pack"]["name"], made["flagged"]) for each, made in documents.items()} == {
        "acct-anna": ("three", False),
        "acct-bob": ("test", True),
    }


def test_labels_of_a_file_become_known_late(tmp_path: Path) -> None:
    """The fraud at noon is known a day later; later payments at that terminal are explained with it."""
    raws = at(0, DAY_MS - 1, DAY_MS + 1, account_id=["eve", "anna", "anna"], terminal_id="till", merchant_id="butcher")
    labels = tmp_path / "labels.jsonl"
    labels.write_text(json.dumps({"transaction_id": "tx-0", "fraud": 1}) + "\n", encoding="utf-8")
    rules = tmp_path / "risky.json"
    rules.write_text(RISKY.canonical, encoding="utf-8")
    common = ["--rules", str(rules), "--labels", str(labels), "--feedback", "1d"]
    assert document(tmp_path, raws, "tx-1", *common)["flagged"] is False
    (risk,) = document(tmp_path, raws, "tx-2", *common)["rules"]
    assert (risk["fired"], risk["value"], risk["contributing"]) == (True, 1, ["tx-0"])
