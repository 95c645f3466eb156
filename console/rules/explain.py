"""Why a payment was flagged, or why not, rule by rule; and the smallest change that would have turned the decision.

All of it comes from the log alone, by the folds that decide: the payments of the account, the packs and the labels in
the order in which they came. A change is searched along one field, in time or in space; what is reported has been
verified by running the fold over the changed log.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import chain, takewhile
from math import log as logarithm
from typing import Any, Final, NamedTuple

from domain.geo import distance_m
from domain.payment import FUTURE_TOLERANCE_MS, MAX_AMOUNT_MINOR, Payment, Refusal, admit
from domain.record_types import DuplicateSeen, FraudConfirmed, RiskFlagged, RiskRestated, RiskScored
from domain.risk.expression import COMPARISONS, Comparison
from domain.risk.features import DAY_MS, previous_present
from domain.risk.fold import ActivePack, Finding, RiskFold, decide, findings
from domain.risk.history import HORIZON_MS, MAX_WINDOW_MS, Decision, History
from domain.risk.labels import Label, Labels, by_key
from domain.risk.packs import family_of, is_by_entity

FARTHEST_M: Final = 20_000_000
NEIGHBOURS: Final = 100
"""Payments before, and as many after, whose times a shift in time is tried to."""
ALTERNATIVES: Final = 5
"""Values of a field, of the account's last payments, that are tried for it."""
FIELDS: Final = ("device_id", "country", "merchant_id", "channel", "card_id")
_MICRO: Final = 1_000_000


class Line(NamedTuple):
    """A record of payments.inbound as the fold reads it."""

    name: str
    data: Mapping[str, Any]
    offset: int
    received_ms: int | None


Log = Callable[[], Iterable[Line]]
"""One partition, or a file, from its start: it is read several times."""


class NotExplained(Exception):
    """There is no such payment, or more than one, or it was not decided on; the message says what would do."""


@dataclass(slots=True)
class Dossier:
    """A payment and all that its decision rests on."""

    data: Mapping[str, Any]
    received_ms: int | None
    payment: Payment
    pack: ActivePack
    labels: Labels
    latest_ms: int
    """The latest event time of the account when it arrived."""
    first: Decision
    others: list[Payment] = field(default_factory=list)
    """Every other payment of the account that was decided on, in event-time order."""

    def placed(self, payment: Payment) -> tuple[History, int]:
        """A history in which this payment stands in the place of the one that is explained, as far as rules look."""
        end = bisect_left(self.others, payment.order, key=_order)
        oldest_ms = payment.event_time_ms - self.pack.window_ms
        start = min(max(0, end - self.pack.rows), bisect_left(self.others, (oldest_ms, "", b""), key=_order))
        history = History(payment.account_id)
        for other in self.others[start:end]:
            history.insert(other, 0)
        return history, history.insert(payment, 0, self.labels.facts(payment, by_key(self.pack.confirmed)))

    def decision(self, payment: Payment) -> Decision:
        """What the pack says of this payment in the place of the one that is explained."""
        return decide(*self.placed(payment), self.pack)


def _order(payment: Payment) -> tuple[int, str, bytes]:
    return payment.order


# -- reading the log ------------------------------------------------------------------------------------


def find_accounts(log: Log, transaction_id: str) -> list[str]:
    """The accounts that have a payment of this id, in the order of the log."""
    found = (line.data["account_id"] for line in log() if _is_payment(line, transaction_id))
    return list(dict.fromkeys(found))


def _is_payment(line: Line, transaction_id: str) -> bool:
    return line.name == "Transaction" and line.data.get("transaction_id") == transaction_id


def read_dossier(log: Log, account_id: str, transaction_id: str, digest: str = "") -> Dossier:
    """What the log holds on a payment; of several contents under one id, the first whose digest begins so.

    Raises NotExplained.
    """
    fold, labels = RiskFold(0), Labels(lambda _: None)
    dossier: Dossier | None = None
    others: list[Payment] = []
    latest_ms, refusal = -1, ""
    for line in of_account(log, account_id):
        outputs = fold.read(line.name, line.data, line.offset, line.received_ms)
        is_wanted = dossier is None and _is_payment(line, transaction_id)
        if line.name == "FraudConfirmed" and dossier is None:
            labels.add(_label(line.data))
        if isinstance(outputs, Refusal):
            refusal = f"{outputs.reason}: {outputs.detail}" if is_wanted else refusal
            continue
        if line.name != "Transaction" or any(isinstance(output, DuplicateSeen) for output in outputs):
            continue
        payment = admit(line.data, line.received_ms)
        assert isinstance(payment, Payment)  # the fold took it
        if is_wanted and payment.digest.hex().startswith(digest):
            assert fold.active is not None
            first = fold.decision(payment)
            dossier = Dossier(line.data, line.received_ms, payment, fold.active, labels, latest_ms, first)
        else:
            others.append(payment)
        latest_ms = max(latest_ms, payment.event_time_ms)
    if dossier is None:
        raise NotExplained(refusal or f"no payment {transaction_id!r} of this account has this digest")
    dossier.others = sorted(others, key=_order)
    return dossier


