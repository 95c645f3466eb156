"""Plants bugs in a copy of the source and runs the tests that must find them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from tests.planted.bugs import Bug

ROOT = Path(__file__).parents[2]
LEFT_OUT = (".git", ".venv", ".fraudcase", "__pycache__", ".*_cache", ".hypothesis", "*.egg-info", "node_modules")
PASSED, FAILED = 0, 1
"""Exit codes of pytest; any other code means that the tests could not be run."""
PATIENCE_S = 600


class Verdict(NamedTuple):
    """Result of one planted bug: whether the tests found it, and the last lines of their output."""

    is_found: bool
    said: str


class TestsNotRun(RuntimeError):
    """The tests could not be run, or fail without the bug too. The message holds their output."""


@contextmanager
def copied() -> Iterator[Path]:
    """Copy the source to a temporary folder that is removed afterwards."""
    with TemporaryDirectory(prefix="planted-") as folder:
        copy = Path(folder) / "source"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*LEFT_OUT))
        yield copy


@contextmanager
def planted(copy: Path, bug: Bug) -> Iterator[None]:
    """Plant the bug in the copy, and remove it afterwards."""
    file = copy / bug.file
    text = file.read_text(encoding="utf-8")
    file.write_text(edited(text, bug), encoding="utf-8")
    try:
        yield
    finally:
        file.write_text(text, encoding="utf-8")


def edited(text: str, bug: Bug) -> str:
    """Return the file's text with the bug. Raise ValueError unless the place occurs exactly once."""
    if text.count(bug.old) != 1:
        raise ValueError(f"{bug.name}: {bug.file} has {text.count(bug.old)} places like {bug.old!r}, there must be one")
    return text.replace(bug.old, bug.new)


def check_sound(copy: Path, bugs: Sequence[Bug]) -> None:
    """Check that the tests pass without a bug. Raise TestsNotRun if they do not."""
    code, said = _run(copy, sorted({test for bug in bugs for test in bug.tests}))
    if code != PASSED:
        raise TestsNotRun(f"without any bug the tests do not pass:\n{said}")


def look_for(copy: Path, bug: Bug) -> Verdict:
    """Plant a bug and run its tests. Raise TestsNotRun if they end in any way but passed or failed."""
    with planted(copy, bug):
        code, said = _run(copy, bug.tests)
    if code not in (PASSED, FAILED):
        raise TestsNotRun(f"{bug.name}: the tests could not be run:\n{said}")
    return Verdict(code == FAILED, said)


def _run(copy: Path, tests: Sequence[str]) -> tuple[int, str]:
    command = [sys.executable, "-B", "-m", "pytest", "-q", "-x", "--no-header", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    ended = subprocess.run(
        command, cwd=copy, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    return ended.returncode, ended.stdout[-3_000:] + ended.stderr[-1_000:]
