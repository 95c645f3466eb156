"""The difference between two rule packs, rule by rule, as a second person reads it before approving."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

MAX_NAMED: Final = 12
"""Entries of a list that are named; the others are counted."""


class SettingChange(NamedTuple):
    """One setting, before and after; None on the side that lacks it."""

    name: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class RulePackDifference:
    """A rule, a list or the pack itself: `added`, `removed` or `changed`, with the settings that differ."""

    kind: str
    name: str
    what: str
    fields: tuple[SettingChange, ...]


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[RulePackDifference]:
    """Compare two documents of packs. Return the differences in the order of the second document, removed parts
    last.
    """
    parts = [_pack(before, after), *_lists(before.get("lists", {}), after.get("lists", {}))]
    parts += _rules(_by_name(before), _by_name(after))
    return [part for part in parts if part.fields]


def _pack(before: Mapping[str, Any], after: Mapping[str, Any]) -> RulePackDifference:
    one, two = ({"flag_at": document.get("flag_at", 1)} for document in (before, after))
    return RulePackDifference("pack", "the pack", "changed", _fields(one, two))


def _by_name(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {rule["name"]: rule for rule in document["rules"]}


def _rules(before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]) -> list[RulePackDifference]:
    found = [
        RulePackDifference("rule", name, "changed" if name in before else "added", _fields(before.get(name, {}), rule))
        for name, rule in after.items()
    ]
    gone = [
        RulePackDifference("rule", name, "removed", _fields(rule, {}))
        for name, rule in before.items()
        if name not in after
    ]
    kept_before = [name for name in before if name in after]
    kept_after = [name for name in after if name in before]
    if kept_before != kept_after:  # of equal points, the first in the pack gives the case its typology
        order = SettingChange("order", ", ".join(kept_before), ", ".join(kept_after))
        return [RulePackDifference("pack", "the order of the rules", "changed", (order,)), *found, *gone]
    return [*found, *gone]


def _lists(before: Mapping[str, list[str]], after: Mapping[str, list[str]]) -> list[RulePackDifference]:
    parts = []
    for name in [*after, *(name for name in before if name not in after)]:
        one, two = before.get(name), after.get(name)
        if one == two:
            continue
        gone, new = sorted({*(one or ())} - {*(two or ())}), sorted({*(two or ())} - {*(one or ())})
        what = "added" if one is None else "removed" if two is None else "changed"
        fields = (SettingChange("entries", len(one or ()), len(two or ())),
                  SettingChange("removed", _list_names(gone), None),
                  SettingChange("added", None, _list_names(new)))  # fmt: skip
        parts.append(
            RulePackDifference("list", name, what, tuple(each for each in fields if each.before or each.after))
        )
    return parts


def _list_names(entries: list[str]) -> str | None:
    more = f" and {len(entries) - MAX_NAMED} more" if len(entries) > MAX_NAMED else ""
    return ", ".join(entries[:MAX_NAMED]) + more or None


def _fields(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[SettingChange, ...]:
    names = [*after, *(name for name in before if name not in after)]
    return tuple(
        SettingChange(name, before.get(name), after.get(name))
        for name in names
        if name != "name" and before.get(name) != after.get(name)
    )
