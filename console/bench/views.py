"""Benchmark of rebuilding views, beside the bare store, in a temporary table."""

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from console.times import now_ms
from projections.logs.known import KnownEvent
from projections.views.case_table import DynamoCaseTable
from projections.views.case_view import Item
from projections.views.rebuild import WRITERS, fold, store_writes_per_s, write_views

CEILING_ITEMS: Final = 6_000
"""Items written to measure the store's maximum: half of them before the rebuild, half after it."""


def view_rates(
    open_table: Callable[[str], DynamoCaseTable], prefix: str, events: Sequence[KnownEvent]
) -> dict[str, Any]:
    """Fold and write the views of these events as a rebuild does; DynamoDB must be running.

    The tables' names begin with `prefix`. The maximum is measured in the same run: prepared BatchWriteItem requests
    of similar items by as many threads.
    """
    run = f"{prefix}bench-views-{now_ms():x}"
    items = fold(events).items()
    sample = items[-CEILING_ITEMS:]  # events of the last cases, and views
    half = len(sample) // 2
    before = _ceiling(open_table, f"{run}-before", sample[:half])
    rebuilt = _table(open_table, f"{run}-rebuilt")
    try:
        begun = time.perf_counter()
        written = write_views(rebuilt, fold(events).items())
        taken_s = time.perf_counter() - begun
    finally:
        rebuilt.drop()
    after = _ceiling(open_table, f"{run}-after", sample[half:])
    ceiling = max(before, after)
    return {
        "view_events": len(events),
        "view_items": written,
        "view_writers": WRITERS,
        "view_events_per_s": round(len(events) / taken_s),
        "view_items_per_s": round(written / taken_s),
        "store_writes_per_s": round(ceiling),
        "vs_store_writes": round(written / taken_s / ceiling, 2),
    }


def _table(open_table: Callable[[str], DynamoCaseTable], name: str) -> DynamoCaseTable:
    table = open_table(name)
    table.ensure()
    return table


def _ceiling(open_table: Callable[[str], DynamoCaseTable], name: str, items: Sequence[Item]) -> float:
    table = _table(open_table, name)
    try:
        return store_writes_per_s(table, items)
    finally:
        table.drop()
