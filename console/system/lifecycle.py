"""The whole system on this machine, up and down: stores, then what they must hold, then the services."""

import shutil
import sys
from collections.abc import Callable

from console.people.roles import Role
from console.rules.store import SYSTEM, RulePackActionError
from console.system.bootstrap import activate_first_rules, is_untouched, register_schemas
from console.terminal import messages, progress
from console.wiring import case_table, control_store, engine_log, engines, master_key, people, topics
from domain.engines import FIRST, LATEST
from domain.risk.default_packs import DEFAULT
from domain.risk.packs import parse_pack
from infra import jars, stack
from infra.errors import StackError
from infra.parts import StackProgram, store_programs
from infra.services import check_slots, services
from infra.settings import Settings
from infra.topics import ensure_bucket, ensure_topics
from migrations.store import connect, upgrade
from projections.archive import signing

NEEDED_BYTES = 2 << 30


def all_programs(settings: Settings) -> tuple[StackProgram, ...]:
    """Stores and services; a service waits for the stores."""
    return (*store_programs(settings), *services(settings))


def up(settings: Settings, *, report: stack.Report, only_stores: bool = False) -> list[str]:
    """Bring up what does not run; returns what was started. Raises StackError before anything is half done."""
    check_machine(settings)
    check_slots(settings)
    fetch_jars(settings)
    wanted = store_programs(settings) if only_stores else all_programs(settings)
    stack.check_ports(settings, wanted)
    started = stack.up(settings, store_programs(settings), report)
    prepare(settings)
    if not only_stores:
        started += stack.up(settings, services(settings), report)
    return started


def prepare(settings: Settings) -> None:
    """Audit key, schemas, logs, bucket, tables, and rules where there are none yet; again, it changes nothing."""
    if settings.audit_key is None and not settings.audit_key_file.exists():
        signing.ensure(settings.audit_key_file)
    register_schemas(settings.registry_url)
    ensure_topics(settings)
    ensure_bucket(settings)
    upgrade(connect(settings.control_database))
    master_key(settings)
    case_table(settings).ensure()
    pack = parse_pack(control_store(settings).first(DEFAULT))
    for topic in topics(settings).ruled_logs:
        activate_first_rules(settings.kafka_bootstrap, settings.registry_url, topic, pack)
    first = LATEST.number if settings.engine == "latest" else settings.engine
    logs = topics(settings).engined_logs
    if first != FIRST.number and is_untouched(settings.kafka_bootstrap, settings.registry_url, logs):
        activate_first_engine(settings, first)


def activate_first_engine(settings: Settings, engine: int) -> None:
    """Let a system in which nothing has been decided begin with this engine. Raises StackError if there is none."""
    try:
        engines(settings).activate(engine, SYSTEM, engine_log(settings))
    except RulePackActionError as refused:
        raise StackError(f"FRAUDCASE_ENGINE={settings.engine}: {refused}") from refused


def first_sign_ins(settings: Settings) -> dict[str, str]:
    """One account for each of three roles where there are none yet: the new passwords by name, this once."""
    accounts = people(settings)
    if accounts.everybody():
        return {}
    wanted = {"admin": Role.ADMIN, "lead": Role.LEAD, "analyst": Role.ANALYST}
    made = {name: accounts.first(name, role) for name, role in wanted.items()}
    return {name: password for name, password in made.items() if password}


def down(settings: Settings, report: stack.Report) -> list[str]:
    """Stop what was started here: the services before the stores that they use."""
    return [*stack.down(settings, services(settings), report), *stack.down(settings, store_programs(settings), report)]


def check_machine(settings: Settings) -> None:
    """Raise StackError for a Python or a disk that cannot carry the system."""
    if not (3, 11) <= sys.version_info[:2] <= (3, 12):
        raise StackError(
            f"Python 3.11 or 3.12 is needed, this is {sys.version.split()[0]}. Cure: make install PYTHON=…"
        )
    settings.home.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(settings.home).free
    if free < NEEDED_BYTES:
        raise StackError(
            f"{NEEDED_BYTES >> 20} MB are needed at {settings.home}, {free >> 20} MB are free. Cure: free some, "
            "or name another folder in FRAUDCASE_HOME"
        )


def fetch_jars(settings: Settings) -> None:
    """Download the jars that are missing."""
    wanted = jars.missing_jars(settings.jar_folder)
    if not wanted:
        return
    total, arrived = sum(jar.size for jar in wanted), 0
    messages.print(f"{len(wanted)} jars to download, {total >> 20} MB: this once", highlight=False)
    with progress("MB", total >> 20) as seen:

        def count(size: int) -> None:
            nonlocal arrived
            arrived += size
            seen(arrived >> 20)

        jars.fetch(settings.jar_folder, wanted, count)


def diagnose(settings: Settings) -> list[str]:
    """What is wrong, each with its cure; an empty list if all is well."""
    problems: list[str] = []
    checks: tuple[Callable[[], None], ...] = (
        lambda: check_machine(settings),
        lambda: check_slots(settings),
        lambda: stack.check_ports(settings, all_programs(settings)),
    )
    for check in checks:
        try:
            check()
        except StackError as error:
            problems.append(str(error))
    problems += [
        f"{jar.name} is not what was locked. Cure: delete {jars.jar_path(settings.jar_folder, jar)}; fraudcase up"
        for jar in jars.altered_jars(settings.jar_folder)
    ]
    for status in stack.status(settings, all_programs(settings)):
        if status.pid is None:
            problems.append(f"{status.name} does not run. Cure: fraudcase up. The end of its log: {status.log}")
        elif not status.is_ready:
            problems.append(f"{status.name} runs (process {status.pid}) but does not answer. Look: {status.log}")
    return problems
