"""Order of the tests, and the databases that several folders use."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from migrations.store import connect, upgrade
from tests.support.collection import LONGEST, OPTIONAL
from tests.support.postgres import find_binaries, private_cluster

collect_ignore = [name for name, is_here in OPTIONAL.items() if not is_here]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest files first: two processes share the files, and a long file at the end would leave one idle."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the session in CI if a test was skipped: "passed" there means that every test ran."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("FRAUDCASE_TESTS_SKIP") == "fail" and reporter and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Yield the URL of a real PostgreSQL. CI counts a skipped test as a failed one."""
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
