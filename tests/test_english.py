"""Texts for people are plain English: they hold none of the phrases that only the authors of the project used."""

import re
import tokenize
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Final

import pytest
import typer
from typer.core import TyperGroup

from console.cli.app import app
from console.cli.reference import reference

ROOT = Path(__file__).parents[1]
PACKAGES: Final = ("console", "domain", "generator", "infra", "projections", "migrations", "schemas", "stream", "tests")
PHRASES: Final[dict[str, str]] = {
    r"\bwho(m)?ever\b": "name the person: the user, the caller",
    r"\bso many\b(?! that)": "say the number or the limit",
    r"\bso long after\b": "say the delay",
    r"\banew\b": "again",
    r"\bin force\b": "active",
    r"\blook(s|ed|ing)? on\b(?! (page|the page))": "run as a shadow",
    r"\b(may|can|must|lets?\b.{1,20}) come in\b": "may sign in, may connect",
    r"\b(is|are|was|were|be|being) told\b": "is notified; or say who shows it",
    r"\blet (some(body|one)|people|them|him|her) in\b": "create a user, allow to sign in",
    r"\btak(e|es|en|ing) (it|them|this|these) in\b": "store, accept",
    r"\bnobody is told\b": "say what is shown, and to whom",
    r"(?-i:\bDo it\b)": "name the act on the button",
    r"(?<!speaks )(?<!speak )\bfor itself\b": "say the relation",
    r"\bleads to\b": "results in, emits",
    r"(?<!when it )\bcomes to\b(?! (rest|an end|a halt))": "amounts to",
    r"\bstands\b(?! for (?!itself)| in for)": "is, exists, is stored at, is valid",
    r"\botherwise than\b": "differently from",
    r"\banother than\b": "other than",
    r"\bdo(es)? away with\b": "delete, drop",
    r"\bvouch(es)? for\b": "approve",
    r"(?<!there )\b(is|are) no (time|duration|range|pack|file|date|number|rule|name)\b": "is not a",
    r"\b(store|registry|database|broker|kafka|server|machine) is away\b": "cannot be reached",
    r"\bthat which\b": "use a noun",
    r"\bas far as it (stands|goes|is)\b": "say the condition",
    r"(?<![\d.,])1 (payments|cases|flags|events|records|rows|alerts|packs|users|ticks|places)\b": "singular after 1",
}
"""Regular expression of each phrase, and what to write instead. Correct English passes: "stands for" is allowed."""
RECORDED: Final = {
    "the case stands for itself: there is nothing to undo",
    " packs look on already: retire one first",
}
"""Messages that folds write to logs: they are part of recorded history, so they never change."""
COMPILED: Final = {re.compile(pattern.replace(" ", r"\s"), re.IGNORECASE): cure for pattern, cure in PHRASES.items()}
TEXT_TOKENS: Final = {tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
"""Tokens that hold text; since Python 3.12, the parts of an f-string are tokens of their own."""


def findings(text: str) -> list[str]:
    """Return the phrases found in a text, each with its line and what to write instead."""
    for recorded in RECORDED:
        text = text.replace(recorded, "")
    text = re.sub(r"\n[ \t]+", "\n", text)
    return [
        f"line {text.count(chr(10), 0, found.start()) + 1}: {found[0]!r}: {cure}"
        for pattern, cure in COMPILED.items()
        for found in pattern.finditer(text)
    ]


def texts(source: str) -> Iterator[str]:
    """Yield the strings and comments of a module, each after as many line breaks as there are before it."""
    for token in tokenize.generate_tokens(StringIO(source).readline):
        if token.type in TEXT_TOKENS and " " in token.string:
            yield "\n" * (token.start[0] - 1) + token.string


def pages() -> list[Path]:
    """Return the pages beside README.md and in docs/."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize(
    "text",
    [
        "UTC stands for Coordinated Universal Time", "when it comes to rules", "it speaks for itself",
        "there is no time left", "look on page 3",
        "a stub stands in for it", "so many that the queue is full", "1 payment, 21 cases",
    ],
)  # fmt: skip
def test_correct_english_passes(text: str) -> None:
    assert findings(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "Let somebody in", "at most so many", "Build a view anew", "put a pack in force", "Let it look on",
        "Nobody is told yet", "Take it in", "Do it", "Stands for itself again", "1 payments", "it stands in the log",
        "that is no time", "puts a pack in\n    force",
    ],
)  # fmt: skip
def test_phrases_are_found(text: str) -> None:
    assert findings(text)


def test_help_of_the_command_line() -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    assert findings(reference(group)) == []


@pytest.mark.parametrize("path", pages(), ids=relative)
def test_documentation(path: Path) -> None:
    assert findings(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", sorted((ROOT / "console/web/templates").glob("*.html")), ids=relative)
def test_templates(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    words = re.sub(r"{%.*?%}|{{.*?}}", lambda code: re.sub(r"[^\n]", " ", code[0]), text, flags=re.DOTALL)
    assert findings(words) == []


@pytest.mark.parametrize("path", sorted((ROOT / "console/web/static").glob("*.js")), ids=relative)
def test_scripts(path: Path) -> None:
    assert findings(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_messages_docstrings_and_comments(package: str) -> None:
    found = [
        f"{relative(path)} {each}"
        for path in sorted((ROOT / package).rglob("*.py"))
        if path != Path(__file__)
        for text in texts(path.read_text(encoding="utf-8"))
        for each in findings(text)
    ]
    assert found == []