def of_account(log: Log, account_id: str) -> Iterator[Line]:
    """What can change a decision on an account: its payments, and what concerns all of them."""
    return (line for line in log() if line.name != "Transaction" or line.data.get("account_id") == account_id)


def _label(data: Mapping[str, Any]) -> Label:
    record = FraudConfirmed(**data)
    return Label(
        record.label_id, record.transaction_id, record.event_time, record.merchant_id, record.terminal_id,
        record.device_id, record.card_id, record.account_id,
    )  # fmt: skip


def verified(log: Log, dossier: Dossier, data: Mapping[str, Any]) -> Decision | None:
    """What stands at the end if the payment had been this one, by the fold over the whole log; None if refused."""
    changed = admit(data, dossier.received_ms)
    if isinstance(changed, Refusal):
        return None
    fold = RiskFold(0)
    found: Decision | None = None
    for line in of_account(log, dossier.payment.account_id):
        is_it = line.name == "Transaction" and line.data == dossier.data
        outputs = fold.read(line.name, data if is_it else line.data, line.offset, line.received_ms)
        for output in () if isinstance(outputs, Refusal) else outputs:
            if isinstance(output, RiskScored) and output.content_digest == changed.digest:
                found = fold.decision(changed)
            elif isinstance(output, RiskFlagged | RiskRestated) and output.content_digest == changed.digest.hex():
                found = Decision(output.score, output.reasons)
    return found


