"""Search for better numbers in a rule pack: learn on the earlier labelled payments, judge on the later ones.

Payments are not shuffled, because a pack decides payments that come after those it was made from. The search is
Optuna's, with a seed.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Final, NamedTuple, get_args, get_origin

import optuna
import yaml
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score

from console.rules.files import PACKS, pack_names
from console.scoring.figures import ScoringWindow, figures, select_window, window_of
from console.scoring.run import AdmittedRow, ScoredPayments, run
from domain.durations import DAY_MS, UNITS_MS, duration_ms, format_duration
from domain.payment import Payment
from domain.risk.families.registry import FAMILIES
from domain.risk.families.rule import NumberRange, parameters
from domain.risk.packs import BadRulePack, RulePack, parse_pack

_LITERAL: Final = re.compile(r"\"[^\"\n]*\"|'[^'\n]*'|(?<![A-Za-z_0-9])[0-9][0-9_]*")
MIN_STEPS: Final = 4
"""Minimum size of a duration in its search unit: the largest unit in which it is at least this long."""
SHOWN: Final = ("fraud", "precision", "recall", "average_precision", "auc_roc", "card_precision_100", "alerts_per_day")

Objective = Callable[[ScoredPayments], float]


class TunableNumber(NamedTuple):
    """A number of a pack that may change: a parameter, or the nth number of an expression, from 0.

    It is searched from `least` to `most` in steps of `unit`: 1, or the milliseconds of a duration's unit.
    """

    name: str
    rule: int | None
    """Index of the rule, or None for the pack itself."""
    key: str
    literal: int | None
    now: int
    least: int
    most: int
    unit: int


class TuningResult(NamedTuple):
    """Result of a search: the pack, its changes, and the figures of both packs on payments that the search did not
    see.
    """

    pack: RulePack
    changes: dict[str, tuple[int, int]]
    learnt: tuple[float, float]
    before: dict[str, Any]
    after: dict[str, Any]
    first_judged_day: int


# -- objectives -------------------------------------------------------------------------------------------


def average_precision(scored: ScoredPayments) -> float:
    """Return the average precision of the scores, independent of flags."""
    return float(average_precision_score(scored.fraud, scored.score)) if scored.fraud.any() else 0.0


def f1(scored: ScoredPayments) -> float:
    """Return the harmonic mean of precision and recall of the flags."""
    return float(f1_score(scored.fraud, scored.flagged, zero_division=0))


def recall_at(least_precision: float) -> Objective:
    """Return an objective: the recall of the flags, or the negative shortfall below `least_precision`."""

    def recall(scored: ScoredPayments) -> float:
        precision = float(precision_score(scored.fraud, scored.flagged, zero_division=0))
        if precision < least_precision:
            return precision - least_precision
        return float(recall_score(scored.fraud, scored.flagged, zero_division=0))

    return recall


# -- tunable numbers --------------------------------------------------------------------------------------


def ranges_of(name_or_file: str) -> dict[str, list[Any]]:
    """Return the section `tuning` of a pack's file: the numbers to search, with their ranges. Empty if missing."""
    shipped = PACKS.joinpath(f"{name_or_file}.pack.yaml")
    source = shipped if name_or_file in pack_names() else Path(name_or_file)
    return dict(yaml.safe_load(source.read_text(encoding="utf-8")).get("tuning", {})) if source.is_file() else {}


def tunable_numbers(pack: RulePack, ranges: Mapping[str, Sequence[Any]], *, with_flag_at: bool) -> list[TunableNumber]:
    """Return the numbers named in `ranges`; without any, each numeric parameter from half to twice its value.

    Numbers in expressions are searched only if they are named. Raises BadRulePack for an unknown name.
    """
    known = {place.name: place for place in _all_numbers(json.loads(pack.canonical))}
    if not ranges:
        found = [place for place in known.values() if place.literal is None]
        return [place for place in found if with_flag_at or place.name != "flag_at"]
    unknown = ranges.keys() - known.keys()
    if unknown:
        raise BadRulePack(f"tuning: the pack has no number {min(unknown)}; it has {', '.join(known)}")
    return [_apply_range(known[name], limits) for name, limits in ranges.items()]


