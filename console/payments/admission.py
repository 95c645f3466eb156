"""Rows of a file as the intake would let them enter: what a backtest decides on is what the running system would."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from console.payments.files import IntakeRow
from console.payments.sealing import prepare_row
from console.privacy.sealer import Sealer
from console.privacy.vault import Vault
from console.wiring import vault
from domain.payment import Refusal
from infra.settings import Settings

_BATCH_ROWS: Final = 1_000


class _PlainTextSealer:
    """Where no system has keys, what would be sealed stays as it is: no rule reads it."""

    def seal(self, subject: str, field: str, text: str) -> str:  # noqa: ARG002 - as a Sealer has them
        """The text."""
        return text


def prepare_rows(rows: Iterable[IntakeRow], settings: Settings) -> Iterator[IntakeRow]:
    """The rows as they would enter this system, in order: with the keys that it has, and without making any."""
    rows, keys = iter(rows), None
    while chunk := list(islice(rows, _BATCH_ROWS)):
        subjects = [row.fields["account_id"] for row in chunk if row.refusal is None and row.fields.get("attributes")]
        if subjects:
            keys = keys or existing_keys(settings)
            if isinstance(keys, Vault):
                keys.prepare(subjects)
        yield from (_prepare_entry(row, keys or _PlainTextSealer(), settings.location_decimals) for row in chunk)


def _prepare_entry(row: IntakeRow, sealer: Sealer, decimals: int | None) -> IntakeRow:
    if row.refusal is not None:
        return row
    entered = prepare_row(row.fields, sealer, decimals)
    return IntakeRow(row.fields, entered) if isinstance(entered, Refusal) else IntakeRow(dict(entered), None)


def existing_keys(settings: Settings) -> Sealer:
    """The keys of this system, if there is one here, to seal with those that exist."""
    file = settings.home / "keys" / f"{settings.prefix}master.key"
    if settings.control_url is None and not Path(settings.control_database.removeprefix("sqlite:///")).exists():
        return _PlainTextSealer()
    if settings.master_key is None and not file.exists():
        return _PlainTextSealer()
    found = vault(settings, makes_keys=False)
    try:
        found.prepare(())
    except SQLAlchemyError:  # it cannot be reached, or is older than keys are
        return _PlainTextSealer()
    return found
