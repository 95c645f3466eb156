"""`make prove`: run every unit once, and keep each that passed, until all have passed or the time is used up.

Exit 0: all have passed. 1: a unit failed, with its message printed. 3: the time is up; run the command again to
continue.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from console.system import lifecycle as system
from infra import stack
from infra.parts import store_programs
from infra.settings import CHECKOUT, Settings
from projections.replay.certificate import source_digest
from tests.planted.bugs import BUGS
from tests.prove.kills import beside, derived_in, derived_of, home, parsed, plan
from tests.prove.upgrade import upgrade

ROUNDS, KILLS = 10, 6
"""Sixty kills in total. The processes take turns, so that each is killed at least three times."""
CHUNKS = 80
PLACES = (
    ("UTC", "C"),
    ("Asia/Kathmandu", "de_DE.UTF-8"),
    ("America/St_Johns", "tr_TR.UTF-8"),
    ("Pacific/Apia", "C.UTF-8"),
)
Found = dict[str, Any]
FOLDERS = ("console", "domain", "generator", "infra", "migrations", "projections", "schemas", "stream")


@dataclass(frozen=True, slots=True)
class Unit:
    """One property to prove: `run` returns its figures, and raises if the property does not hold."""

    name: str
    run: Callable[[], Found]


class Unproven(Exception):
    """A property does not hold. The message says why."""


def units() -> Iterator[Unit]:
    """Yield all units, in order. Those after the first compare their results with the first one's."""
    yield Unit("base", base)
    for name, changed in (
        ("batches-of-1-s", {"flink_window_ms": 1_000}),
        ("parallelism-4", {"flink_parallelism": 4}),
        ("process-mode", {"flink_mode": "process"}),
    ):
        yield Unit(name, lambda name=name, changed=changed: same_decisions(name, changed))  # type: ignore[misc]
    for number in range(ROUNDS):
        yield Unit(f"kills-{number + 1:02d}", lambda number=number: kills(number))  # type: ignore[misc]
    for name, variables, options in readings():
        yield Unit(name, lambda v=variables, o=options: same_certificate(v, o))  # type: ignore[misc]
    yield Unit("another-clone", lambda: same_certificate({}, ["--from", "s3"], elsewhere=True))
    yield Unit("registry-off", registry_off)
    yield Unit("upgrade", upgrade)
    yield Unit("mutations", lambda: tests("tests/console/test_evidence.py", FRAUDCASE_MUTATIONS="10000"))
    yield Unit("case-model", lambda: tests("tests/domain/cases/test_case_model.py", FRAUDCASE_HYPOTHESIS_RUNS="1000"))
    for bug in BUGS:
        yield Unit(f"planted-{bug.name}", lambda bug=bug: planted(bug.name))  # type: ignore[misc]


def readings() -> Iterator[tuple[str, dict[str, str], list[str]]]:
    """Yield replays of one history: the name of the difference, the environment variables and the options."""
    for source in ("kafka", "s3"):
        for workers in ("1", "8"):
            yield f"{source}-{workers}-workers", {}, ["--from", source, "--workers", workers]
    for number, (zone, language) in enumerate(PLACES):
        variables = {"TZ": zone, "LANG": language, "LC_ALL": language, "PYTHONHASHSEED": str(1 + number * 7919)}
        yield f"zone-and-language-{number + 1}", variables, ["--from", "s3" if number % 2 else "kafka"]


def fresh(name: str, **changed: object) -> Settings:
    """Return a system with logs of its own. The logs of a failed attempt already hold a part of the recording."""
    return beside(f"{name}-{time.time_ns() // 1_000_000_000:x}", **changed)


def base() -> Found:
    """Run the plainest system and certify it. Its logs stay for the readings."""
    settings = fresh("base")
    with tempfile.TemporaryDirectory() as folder:
        derived, _ = derived_of(settings, Path(folder))
    found = certificate(settings, {}, ["--from", "kafka"])
    if derived_in(found) != derived or not found["matches_live"]:
        raise Unproven(f"the certificate says {derived_in(found)}, the run came to {derived}")
    return {"certificate": found, "prefix": settings.prefix}


def same_decisions(name: str, changed: dict[str, object]) -> Found:
    """Run a system with other settings, and compare its decisions."""
    with tempfile.TemporaryDirectory() as folder:
        derived, _ = derived_of(fresh(name, **changed), Path(folder))
    return _expect(derived)


def kills(number: int) -> Found:
    """Run a system on a cluster of two TaskManagers that is killed at random moments."""
    settings = fresh(f"kills{number}", flink_cluster_taskmanagers=2, flink_parallelism=2)
    with tempfile.TemporaryDirectory() as folder:
        derived, killed = derived_of(settings, Path(folder), plan(1_000 + number, KILLS, CHUNKS), number * KILLS)
    return {**_expect(derived), "killed": killed}


def same_certificate(variables: dict[str, str], options: list[str], *, elsewhere: bool = False) -> Found:
    """Replay in another process and compare the whole certificate with the first one."""
    if not elsewhere:
        return _expect_certificate(certificate(_base(), variables, options))
    with tempfile.TemporaryDirectory(prefix="another clone ") as folder:
        for name in (*FOLDERS, "tests"):
            shutil.copytree(CHECKOUT / name, Path(folder) / name)
        return _expect_certificate(certificate(_base(), {"PYTHONPATH": folder}, options, Path(folder)))


