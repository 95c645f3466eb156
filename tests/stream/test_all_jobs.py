"""Several jobs in one process: their command line, and their common end."""

import signal
from pathlib import Path
from typing import Any

import pytest

from infra.parts import python_command
from infra.services import FLINK_JOBS, MODULES, jobs, service_name
from infra.settings import Settings
from stream import job
from stream.all_jobs import SPECS, parse
from stream.job import wait


def settings(folder: Path) -> Settings:
    return Settings(home=folder, prefix="some.", flink_port=18182, metrics_port=19200, flink_prometheus=True)


def test_each_job_gets_its_folder_and_ports_from_the_common_command_line(tmp_path: Path) -> None:
    (part,) = jobs(settings(tmp_path))
    found = dict(parse(part.command[len(python_command("stream.all_jobs")) :]))
    assert found.keys() == MODULES.keys() == SPECS.keys()
    assert [options.checkpoint_dir.name for options in found.values()] == [f"some.{name}" for name in MODULES]
    ports = [port for options in found.values() for port in (options.rest_port, options.metrics_port)]
    assert sorted(ports, key=str) == sorted(part.ports, key=str)
    assert len({*ports}) == 6
    assert part.name == service_name(settings(tmp_path), FLINK_JOBS)


def test_flink_listens_on_loopback_only_unless_configured(tmp_path: Path) -> None:
    (part,) = jobs(settings(tmp_path).model_copy(update={"flink_prometheus": False}))
    assert sorted(part.ports) == [18182, 18183, 18184]
    assert all(
        options.metrics_port is None for _, options in parse(part.command[len(python_command("stream.all_jobs")) :])
    )


def test_an_unknown_job_is_refused_by_name() -> None:
    with pytest.raises(KeyError, match="'riskjob' is not a job; the jobs are risk-job, case-job, entity-job"):
        list(parse(["riskjob", "--bootstrap", "b"]))


class JobResult:
    """Result of a job as py4j shows it."""

    def __init__(self, looks: int, error: str = "") -> None:
        self.looks, self.error = looks, error

    def done(self) -> bool:
        self.looks -= 1
        return self.looks < 0

    def result(self) -> None:
        assert self.looks < 0, "a running job must not be waited for"
        if self.error:
            raise RuntimeError(self.error)


class Client:
    def __init__(self, result: JobResult) -> None:
        self.result = result

    def get_job_execution_result(self) -> JobResult:
        return self.result


def test_end_of_one_job_ends_all_and_gives_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "POLL_S", 0)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    clients: list[Any] = [Client(JobResult(1_000)), Client(JobResult(3, "a record that no fold can read"))]
    with pytest.raises(RuntimeError, match="a record that no fold can read"):
        wait(clients)
