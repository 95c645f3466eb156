"""Certificates of replays in memory."""

from typing import Any

from projections.replay.certificate import certificate
from projections.replay.replay import replay as replayed_from
from projections.replay.sources import LogSource
from tests.support.recorded import TOPICS


def certified(source: LogSource, workers: int = 1, until_ms: int | None = None) -> dict[str, Any]:
    return certificate(replayed_from(source, TOPICS, workers, until_ms), TOPICS, until_ms, ())
