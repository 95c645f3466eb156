"""Rule packs: which rules are in force, with which parameters. Data, addressed by its content, carried by the log.

What a parameter may be stands in its type: `Annotated[int, Within(...)]`, `Literal[...]`. The checks here, and those of
files in console/, are made from it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Annotated, Any, ClassVar, Final, Literal, NamedTuple, TypeAlias, get_args, get_origin, get_type_hints

from domain.payment import MAX_AMOUNT_MINOR, MAX_TEXT
from domain.risk.expression import TO_BE, BadExpression, CompiledExpression, ValueKind, compile_expression, suggest_name
from domain.risk.features import scope
from domain.risk.history import MAX_ROWS, MAX_WINDOW_MS

MAX_RULES: Final = 100
MAX_LISTED: Final = 20_000
"""Ids in all lists of a pack."""
MAX_PACK_BYTES: Final = 1 << 19
"""Of a pack's canonical JSON: it travels in one record, once into each partition."""


class BadRulePack(ValueError):
    """A rule pack that cannot be in force; the message says which part, and what it must be.

    `where` is the way to that part in the document: ("rules", 2, "window_ms").
    """

    def __init__(self, message: str, where: tuple[str | int, ...] = ()) -> None:
        super().__init__(message)
        self.where = where


class NumberRange(NamedTuple):
    """The least and the most that a number may be."""

    least: int
    most: int


Points: TypeAlias = int | str
Window: TypeAlias = Annotated[int, NumberRange(1, MAX_WINDOW_MS)]
Rows: TypeAlias = Annotated[int, NumberRange(1, MAX_ROWS)]
Minor: TypeAlias = Annotated[int, NumberRange(0, MAX_AMOUNT_MINOR)]
Metres: TypeAlias = Annotated[int, NumberRange(1, 20_100_000)]  # half the earth's circumference
Severity: TypeAlias = Literal["low", "medium", "high", "critical"]
AccountKey: TypeAlias = Literal["account", "card", "account_device", "account_merchant", "account_terminal"]
EntityKey: TypeAlias = Literal["device", "merchant", "terminal"]
LabelKey: TypeAlias = Literal["merchant", "terminal", "device", "card", "account"]
ListKey: TypeAlias = Literal[
    "account", "card", "device", "merchant", "terminal", "counterparty", "country", "category", "channel"
]
ENTITY_KEYS: Final[tuple[str, ...]] = get_args(EntityKey)
SEVERITIES: Final[tuple[str, ...]] = get_args(Severity)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleParameters:
    """What every rule has. `points` is how many thousandths it adds to the score; as text, an integer expression.

    A number of points is what the rule gives at its threshold; families that measure how much more there is
    (`scales`) give more in proportion, at most 1000. An expression says exactly how many, from 0 (then the rule does
    not fire) to 1000. `when`, a truth expression, must hold too.
    """

    scales: ClassVar[bool] = False
    name: str
    typology: str
    points: Points
    severity: Severity = "medium"
    reason_code: str = ""
    when: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Velocity(RuleParameters):
    """At least `at_least` payments, or minor units, of one key within `window_ms`, this payment included.

    The window is closed at both ends; minor units are of the payment's currency. By account, card, or device,
    merchant or terminal *of the account*, the account's own history decides. By device, merchant or terminal,
    whosever payments they are, that entity's does (`domain/risk/entity_fold.py`).
    """

    scales: ClassVar[bool] = True
    by: AccountKey | EntityKey = "account"
    measure: Literal["count", "sum"] = "count"
    window_ms: Window
    at_least: Annotated[int, NumberRange(1, MAX_AMOUNT_MINOR)]


