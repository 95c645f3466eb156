"""The real stack, once for all acceptance tests: in a folder and on ports of its own, with downloaded jars shared."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text
from typer.testing import CliRunner

from console.system import lifecycle as system
from infra.settings import CHECKOUT, Settings
from infra.stack import reset
from migrations.store import connect, upgrade
from tests.support.collection import LONGEST, OPTIONAL
from tests.support.postgres import find_binaries, private_cluster

collect_ignore = [name for name, is_here in OPTIONAL.items() if not is_here]
PORTS: dict[str, Any] = {
    "kafka_port": 20092, "kafka_controller_port": 20093, "registry_port": 20081, "dynamodb_port": 20000,
    "s3_port": 20090, "flink_port": 20082, "metrics_port": 20400, "console_port": 20080,
}  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest files first: two processes share the files, and a long file at the end would leave one idle."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the session in CI if a test was skipped: "passed" there means that every test ran."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("FRAUDCASE_TESTS_SKIP") == "fail" and reporter and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def settings() -> Iterator[Settings]:
    home = CHECKOUT / ".fraudcase"
    chosen = Settings(
        home=home / "test",
        jars=home / "jars",
        partitions=8,
        clock_every_s=0,
        checkpoint_every_ms=2_000,
        flink_prometheus=True,
        **PORTS,
    )
    reset(chosen, system.all_programs(chosen))
    system.up(chosen, report=lambda _, __: None)
    yield chosen
    system.down(chosen, lambda _, __: None)


@pytest.fixture
def command(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    """The command line, pointed at the stack of the tests."""
    return command_line(settings, monkeypatch)


def command_line(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    """The command line, pointed at a system of the tests."""
    for name, value in settings.variables().items():
        monkeypatch.setenv(name, value)
    return CliRunner()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a real PostgreSQL. CI counts a skipped test as a failed one."""
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed here. Cure on Debian and Ubuntu: apt-get install postgresql")
    with private_cluster(binaries) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    if request.param == "sqlite":
        made = connect(f"sqlite:///{tmp_path / 'control.db'}")
    else:
        made = connect(request.getfixturevalue("postgres"))
        with made.begin() as connection:
            connection.execute(text("DROP SCHEMA public CASCADE"))
            connection.execute(text("CREATE SCHEMA public"))
    upgrade(made)
    yield made
    made.dispose()
