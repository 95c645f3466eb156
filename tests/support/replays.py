"""A replay of a running system, as `fraudcase replay` does it."""

from typing import Any

from console.history.replay import ReplayReport, replay
from console.wiring import case_table, replay_source, topics
from infra.settings import Settings


def replay_system(settings: Settings, source: str, *, with_views: bool = True, **more: Any) -> ReplayReport:
    """Replay from `kafka` or `s3`; compare the stored views too if `with_views`."""
    scan_views = (lambda: case_table(settings).scan()) if with_views else None
    return replay(replay_source(settings, source), topics(settings), scan_views, **more)
