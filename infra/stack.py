"""Start and stop of the stack's programs: in parallel, each once, with health checks, and only those that it
started.
"""

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
"""Time to wait for a port that is in use although no program is seen to listen on it."""
_children: list[subprocess.Popen[bytes]] = []
"""Programs that this process started. They outlive it on purpose, and are reaped if they end first."""
Report = Callable[[str, str], None]
"""Function that is called with a program's name and its new state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramStatus:
    """Status of a program: its process if we started it, and whether it answers."""

    name: str
    pid: int | None
    is_ready: bool
    memory_mb: int
    ports: tuple[int, ...]
    log: str


def up(settings: Settings, parts: Sequence[StackProgram], report: Report = lambda _, __: None) -> list[str]:
    """Start the programs that do not run, wait until all of them answer, and return the names of those started.

    Start nothing if another program uses one of the ports. If a program does not come up, stop those that this call
    started and raise a StackError with the end of the program's log.
    """
    with _stack_lock(settings):
        stopped = [part for part in parts if _process(settings, part.name) is None]
        _check_ports(stopped)
        started: list[str] = []
        try:
            for wave in _waves(stopped):
                for part in wave:
                    _start(settings, part)
                    started.append(part.name)
                    report(part.name, "starting")
                with ThreadPoolExecutor(max(1, len(wave))) as pool:
                    for waiting in [pool.submit(_wait, settings, part, report) for part in wave]:
                        waiting.result()
        except BaseException:
            for part in reversed([part for part in stopped if part.name in started]):
                _stop(settings, part.name, part.stop_within_s)
            raise
        for part in parts:
            if part not in stopped:
                _wait(settings, part, report)
    return started


def _waves(parts: Sequence[StackProgram]) -> Iterator[list[StackProgram]]:
    """Yield groups of programs that can start together, after the groups that they depend on."""
    remaining = list(parts)
    while remaining:
        names = {part.name for part in remaining}
        wave = [part for part in remaining if not names & set(part.after)]
        if not wave:
            raise StackError(f"these programs depend on each other in a circle: {', '.join(sorted(names))}")
        yield wave
        remaining = [part for part in remaining if part not in wave]


def down(settings: Settings, parts: Sequence[StackProgram], report: Report = lambda _, __: None) -> list[str]:
    """Stop the programs that we started, in reverse order of their dependencies. Return the names of those stopped."""
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
    """Send a signal to a program's processes, for tests. Return the id of the first process.

    The signal goes to its children too: a JVM whose parent was killed holds its ports until it notices.
    """
    process = _process(settings, name)
    if process is None:
        raise StackError(f"{name} is not running. Cure: fraudcase up")
    for member in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            member.send_signal(with_signal)
    return int(process.pid)


def status(settings: Settings, parts: Iterable[StackProgram]) -> list[ProgramStatus]:
    """Return the current status of each program."""
    listed = list(parts)
    with ThreadPoolExecutor(max(1, len(listed))) as pool:
        return list(pool.map(lambda part: _status(settings, part), listed))


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
        processes = [process, *process.children(recursive=True)]
        return int(sum(each.memory_info().rss for each in processes)) >> 20
    except psutil.NoSuchProcess:
        return 0


def reset(settings: Settings, parts: Sequence[StackProgram]) -> None:
    """Stop all programs and remove their data, keys, logs and checkpoints. The jars stay."""
    down(settings, parts)
    for name in ("data", "run", "logs", "checkpoints"):
        shutil.rmtree(settings.home / name, ignore_errors=True)
    for file in settings.home.glob("keys/*master.key"):
        file.unlink()
    for file in (*settings.home.glob("*control.db"), *settings.home.glob("*console.key")):
        file.unlink()


def log_of(settings: Settings, name: str) -> Path:
    """Return the file with a program's output."""
    return settings.home / "logs" / f"{name}.log"


def tail(settings: Settings, name: str) -> str:
    """Return the last TAIL_LINES lines of a program's log."""
    log = log_of(settings, name)
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    return "\n".join(lines[-TAIL_LINES:])


def _run_file(settings: Settings, name: str) -> Path:
    return settings.home / "run" / f"{name}.json"


def _process(settings: Settings, name: str) -> psutil.Process | None:
    """Return the process that we started for a program, or None if it has ended or another process has its id now."""
    file = _run_file(settings, name)
    try:
        entry = json.loads(file.read_text(encoding="utf-8"))
        process = psutil.Process(entry["pid"])
        is_ours = abs(process.create_time() - entry["created"]) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except (OSError, ValueError, KeyError, psutil.NoSuchProcess):
        return None
    return process if is_ours else None


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
            start_new_session=True,  # Ctrl-C in the terminal must not stop the stack
            cwd=settings.home,
        )
    _children.append(process)
    entry = {"pid": process.pid, "created": psutil.Process(process.pid).create_time()}
    _run_file(settings, part.name).write_text(json.dumps(entry), encoding="utf-8")


def _temporary(settings: Settings, name: str) -> dict[str, str]:
    """Create an empty temporary folder for a program and return the variables that name it.

    A killed program leaves its files behind; the next start removes them.
    """
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
    """Raise StackError if another program uses a port of a program that does not run yet."""
    _check_ports([part for part in parts if _process(settings, part.name) is None])


def _check_ports(parts: Iterable[StackProgram]) -> None:
    for part in parts:
        for port, variable in part.ports.items():
            if _stays_taken(port):
                raise StackError(
                    f"port {port} of {part.name} is in use by {_holder(port) or 'another program'}. "
                    f"Nothing was started. Cure: stop that program, or choose another port: export {variable}=…"
                )


def _stays_taken(port: int) -> bool:
    """Return whether a port stays in use. A killed process holds its ports until its last thread has ended."""
    deadline = time.monotonic() + ENDING_S
    while _is_taken(port):
        if _holder(port) or time.monotonic() > deadline:
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
    """Return the program that listens on a port, or None if it cannot be seen, e.g. a process that was just killed."""
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
    """Hold the lock of the stack, so that one command at a time starts or stops programs."""
    settings.home.mkdir(parents=True, exist_ok=True)
    with (settings.home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
