"""Rule packs: which rules are in force, with which parameters. Data, addressed by its content, carried by the log."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Final, TypeAlias

MAX_ROWS: Final = 1_000
MAX_WINDOW_MS: Final = 35 * 86_400_000


class BadRulePack(ValueError):
    """A rule pack that cannot be in force; the message says which part, and what it must be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Velocity:
    """At least `at_least` payments of the account within `window_ms`, closed at both ends, this one included."""

    name: str
    typology: str
    points: int
    window_ms: int
    at_least: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AmountSpike:
    """An amount more than `sigmas` standard deviations above the mean of the account's previous `history` payments.

    In integers, with n, s, q the number, sum and sum of squares of those payments and x the amount:
    n*x > s and (n*x - s)^2 > sigmas^2 * (n*q - s^2), for n of at least `minimum_history`, x of at least
    `minimum_minor` and 100*n*x >= ratio_percent*s: an account that always pays the same has no deviation at all.
    """

    name: str
    typology: str
    points: int
    history: int
    minimum_history: int
    sigmas: int
    minimum_minor: int
    ratio_percent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImpossibleTravel:
    """Two card-present payments of one card, the second farther off than any traveller comes in the time between.

    Compared with the card's previous card-present payment, if that is at most `within_ms` old: at least
    `minimum_m` apart, and faster than `speed_kmh`.
    """

    name: str
    typology: str
    points: int
    minimum_m: int
    speed_kmh: int
    within_ms: int


Rule: TypeAlias = Velocity | AmountSpike | ImpossibleTravel
FAMILIES: Final[dict[str, type[Rule]]] = {
    "velocity": Velocity,
    "amount_spike": AmountSpike,
    "impossible_travel": ImpossibleTravel,
}
_NAMES: Final = {kind: family for family, kind in FAMILIES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class RulePack:
    """A named, versioned set of rules; `pack_id` is the SHA-256 of its canonical JSON."""

    name: str
    version: int
    rules: tuple[Rule, ...]

    @property
    def canonical(self) -> str:
        """The pack as JSON with sorted keys and no spaces: what the log carries and the id is taken from."""
        rules = [{"family": _NAMES[type(rule)], **asdict(rule)} for rule in self.rules]
        document = {"name": self.name, "version": self.version, "rules": rules}
        return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @property
    def pack_id(self) -> str:
        """The address of the pack's content."""
        return hashlib.sha256(self.canonical.encode()).hexdigest()


def parse_pack(text: str) -> RulePack:
    """The pack in a JSON document of the form that `RulePack.canonical` writes; raises BadRulePack."""
    try:
        document = json.loads(text)
        rules = tuple(_rule(dict(rule)) for rule in document["rules"])
        pack = RulePack(name=str(document["name"]), version=int(document["version"]), rules=rules)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, BadRulePack):
            raise
        raise BadRulePack(f"not a rule pack: {error!r}") from error
    names = [rule.name for rule in pack.rules]
    if len(set(names)) < len(names):
        raise BadRulePack(f"pack {pack.name}: each rule needs a name of its own, got {', '.join(names)}")
    return pack


def _rule(document: dict[str, Any]) -> Rule:
    family = document.pop("family")
    kind = FAMILIES.get(family)
    if kind is None:
        raise BadRulePack(f"rule family {family!r} is unknown; there are {', '.join(FAMILIES)}")
    try:
        rule = kind(**document)
    except TypeError as error:
        raise BadRulePack(f"rule {document.get('name')!r} of family {family}: {error}") from error
    _check(rule)
    return rule


def _check(rule: Rule) -> None:
    for key, value in asdict(rule).items():
        if key in ("name", "typology"):
            if not isinstance(value, str) or not value:
                raise BadRulePack(f"rule {rule.name!r}: {key} must be a text")
        elif isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise BadRulePack(f"rule {rule.name!r}: {key} must be a whole number of at least 0, not {value!r}")
    if not 1 <= rule.points <= 1000:
        raise BadRulePack(f"rule {rule.name!r}: points must be between 1 and 1000")
    match rule:
        case Velocity():
            _within(rule.name, "window_ms", rule.window_ms, MAX_WINDOW_MS)
            _within(rule.name, "at_least", rule.at_least, MAX_ROWS)
        case AmountSpike():
            _within(rule.name, "history", rule.history, MAX_ROWS)
            _within(rule.name, "minimum_history", rule.minimum_history, rule.history)
        case ImpossibleTravel():
            _within(rule.name, "speed_kmh", rule.speed_kmh, 1_000_000)
            _within(rule.name, "within_ms", rule.within_ms, MAX_WINDOW_MS)


def _within(rule: str, key: str, value: int, most: int) -> None:
    if not 1 <= value <= most:
        raise BadRulePack(f"rule {rule!r}: {key} must be between 1 and {most}, not {value}")


DEFAULT: Final = RulePack(
    name="default",
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
"""The pack that a new system starts with: `fraudcase up` writes its activation into the log."""
