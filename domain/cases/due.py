"""Deadline queue: the accounts that the next clock tick affects, so that a tick visits no others."""

from collections.abc import Mapping
from heapq import heapify, heappop, heappush
from typing import Final

SPARE: Final = 1_000
"""Outdated heap entries that are kept beyond the number of valid ones, before all of them are removed."""


class DeadlineQueue:
    """Accounts with the earliest time in milliseconds at which a tick affects them.

    A heap. An account whose time changes leaves its old entry behind, and `take` skips such outdated entries.
    """

    def __init__(self, due_ms: Mapping[str, int | None]) -> None:
        self._due_ms = {account_id: at_ms for account_id, at_ms in due_ms.items() if at_ms is not None}
        self._sweep()

    def put(self, account_id: str, at_ms: int | None) -> None:
        """Set the time in milliseconds at which an account is due, or None for never."""
        if at_ms == self._due_ms.get(account_id):
            return
        if at_ms is None:
            del self._due_ms[account_id]
            return
        self._due_ms[account_id] = at_ms
        heappush(self._heap, (at_ms, account_id))
        if len(self._heap) > 2 * len(self._due_ms) + SPARE:
            self._sweep()

    def take(self, now_ms: int) -> list[str]:
        """Remove and return the accounts due at `now_ms`, sorted by id."""
        taken = []
        while self._heap and self._heap[0][0] <= now_ms:
            at_ms, account_id = heappop(self._heap)
            if self._due_ms.get(account_id) == at_ms:
                del self._due_ms[account_id]
                taken.append(account_id)
        return sorted(taken)

    def _sweep(self) -> None:
        self._heap = [(at_ms, account_id) for account_id, at_ms in self._due_ms.items()]
        heapify(self._heap)