@dataclass(frozen=True, slots=True, kw_only=True)
class AmountSpike(RuleParameters):
    """An amount more than `sigmas` standard deviations above the mean of the account's previous `history` payments.

    In integers, with n, s, q the number, sum and sum of squares of those in the payment's currency and x the amount:
    n*x > s and (n*x - s)^2 > sigmas^2 * (n*q - s^2), for n of at least `minimum_history`, x of at least
    `minimum_minor` and 100*n*x >= ratio_percent*s: an account that always pays the same has no deviation at all.
    """

    scales: ClassVar[bool] = True
    history: Rows
    minimum_history: Rows
    sigmas: Annotated[int, NumberRange(0, 1_000)]
    minimum_minor: Minor
    ratio_percent: Annotated[int, NumberRange(0, 1_000_000)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImpossibleTravel(RuleParameters):
    """Two card-present payments of one card, the second farther off than any traveller comes in the time between.

    Compared with the card's previous card-present payment, if that is at most `within_ms` old: at least
    `minimum_m` apart, and faster than `speed_kmh`.
    """

    scales: ClassVar[bool] = True
    minimum_m: Annotated[int, NumberRange(0, 20_100_000)]
    speed_kmh: Annotated[int, NumberRange(1, 1_000_000)]
    within_ms: Window


@dataclass(frozen=True, slots=True, kw_only=True)
class FarFromHome(RuleParameters):
    """A payment at least `minimum_m` metres from the billing address, in one of `channels`; in any if none is named."""

    minimum_m: Metres
    channels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CardTesting(RuleParameters):
    """At least `at_least` payments of at most `at_most_minor` each, of one key within `window_ms`, this one included.

    They are in the currency of this one."""

    scales: ClassVar[bool] = True
    by: AccountKey = "card"
    window_ms: Window
    at_least: Annotated[int, NumberRange(2, MAX_ROWS)]
    at_most_minor: Annotated[int, NumberRange(1, MAX_AMOUNT_MINOR)]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDevice(RuleParameters):
    """A device that none of the account's payments of the last `lookback_ms` came from, at least `minimum_history` of
    which came from another one."""

    lookback_ms: Window
    minimum_history: Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCountry(RuleParameters):
    """A country that none of the account's payments of the last `lookback_ms` was made in, at least `minimum_history`
    of which were made in another one."""

    lookback_ms: Window
    minimum_history: Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityRisk(RuleParameters):
    """At least `at_least` confirmed frauds within `window_ms` that share a merchant, terminal, device, card or account
    with the payment, as far as they were known when it arrived.

    They must be of at least `minimum_accounts` accounts: that many customers were robbed at a common place, while the
    frauds of one stolen card say little of where it was used.
    """

    scales: ClassVar[bool] = True
    by: LabelKey
    window_ms: Window
    at_least: Annotated[int, NumberRange(1, MAX_ROWS)]
    minimum_accounts: Annotated[int, NumberRange(1, 20)] = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountEmptying(RuleParameters):
    """More leaves the account within `window_ms` than `ratio_percent` of what usually does in such a time.

    With S the sum of the window [t - w, t], and B, n the sum and number of the payments in [t - lookback, t - w), the
    first of which is d before t - w: 100 * S * max(d, w) >= ratio_percent * B * w, for S of at least `minimum_minor`,
    n of at least `minimum_history` and d of at least `minimum_span_ms`: an account that is a few hours old has no usual
    day. Sums are of payments in the currency of the one decided on.
    """

    scales: ClassVar[bool] = True
    window_ms: Window
    lookback_ms: Window
    minimum_history: Rows
    minimum_minor: Annotated[int, NumberRange(1, MAX_AMOUNT_MINOR)]
    ratio_percent: Annotated[int, NumberRange(1, 1_000_000)]
    minimum_span_ms: Annotated[int, NumberRange(0, MAX_WINDOW_MS)] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class UnusualHour(RuleParameters):
    """At least `at_least_permille` of the account's previous `history` payments were made at another time of day.

    Another time is more than `radius_ms` away on the clock face; the account's own habit decides, so that its time
    zone does not matter. At least `minimum_history` payments make a habit.
    """

    history: Rows
    minimum_history: Rows
    radius_ms: Annotated[int, NumberRange(1, 43_199_999)]
    at_least_permille: Annotated[int, NumberRange(1, 1_000)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocklist(RuleParameters):
    """The payment's `field` is in the list called `list` of the pack."""

    field: ListKey
    list: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowlist(RuleParameters):
    """The payment's `field` is in the list called `list` of the pack: whatever else fires, it is not flagged."""

    field: ListKey
    list: str
    points: Annotated[int, NumberRange(0, 0)] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression(RuleParameters):
    """A value of at least `at_least`; a truth value counts as 1 if it holds, and as 0 if not."""

    value: str
    at_least: Annotated[int, NumberRange(1, MAX_AMOUNT_MINOR)] = 1


Rule: TypeAlias = (
    Velocity | AmountSpike | ImpossibleTravel | FarFromHome | CardTesting | NewDevice | NewCountry | EntityRisk
    | AccountEmptying | UnusualHour | Blocklist | Allowlist | Expression
)  # fmt: skip
FAMILIES: Final[dict[str, type[Rule]]] = {
    "velocity": Velocity,
    "amount_spike": AmountSpike,
    "impossible_travel": ImpossibleTravel,
    "far_from_home": FarFromHome,
    "card_testing": CardTesting,
    "new_device": NewDevice,
    "new_country": NewCountry,
    "entity_risk": EntityRisk,
    "account_emptying": AccountEmptying,
    "unusual_hour": UnusualHour,
    "blocklist": Blocklist,
    "allowlist": Allowlist,
    "expression": Expression,
}
_NAMES: Final = {kind: family for family, kind in FAMILIES.items()}


def family_of(rule: Rule) -> str:
    """The name of a rule's family."""
    return _NAMES[type(rule)]


def is_by_entity(rule: Rule) -> bool:
    """Whether a rule counts payments of many accounts: not the account's fold decides it, but the entity's."""
    return isinstance(rule, Velocity) and rule.by in ENTITY_KEYS


@dataclass(frozen=True, slots=True, kw_only=True)
class RulePack:
    """A named, versioned set of rules; `pack_id` is the SHA-256 of its canonical JSON.

    A payment is flagged from a score of `flag_at` on: weak signals may have to come together.
    """

    name: str
    version: int
    rules: tuple[Rule, ...]
    flag_at: int = 1
    lists: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def canonical(self) -> str:
        """The pack as JSON with sorted keys and no spaces: what the log carries and the id is taken from.

        What is as it is by default is left out, so that a new parameter changes the address of no pack without it.
        """
        document: dict[str, Any] = {
            "name": self.name,
            "version": self.version,
            "rules": [_document(rule) for rule in self.rules],
        }
        if self.flag_at != 1:
            document["flag_at"] = self.flag_at
        if self.lists:
            document["lists"] = {name: sorted(set(ids)) for name, ids in self.lists.items()}
        return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @property
    def pack_id(self) -> str:
        """The address of the pack's content."""
        return hashlib.sha256(self.canonical.encode()).hexdigest()


def _document(rule: Rule) -> dict[str, Any]:
    defaults = {each.name: each.default for each in fields(rule) if each.default is not MISSING}
    said = {key: value for key, value in asdict(rule).items() if key not in defaults or value != defaults[key]}
    return {"family": family_of(rule), **said}


def parse_pack(text: str) -> RulePack:
    """The pack in a JSON document of the form that `RulePack.canonical` writes; raises BadRulePack."""
    try:
        document = json.loads(text)
        pack = _pack(dict(document))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        if isinstance(error, BadRulePack):
            raise
        raise BadRulePack(f"not a rule pack: {error!r}") from error
    if len(pack.canonical.encode()) > MAX_PACK_BYTES:
        raise BadRulePack(f"pack {pack.name}: more than {MAX_PACK_BYTES} bytes. Cure: shorten its lists")
    return pack


def _pack(document: dict[str, Any]) -> RulePack:
    unknown = document.keys() - {"name", "version", "flag_at", "lists", "rules"}
    if unknown:
        raise BadRulePack(f"a pack has no {', '.join(sorted(unknown))}. Cure: remove it", (min(unknown),))
    name, version, flag_at = document["name"], document["version"], document.get("flag_at", 1)
    if not isinstance(name, str) or not name or len(name) > MAX_TEXT:
        raise BadRulePack(f"name must be a text of 1 to {MAX_TEXT} characters", ("name",))
    _check_number(version, NumberRange(0, 10**9), "version", ("version",))
    _check_number(flag_at, NumberRange(1, 1_000), "flag_at", ("flag_at",))
    lists = _lists(document.get("lists", {}))
    if len(document["rules"]) > MAX_RULES:
        raise BadRulePack(f"{len(document['rules'])} rules, {MAX_RULES} are allowed. Cure: remove some", ("rules",))
    rules = tuple(_rule(dict(rule), lists, number) for number, rule in enumerate(document["rules"]))
    names = [rule.name for rule in rules]
    for number, each in enumerate(names):
        if each in names[:number]:
            raise BadRulePack(
                f"rule {each!r}: each rule needs a name of its own. Cure: rename one", ("rules", number, "name")
            )
    return RulePack(name=name, version=version, rules=rules, flag_at=flag_at, lists=lists)


def _lists(document: Any) -> dict[str, tuple[str, ...]]:
    lists: dict[str, tuple[str, ...]] = {}
    for name, ids in dict(document).items():
        where = ("lists", name)
        if not isinstance(name, str) or not name.isidentifier():
            raise BadRulePack(f"list {name!r} cannot be named in an expression. Cure: letters, digits and _", where)
        if not isinstance(ids, list) or not all(isinstance(each, str) and each for each in ids):
            raise BadRulePack(f"list {name}: must be texts. Cure: put in quotes what looks like a number", where)
        lists[name] = tuple(sorted(set(ids)))
    total = sum(map(len, lists.values()))
    if total > MAX_LISTED:
        raise BadRulePack(f"{total} ids in lists, {MAX_LISTED} are allowed. Cure: remove some", ("lists",))
    return lists


def _rule(document: dict[str, Any], lists: Mapping[str, tuple[str, ...]], number: int) -> Rule:
    where = ("rules", number)
    family = document.pop("family")
    kind = FAMILIES.get(family) if isinstance(family, str) else None
    if kind is None:
        raise BadRulePack(
            f"rule family {family!r} is unknown. Cure: {suggest_name(str(family), FAMILIES)}", (*where, "family")
        )
    title = f"rule {document.get('name')!r}"
    hints = parameters(kind)
    unknown = document.keys() - hints.keys()
    if unknown:
        raise BadRulePack(
            f"{title}: family {family} has no {min(unknown)}. Cure: {suggest_name(min(unknown), hints)}",
            (*where, min(unknown)),
        )
    for key, value in document.items():
        if isinstance(value, list):
            document[key] = tuple(value)
        _check(title, key, document[key], hints[key], (*where, key))
    try:
        rule = kind(**document)
    except TypeError as error:
        raise BadRulePack(f"{title} of family {family}: {error}", where) from error
    _check_together(rule, lists, where)
    return rule


def parameters(kind: type[Rule]) -> dict[str, Any]:
    """The parameters of a family by name, with the types that say what they may be."""
    hints = get_type_hints(kind, include_extras=True)
    return {each.name: hints[each.name] for each in fields(kind)}


def _check(title: str, key: str, value: Any, hint: Any, where: tuple[str | int, ...]) -> None:
    if key == "points" and hint == Points:
        if not isinstance(value, str):
            _check_number(value, NumberRange(1, 1_000), f"{title}: points", where)
    elif hint is str:
        is_free = key in ("when", "reason_code", "value")  # the language bounds expressions itself
        if not isinstance(value, str) or (not is_free and not 1 <= len(value) <= MAX_TEXT):
            raise BadRulePack(f"{title}: {key} must be a text of 1 to {MAX_TEXT} characters", where)
    elif get_origin(hint) is tuple:
        if not isinstance(value, tuple) or not all(isinstance(each, str) and each for each in value):
            raise BadRulePack(f"{title}: {key} must be a list of texts", where)
    elif get_origin(hint) is Annotated:
        _check_number(value, get_args(hint)[1], f"{title}: {key}", where)
    elif value not in choices(hint):
        raise BadRulePack(f"{title}: {key} must be one of {', '.join(choices(hint))}, not {value!r}", where)


def choices(hint: Any) -> tuple[str, ...]:
    """The texts that a parameter may be, of a Literal or a union of them."""
    return tuple(each for part in get_args(hint) for each in (choices(part) if get_args(part) else (part,)))


def _check_number(value: Any, within: NumberRange, what: str, where: tuple[str | int, ...]) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadRulePack(f"{what} must be a whole number, not {value!r}", where)
    if not within.least <= value <= within.most:
        raise BadRulePack(f"{what} must be between {within.least} and {within.most}, not {value}", where)


def _check_together(rule: Rule, lists: Mapping[str, tuple[str, ...]], where: tuple[str | int, ...]) -> None:
    """What one parameter asks of another, or of the pack."""
    least_most: tuple[str, int, str, int] | None = None
    match rule:
        case AmountSpike() | UnusualHour():
            least_most = "minimum_history", rule.minimum_history, "history", rule.history
        case AccountEmptying():
            least_most = "window_ms", rule.window_ms, "lookback_ms", rule.lookback_ms
        case Velocity(measure="count"):
            title = f"rule {rule.name!r}: at_least"
            _check_number(rule.at_least, NumberRange(1, MAX_ROWS), title, (*where, "at_least"))
        case Blocklist() | Allowlist() if rule.list not in lists:
            raise BadRulePack(
                f"rule {rule.name!r}: the pack has no list {rule.list!r}. Cure: {suggest_name(rule.list, lists)}",
                (*where, "list"),
            )
    if least_most and least_most[1] > least_most[3]:
        key, _, other, most = least_most
        raise BadRulePack(
            f"rule {rule.name!r}: {key} must be at most {most}, as {other} is. Cure: lower it", (*where, key)
        )
    for key in ("when", "points", "value"):
        source = getattr(rule, key, None)
        if isinstance(source, str) and source:
            _check_expression(rule, key, lists, where)


def _check_expression(rule: Rule, key: str, lists: Mapping[str, tuple[str, ...]], where: tuple[str | int, ...]) -> None:
    try:
        made = compile_parameter(rule, key, lists)
    except BadExpression as error:
        raise BadRulePack(f"rule {rule.name!r}: {key}: {error}", (*where, key)) from error
    wanted = {
        "when": (ValueKind.TRUTH,),
        "points": (ValueKind.INTEGER,),
        "value": (ValueKind.INTEGER, ValueKind.TRUTH),
    }[key]
    if made.kind not in wanted:
        raise BadRulePack(
            f"rule {rule.name!r}: {key} must be {' or '.join(wanted)}, this is {made.kind}. Cure: {TO_BE[wanted[0]]}",
            (*where, key),
        )
    if is_by_entity(rule) and (made.needs.window_ms or made.needs.rows or made.needs.confirmed):
        raise BadRulePack(
            f"rule {rule.name!r}: {key} looks back, but the {getattr(rule, 'by', '')} knows no account's past. "
            "Cure: name features of the payment itself",
            (*where, key),
        )


def compile_parameter(rule: Rule, key: str, lists: Mapping[str, tuple[str, ...]]) -> CompiledExpression:
    """The expression in a rule's parameter, made ready. Raises BadExpression."""
    return compile_expression(getattr(rule, key), scope({name: frozenset(ids) for name, ids in lists.items()}))


THREE: Final = RulePack(
    name="three",
    version=1,
    rules=(
        Velocity(name="velocity", typology="rapid_spending", points=600, window_ms=60_000, at_least=5),
        AmountSpike(
            name="amount_spike", typology="unusual_amount", points=500,
            history=50, minimum_history=5, sigmas=5, minimum_minor=10_000, ratio_percent=300,
        ),
        ImpossibleTravel(
            name="impossible_travel", typology="stolen_card", points=700,
            minimum_m=300_000, speed_kmh=900, within_ms=86_400_000,
        ),
    ),
)  # fmt: skip
"""Three rules and no more: what rates are compared with."""

_MINUTE_MS, _HOUR_MS, _DAY_MS = 60_000, 3_600_000, 86_400_000
DEFAULT: Final = RulePack(
    name="default",
    version=3,
    flag_at=400,
    rules=(
        *THREE.rules,
        CardTesting(
            name="card_testing", typology="card_testing", points=600, severity="high", reason_code="SMALL_AMOUNTS",
            window_ms=2 * _MINUTE_MS, at_least=5, at_most_minor=500,
        ),
        AccountEmptying(
            name="account_emptying", typology="account_takeover", points=450, severity="high", reason_code="OUTFLOW",
            window_ms=_DAY_MS, lookback_ms=35 * _DAY_MS, minimum_history=10, minimum_minor=100_000, ratio_percent=1_000,
            minimum_span_ms=3 * _DAY_MS,
        ),
        FarFromHome(
            name="far_from_home", typology="stolen_card", points=200, severity="low", reason_code="FAR_FROM_HOME",
            minimum_m=500_000, channels=("ECOM",),
        ),
        NewDevice(
            name="new_device", typology="account_takeover", points=200, severity="low", reason_code="NEW_DEVICE",
            lookback_ms=35 * _DAY_MS, minimum_history=5,
        ),
        NewCountry(
            name="new_country", typology="stolen_card", points=250, severity="low", reason_code="NEW_COUNTRY",
            lookback_ms=35 * _DAY_MS, minimum_history=5,
        ),
        UnusualHour(
            name="unusual_hour", typology="account_takeover", points=150, severity="low", reason_code="UNUSUAL_HOUR",
            history=50, minimum_history=20, radius_ms=2 * _HOUR_MS, at_least_permille=1_000,
        ),
        Expression(
            name="small_then_large", typology="card_testing", points=400, reason_code="TESTED_THEN_USED",
            value="amount_minor > 50_000 and previous_amount_minor < 100 and previous_amount_minor >= 0",
        ),
        EntityRisk(
            name="risky_device", typology="known_fraud", severity="high",
            points='if(confirmed_accounts(device, "35d") >= 2, 600, 250)', reason_code="DEVICE_FRAUD",
            by="device", window_ms=35 * _DAY_MS, at_least=1,
        ),
        EntityRisk(
            name="risky_card", typology="known_fraud", points="250", severity="high", reason_code="CARD_FRAUD",
            by="card", window_ms=14 * _DAY_MS, at_least=1,
        ),
        EntityRisk(
            name="risky_terminal", typology="known_fraud", points=400, reason_code="TERMINAL_FRAUD",
            by="terminal", window_ms=14 * _DAY_MS, at_least=3, minimum_accounts=3,
        ),
        EntityRisk(
            name="risky_merchant", typology="known_fraud", points="150", severity="low", reason_code="MERCHANT_FRAUD",
            by="merchant", window_ms=7 * _DAY_MS, at_least=3, minimum_accounts=3,
        ),
    ),
)  # fmt: skip
"""The pack that a new system starts with: `fraudcase up` writes its activation into the log.

It holds every family that needs no knowledge of a stream. What is common in honest streams (a new device, goods sent
far away, a night owl) flags only together with something else. So does a confirmed fraud of the same card, of one's own
device or at a large merchant: most payments there are honest, however many frauds there were, so those points do not
grow with their number. Frauds of several accounts at one terminal, or from one device, flag by themselves.
"""
