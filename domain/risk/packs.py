"""Rule packs: named, versioned sets of rules with their parameters.

A pack is data. The log carries it as canonical JSON, and the SHA-256 of that JSON is the id of the pack.
"""

import hashlib
import json
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Annotated, Any, Final, TypeAlias, get_args, get_origin

from domain.payment import MAX_TEXT
from domain.risk.compiled_rules import compile_parameter, expression_parameters
from domain.risk.expression import TO_BE, BadExpression, ValueKind, suggest_name
from domain.risk.families.registry import FAMILIES
from domain.risk.families.rule import BadParameter, Lists, NumberRange, Points, Rule, choices, parameters

MAX_RULES: Final = 100
"""Maximum number of rules in a pack."""
MAX_LISTED: Final = 20_000
"""Maximum number of ids in all lists of a pack together."""
MAX_PACK_BYTES: Final = 1 << 19
"""Maximum size of a pack's canonical JSON in bytes. A pack travels in one record, written once into each partition."""

Place: TypeAlias = tuple[str | int, ...]
"""Path to a part of a pack's JSON document, as in ("rules", 2, "window_ms")."""


class BadRulePack(ValueError):
    """A rule pack that cannot be activated; the message names the wrong part, and says what it must be.

    `where` is the path to that part in the document, () for the whole pack.
    """

    def __init__(self, message: str, where: Place = ()) -> None:
        super().__init__(message)
        self.where = where


@dataclass(frozen=True, slots=True, kw_only=True)
class RulePack:
    """A named, versioned set of rules. A payment is flagged if the points of its rules combine to at least `flag_at`.

    So weak signals can flag together. `lists` are ids by the name of the list.
    """

    name: str
    version: int
    rules: tuple[Rule, ...]
    flag_at: int = 1
    lists: Lists = field(default_factory=dict)

    @property
    def canonical(self) -> str:
        """Return the pack as JSON with sorted keys and no spaces, as the log carries it.

        Parameters that have their default are left out. So a new parameter changes the id of no pack that lacks it.
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
        """Return the SHA-256 of the canonical JSON, in hexadecimal."""
        return hashlib.sha256(self.canonical.encode()).hexdigest()


def _document(rule: Rule) -> dict[str, Any]:
    defaults = {each.name: each.default for each in fields(rule) if each.default is not MISSING}
    chosen = {key: value for key, value in asdict(rule).items() if key not in defaults or value != defaults[key]}
    return {"family": rule.family, **chosen}


def parse_pack(text: str) -> RulePack:
    """Read a pack from a JSON document of the form that `RulePack.canonical` writes. Raises BadRulePack."""
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


def _rule(document: dict[str, Any], lists: Lists, number: int) -> Rule:
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


def _check(title: str, key: str, value: Any, hint: Any, where: Place) -> None:
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


def _check_number(value: Any, allowed: NumberRange, title: str, where: Place) -> None:
    if problem := allowed.problem(value):
        raise BadRulePack(f"{title} {problem}", where)


def _check_together(rule: Rule, lists: Lists, where: Place) -> None:
    """Raise BadRulePack if a parameter does not fit the others or the lists, or if an expression is wrong."""
    try:
        rule.validate(lists)
    except BadParameter as error:
        raise BadRulePack(f"rule {rule.name!r}: {error}", (*where, error.parameter)) from error
    for key in expression_parameters(rule):
        _check_expression(rule, key, lists, where)


def _check_expression(rule: Rule, key: str, lists: Lists, where: Place) -> None:
    try:
        made = compile_parameter(rule, key, lists)
    except BadExpression as error:
        raise BadRulePack(f"rule {rule.name!r}: {key}: {error}", (*where, key)) from error
    wanted = _KINDS_OF_EXPRESSIONS[key]
    if made.kind not in wanted:
        raise BadRulePack(
            f"rule {rule.name!r}: {key} must be {' or '.join(wanted)}, this is {made.kind}. Cure: {TO_BE[wanted[0]]}",
            (*where, key),
        )
    if rule.entity_key and (made.needs.window_ms or made.needs.rows or made.needs.confirmed):
        raise BadRulePack(
            f"rule {rule.name!r}: {key} looks back, but the {rule.entity_key} knows no account's past. "
            "Cure: name features of the payment itself",
            (*where, key),
        )


_KINDS_OF_EXPRESSIONS: Final[dict[str, tuple[ValueKind, ...]]] = {
    "when": (ValueKind.TRUTH,),
    "points": (ValueKind.INTEGER,),
    "value": (ValueKind.INTEGER, ValueKind.TRUTH),
}
"""Kinds of values that each of EXPRESSION_PARAMETERS may give."""
