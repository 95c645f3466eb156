"""How fast views are rebuilt, beside the bare store: a table of its own, made for it and dropped after it."""

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
"""Of the items that the events lead to, so many are written for the ceiling: half before, half after the rebuild."""


def view_rates(settings: Settings, events: Sequence[KnownEvent]) -> dict[str, Any]:
    """The views that these events lead to, folded and written as a rebuild does it; DynamoDB must be running.

    The ceiling is BatchWriteItem of prepared items of the same kind, by as many threads, in the same run.
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