def _apply_range(place: TunableNumber, limits: Sequence[Any]) -> TunableNumber:
    try:
        least, most = (duration_ms(limit) if isinstance(limit, str) else limit for limit in limits)
    except ValueError as error:
        raise BadRulePack(f"tuning: {place.name} needs a minimum and a maximum, e.g. [1, 10] or [7d, 28d]") from error
    if not 0 <= least <= most:
        raise BadRulePack(f"tuning: {place.name}: {least} to {most} is not a valid range")
    fitting = [
        size for size in UNITS_MS.values()
        if place.unit > 1 and least % size == most % size == 0 and most - least >= MIN_STEPS * size
    ]  # fmt: skip
    return place._replace(least=least, most=most, unit=max(fitting, default=1))


def _all_numbers(document: Mapping[str, Any]) -> Iterator[TunableNumber]:
    yield _default_range(
        "flag_at", None, "flag_at", None, document.get("flag_at", 1), NumberRange(1, 1_000), is_time=False
    )
    for number, rule in enumerate(document["rules"]):
        hints = parameters(FAMILIES[rule["family"]])
        for key, value in rule.items():
            name = f"{rule['name']}.{key}"
            if key in ("points", "when", "value") and isinstance(value, str):
                yield from _literals(name, number, key, value)
            elif key == "points":
                yield _default_range(name, number, key, None, value, NumberRange(1, 1_000), is_time=False)
            elif get_origin(hints.get(key)) is not None and isinstance(get_args(hints[key])[-1], NumberRange):
                within_limits: NumberRange = get_args(hints[key])[-1]
                yield _default_range(name, number, key, None, value, within_limits, is_time=key.endswith("_ms"))


def _literals(name: str, rule: int, key: str, source: str) -> Iterator[TunableNumber]:
    for number, text in enumerate(_numbers(source)):
        is_time = not text[0].isdigit()
        now = duration_ms(text[1:-1]) if is_time else int(text)
        yield _default_range(f"{name}.{number}", rule, key, number, now, NumberRange(0, 10**15), is_time=is_time)


def _numbers(source: str) -> list[str]:
    """Return the integers and durations in an expression as written, in order."""
    return [text for text in _LITERAL.findall(source) if text[0].isdigit() or _is_duration(text[1:-1])]


def _is_duration(text: str) -> bool:
    try:
        return duration_ms(text) > 0
    except ValueError:
        return False


