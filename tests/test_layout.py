"""The source keeps the rules of its layout: one direction of imports, named rooms, plain names, and a whole wheel."""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.support.house import PACKAGES, RULES

ROOT = Path(__file__).parents[1]
OWNERS = packages_distributions()


@pytest.mark.parametrize("name", PACKAGES)
def test_no_other_distribution_owns_a_package_name(name: str) -> None:
    assert set(OWNERS.get(name, [])) <= {"fraudcase"}
    assert name not in sys.stdlib_module_names


@pytest.mark.parametrize("rule", RULES)
def test_the_source_keeps_the_rule(rule: str) -> None:
    assert RULES[rule](ROOT) == []


def _append(path: str, text: str) -> Callable[[Path], None]:
    def plant(root: Path) -> None:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text((file.read_text(encoding="utf-8") if file.exists() else '"""New."""\n') + text)

    return plant


def _many_files(root: Path) -> None:
    for number in range(23):
        (root / "console" / "times_of" / f"part_{number}.py").parent.mkdir(exist_ok=True)
        (root / "console" / "times_of" / f"part_{number}.py").write_text('"""One of many."""\n')


PLANTED = [
    ("packages", "a fold that imports a view", _append("domain/digest.py", "import projections\n"), "projections"),
    ("packages", "a room that imports a job", _append("console/times.py", "from stream import job\n"), "stream.job"),
    ("rooms", "a room that imports a page", _append("console/people/roles.py", "from console.web import app\n"), "web"),
    ("rooms", "a room below the wiring", _append("console/rules/diff.py", "import console.wiring\n"), "wiring"),
    ("rooms", "a page that imports a command", _append("console/web/app.py", "import console.cli.app\n"), "cli"),
    ("circles", "a circle of modules", _append("domain/risk/events.py", "import domain.risk.fold\n"), "circle of"),
    ("circles", "a circle of rooms", _append("console/views/more.py", "import console.wiring\n"), "circle of rooms"),
    ("domain", "a fold with a clock", _append("domain/cases/state.py", "import time\n"), "imports time"),
    ("domain", "a random id", _append("domain/risk/events.py", "MAKE = 'uuid4'\n"), "uuid4"),
    ("class-names", "a name twice", _append("domain/digest.py", "class CaseFold: ...\n"), "class CaseFold"),
    ("class-names", "a pronoun", _append("domain/digest.py", "class Told: ...\n"), "class Told"),
    (
        "docstrings", "a docstring with an article",
        _append("domain/digest.py", 'def of() -> None:\n    """The digest of it."""\n'), "The digest",
    ),
    (
        "settings", "settings read in a room",
        _append("console/cases/desk.py", "def start() -> None:\n    Settings()\n"), "Settings()",
    ),
    (
        "registry", "a registry made in a room",
        _append("console/cases/desk.py", "def start() -> None:\n    SchemaRegistry('')\n"), "SchemaRegistry()",
    ),
    ("sizes", "a crowded folder", _many_files, "times_of/ has 23"),
    ("sizes", "a long file", _append("domain/digest.py", "# a line\n" * 600), "domain/digest.py has"),
]  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the Python files of the project once; each test plants in a copy of its own."""
    copy = tmp_path_factory.mktemp("source")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__", "static"))
    return copy


@pytest.mark.parametrize(
    ("rule", "plant", "named"), [pytest.param(rule, plant, named, id=what) for rule, what, plant, named in PLANTED]
)
def test_a_planted_violation_is_found(
    rule: str, plant: Callable[[Path], None], named: str, source: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "planted"
    shutil.copytree(source, copy)
    plant(copy)
    found = set(RULES[rule](copy)) - set(RULES[rule](source))
    assert found
    assert all(named in violation for violation in found)


def test_every_rule_has_a_planted_violation() -> None:
    assert {rule for rule, *_ in PLANTED} == set(RULES)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of what git tracks, so that nothing is left in the project's own folder."""
    folder = tmp_path_factory.mktemp("wheel")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, tracked.split("\0")):
        if name.partition("/")[0] in {*PACKAGES, "pyproject.toml", "README.md", "LICENSE"} and (ROOT / name).is_file():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / "source" / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(folder / "source")], check=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    wanted = {
        name
        for name in filter(None, tracked.split("\0"))
        if name.partition("/")[0] in PACKAGES and (ROOT / name).is_file()
    }
    assert wanted - set(zipfile.ZipFile(wheel).namelist()) == set()


def test_every_module_can_be_imported_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
        modules = [
            name[:-3].replace("/", ".").removesuffix(".__init__") for name in archive.namelist() if name[-3:] == ".py"
        ]
    programs = {"__main__", "env"}  # they run when they are imported
    wanted = [name for name in modules if name.rpartition(".")[2] not in programs]
    code = "import importlib, sys\nfor name in sys.argv[1:]:\n    importlib.import_module(name)\n"
    code += f"assert sys.modules['domain'].__file__.startswith({str(tmp_path)!r})\n"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed"), "PYTHONSAFEPATH": "1"}
    subprocess.run([sys.executable, "-c", code, *wanted], cwd=tmp_path, env=environment, check=True)
