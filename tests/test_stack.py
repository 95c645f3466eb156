"""What the stack makes of taken ports: nothing starts where a program listens, and one that is ending has time."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from infra.errors import StackError
from infra.parts import Part
from infra.settings import Settings
from infra.stack import check_ports


@contextmanager
def held(*, listens: bool) -> Iterator[tuple[socket.socket, int]]:
    """A port of this machine, held as by another program."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        if listens:
            holder.listen()
        yield holder, holder.getsockname()[1]


def wanting(port: int) -> Part:
    return Part(name="kafka", command=("true",), ports={port: "FRAUDCASE_KAFKA_PORT"}, is_ready=lambda: True)


def test_a_port_that_somebody_listens_on_is_named_with_its_holder_and_the_cure(tmp_path: Path) -> None:
    with held(listens=True) as (_, port), pytest.raises(StackError) as refused:
        check_ports(Settings(home=tmp_path), [wanting(port)])
    assert f"port {port}, wanted by kafka, is taken by" in str(refused.value)
    assert "export FRAUDCASE_KAFKA_PORT=" in str(refused.value)


def test_a_port_of_a_process_that_is_ending_is_waited_for(tmp_path: Path) -> None:
    """A JVM that was killed holds its ports a moment longer than it listens on them."""
    with held(listens=False) as (holder, port):
        ending = threading.Timer(0.5, holder.close)
        ending.start()
        check_ports(Settings(home=tmp_path), [wanting(port)])
        assert not ending.is_alive(), "it did not wait"


def test_a_port_that_stays_taken_is_refused_though_nobody_is_seen_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.stack.ENDING_S", 0.3)
    with held(listens=False) as (_, port), pytest.raises(StackError, match="taken by another program"):
        check_ports(Settings(home=tmp_path), [wanting(port)])
