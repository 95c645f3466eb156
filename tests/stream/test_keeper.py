"""A job on a cluster runs once, and as long as its keeper."""

from dataclasses import dataclass, field

import pytest

from stream import keeper
from stream.keeper import cancel_all, keep


@dataclass
class FakeCluster:
    """JobManager whose jobs follow a list of states: each request shows the next one."""

    states: dict[str, list[str]] = field(default_factory=dict)
    cancelled: list[str] = field(default_factory=list)
    answers: list[bool] = field(default_factory=list)
    """Whether it answers, look by look; always, once these are used up."""

    def jobs(self, _: str) -> list[tuple[str, str]]:
        if self.answers and not self.answers.pop(0):
            raise ConnectionRefusedError
        shown = [(job, states.pop(0) if len(states) > 1 else states[0]) for job, states in self.states.items()]
        return [(job, state) for job, state in reversed(shown) if state != "GONE"]

    def cancel(self, job_id: str) -> None:
        self.cancelled.append(job_id)
        self.states[job_id] = ["CANCELLING", "CANCELED"]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "POLL_S", 0)


def test_missing_job_is_submitted_and_watched_to_its_end() -> None:
    cluster, sent = FakeCluster(), []

    def submit() -> None:
        sent.append("job")
        cluster.states["job"] = ["CREATED", "RUNNING", "RESTARTING", "RUNNING", "FAILED"]

    assert keep(cluster, "risk", submit) == "FAILED"
    assert sent == ["job"]


def test_running_job_is_not_submitted_again() -> None:
    cluster = FakeCluster({"job": ["RUNNING", "RUNNING", "FINISHED"]})
    assert keep(cluster, "risk", lambda: pytest.fail("sent twice")) == "FINISHED"


def test_job_that_the_cluster_lost_is_submitted_again() -> None:
    """The JobManager restarted without its jobs."""
    cluster = FakeCluster({"first": ["RUNNING", "GONE"]}, answers=[True, False, False])

    def submit() -> None:
        cluster.states["second"] = ["RUNNING", "FAILED"]

    assert keep(cluster, "risk", submit) == "FAILED"


def test_ended_job_with_an_equal_name_is_ignored() -> None:
    cluster = FakeCluster({"old": ["FAILED"]})

    def submit() -> None:
        cluster.states["new"] = ["RUNNING", "CANCELED"]

    assert keep(cluster, "risk", submit) == "CANCELED"


def test_cancel_waits_for_the_end_of_the_job() -> None:
    cluster = FakeCluster({"old": ["FAILED"], "job": ["RUNNING"]})
    cancel_all(cluster, "risk")
    assert cluster.cancelled == ["job"]
    assert cluster.states["job"] == ["CANCELED"]
