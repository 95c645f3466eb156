"""Starts and stops parts: side by side, once, with health checks, and exactly what it started."""

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from infra.errors import StackError
from infra.parts import StackProgram
from infra.settings import Settings

TAIL_LINES = 15
ENDING_S = 5.0
"""How long a port is waited for that is taken though nobody is seen to listen there."""
_children: list[subprocess.Popen[bytes]] = []
"""Started by this process: they outlive it on purpose, and are reaped if they end before it does."""
Report = Callable[[str, str], None]
"""Told a part's name and what has become of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramStatus:
    """How a part is: running (by us), and answering."""

    name: str
    pid: int | None
    is_ready: bool
    memory_mb: int
    ports: tuple[int, ...]
    log: str


def up(settings: Settings, parts: Sequence[StackProgram], report: Report = lambda _, __: None) -> list[str]:
    """Start what does not run, and wait until all of it answers; returns the names of what was started.

    Nothing is started when a port is taken by somebody else. When a part does not come up, what this call started is
    stopped again, and the StackError shows the end of the part's log.
    """
    with _stack_lock(settings):
        todo = [part for part in parts if _process(settings, part.name) is None]
        _check_ports(todo)
        started: list[str] = []
        try:
            for wave in _waves(todo):
                for part in wave:
                    _start(settings, part)
                    started.append(part.name)
                    report(part.name, "starting")
                with ThreadPoolExecutor(max(1, len(wave))) as pool:
                    for waiting in [pool.submit(_wait, settings, part, report) for part in wave]:
                        waiting.result()
        except BaseException:
            for part in reversed([part for part in todo if part.name in started]):
                _stop(settings, part.name, part.stop_within_s)
            raise
        for part in parts:
            if part not in todo:
                _wait(settings, part, report)
    return started


def _waves(parts: Sequence[StackProgram]) -> Iterator[list[StackProgram]]:
    """Parts that may start together, those that others wait for first."""
    left = list(parts)
    while left:
        names = {part.name for part in left}
        wave = [part for part in left if not names & set(part.after)]
        if not wave:
            raise StackError(f"parts wait for each other: {', '.join(sorted(names))}")
        yield wave
        left = [part for part in left if part not in wave]


def down(settings: Settings, parts: Sequence[StackProgram], report: Report = lambda _, __: None) -> list[str]:
    """Stop the parts that we started, those that others wait for last; returns the names of what was stopped."""
    stopped = []
    with _stack_lock(settings):
        for wave in reversed(list(_waves(parts))):
            with ThreadPoolExecutor(max(1, len(wave))) as pool:
                results = [(part, pool.submit(_stop, settings, part.name, part.stop_within_s)) for part in wave]
            for part, result in results:
                if result.result():
                    stopped.append(part.name)
                    report(part.name, "stopped")
    return stopped


def kill(settings: Settings, name: str, with_signal: int = signal.SIGKILL) -> int:
    """Send a signal to a part's processes, for tests of what survives it; returns the id of the first.

    To its children too: a JVM whose parent was killed holds its ports until it notices.
    """
    process = _process(settings, name)
    if process is None:
        raise StackError(f"{name} does not run")
    for member in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            member.send_signal(with_signal)
    return int(process.pid)


def status(settings: Settings, parts: Iterable[StackProgram]) -> list[ProgramStatus]:
    """How each part is, now."""
    found = list(parts)
    with ThreadPoolExecutor(max(1, len(found))) as pool:
        return list(pool.map(lambda part: _status(settings, part), found))


def _status(settings: Settings, part: StackProgram) -> ProgramStatus:
    process = _process(settings, part.name)
    return ProgramStatus(
        name=part.name,
        pid=process.pid if process else None,
        is_ready=process is not None and _is_ready(part),
        memory_mb=_memory_mb(process) if process else 0,
        ports=tuple(part.ports),
        log=str(log_of(settings, part.name)),
    )


def _memory_mb(process: psutil.Process) -> int:
    try:
        everyone = [process, *process.children(recursive=True)]
        return int(sum(each.memory_info().rss for each in everyone)) >> 20
    except psutil.NoSuchProcess:
        return 0


def reset(settings: Settings, parts: Sequence[StackProgram]) -> None:
    """Stop everything and remove what was stored; jars stay."""
    down(settings, parts)
    for name in ("data", "run", "logs", "checkpoints"):
        shutil.rmtree(settings.home / name, ignore_errors=True)
    for file in settings.home.glob("keys/*master.key"):
        file.unlink()
    for file in (*settings.home.glob("*control.db"), *settings.home.glob("*console.key")):
        file.unlink()


def log_of(settings: Settings, name: str) -> Path:
    """The file with a part's output."""
    return settings.home / "logs" / f"{name}.log"


