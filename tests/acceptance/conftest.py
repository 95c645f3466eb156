"""One real stack for all acceptance tests: in its own folder and on its own ports, with the downloaded jars shared."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from console.system import lifecycle as system
from infra.settings import CHECKOUT, Settings
from infra.stack import reset
from tests.support.stack import PORTS, command_line

FOLDER = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder: it drives the real stack."""
    for item in items:
        if item.path.is_relative_to(FOLDER):
            item.add_marker(pytest.mark.acceptance)


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
    """Return the command line, with the settings of the test stack."""
    return command_line(settings, monkeypatch)
