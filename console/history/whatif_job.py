"""Runs one what-if that the control store holds: `python -m console.history.whatif_job RUN_ID`.

It is a process of its own with low priority, so that pages are answered while it works.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from confluent_kafka import KafkaException

from console.history.whatif import Progress, WhatifRequest, run
from console.history.whatif_runs import WhatifRuns
from console.times import now_ms
from console.wiring import archive_source, control_database, kafka_logs
from domain.risk.packs import RulePack
from infra.errors import StackError
from infra.settings import Settings
from projections.replay.sources import LogGap

NICE = 10
OUTAGE_ERRORS = (LogGap, StackError, KafkaException, BotoCoreError, ClientError, OSError)
"""Errors of a log that cannot be read to its end."""
Work = Callable[[RulePack, WhatifRequest, Progress], dict[str, Any]]


def carry_out(runs: WhatifRuns, run_id: str, work: Work, seen: Progress = lambda *_: None) -> dict[str, Any]:
    """Run a what-if and store its result, or store the reason of its failure and raise it again."""
    tell = runs.progress_writer(run_id)

    def both(done: int, total: int) -> None:
        tell(done, total)
        seen(done, total)

    try:
        pack, asked = runs.asked(run_id)
        found = work(pack, asked, both)
        runs.done(run_id, found)
    except BaseException as error:
        why = str(error) if isinstance(error, OUTAGE_ERRORS) else f"a bug: {type(error).__name__}: {error}"
        runs.failed(run_id, "it was stopped" if isinstance(error, KeyboardInterrupt | SystemExit) else why)
        raise
    return {**found, "run_id": run_id}


class WhatifJobs:
    """The what-if processes that a console has started."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Keep the environment variables of the processes, which name the system's settings."""
        self._environment = {**os.environ, **environment}
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, run_id: str) -> None:
        """Start the process of a run; its progress is in the control store."""
        self._started = [process for process in self._started if process.poll() is None]
        command = [sys.executable, "-m", "console.history.whatif_job", run_id]
        self._started.append(subprocess.Popen(command, env=self._environment))

    def stop(self) -> None:
        """Stop the processes that still run."""
        for process in self._started:
            process.terminate()
        for process in self._started:
            process.wait(10)


def main() -> None:
    """Run the what-if named on the command line."""
    os.nice(NICE)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    settings = Settings()
    carry_out(
        WhatifRuns(control_database(settings), now_ms),
        sys.argv[1],
        partial(run, kafka_logs(settings), archive_source(settings)),
    )


if __name__ == "__main__":
    main()