def registry_off() -> Found:
    """Replay from both sources with the registry down."""
    registry = [part for part in store_programs(home()) if part.name == "registry"]
    stack.down(home(), registry)
    try:
        for source in ("kafka", "s3"):
            found = _expect_certificate(certificate(_base(), {}, ["--from", source]))
    finally:
        stack.up(home(), store_programs(home()))
    return found


def _base() -> Settings:
    """Return the system of the plainest run."""
    return home().model_copy(update={"prefix": passed()["base"]["prefix"]})


def certificate(settings: Settings, variables: dict[str, str], options: list[str], folder: Path = CHECKOUT) -> Found:
    """Return the output of `fraudcase replay --certificate` in an empty home folder."""
    with tempfile.TemporaryDirectory() as empty:
        file = Path(empty) / "certificate.json"
        result = subprocess.run(
            [sys.executable, "-m", "console.cli.app", "replay", *options, "--certificate", str(file)],
            cwd=folder, env={**os.environ, **settings.variables(), "HOME": empty, **variables},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if result.returncode:
            raise Unproven(
                f"fraudcase replay {' '.join(options)} ended with {result.returncode}: {result.stderr[-2000:]}"
            )
        return parsed(file)


def tests(file: str, **variables: str) -> Found:
    """Run tests of the suite with their full counts."""
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", file],
        cwd=CHECKOUT, env={**os.environ, **variables}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    last = result.stdout.strip().splitlines()[-1:]
    if result.returncode:
        raise Unproven(f"{file} ended with {result.returncode}: {result.stdout[-3000:]}")
    return {"tests": last, **variables}


def planted(name: str) -> Found:
    """Plant a bug that its tests must find."""
    result = subprocess.run(
        [sys.executable, "-m", "tests.planted", name], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise Unproven(f"{result.stdout[-3000:]}{result.stderr[-1000:]}")
    return {}


def _expect(derived: Found) -> Found:
    wanted = derived_in(passed()["base"]["certificate"])
    if derived != wanted:
        raise Unproven(f"it came to {derived}, the plainest run to {wanted}")
    return derived


def _expect_certificate(found: Found) -> Found:
    wanted = passed()["base"]["certificate"]
    differing = sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))
    if differing:
        raise Unproven(f"the certificate differs in {', '.join(differing)}")
    return {"root": found["root"]}


def results() -> Path:
    """Return the file that records the passed units of this exact source."""
    return home().home / f"passed-{source_digest()[:16]}.jsonl"


def passed() -> dict[str, Found]:
    """Return the figures of the passed units."""
    file = results()
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return {entry["unit"]: entry for entry in map(json.loads, lines)}


def main() -> int:
    """Continue with the units that have not passed."""
    parser = argparse.ArgumentParser(prog="python -m tests.prove", description=__doc__)
    parser.add_argument("--minutes", type=float, default=55, help="minutes after which no further unit starts")
    parser.add_argument("--list", action="store_true", help="list the units, and which of them have passed")
    parser.add_argument("--again", action="store_true", help="forget the results and run all units again")
    parser.add_argument(
        "names", nargs="*", metavar="UNIT", help="prefix of the names of units to run; the unit `base` always runs"
    )
    known = parser.parse_args()
    if known.again:
        results().unlink(missing_ok=True)
    chosen = [u for u in units() if not known.names or u.name == "base" or u.name.startswith(tuple(known.names))]
    done = passed()
    if known.list:
        for unit in chosen:
            say(f"{'passed' if unit.name in done else 'to do':<8}{unit.name}")
        return 0
    return carry_out([unit for unit in chosen if unit.name not in done], len(chosen), known.minutes * 60)


def carry_out(waiting: list[Unit], total: int, seconds: float) -> int:
    """Run each unit in turn while there is time."""
    begun = time.monotonic()
    home().home.mkdir(parents=True, exist_ok=True)
    system.up(home(), report=lambda _, __: None, only_stores=True)
    try:
        for number, unit in enumerate(waiting):
            if time.monotonic() - begun > seconds:
                say(f"{len(waiting) - number} of {total} units are left. Go on: make prove")
                return 3
            at = time.monotonic()
            try:
                figures = unit.run()
            except Exception as error:  # any exception: the unit did not pass
                say(f"FAILED  {unit.name}: {type(error).__name__}: {error}")
                return 1
            took = round(time.monotonic() - at, 1)
            with results().open("a", encoding="utf-8") as file:
                file.write(json.dumps({"unit": unit.name, "seconds": took, **figures}) + "\n")
            say(f"passed  {unit.name:<32} {took:7.1f} s  {', '.join(figures.get('killed', []))}")
    finally:
        with suppress(Exception):
            system.down(home(), lambda _, __: None)
    counted = sum(len(each.get("killed", [])) for each in passed().values())
    say(f"all {total} units have passed; {counted} processes were killed")
    return 0


def say(line: str) -> None:
    """Print a line and flush it."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
