"""Starts and stops the whole system on this machine: stores, then their first contents, then the services.

Starting is wiring: these functions take the settings, since infra makes every program from them.
"""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from console.display.formats import counted
from console.people.accounts import UserAccountStore
from console.people.roles import Role
from console.rules.engines import EngineLog, EngineStore
from console.rules.store import SYSTEM, RulePackActionError
from console.system.bootstrap import activate_first_rules, is_untouched, register_schemas
from console.terminal import messages, progress
from console.wiring import case_table, control_store, engine_log, engines, kafka_logs, master_key
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
    """Return the programs of the stores, then those of the services."""
    return (*store_programs(settings), *services(settings))


def up(settings: Settings, *, report: stack.Report, only_stores: bool = False) -> list[str]:
    """Start the programs that do not run yet. Return their names. Raise StackError before anything is started."""
    check_machine(settings.home)
    check_slots(settings)
    fetch_jars(settings.jar_folder)
    wanted = store_programs(settings) if only_stores else all_programs(settings)
    stack.check_ports(settings, wanted)
    started = stack.up(settings, store_programs(settings), report)
    prepare(settings)
    if not only_stores:
        started += stack.up(settings, services(settings), report)
    return started


def prepare(settings: Settings) -> None:
    """Make the audit key, schemas, topics, bucket, tables and first rules that are missing; repeating it is safe."""
    if settings.audit_key is None and not settings.audit_key_file.exists():
        signing.ensure_signer(settings.audit_key_file)
    logs = kafka_logs(settings)
    register_schemas(logs)
    ensure_topics(settings)
    ensure_bucket(settings)
    upgrade(connect(settings.control_database))
    master_key(settings)
    case_table(settings).ensure()
    pack = parse_pack(control_store(settings).first(DEFAULT))
    for topic in logs.topics.ruled_logs:
        activate_first_rules(logs, topic, pack)
    first = LATEST.number if settings.engine == "latest" else settings.engine
    if first != FIRST.number and is_untouched(logs, logs.topics.engined_logs):
        activate_first_engine(engines(settings), engine_log(settings), first)


def activate_first_engine(store: EngineStore, log: EngineLog, engine: int) -> None:
    """Activate the engine that a new system starts with. Raise StackError if there is no such engine."""
    try:
        store.activate(engine, SYSTEM, log)
    except RulePackActionError as refused:
        raise StackError(f"FRAUDCASE_ENGINE={engine}: {refused}") from refused


def first_sign_ins(accounts: UserAccountStore) -> dict[str, str]:
    """Make one account for each of three roles if there is no account yet. Return the new passwords by name."""
    if accounts.everybody():
        return {}
    wanted = {"admin": Role.ADMIN, "lead": Role.LEAD, "analyst": Role.ANALYST}
    made = {name: accounts.first(name, role) for name, role in wanted.items()}
    return {name: password for name, password in made.items() if password}


def down(settings: Settings, report: stack.Report) -> list[str]:
    """Stop the programs that were started here, services before stores. Return their names."""
    return [*stack.down(settings, services(settings), report), *stack.down(settings, store_programs(settings), report)]


def check_machine(home: Path) -> None:
    """Raise StackError if this Python version or the free disk space does not suffice."""
    if not (3, 11) <= sys.version_info[:2] <= (3, 12):
        raise StackError(
            f"Python 3.11 or 3.12 is needed, this is {sys.version.split()[0]}. Cure: make install PYTHON=…"
        )
    home.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(home).free
    if free < NEEDED_BYTES:
        raise StackError(
            f"{NEEDED_BYTES >> 20} MB are needed at {home}, {free >> 20} MB are free. Cure: free some space, "
            "or name another folder in FRAUDCASE_HOME"
        )


def fetch_jars(folder: Path) -> None:
    """Fetch the missing jars into `folder`, showing progress."""
    wanted = jars.missing_jars(folder)
    if not wanted:
        return
    total, arrived = sum(jar.size for jar in wanted), 0
    messages.print(f"{counted(len(wanted), 'jar')} to download once, {total >> 20} MB", highlight=False)
    with progress("MB", total >> 20) as seen:

        def count(size: int) -> None:
            nonlocal arrived
            arrived += size
            seen(arrived >> 20)

        jars.fetch(folder, wanted, count)


def diagnose(settings: Settings) -> list[str]:
    """Return the problems of this machine and system, each with its cure; an empty list if there are none."""
    problems: list[str] = []
    checks: tuple[Callable[[], None], ...] = (
        lambda: check_machine(settings.home),
        lambda: check_slots(settings),
        lambda: stack.check_ports(settings, all_programs(settings)),
    )
    for check in checks:
        try:
            check()
        except StackError as error:
            problems.append(str(error))
    problems += [
        f"{jar.name} has a wrong checksum. Cure: delete {jars.jar_path(settings.jar_folder, jar)}; fraudcase up"
        for jar in jars.altered_jars(settings.jar_folder)
    ]
    for status in stack.status(settings, all_programs(settings)):
        if status.pid is None:
            problems.append(f"{status.name} does not run. Cure: fraudcase up. The end of its log: {status.log}")
        elif not status.is_ready:
            problems.append(f"{status.name} runs (process {status.pid}) but does not answer. Look: {status.log}")
    return problems
