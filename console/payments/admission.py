"""Prepares rows of a file as the intake does, so that a backtest decides on what the running system would receive."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final

from console.payments.files import IntakeRow
from console.payments.sealing import prepare_row
from console.privacy.plain_text_sealer import PlainTextSealer
from console.privacy.sealer import Sealer
from console.privacy.vault import Vault
from domain.payment import Refusal

_BATCH_ROWS: Final = 1_000


def prepare_rows(
    rows: Iterable[IntakeRow], open_keys: Callable[[], Sealer], location_decimals: int | None
) -> Iterator[IntakeRow]:
    """Yield the rows, in order, as they would enter the system.

    `open_keys` is called at the first row with attributes; no key is made. `location_decimals` is the precision of
    coordinates in decimal places of a degree; None keeps them exact.
    """
    rows, keys = iter(rows), None
    while chunk := list(islice(rows, _BATCH_ROWS)):
        subjects = [row.fields["account_id"] for row in chunk if row.refusal is None and row.fields.get("attributes")]
        if subjects:
            keys = keys or open_keys()
            if isinstance(keys, Vault):
                keys.prepare(subjects)
        yield from (_prepare_entry(row, keys or PlainTextSealer(), location_decimals) for row in chunk)


def _prepare_entry(row: IntakeRow, sealer: Sealer, decimals: int | None) -> IntakeRow:
    if row.refusal is not None:
        return row
    entered = prepare_row(row.fields, sealer, decimals)
    return IntakeRow(row.fields, entered) if isinstance(entered, Refusal) else IntakeRow(dict(entered), None)
