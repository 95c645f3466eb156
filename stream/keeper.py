"""Keeps a job on a standalone cluster: sends it there, watches it, sends it again where it was lost, and ends it.

A job in a MiniCluster lives and dies with its process. On a cluster it has none; this one gives it back what the stack
relies on: it runs as long as the job does, and a SIGTERM ends both. Crashes of TaskManagers are Flink's own business;
what Flink cannot survive alone is a JobManager that starts anew, and has forgotten its jobs.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, NoReturn, Protocol

ENDED = frozenset({"FAILED", "CANCELED", "FINISHED"})
PATIENCE_S = 60.0
POLL_S = 0.5


class StopRequested(BaseException):
    """SIGTERM or SIGINT."""


class JobCluster(Protocol):
    """Where a keeper's job runs."""

    def jobs(self, name: str) -> list[tuple[str, str]]:
        """Id and state of every job of this name, the latest first. Raises OSError where nobody answers."""

    def cancel(self, job_id: str) -> None:
        """Ask for a job's end; its last checkpoint stays."""


class RestCluster:
    """What a JobManager says, and does, by its REST interface."""

    def __init__(self, address: str) -> None:
        self._address = address

    def jobs(self, name: str) -> list[tuple[str, str]]:
        """Id and state of every job of this name, the latest first."""
        found = [job for job in self._ask("/jobs/overview", "GET")["jobs"] if job["name"] == name]
        return [(job["jid"], job["state"]) for job in sorted(found, key=lambda job: -job["start-time"])]

    def cancel(self, job_id: str) -> None:
        """Ask for a job's end."""
        self._ask(f"/jobs/{job_id}", "PATCH")

    def _ask(self, path: str, method: str) -> Any:
        request = urllib.request.Request(f"http://{self._address}{path}", method=method)
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - the cluster that runs our jobs
            return json.load(response)


def keep(cluster: JobCluster, name: str, submit: Callable[[], None]) -> str:
    """Keep a job running; returns the state in which it ended.

    One that runs already stays as it is: an earlier keeper was killed, and two jobs would decide everything twice.
    """
    while True:
        if not running_jobs(cluster, name):
            submit()
        ended = _watch(cluster, name)
        if ended is not None:
            return ended
        say(f"the cluster has forgotten {name}: it is sent again")


def running_jobs(cluster: JobCluster, name: str) -> list[str]:
    """The ids of the jobs of this name that have not ended."""
    return [job_id for job_id, state in cluster.jobs(name) if state not in ENDED]


def cancel_all(cluster: JobCluster, name: str) -> None:
    """Cancel the jobs of this name and wait for their end. Raises TimeoutError."""
    wanted = running_jobs(cluster, name)
    for job_id in wanted:
        cluster.cancel(job_id)
    begun = time.monotonic()
    while running_jobs(cluster, name):
        if time.monotonic() - begun > PATIENCE_S:
            raise TimeoutError(f"{name} ({', '.join(wanted)}) was cancelled and does not end")
        time.sleep(POLL_S)


def _watch(cluster: JobCluster, name: str) -> str | None:
    """The state in which the latest job of this name ends; None when the cluster does not know it any more."""
    while True:
        time.sleep(POLL_S)
        try:
            jobs = cluster.jobs(name)
        except OSError:  # the JobManager is away: the job goes on, or is lost when it comes back
            continue
        if not jobs:
            return None
        _, state = jobs[0]
        if state in ENDED:
            return state


def say(message: str) -> None:
    """A line in the log that the stack keeps."""
    sys.stderr.write(f"{message}\n")
    sys.stderr.flush()


def _raise_stop(_: int, __: FrameType | None) -> NoReturn:
    raise StopRequested


def main(arguments: Sequence[str] | None = None) -> None:
    """Keep a job until told to stop, or until it ends by itself: that is a failure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cluster", required=True, help="host:port of the JobManager's REST interface")
    parser.add_argument("--name", required=True, help="of the job, as Flink shows it")
    parser.add_argument("command", nargs="+", help="after `--`: what sends the job to the cluster")
    known = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _raise_stop)
    signal.signal(signal.SIGINT, _raise_stop)
    cluster = RestCluster(known.cluster)

    def submit() -> None:
        subprocess.run(known.command, check=True)

    try:
        ended = keep(cluster, known.name, submit)
    except StopRequested:
        try:
            cancel_all(cluster, known.name)
        except OSError as error:
            say(f"{known.name} was not cancelled, the JobManager does not answer: {error}")
        return
    sys.exit(f"{known.name} ended by itself: {ended}")


if __name__ == "__main__":
    main()
