"""A job on a cluster runs as long as its keeper does, and once."""

from dataclasses import dataclass, field

import pytest

from stream import keeper
from stream.keeper import cancel_all, keep


@dataclass
class FakeCluster:
    """A JobManager whose jobs do what the test says: each look at one shows its next state."""

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


def test_a_job_that_is_not_there_is_sent_and_watched_to_its_end() -> None:
    cluster, sent = FakeCluster(), []

    def submit() -> None:
        sent.append("job")
        cluster.states["job"] = ["CREATED", "RUNNING", "RESTARTING", "RUNNING", "FAILED"]

    assert keep(cluster, "risk", submit) == "FAILED"
    assert sent == ["job"]


def test_a_job_that_runs_already_is_not_sent_again() -> None:
    cluster = FakeCluster({"job": ["RUNNING", "RUNNING", "FINISHED"]})
    assert keep(cluster, "risk", lambda: pytest.fail("sent twice")) == "FINISHED"


def test_a_job_that_the_cluster_has_forgotten_is_sent_again() -> None:
    """The JobManager was away, and came back without its jobs."""
    cluster = FakeCluster({"first": ["RUNNING", "GONE"]}, answers=[True, False, False])

    def submit() -> None:
        cluster.states["second"] = ["RUNNING", "FAILED"]

    assert keep(cluster, "risk", submit) == "FAILED"


def test_an_ended_job_of_the_same_name_is_in_nobodys_way() -> None:
    cluster = FakeCluster({"old": ["FAILED"]})

    def submit() -> None:
        cluster.states["new"] = ["RUNNING", "CANCELED"]

    assert keep(cluster, "risk", submit) == "CANCELED"


def test_to_cancel_is_to_wait_for_the_end() -> None:
    cluster = FakeCluster({"old": ["FAILED"], "job": ["RUNNING"]})
    cancel_all(cluster, "risk")
    assert cluster.cancelled == ["job"]
    assert cluster.states["job"] == ["CANCELED"]
