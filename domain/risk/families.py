"""The families of rules: each measures a payment in its history, and says whether that reaches the rule's threshold.

A measure says it in full, with what is lacking: for reasons and for `fraudcase explain`. Before it stands a check that
is cheap and fails nearly always, since nearly no payment fires; what passes that, the measure decides.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import isqrt
from typing import Final, NamedTuple, TypeAlias

from domain.geo import METRES_PER_MICRODEGREE
from domain.payment import CARD_PRESENT_CHANNELS, Payment
from domain.reason import Reason
from domain.risk.expression import NO_NEEDS, CompiledExpression, HistoryNeeds
from domain.risk.features import (
    DAY_MS,
    KEYS,
    home_distance_m,
    is_placed,
    journey,
    moments,
    positions,
    previous_present,
)
from domain.risk.history import History
from domain.risk.packs import (
    AccountEmptying,
    Allowlist,
    AmountSpike,
    Blocklist,
    CardTesting,
    EntityRisk,
    Expression,
    FarFromHome,
    ImpossibleTravel,
    NewCountry,
    NewDevice,
    Rule,
    UnusualHour,
    Velocity,
    compile_parameter,
)

FEW: Final = 4
"""Payments that a check looks back to before it leaves the rest to the measure."""
MAX_CONTRIBUTING: Final = 100
"""Payments named as the ground of one reason, the last ones; the value counts them all."""
LARGEST: Final = 2**63 - 1

Lists: TypeAlias = Mapping[str, tuple[str, ...]]


class Measurement(NamedTuple):
    """What a rule finds at a payment; `lacking` says what is in the way if that does not hold.

    `value` is None where there is nothing to measure. What holds has a value of at least `threshold`.
    """

    measure: str
    value: int | None
    threshold: int
    holds: bool
    contributing: tuple[str, ...] = ()
    lacking: str = ""


Measure: TypeAlias = Callable[[History, int], Measurement]
Check: TypeAlias = Callable[[History, int, Payment], bool]
"""Asked with the payment at the index; False only where the measure does not hold."""


class RuleGate(NamedTuple):
    """Where a rule can hold at all: from how many earlier payments on, and in which channels, None for any.

    Known of a payment before any rule is asked, so that most rules need not be.
    """

    least_index: int = 0
    channels: frozenset[str] | None = None


class CompiledRule(NamedTuple):
    """A rule made ready."""

    rule: Rule
    gate: RuleGate
    check: Check
    measure: Measure
    points: CompiledExpression | None
    when: CompiledExpression | None
    value: CompiledExpression | None
    needs: HistoryNeeds

    def reason(self, history: History, index: int) -> Reason | None:
        """Why the rule fires for the payment at an index, or None."""
        found = self.measure(history, index)
        if not found.holds or not self.is_open(history, index):
            return None
        points = self.points_for(found, history, index)
        if points < 1:
            return None
        assert found.value is not None
        return Reason(
            rule=self.rule.name,
            measure=found.measure,
            value=found.value,
            threshold=found.threshold,
            points=points,
            contributing=found.contributing,
            severity=self.rule.severity,
            reason_code=self.rule.reason_code,
        )

    def is_open(self, history: History, index: int) -> bool:
        """Whether the rule's guard lets this payment through."""
        return self.when is None or bool(self.when.evaluate(history, index))

    def points_for(self, found: Measurement, history: History, index: int) -> int:
        """The points of what holds: those of the expression, or the rule's, in proportion where its family says so."""
        if self.points is not None:
            points: int = self.points.evaluate(history, index)
            return max(0, min(1000, points))
        assert isinstance(self.rule.points, int)
        assert found.value is not None
        if not self.rule.scales:
            return self.rule.points
        return min(1000, self.rule.points * found.value // found.threshold)


def combine_permille(score: int, points: int) -> int:
    """Two thousandths joined as if they were independent probabilities: 1 - (1 - a)(1 - b), in integers."""
    return score + points - score * points // 1000


def ready(rule: Rule, lists: Lists) -> CompiledRule:
    """A rule's functions. Raises BadExpression; a pack that was parsed has none such."""
    when = compile_parameter(rule, "when", lists) if rule.when else None
    points = compile_parameter(rule, "points", lists) if isinstance(rule.points, str) else None
    value = compile_parameter(rule, "value", lists) if isinstance(rule, Expression) else None
    needs = _needs(rule)
    for part in (when, points, value):
        needs |= part.needs if part else NO_NEEDS
    check, measure = _functions(rule, lists, value, when)
    return CompiledRule(rule, _gate(rule), check, measure, points, when, value, needs)


def _needs(rule: Rule) -> HistoryNeeds:
    match rule:
        case Velocity() | CardTesting():
            return HistoryNeeds(window_ms=rule.window_ms)
        case ImpossibleTravel():
            return HistoryNeeds(window_ms=rule.within_ms)
        case NewDevice() | NewCountry() | AccountEmptying():
            return HistoryNeeds(window_ms=rule.lookback_ms)
        case AmountSpike() | UnusualHour():
            return HistoryNeeds(rows=rule.history)
        case EntityRisk():
            return HistoryNeeds(confirmed=((rule.by, rule.window_ms),))
        case FarFromHome() | Blocklist() | Allowlist() | Expression():
            return NO_NEEDS


def _gate(rule: Rule) -> RuleGate:
    match rule:
        case Velocity(measure="count") | CardTesting():
            return RuleGate(rule.at_least - 1)
        case AmountSpike() | NewDevice() | NewCountry() | AccountEmptying() | UnusualHour():
            return RuleGate(rule.minimum_history)
        case ImpossibleTravel():
            return RuleGate(1, CARD_PRESENT_CHANNELS)
        case FarFromHome() if rule.channels:
            return RuleGate(0, frozenset(rule.channels))
        case _:
            return RuleGate()


def _functions(
    rule: Rule, lists: Lists, value: CompiledExpression | None, when: CompiledExpression | None
) -> tuple[Check, Measure]:
    match rule:
        case Velocity():
            return _velocity_check(rule), partial(_velocity, rule)
        case AmountSpike():
            return _spike_check(rule), partial(_spike, rule)
        case ImpossibleTravel():
            return _travel_check(rule), partial(_travel, rule)
        case FarFromHome():
            return _far_check(rule), partial(_far, rule)
        case CardTesting():
            return _testing_check(rule), partial(_testing, rule)
        case NewDevice():
            return _novelty_check("device", rule), partial(_novelty, rule, "device")
        case NewCountry():
            return _novelty_check("country", rule), partial(_novelty, rule, "country")
        case EntityRisk():
            return _always_holds, partial(_entity_risk, rule)
        case AccountEmptying():
            return _emptying_check(rule), partial(_emptying, rule)
        case UnusualHour():
            return _hour_check(rule), partial(_hour, rule)
        case Blocklist() | Allowlist():
            members = frozenset(lists[rule.list])
            read = KEYS[rule.field]
            return (lambda _history, _index, payment: read(payment) in members), partial(_listed, rule, members)
        case Expression():
            assert value is not None
            return _value_check(rule, value, when), partial(_value, rule, value)


def _ids(history: History, found: Sequence[int]) -> tuple[str, ...]:
    return tuple(history.payments[position].transaction_id for position in found[-MAX_CONTRIBUTING:])


def _lacking_measurement(measure: str, threshold: int, what: str) -> Measurement:
    return Measurement(measure, None, threshold, holds=False, lacking=f"the payment has no {what}")


# -- velocity -------------------------------------------------------------------------------------------


def _velocity_check(rule: Velocity) -> Check:
    """By what the account did with all its cards: no key has more."""
    window_ms, at_least = rule.window_ms, rule.at_least
    if rule.measure == "count":
        before = at_least - 1

        def is_many(history: History, index: int, payment: Payment) -> bool:
            nearest = index - before  # if this payment is in the window, there are at least so many
            return nearest >= 0 and history.times[nearest] >= payment.event_time_ms - window_ms

        return is_many

    def is_much(history: History, index: int, payment: Payment) -> bool:
        sums = history.sums
        first = bisect_left(history.times, payment.event_time_ms - window_ms, 0, index + 1)
        return sums[index + 1] - sums[first] >= at_least

    return is_much


def _velocity(rule: Velocity, history: History, index: int) -> Measurement:
    key, is_sum = rule.by.removeprefix("account_"), rule.measure == "sum"
    measure = "minor units" if is_sum else "payments"
    if KEYS[key](history.payments[index]) is None:
        return _lacking_measurement(measure, rule.at_least, f"{key}_id")
    first = bisect_left(history.times, history.times[index] - rule.window_ms, 0, index + 1)
    found = positions(key, history, index, first, index + 1, one_currency=is_sum)
    value = sum(history.payments[position].amount_minor for position in found) if is_sum else len(found)
    return Measurement(measure, value, rule.at_least, value >= rule.at_least, _ids(history, found))


# -- amount spike ---------------------------------------------------------------------------------------


def _spike_check(rule: AmountSpike) -> Check:
    rows, least, minimum, ratio, variances = (
        rule.history, rule.minimum_history, rule.minimum_minor, rule.ratio_percent, rule.sigmas**2,
    )  # fmt: skip

    def is_spike(history: History, index: int, payment: Payment) -> bool:
        amount = payment.amount_minor
        if amount < minimum or index < least:
            return False
        if history.is_mixed:
            return True
        n = min(rows, index)
        sums = history.sums
        total = sums[index] - sums[index - n]
        excess = n * amount - total
        if excess <= 0 or 100 * n * amount < ratio * total:
            return False
        spread = variances * (n * (history.squares[index] - history.squares[index - n]) - total * total)
        return excess * excess > spread

    return is_spike


def _spike(rule: AmountSpike, history: History, index: int) -> Measurement:
    first = max(0, index - rule.history)
    amount = history.payments[index].amount_minor
    n, total, squares = moments("account", history, index, first, index)
    if n < rule.minimum_history:
        lacking = f"{n} earlier payments in {history.payments[index].currency}, {rule.minimum_history} are needed"
        return Measurement("minor units", amount, rule.minimum_minor, holds=False, lacking=lacking)
    spread = rule.sigmas**2 * (n * squares - total * total)
    threshold = max(
        rule.minimum_minor,
        -(-rule.ratio_percent * total // (100 * n)),
        (total + isqrt(spread)) // n + 1,  # the least amount of which the excess squared is above the spread
    )
    found = positions("account", history, index, first, index, one_currency=True)
    return Measurement("minor units", amount, threshold, amount >= threshold, _ids(history, found))


# -- places ---------------------------------------------------------------------------------------------


def _microdegrees(metres: int) -> int:
    """What the differences in latitude and longitude of two points that far apart sum up to, at least."""
    return int(metres / METRES_PER_MICRODEGREE)


def _travel_check(rule: ImpossibleTravel) -> Check:
    within_ms = rule.within_ms
    least = _microdegrees(rule.minimum_m)

    def is_apart(history: History, index: int, payment: Payment) -> bool:
        latitude, longitude = payment.latitude, payment.longitude
        if latitude is None or longitude is None or payment.channel not in CARD_PRESENT_CHANNELS:
            return False
        if payment.card_id is None:
            return False
        before = previous_present(history, index, within_ms)
        if before is None or before.latitude is None or before.longitude is None:
            return False
        return abs(before.latitude - latitude) + abs(before.longitude - longitude) >= least

    return is_apart


def _travel(rule: ImpossibleTravel, history: History, index: int) -> Measurement:
    here = history.payments[index]
    if not is_placed(here):
        return _lacking_measurement("km/h", rule.speed_kmh, "card that was present at known coordinates")
    before = previous_present(history, index, rule.within_ms)
    if before is None:
        return Measurement("km/h", None, rule.speed_kmh, holds=False, lacking="no earlier payment of the card to go by")
    metres, speed = journey(before, here)
    elapsed_ms = here.event_time_ms - before.event_time_ms
    is_fast = metres * 3600 > rule.speed_kmh * elapsed_ms
    lacking = ""
    if metres < rule.minimum_m:
        lacking = f"{metres} m apart, {rule.minimum_m} are needed"
    elif not is_fast and speed == rule.speed_kmh:
        lacking = "not faster than that"
    holds = is_fast and metres >= rule.minimum_m
    return Measurement("km/h", speed, rule.speed_kmh, holds, (before.transaction_id,), lacking)


def _far_check(rule: FarFromHome) -> Check:
    least = _microdegrees(rule.minimum_m)

    def is_far(_history: History, _index: int, payment: Payment) -> bool:
        latitude, longitude = payment.latitude, payment.longitude
        home_latitude, home_longitude = payment.home_latitude, payment.home_longitude
        if latitude is None or longitude is None or home_latitude is None or home_longitude is None:
            return False
        return abs(latitude - home_latitude) + abs(longitude - home_longitude) >= least

    return is_far


def _far(rule: FarFromHome, history: History, index: int) -> Measurement:
    payment = history.payments[index]
    metres = home_distance_m(payment)
    if metres < 0:
        return _lacking_measurement("m", rule.minimum_m, "coordinates of its own and of home")
    lacking = ""
    if rule.channels and payment.channel not in rule.channels:
        lacking = f"channel {payment.channel} is none of {', '.join(rule.channels)}"
    holds = metres >= rule.minimum_m and not lacking
    return Measurement("m", metres, rule.minimum_m, holds, (payment.transaction_id,), lacking)


# -- card testing ---------------------------------------------------------------------------------------


def _testing_check(rule: CardTesting) -> Check:
    window_ms, before, at_most = rule.window_ms, rule.at_least - 1, rule.at_most_minor

    def is_busy(history: History, index: int, payment: Payment) -> bool:
        if payment.amount_minor > at_most:
            return False
        nearest = index - before
        return nearest >= 0 and history.times[nearest] >= payment.event_time_ms - window_ms

    return is_busy


def _testing(rule: CardTesting, history: History, index: int) -> Measurement:
    key, payments = rule.by.removeprefix("account_"), history.payments
    if KEYS[key](payments[index]) is None:
        return _lacking_measurement("small payments", rule.at_least, f"{key}_id")
    first = bisect_left(history.times, history.times[index] - rule.window_ms, 0, index + 1)
    found = [
        position
        for position in positions(key, history, index, first, index + 1, one_currency=True)
        if payments[position].amount_minor <= rule.at_most_minor
    ]
    lacking = ""
    if payments[index].amount_minor > rule.at_most_minor:
        lacking = f"{payments[index].amount_minor} minor units are above {rule.at_most_minor}"
    holds = len(found) >= rule.at_least and not lacking
    return Measurement("small payments", len(found), rule.at_least, holds, _ids(history, found), lacking)


# -- new device, new country ----------------------------------------------------------------------------


def _novelty_check(key: str, rule: NewDevice | NewCountry) -> Check:
    """Most payments come from where one of the last few came from."""
    read, minimum_history, lookback_ms = KEYS[key], rule.minimum_history, rule.lookback_ms

    def is_other(history: History, index: int, payment: Payment) -> bool:
        here = read(payment)
        if here is None or index < minimum_history:
            return False
        payments = history.payments
        for position in range(index - 1, max(-1, index - 1 - FEW), -1):
            before = payments[position]
            if read(before) == here:
                return before.event_time_ms < payment.event_time_ms - lookback_ms
        return True

    return is_other


def _novelty(rule: NewDevice | NewCountry, key: str, history: History, index: int) -> Measurement:
    """The value is the number of earlier payments that came from elsewhere, 0 once one came from here."""
    read, payments, measure = KEYS[key], history.payments, f"payments elsewhere before a new {key}"
    here = read(payments[index])
    if here is None:
        return _lacking_measurement(measure, rule.minimum_history, key)
    oldest_ms = history.times[index] - rule.lookback_ms
    others: list[int] = []
    for position in range(index - 1, -1, -1):
        if history.times[position] < oldest_ms:
            break
        there = read(payments[position])
        if there == here:
            seen = payments[position].transaction_id
            return Measurement(measure, 0, rule.minimum_history, holds=False, lacking=f"seen before, in {seen}")
        if there is not None:
            others.append(position)
    holds = len(others) >= rule.minimum_history
    return Measurement(measure, len(others), rule.minimum_history, holds, _ids(history, others[::-1]))


# -- confirmed frauds -----------------------------------------------------------------------------------


def _always_holds(_history: History, _index: int, _payment: Payment) -> bool:
    return True  # the fold asks these rules only about payments that labels said something of


def _entity_risk(rule: EntityRisk, history: History, index: int) -> Measurement:
    measure = f"confirmed frauds of the {rule.by}"
    if KEYS[rule.by](history.payments[index]) is None:
        return _lacking_measurement(measure, rule.at_least, f"{rule.by}_id")
    fact = history.fact(index, (rule.by, rule.window_ms))
    if fact is None:
        return Measurement(measure, 0, rule.at_least, holds=False)
    lacking = ""
    if fact.accounts < rule.minimum_accounts:
        lacking = f"of {fact.accounts} accounts, {rule.minimum_accounts} are needed"
    holds = fact.number >= rule.at_least and not lacking
    return Measurement(measure, fact.number, rule.at_least, holds, fact.transactions, lacking)


# -- account emptying -----------------------------------------------------------------------------------


def _emptying_check(rule: AccountEmptying) -> Check:
    """As the measure, by running sums: a busy account is asked for every payment."""
    window_ms, lookback_ms, minimum, least = rule.window_ms, rule.lookback_ms, rule.minimum_minor, rule.minimum_history
    ratio, shortest_ms = rule.ratio_percent * window_ms, rule.minimum_span_ms

    def is_much(history: History, index: int, payment: Payment) -> bool:
        times, sums, now_ms = history.times, history.sums, payment.event_time_ms
        if index < least or times[least - 1] >= now_ms - window_ms:
            return False
        first = bisect_left(times, now_ms - window_ms, least, index + 1)
        total = sums[index + 1] - sums[first]
        if total < minimum:
            return False
        oldest = bisect_left(times, now_ms - lookback_ms, 0, first)
        if history.is_mixed:
            return True
        if first - oldest < least:
            return False
        span_ms = now_ms - window_ms - times[oldest]
        if span_ms < shortest_ms:
            return False
        return 100 * total * max(window_ms, span_ms) >= ratio * (sums[first] - sums[oldest])

    return is_much


def _emptying(rule: AccountEmptying, history: History, index: int) -> Measurement:
    times = history.times
    now_ms = times[index]
    first = bisect_left(times, now_ms - rule.window_ms, 0, index + 1)
    oldest = bisect_left(times, now_ms - rule.lookback_ms, 0, first)
    usual = positions("account", history, index, oldest, first, one_currency=True)
    found = positions("account", history, index, first, index + 1, one_currency=True)
    value = moments("account", history, index, first, index + 1)[1]
    if len(usual) < rule.minimum_history:
        lacking = f"{len(usual)} payments before, {rule.minimum_history} are needed"
        return Measurement("minor units", value, rule.minimum_minor, holds=False, lacking=lacking)
    span_ms = now_ms - rule.window_ms - times[usual[0]]
    if span_ms < rule.minimum_span_ms:
        lacking = f"{span_ms // 60_000} minutes of payments before, {rule.minimum_span_ms // 60_000} are needed"
        return Measurement("minor units", value, rule.minimum_minor, holds=False, lacking=lacking)
    before = moments("account", history, index, oldest, first)[1]
    span_ms = max(rule.window_ms, span_ms)
    threshold = max(rule.minimum_minor, -(-rule.ratio_percent * before * rule.window_ms // (100 * span_ms)))
    return Measurement("minor units", value, threshold, value >= threshold, _ids(history, found))


# -- unusual hour ---------------------------------------------------------------------------------------


def _hour_check(rule: UnusualHour) -> Check:
    rows, least, radius_ms, others = rule.history, rule.minimum_history, rule.radius_ms, 1000 - rule.at_least_permille

    def is_unusual(history: History, index: int, payment: Payment) -> bool:
        if index < least:
            return False
        n = min(rows, index)
        left = n * others // 1000  # so many may have been made at this time of day
        now_ms, times = payment.event_time_ms, history.times
        for position in range(index - 1, index - n - 1, -1):
            apart_ms = (now_ms - times[position]) % DAY_MS
            if apart_ms <= radius_ms or DAY_MS - apart_ms <= radius_ms:
                if not left:
                    return False
                left -= 1
        return True

    return is_unusual


def _hour(rule: UnusualHour, history: History, index: int) -> Measurement:
    measure = "permille at other times of day"
    n = min(index, rule.history)
    if n < rule.minimum_history:
        lacking = f"{n} earlier payments, {rule.minimum_history} are needed"
        return Measurement(measure, None, rule.at_least_permille, holds=False, lacking=lacking)
    others = [
        position
        for position in range(index - n, index)
        if rule.radius_ms < (history.times[index] - history.times[position]) % DAY_MS < DAY_MS - rule.radius_ms
    ]
    value = 1000 * len(others) // n
    return Measurement(
        measure, value, rule.at_least_permille, value >= rule.at_least_permille, _ids(history, range(index - n, index))
    )


# -- lists and expressions ------------------------------------------------------------------------------


def _listed(rule: Blocklist | Allowlist, members: frozenset[str], history: History, index: int) -> Measurement:
    payment = history.payments[index]
    is_in = KEYS[rule.field](payment) in members
    return Measurement(f"in list {rule.list}", int(is_in), 1, is_in, (payment.transaction_id,))


def _value_check(rule: Expression, value: CompiledExpression, when: CompiledExpression | None) -> Check:
    evaluate, at_least = value.evaluate, rule.at_least
    if when is None:
        return lambda history, index, _payment: evaluate(history, index) >= at_least
    guard = when.evaluate
    return lambda history, index, _payment: guard(history, index) and evaluate(history, index) >= at_least


def _value(rule: Expression, value: CompiledExpression, history: History, index: int) -> Measurement:
    found = max(-LARGEST, min(LARGEST, int(value.evaluate(history, index))))
    counted = {index, *(position for trace in value.traces for position in trace(history, index))}
    labels = [
        transaction_id
        for spec in value.needs.confirmed
        if (fact := history.fact(index, spec)) is not None
        for transaction_id in fact.transactions
    ]
    contributing = (*dict.fromkeys(labels), *_ids(history, sorted(counted)))
    return Measurement("value", found, rule.at_least, found >= rule.at_least, contributing[-MAX_CONTRIBUTING:])
