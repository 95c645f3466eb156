"""Benchmark of rebuilding views, beside the bare store, in a temporary table."""

import time
from collections.abc import Sequence
from typing import Any, Final

from console.wiring import case_tables
from infra.settings import Settings
from projections.logs.known import KnownEvent
from projections.views.case_table import DynamoCaseTable
from projections.views.case_view import Item
from projections.views.rebuild import WRITERS, fold, store_writes_per_s, write_views

CEILING_ITEMS: Final = 6_000
"""Items written to measure the store's maximum: half of them before the rebuild, half after it."""


def view_rates(settings: Settings, events: Sequence[KnownEvent]) -> dict[str, Any]:
    """Fold and write the views of these events as a rebuild does; DynamoDB must be running.

    The maximum is measured in the same run: prepared BatchWriteItem requests of similar items by as many threads.
    """
    run = f"{settings.prefix}bench-views-{time.time_ns() // 1_000_000:x}"
    items = fold(events).items()
    sample = items[-CEILING_ITEMS:]  # events of the last cases, and views
    half = len(sample) // 2
    before = _ceiling(settings, f"{run}-before", sample[:half])
    rebuilt = _table(settings, f"{run}-rebuilt")
    try:
        begun = time.perf_counter()
        written = write_views(rebuilt, fold(events).items())
        taken_s = time.perf_counter() - begun
    finally:
        rebuilt.drop()
    after = _ceiling(settings, f"{run}-after", sample[half:])
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


def _table(settings: Settings, name: str) -> DynamoCaseTable:
    table = case_tables(settings)(name)
    table.ensure()
    return table


def _ceiling(settings: Settings, name: str, items: Sequence[Item]) -> float:
    table = _table(settings, name)
    try:
        return store_writes_per_s(table, items)
    finally:
        table.drop()
