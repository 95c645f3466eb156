"""Work in the background of a request, so that later requests need not wait for it."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from starlette.concurrency import run_in_threadpool

_RUNNING: Final[set[asyncio.Task[Any]]] = set()
"""Running tasks: the event loop itself holds only weak references."""


def run_in_background(ask: Callable[..., Any], *arguments: Any) -> None:
    """Run a function in a thread without waiting for it. Its errors are dropped: the next request that needs the
    result runs it again and gets them.
    """
    task = asyncio.ensure_future(run_in_threadpool(ask, *arguments))
    _RUNNING.add(task)
    task.add_done_callback(_forget_task)


def _forget_task(task: asyncio.Task[Any]) -> None:
    _RUNNING.discard(task)
    if not task.cancelled():
        task.exception()  # looked at, or the loop would complain that nobody did
