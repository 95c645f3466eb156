"""What differs between two rule packs, rule by rule: what a second person reads before they approve."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

MAX_NAMED: Final = 12
"""Entries of a list that are named; of more, how many."""


class Field(NamedTuple):
    """One setting, before and after; None where it is not there."""

    name: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class Part:
    """A rule, a list or the pack itself: `added`, `removed` or `changed`, with the settings that differ."""

    kind: str
    name: str
    what: str
    fields: tuple[Field, ...]


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Part]:
    """What differs between two documents of packs, in the order of the second, what was removed last."""
    parts = [_pack(before, after), *_lists(before.get("lists", {}), after.get("lists", {}))]
    parts += _rules(_by_name(before), _by_name(after))
    return [part for part in parts if part.fields]


def _pack(before: Mapping[str, Any], after: Mapping[str, Any]) -> Part:
    one, two = ({"flag_at": document.get("flag_at", 1)} for document in (before, after))
    return Part("pack", "the pack", "changed", _fields(one, two))


def _by_name(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {rule["name"]: rule for rule in document["rules"]}


def _rules(before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]) -> list[Part]:
    found = [
        Part("rule", name, "changed" if name in before else "added", _fields(before.get(name, {}), rule))
        for name, rule in after.items()
    ]
    gone = [Part("rule", name, "removed", _fields(rule, {})) for name, rule in before.items() if name not in after]
    kept_before = [name for name in before if name in after]
    kept_after = [name for name in after if name in before]
    if kept_before != kept_after:  # of equal points, the first in the pack gives the case its typology
        order = Field("order", ", ".join(kept_before), ", ".join(kept_after))
        return [Part("pack", "the order of the rules", "changed", (order,)), *found, *gone]
    return [*found, *gone]


def _lists(before: Mapping[str, list[str]], after: Mapping[str, list[str]]) -> list[Part]:
    parts = []
    for name in [*after, *(name for name in before if name not in after)]:
        one, two = before.get(name), after.get(name)
        if one == two:
            continue
        gone, new = sorted({*(one or ())} - {*(two or ())}), sorted({*(two or ())} - {*(one or ())})
        what = "added" if one is None else "removed" if two is None else "changed"
        fields = (Field("entries", len(one or ()), len(two or ())), Field("taken out", _named(gone), None),
                  Field("put in", None, _named(new)))  # fmt: skip
        parts.append(Part("list", name, what, tuple(each for each in fields if each.before or each.after)))
    return parts


def _named(entries: list[str]) -> str | None:
    more = f" and {len(entries) - MAX_NAMED} more" if len(entries) > MAX_NAMED else ""
    return ", ".join(entries[:MAX_NAMED]) + more or None


def _fields(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Field, ...]:
    names = [*after, *(name for name in before if name not in after)]
    return tuple(
        Field(name, before.get(name), after.get(name))
        for name in names
        if name != "name" and before.get(name) != after.get(name)
    )
