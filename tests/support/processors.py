"""Flink state in memory, and a reader of what the processors emit."""

from collections.abc import Iterable
from typing import Any

from schemas.codec import Decoder
from stream.microbatch import Emission
from tests.support.records import TEXTS

READER = Decoder(TEXTS.get)


class PartitionState:
    """Flink state of a partition in memory: written after each batch, reset to the last checkpoint after a crash."""

    def __init__(self) -> None:
        self.entries: dict[str, bytes] = {}

    def get(self, key: str) -> bytes | None:
        return self.entries.get(key)

    def keys(self) -> Iterable[str]:
        return list(self.entries)

    def write(self, writes: dict[str, bytes | None]) -> None:
        for key, entry in writes.items():
            if entry is None:
                self.entries.pop(key, None)
            else:
                self.entries[key] = entry


def decided(emissions: list[Emission]) -> list[dict[str, Any]]:
    """Return the answers in emissions, and the flags with their measurements, in order."""
    records = [READER.decode(each.value) for each in emissions]
    return [each for name, data in records for each in (data["scored"] if name == "DecisionsMade" else [data])]
