"""The folders keep to design: names are ours, data flows one way."""

import ast
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOUND: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"][
    "include"
]
PACKAGES = [pattern.removesuffix("*") for pattern in FOUND]
ALLOWED = {
    "schemas": set(),
    "domain": set(),
    "stream": {"domain", "schemas"},
    "projections": {"domain", "schemas"},
    "generator": {"domain", "schemas"},
    "migrations": set(),
    "infra": {"schemas"},
}
OWNERS = packages_distributions()


def imports(package: str) -> Iterator[str]:
    for file in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield node.module.partition(".")[0]


@pytest.mark.parametrize("name", PACKAGES)
def test_the_name_is_ours(name: str) -> None:
    """No other distribution, and no standard module, owns one of our short names."""
    assert set(OWNERS.get(name, [])) <= {"fraudcase"}
    assert name not in sys.stdlib_module_names


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_imports_keep_to_the_design(package: str) -> None:
    assert set(imports(package)) & set(PACKAGES) <= ALLOWED[package] | {package}


def test_domain_needs_only_the_standard_library_and_its_records_msgspec() -> None:
    assert set(imports("domain")) <= sys.stdlib_module_names | {"domain", "msgspec"}
    users = [
        file.name for file in (ROOT / "domain").rglob("*.py") if "import msgspec" in file.read_text(encoding="utf-8")
    ]
    assert users == ["record.py"]


def test_domain_asks_no_clock_and_draws_no_lots() -> None:
    assert set(imports("domain")) & {"random", "secrets", "time", "datetime", "os"} == set()
    assert not [file.name for file in (ROOT / "domain").rglob("*.py") if "uuid4" in file.read_text()]
