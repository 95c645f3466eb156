"""Worker processes for the tasks of a replay, as many in parallel as there are cores."""

import gc
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.sharedctypes import Synchronized
from typing import Any, Final

from projections.replay.results import TaskResult
from projections.replay.sources import ColumnLog, LogGap, LogSource
from projections.replay.tasks import PartitionTask, ReadProgress

PROGRESS_INTERVAL_S: Final = 0.2
_process_state: list[tuple["Synchronized[int]", ColumnLog]] = []
"""State of a worker process: the shared count of records read, and its open logs."""


class WorkerPool:
    """Processes that run tasks; with one worker, the tasks run in this process."""

    def __init__(self, source: LogSource, workers: int, report_progress: ReadProgress = lambda _: None) -> None:
        self._on_progress = report_progress
        self._pool: ProcessPoolExecutor | None = None
        if workers > 1:
            context = get_context("spawn")
            self._counter = context.Value("q", 0)
            self._pool = ProcessPoolExecutor(workers, context, _begin, (self._counter, source))
            with hide_main_module():
                for _ in range(workers):  # start them now: their imports take a second
                    self._pool.submit(_start_process)
        self._reported = 0
        self._log = source.open() if self._pool is None else None

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)  # no wait: workers take a while to free their memory

    def run(self, tasks: Sequence[PartitionTask]) -> list[Any]:
        """Return the results of the tasks, in their order. Raises the exception of the first task that failed."""
        if self._pool is None:
            assert self._log is not None
            with _infrequent_collection():
                return [_carry_out(task, self._log, self._on_progress) for task in tasks]
        futures: dict[int, Future[TaskResult]] = {}
        with hide_main_module():
            for number in sorted(range(len(tasks)), key=lambda number: -tasks[number].weight * tasks[number].end):
                futures[number] = self._pool.submit(_run, tasks[number])
        ordered = [futures[number] for number in range(len(tasks))]
        self._wait(ordered)
        return [each.result() for each in ordered]

    def _wait(self, futures: Sequence[Future[TaskResult]]) -> None:
        pending = set(futures)
        while pending:
            _, pending = wait(pending, timeout=PROGRESS_INTERVAL_S, return_when=FIRST_EXCEPTION)
            self._report_progress()
            failed = [each for each in futures if each not in pending and each.exception() is not None]
            if failed:
                for each in pending:
                    each.cancel()
                failed[0].result()

    def _report_progress(self) -> None:
        now = self._counter.value
        if now > self._reported:
            self._on_progress(now - self._reported)
            self._reported = now


def _begin(counter: "Synchronized[int]", source: LogSource) -> None:
    _process_state.append((counter, source.open()))
    gc.set_threshold(200_000, 20, 50)  # histories are long-lived, so frequent collections find no garbage


def _start_process() -> None:
    """Do nothing; submitted to start a process."""


def _run(task: PartitionTask) -> TaskResult:
    counter, log = _process_state[0]

    def count(records: int) -> None:
        with counter.get_lock():
            counter.value += records

    return _carry_out(task, log, count)


def _carry_out(task: PartitionTask, log: ColumnLog, report_progress: ReadProgress) -> TaskResult:
    try:
        return task.run(log, report_progress)
    except LogGap as gap:
        gap.altered = tuple(each.detail for each in log.altered)
        raise


@contextmanager
def _infrequent_collection() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(200_000, 20, 50)
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextmanager
def hide_main_module() -> Iterator[None]:
    """Keep new worker processes from importing the program's main module, which they do not need."""
    main = sys.modules["__main__"]
    names = [name for name in ("__file__", "__spec__") if getattr(main, name, None) is not None]
    kept = {name: getattr(main, name) for name in names}
    for name in names:
        setattr(main, name, None)
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(main, name, value)