def _default_range(
    name: str, rule: int | None, key: str, literal: int | None, now: int, limits: NumberRange, *, is_time: bool
) -> TunableNumber:
    unit = 1
    if is_time:
        fitting = [size for size in UNITS_MS.values() if now % size == 0 and now // size >= MIN_STEPS]
        unit = max(fitting, default=1)
    return TunableNumber(name, rule, key, literal, now, max(limits.least, now // 2), min(limits.most, now * 2), unit)


def change_numbers(pack: RulePack, values: Mapping[TunableNumber, int]) -> RulePack:
    """Return the pack with some numbers replaced. Raises BadRulePack if the new numbers are inconsistent."""
    document = json.loads(pack.canonical)
    written: dict[tuple[int, str], dict[int, int]] = {}
    for place, value in values.items():
        if place.rule is None:
            document[place.key] = value
        elif place.literal is None:
            document["rules"][place.rule][place.key] = value
        else:
            written.setdefault((place.rule, place.key), {})[place.literal] = value
    for (rule, key), literals in written.items():
        document["rules"][rule][key] = _rewrite_expression(document["rules"][rule][key], literals)
    return parse_pack(json.dumps(document))


def _rewrite_expression(source: str, literals: Mapping[int, int]) -> str:
    number = -1

    def put(matched: re.Match[str]) -> str:
        nonlocal number
        text = matched.group()
        is_time = not text[0].isdigit()
        if is_time and not _is_duration(text[1:-1]):
            return text
        number += 1
        if number not in literals:
            return text
        return f"{text[0]}{format_duration(literals[number])}{text[0]}" if is_time else str(literals[number])

    return _LITERAL.sub(put, source)


# -- the search -------------------------------------------------------------------------------------------


def split(payments: Sequence[AdmittedRow], fraction: float) -> int:
    """Return the first day of the later part, so that about `fraction` of the days precede it. Raises BadRulePack."""
    days = sorted({payment.event_time_ms // DAY_MS for payment, _ in payments if isinstance(payment, Payment)})
    if len(days) < 2:
        raise BadRulePack("all payments are of one day: none are later, to judge the pack by")
    return days[min(len(days) - 1, max(1, round(len(days) * fraction)))]


def search(
    payments: Sequence[AdmittedRow],
    pack: RulePack,
    searched: Sequence[TunableNumber],
    objective: Objective,
    *,
    first_judged_day: int,
    feedback_ms: int | None,
    trials: int,
    seed: int,
    report_progress: Callable[[int, float], None] = lambda _, __: None,
) -> TuningResult:
    """Try packs on the payments before a day, and judge the best one on those from that day on.

    Changes without a gain are undone one by one. `report_progress` receives the number of packs tried, at most `trials`
    plus one for each searched number, and the best value so far.
    """
    earlier = [
        (payment, label)
        for payment, label in payments
        if isinstance(payment, Payment) and payment.event_time_ms // DAY_MS < first_judged_day
    ]

    def worth(candidate: RulePack) -> float:
        return objective(run(earlier, candidate, feedback_ms)[0])

    def attempt(trial: optuna.Trial) -> float:
        values = {
            place: place.unit * trial.suggest_int(place.name, -(-place.least // place.unit), place.most // place.unit)
            for place in searched
        }
        try:
            return worth(change_numbers(pack, values))
        except BadRulePack as error:
            raise optuna.TrialPruned(str(error)) from error

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    at_first = worth(pack)
    study.optimize(
        attempt,
        trials,
        callbacks=[lambda study, trial: report_progress(trial.number + 1, _best_value(study, at_first))],
    )
    found: dict[TunableNumber, int] = {}
    reached = _best_value(study, at_first)
    if reached > at_first:
        found = {place: place.unit * study.best_params[place.name] for place in searched}
    for done, place in enumerate(searched if found else (), start=trials + 1):
        reached = _drop_useless_changes(pack, found, place, reached, worth)
        report_progress(done, reached)
    best = change_numbers(pack, found)
    return TuningResult(
        best,
        _changes(pack, best),
        (at_first, reached),
        _judge_pack(payments, pack, feedback_ms, first_judged_day),
        _judge_pack(payments, best, feedback_ms, first_judged_day),
        first_judged_day,
    )


def _drop_useless_changes(
    pack: RulePack,
    found: dict[TunableNumber, int],
    place: TunableNumber,
    reached: float,
    worth: Callable[[RulePack], float],
) -> float:
    """Undo a change that gains nothing, so that the remaining ones can be explained; return the value without it."""
    rest = {other: value for other, value in found.items() if other is not place}
    try:
        without = worth(change_numbers(pack, rest))
    except BadRulePack:
        return reached  # the other changes require it
    if found[place] != place.now and without < reached:
        return reached
    del found[place]
    return without


def _best_value(study: optuna.Study, at_first: float) -> float:
    done = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    return max([at_first, *(trial.value for trial in done if trial.value is not None)])


def _changes(before: RulePack, after: RulePack) -> dict[str, tuple[int, int]]:
    was = {place.name: place.now for place in _all_numbers(json.loads(before.canonical))}
    now = {place.name: place.now for place in _all_numbers(json.loads(after.canonical))}
    return {name: (was[name], now[name]) for name in was if was[name] != now[name]}


def _judge_pack(
    payments: Sequence[AdmittedRow], pack: RulePack, feedback_ms: int | None, first_judged_day: int
) -> dict[str, Any]:
    """Return the figures on the later payments. All payments pass the fold, so that it knows the earlier ones."""
    everything, _ = run(payments, pack, feedback_ms)
    window = ScoringWindow(first_judged_day, window_of(everything).last_day)
    report = figures(select_window(everything, window), window)
    return {name: report[name] for name in SHOWN}


# -- the file ---------------------------------------------------------------------------------------------


def pack_yaml(pack: RulePack, ranges: Mapping[str, Sequence[Any]], remarks: Sequence[str]) -> str:
    """Return the pack as a file for `load_pack`: name, version and rules first, durations in readable units."""
    document = deepcopy(json.loads(pack.canonical))
    ordered = {key: document[key] for key in ("name", "version", "flag_at", "lists") if key in document}
    ordered["rules"] = [
        {
            key: format_duration(rule[key]) if key.endswith("_ms") and rule[key] else rule[key]
            for key in sorted(rule, key=lambda key: (_FIRST.index(key) if key in _FIRST else len(_FIRST), key))
        }
        for rule in document["rules"]
    ]
    if ranges:
        ordered["tuning"] = dict(ranges)
    body = yaml.safe_dump(ordered, sort_keys=False, allow_unicode=True, width=120)
    return "".join(f"# {remark}\n" for remark in remarks) + body


_FIRST: Final = ("name", "family", "typology", "severity", "reason_code", "when", "value", "points")