# -- the smallest change --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change that turns the decision, and what the fold then decides.

    `effort` makes changes of different kinds comparable: an amount times or divided by e, a day, 100 km, and another
    value of a field all weigh 1.
    """

    field: str
    before: Any
    after: Any
    step: str
    effort: float
    score: int
    rules: tuple[str, ...]


class _Tried(NamedTuple):
    """A change that seems to turn the decision: the fields that it replaces, and how it is told."""

    fields: dict[str, Any]
    name: str
    before: Any
    after: Any
    step: str
    effort: float


Turns = Callable[[Payment], bool]


def smallest_changes(log: Log, dossier: Dossier) -> list[Change]:
    """The nearest change of each kind that turns the decision, the easiest first; each verified over the whole log."""
    is_flagged = bool(dossier.decision(dossier.payment).reasons)

    def turns(payment: Payment) -> bool:
        return bool(dossier.decision(payment).reasons) is not is_flagged

    made: list[Change] = []
    for fields, name, before, after, step, effort in chain(
        _amounts(dossier, turns), _times(dossier, turns), _places(dossier, turns), _values(dossier, turns)
    ):
        decision = verified(log, dossier, {**dossier.data, **fields})
        if decision is not None and bool(decision.reasons) is not is_flagged:
            made.append(
                Change(
                    field=name,
                    before=before,
                    after=after,
                    step=step,
                    effort=round(effort, 4),
                    score=decision.score,
                    rules=decision.rules,
                )
            )
    return sorted(made, key=lambda change: change.effort)


def _nearest(turns: Callable[[int], bool], steps: Iterable[int]) -> int | None:
    """The step nearest to 0 that turns the decision: outwards along these steps, then back by halves."""
    behind = {True: 0, False: 0}  # on each side the last step that does not turn it
    for step in sorted(set(steps) - {0}, key=lambda step: (abs(step), step)):
        if not turns(step):
            behind[step > 0] = step
            continue
        near, far = behind[step > 0], step
        while abs(far - near) > 1:
            middle = (near + far) // 2
            near, far = (near, middle) if turns(middle) else (middle, far)
        return far
    return None


def _doubling(most: int) -> Iterator[int]:
    """1, -1, 2, -2, 4, ... up to a bound."""
    steps = takewhile(lambda step: step <= most, (1 << power for power in range(64)))
    return (signed for step in steps for signed in (step, -step))


def _amounts(dossier: Dossier, turns: Turns) -> Iterator[_Tried]:
    payment = dossier.payment
    before = payment.amount_minor
    edges = [
        edge
        for found in findings(*dossier.placed(payment), dossier.pack)
        if found.measured.measure == "minor units" and found.measured.value is not None
        for edge in (
            found.measured.threshold - found.measured.value,
            found.measured.threshold - found.measured.value - 1,
        )
    ]
    step = _nearest(
        lambda step: 0 <= before + step <= MAX_AMOUNT_MINOR and turns(payment._replace(amount_minor=before + step)),
        [*edges, *_doubling(MAX_AMOUNT_MINOR)],
    )
    if step is not None:
        effort = abs(logarithm((before + step + 1) / (before + 1)))
        yield _Tried(
            {"amount_minor": before + step}, "amount_minor", before, before + step, f"{step:+,} minor units", effort
        )


def _times(dossier: Dossier, turns: Turns) -> Iterator[_Tried]:
    payment = dossier.payment
    before = payment.event_time_ms
    earliest = max(0, before - MAX_WINDOW_MS, dossier.latest_ms - HORIZON_MS)
    latest = before + MAX_WINDOW_MS
    if dossier.received_ms is not None:
        latest = min(latest, dossier.received_ms + FUTURE_TOLERANCE_MS)
    place = bisect_left(dossier.others, payment.order, key=_order)
    near = dossier.others[max(0, place - NEIGHBOURS) : place + NEIGHBOURS]
    step = _nearest(
        lambda step: earliest <= before + step <= latest and turns(payment._replace(event_time_ms=before + step)),
        [*(other.event_time_ms - before + after for other in near for after in (0, 1)), *_doubling(MAX_WINDOW_MS)],
    )
    if step is not None:
        told = f"{'later' if step > 0 else 'earlier'} by {span(abs(step))}"
        yield _Tried({"event_time": before + step}, "event_time", before, before + step, told, abs(step) / DAY_MS)


def span(ms: int) -> str:
    """So many milliseconds as people read them: 1 d 3 h, 5 m 0.25 s."""
    parts = []
    for unit, size in (("d", DAY_MS), ("h", 3_600_000), ("m", 60_000)):
        if ms >= size:
            parts.append(f"{ms // size} {unit}")
            ms %= size
    if ms or not parts:
        parts.append(f"{ms / 1000:g} s")
    return " ".join(parts)


def _places(dossier: Dossier, turns: Turns) -> Iterator[_Tried]:
    """Nearer to home or farther from it, and the same from where the card was before."""
    payment = dossier.payment
    if payment.latitude is None or payment.longitude is None:
        return
    starts = {"home": (payment.home_latitude, payment.home_longitude)}
    before = previous_present(*dossier.placed(payment), MAX_WINDOW_MS)
    if before is not None:
        starts["where the card was before"] = before.latitude, before.longitude
    for name, (latitude, longitude) in starts.items():
        if latitude is None or longitude is None:
            continue
        here = payment.latitude, payment.longitude
        way = _Way((latitude, longitude), here)
        step = _nearest(
            lambda step, way=way: turns(_at(payment, way.point(step))),  # type: ignore[misc]  # bound now
            _doubling(FARTHEST_M),
        )
        if step is None:
            continue
        there = way.point(step)
        metres = distance_m(*here, *there)
        fields = {"latitude": there[0] / _MICRO, "longitude": there[1] / _MICRO}
        told = f"{metres / 1000:,.3f} km {'away from' if step > 0 else 'towards'} {name}"
        yield _Tried(fields, "place", _degrees(here), _degrees(there), told, metres / 100_000)


class _Way(NamedTuple):
    """The line from a start through where the payment is, straight on the map."""

    start: tuple[int, int]
    here: tuple[int, int]

    def point(self, step_m: int) -> tuple[int, int]:
        """Where one is after so many metres more; stays on the map."""
        metres = distance_m(*self.start, *self.here)
        if metres == 0:  # anywhere is away: towards the equator
            north = self.start[0] + (step_m * 9 if self.start[0] < 0 else -step_m * 9)
            return max(-90 * _MICRO, min(90 * _MICRO, north)), self.start[1]
        share = max(0, metres + step_m)
        latitude = self.start[0] + (self.here[0] - self.start[0]) * share // metres
        across = (self.here[1] - self.start[1] + 180 * _MICRO) % (360 * _MICRO) - 180 * _MICRO  # the short way round
        longitude = self.start[1] + across * share // metres
        return (
            max(-90 * _MICRO, min(90 * _MICRO, latitude)),
            (longitude + 180 * _MICRO) % (360 * _MICRO) - 180 * _MICRO,
        )


def _at(payment: Payment, point: tuple[int, int]) -> Payment:
    return payment._replace(latitude=point[0], longitude=point[1])


def _degrees(point: tuple[int, int]) -> list[float]:
    return [point[0] / _MICRO, point[1] / _MICRO]


def _values(dossier: Dossier, turns: Turns) -> Iterator[_Tried]:
    """Another value of one field, as the account's last payments had it."""
    payment = dossier.payment
    for name in FIELDS:
        before = getattr(payment, name)
        known = dict.fromkeys(getattr(other, name) for other in reversed(dossier.others))
        for value in [value for value in known if value not in (before, None)][:ALTERNATIVES]:
            if turns(payment._replace(**{name: value})):
                yield _Tried({name: value}, name, before, value, f"{value} as in other payments", 1.0)
                break