def tail(settings: Settings, name: str) -> str:
    """The end of a part's log."""
    log = log_of(settings, name)
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    return "\n".join(lines[-TAIL_LINES:])


def _run_file(settings: Settings, name: str) -> Path:
    return settings.home / "run" / f"{name}.json"


def _process(settings: Settings, name: str) -> psutil.Process | None:
    """The process that we started for a part, if it is still the same one: an id may have been given to another."""
    file = _run_file(settings, name)
    try:
        entry = json.loads(file.read_text(encoding="utf-8"))
        process = psutil.Process(entry["pid"])
        same = abs(process.create_time() - entry["created"]) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except (OSError, ValueError, KeyError, psutil.NoSuchProcess):
        return None
    return process if same else None


def _start(settings: Settings, part: StackProgram) -> None:
    for folder in ("run", "logs"):
        (settings.home / folder).mkdir(parents=True, exist_ok=True)
    part.prepare()
    with log_of(settings, part.name).open("ab") as log:
        process = subprocess.Popen(
            part.command,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **_temporary(settings, part.name), **part.environment},
            start_new_session=True,  # Ctrl-C in the terminal is not for the stack
            cwd=settings.home,
        )
    _children.append(process)
    entry = {"pid": process.pid, "created": psutil.Process(process.pid).create_time()}
    _run_file(settings, part.name).write_text(json.dumps(entry), encoding="utf-8")


def _temporary(settings: Settings, name: str) -> dict[str, str]:
    """A folder for what a part drops while it runs, empty at its start: one that is killed cleans nothing up."""
    folder = (settings.home / "run" / "tmp" / name).resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    java = f'{os.environ.get("JAVA_TOOL_OPTIONS", "")} "-Djava.io.tmpdir={folder}"'.strip()
    return {"TMPDIR": str(folder), "JAVA_TOOL_OPTIONS": java}


def _wait(settings: Settings, part: StackProgram, report: Report) -> None:
    begun = time.monotonic()
    while not _is_ready(part):
        if _process(settings, part.name) is None:
            raise StackError(f"{part.name} ended while starting. The end of its log:\n{tail(settings, part.name)}")
        if time.monotonic() - begun > part.ready_within_s:
            raise StackError(
                f"{part.name} did not answer within {part.ready_within_s:.0f} s. The end of its log:\n"
                f"{tail(settings, part.name)}"
            )
        time.sleep(0.1)
    report(part.name, "ready")


def _is_ready(part: StackProgram) -> bool:
    try:
        return part.is_ready()
    except Exception:
        return False


def _stop(settings: Settings, name: str, within_s: float) -> bool:
    process = _process(settings, name)
    if process is not None:
        family = [process, *process.children(recursive=True)]
        process.terminate()
        _, alive = psutil.wait_procs(family, within_s)
        for survivor in alive:
            survivor.kill()
        psutil.wait_procs(alive, 5)
    for child in _children:
        child.poll()
    _run_file(settings, name).unlink(missing_ok=True)
    return process is not None


def check_ports(settings: Settings, parts: Iterable[StackProgram]) -> None:
    """Raise StackError if a port of a part that does not run yet is taken by somebody else."""
    _check_ports([part for part in parts if _process(settings, part.name) is None])


def _check_ports(parts: Iterable[StackProgram]) -> None:
    for part in parts:
        for port, variable in part.ports.items():
            if _stays_taken(port):
                raise StackError(
                    f"port {port}, wanted by {part.name}, is taken by {_holder(port) or 'another program'}. "
                    f"Nothing was started. Cure: stop that program, or choose another port: export {variable}=…"
                )


def _stays_taken(port: int) -> bool:
    """A process that was killed holds its ports until its last thread has ended, and is not seen to listen by then."""
    until = time.monotonic() + ENDING_S
    while _is_taken(port):
        if _holder(port) or time.monotonic() > until:
            return True
        time.sleep(0.1)
    return False


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def _holder(port: int) -> str | None:
    """Who listens there, as far as that can be seen: not who was killed and whose socket outlives it by a moment."""
    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.pid is not None
            if listens and connection.laddr and connection.laddr.port == port:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        pass
    return None


@contextmanager
def _stack_lock(settings: Settings) -> Iterator[None]:
    """One command at a time changes what runs."""
    settings.home.mkdir(parents=True, exist_ok=True)
    with (settings.home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
