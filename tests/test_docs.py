"""The documentation names only files, links and modules that exist, and one decision record bears each number."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
FOLDERS = "console|domain|stream|projections|schemas|infra|tests|generator|migrations|docs"
NAMED = re.compile(rf"(?<![\w./-])((?:{FOLDERS})/[\w./-]*\w)")
LINKED = re.compile(r"\]\(([^)#:\s]+)(#[\w-]+)?\)")
MODULE = re.compile(r"python -m (tests[\w.]*)")


def page_name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def missing_paths(page: Path, text: str) -> Iterator[str]:
    """Yield each path that the page names and that is neither in the repository nor beside the page."""
    for path in NAMED.findall(text):
        if "NAME" not in path and not (ROOT / path).exists() and not (page.parent / path).exists():
            yield path


def missing_links(page: Path, text: str) -> Iterator[str]:
    """Yield each target of a relative link that does not exist, and each anchor that no heading has."""
    for path, anchor in LINKED.findall(text):
        target = page.parent / path
        if not target.exists():
            yield path
        elif anchor and anchor[1:] not in anchors(target.read_text(encoding="utf-8")):
            yield path + anchor


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def missing_modules(text: str) -> Iterator[str]:
    """Yield each module of the tests that the page tells to run and that does not exist."""
    for name in MODULE.findall(text):
        path = ROOT / name.replace(".", "/")
        if not path.with_suffix(".py").exists() and not (path / "__main__.py").exists():
            yield name


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_a_page_names_only_what_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [*missing_paths(page, text), *missing_links(page, text), *missing_modules(text)] == []


def test_the_index_lists_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert {page for page in pages if f"({page})" not in index} == set()


def test_a_decision_number_is_borne_by_one_record() -> None:
    records = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    numbers = Counter(record.name[:4] for record in records)
    assert [number for number, count in numbers.items() if count > 1] == []
    for record in records:
        title = record.read_text(encoding="utf-8").partition("\n")[0]
        assert re.match(rf"# 0*{int(record.name[:4])}\. \S", title), record.name
