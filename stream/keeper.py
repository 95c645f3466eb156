"""Keeper of a job on a standalone cluster: submits it, watches it, submits it again if it was lost, and cancels it.

A job in a MiniCluster ends with its process. A job on a cluster has no process, so the keeper stands in for it: it runs
as long as the job, and SIGTERM ends both. Flink recovers from crashes of TaskManagers itself, but a restarted
JobManager has forgotten its jobs.
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
"""Flink's final states of a job."""
PATIENCE_S = 60.0
"""Maximum time for a cancelled job to end."""
POLL_S = 0.5
"""Seconds between two requests to the JobManager."""


class StopRequested(BaseException):
    """Request to stop by SIGTERM or SIGINT."""


class JobCluster(Protocol):
    """Cluster that runs the keeper's job."""

    def jobs(self, name: str) -> list[tuple[str, str]]:
        """Return id and state of every job of this name, the latest first. Raise OSError without an answer."""

    def cancel(self, job_id: str) -> None:
        """Request a job's end; its last checkpoint stays."""


class RestCluster:
    """Cluster behind a JobManager's REST interface."""

    def __init__(self, address: str) -> None:
        self._address = address

    def jobs(self, name: str) -> list[tuple[str, str]]:
        """Return id and state of every job of this name, the latest first."""
        found = [job for job in self._ask("/jobs/overview", "GET")["jobs"] if job["name"] == name]
        return [(job["jid"], job["state"]) for job in sorted(found, key=lambda job: -job["start-time"])]

    def cancel(self, job_id: str) -> None:
        """Request a job's end."""
        self._ask(f"/jobs/{job_id}", "PATCH")

    def _ask(self, path: str, method: str) -> Any:
        request = urllib.request.Request(f"http://{self._address}{path}", method=method)
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - our own cluster's address
            return json.load(response)


def keep(cluster: JobCluster, name: str, submit: Callable[[], None]) -> str:
    """Keep a job running and return the state in which it ended.

    Do not submit a second job if one runs already, e.g. after an earlier keeper was killed: two jobs would write every
    decision twice.
    """
    while True:
        if not running_jobs(cluster, name):
            submit()
        ended = _watch(cluster, name)
        if ended is not None:
            return ended
        say(f"the cluster no longer knows {name}: submitting the job again")


def running_jobs(cluster: JobCluster, name: str) -> list[str]:
    """Return the ids of the jobs of this name that have not ended."""
    return [job_id for job_id, state in cluster.jobs(name) if state not in ENDED]


def cancel_all(cluster: JobCluster, name: str) -> None:
    """Cancel the jobs of this name and wait for their end. Raise TimeoutError after PATIENCE_S seconds."""
    job_ids = running_jobs(cluster, name)
    for job_id in job_ids:
        cluster.cancel(job_id)
    begun = time.monotonic()
    while running_jobs(cluster, name):
        if time.monotonic() - begun > PATIENCE_S:
            raise TimeoutError(f"{name} ({', '.join(job_ids)}) was cancelled but did not end within {PATIENCE_S:.0f} s")
        time.sleep(POLL_S)


def _watch(cluster: JobCluster, name: str) -> str | None:
    """Return the state in which the latest job of this name ends, or None if the cluster no longer knows the job."""
    while True:
        time.sleep(POLL_S)
        try:
            jobs = cluster.jobs(name)
        except OSError:  # the job runs on without the JobManager; it may be lost once the JobManager is back
            continue
        if not jobs:
            return None
        _, state = jobs[0]
        if state in ENDED:
            return state


def say(message: str) -> None:
    """Write a line to the log that the stack keeps."""
    sys.stderr.write(f"{message}\n")
    sys.stderr.flush()


def _raise_stop(_: int, __: FrameType | None) -> NoReturn:
    raise StopRequested


def main(arguments: Sequence[str] | None = None) -> None:
    """Keep a job running until SIGTERM. Exit with an error if the job ends by itself."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cluster", required=True, help="host:port of the JobManager's REST interface")
    parser.add_argument("--name", required=True, help="name of the job in Flink")
    parser.add_argument("command", nargs="+", help="after `--`: the command that submits the job")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _raise_stop)
    signal.signal(signal.SIGINT, _raise_stop)
    cluster = RestCluster(options.cluster)

    def submit() -> None:
        subprocess.run(options.command, check=True)

    try:
        ended = keep(cluster, options.name, submit)
    except StopRequested:
        try:
            cancel_all(cluster, options.name)
        except OSError as error:
            say(f"{options.name} was not cancelled, because the JobManager does not answer: {error}")
        return
    sys.exit(f"{options.name} ended by itself: {ended}")


if __name__ == "__main__":
    main()
