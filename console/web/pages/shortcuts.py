"""Keyboard shortcuts of the pages, and the links of the navigation: the help lists and console.js read them here.

The shortcuts of acts are in `console.cases.act_catalog`: on the page of a case, a key clicks the button that has it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from console.cases.act_catalog import ACTS
from console.people.roles import Permission


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortcut:
    """One key, and what it does."""

    key: str
    action: str
    """Name of the function in console.js; "" if the browser or the button with this key does it."""
    help: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NavigationLink:
    """One page in the navigation; the key after `g` opens it."""

    path: str
    label: str
    permission: Permission
    key: str


NAVIGATION: Final = (
    NavigationLink(path="monitor", label="Monitor", permission=Permission.MONITOR, key="m"),
    NavigationLink(path="queue", label="Queue", permission=Permission.READ_CASES, key="q"),
    NavigationLink(path="rules", label="Rules", permission=Permission.READ_RULES, key="r"),
    NavigationLink(path="audit", label="Audit", permission=Permission.READ_AUDIT, key="a"),
    NavigationLink(path="people", label="People", permission=Permission.ADMINISTER, key="p"),
    NavigationLink(path="webhooks", label="Webhooks", permission=Permission.ADMINISTER, key="w"),
)
"""Pages in the order of the navigation."""
EVERYWHERE: Final = (
    Shortcut(key="?", action="help", help="this list"),
    Shortcut(key="g", action="go", help="go to a page, with its key"),
    Shortcut(key="Escape", action="", help="close a dialog or a message"),
    Shortcut(key="u", action="undo", help="undo your last action, while its message is shown"),
)
"""Shortcuts of every page."""
QUEUE: Final = (
    Shortcut(key="j", action="nextRow", help="next case"),
    Shortcut(key="k", action="previousRow", help="previous case"),
    Shortcut(key="Enter", action="openRow", help="open the case"),
    Shortcut(key="t", action="", help="take the next case"),
    Shortcut(key="x", action="tickRow", help="choose the case for a bulk action"),
    Shortcut(key="/", action="filter", help="go to the filters"),
)
"""Shortcuts of the queue."""
CASE: Final = (
    Shortcut(key="[", action="earlier", help="move the known-at time back"),
    Shortcut(key="]", action="later", help="move the known-at time forward"),
    Shortcut(key="q", action="back", help="back to the queue"),
)
"""Shortcuts of the page of a case, besides those of the acts."""


def act_shortcuts() -> list[Shortcut]:
    """Return one shortcut for each key of the acts; acts that share a key are never offered together."""
    labels: dict[str, list[str]] = {}
    for act in ACTS.values():
        if act.key:
            labels.setdefault(act.key, []).append(act.label.lower())
    return [Shortcut(key=key, action="", help=", ".join(each)) for key, each in labels.items()]


def script_shortcuts(shortcuts: Iterable[Shortcut]) -> dict[str, str]:
    """Return the functions of console.js by their key."""
    return {shortcut.key: shortcut.action for shortcut in shortcuts if shortcut.action}