# -- told -----------------------------------------------------------------------------------------------


def explained(log: Log, dossier: Dossier) -> dict[str, Any]:
    """Everything there is to say about the decision on a payment, as plain data."""
    payment, pack = dossier.payment, dossier.pack
    decision = dossier.decision(payment)
    changes = [_change(change) for change in smallest_changes(log, dossier)]
    same_id = [other.digest.hex() for other in dossier.others if other.transaction_id == payment.transaction_id]
    return {
        "transaction_id": payment.transaction_id,
        "account_id": payment.account_id,
        "content_digest": payment.digest.hex(),
        "same_id_other_content": same_id,
        "event_time": payment.event_time_ms,
        "amount_minor": payment.amount_minor,
        "currency": payment.currency,
        "pack": {
            "name": pack.pack.name, "version": pack.pack.version, "pack_id": pack.pack_id, "flag_at": pack.pack.flag_at,
        },
        "flagged": bool(decision.reasons),
        "score": decision.score,
        "on_arrival": {"flagged": bool(dossier.first.reasons), "score": dossier.first.score},
        "rules": _rules(dossier),
        "smallest_change": changes[0] if changes else None,
        "changes": changes,
    }  # fmt: skip


def _rules(dossier: Dossier) -> list[dict[str, Any]]:
    history, index = dossier.placed(dossier.payment)
    found = {each.ready.rule.name: _rule(each, history, index) for each in findings(history, index, dossier.pack)}
    for rule in dossier.pack.pack.rules:
        if is_by_entity(rule):
            found[rule.name] = {
                "rule": rule.name, "family": family_of(rule), "fired": None, "distance": None,
                "lacking": "decided in the log of the merchant, terminal or device",
            }  # fmt: skip
    return [found[rule.name] for rule in dossier.pack.pack.rules]


def _rule(finding: Finding, history: History, index: int) -> dict[str, Any]:
    ready, measured = finding.ready, finding.measured
    rule = ready.rule
    lacking = measured.lacking or ("" if finding.is_open else "its guard does not hold")
    return {
        "rule": rule.name,
        "family": family_of(rule),
        "fired": measured.holds and finding.is_open and (finding.points > 0 or family_of(rule) == "allowlist"),
        "measure": measured.measure,
        "value": measured.value,
        "threshold": measured.threshold,
        "distance": None if measured.value is None else max(0, measured.threshold - measured.value),
        "points": finding.points,
        "severity": rule.severity,
        "reason_code": rule.reason_code,
        "guard": {"when": rule.when, "holds": finding.is_open} if rule.when else None,
        "lacking": lacking,
        "contributing": list(measured.contributing),
        "comparisons": [
            _comparison(each, history, index)
            for part in (ready.value, ready.when)
            if part is not None
            for each in part.comparisons
        ],
    }


def _comparison(comparison: Comparison, history: History, index: int) -> dict[str, Any]:
    left, right = comparison.evaluate_left(history, index), comparison.evaluate_right(history, index)
    return {
        "comparison": f"{comparison.left} {comparison.sign} {comparison.right}",
        "left": left, "right": right, "holds": COMPARISONS[comparison.sign](left, right),
    }  # fmt: skip


def _change(change: Change) -> dict[str, Any]:
    return {**asdict(change), "rules": list(change.rules), "verified": True}
