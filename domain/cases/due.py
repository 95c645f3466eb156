"""When the next tick matters to whom: so that a tick looks at no account that it leads to nothing in."""

from collections.abc import Mapping
from heapq import heapify, heappop, heappush
from typing import Final

SPARE: Final = 1_000
"""Outdated entries beyond as many as there are good ones: then they are swept out."""


class DeadlineQueue:
    """Accounts by the time from which on a tick leads to something in them.

    A heap, in which the entries of accounts that have been put anew stay behind; they are passed over.
    """

    def __init__(self, due_ms: Mapping[str, int | None]) -> None:
        self._due_ms = {account_id: at_ms for account_id, at_ms in due_ms.items() if at_ms is not None}
        self._sweep()

    def put(self, account_id: str, at_ms: int | None) -> None:
        """From here on an account is due at that time, or never."""
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
        """The accounts that are due, sorted; they are due no more until they are put again."""
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
