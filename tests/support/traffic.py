"""A seeded recording of payments.inbound, and the clock ticks that go with it."""

import json
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pytest

from console.cli.app import app
from generator.traffic import Traffic, TrafficOptions
from infra.settings import Settings
from schemas.codec import Encoder
from tests.support.stack import command_line

PAYMENTS = 5_000
HOUR_MS = 3_600_000
CHUNK = 100
"""Number of records between two polls of the answers."""


@dataclass(frozen=True, slots=True)
class RecordedPayment:
    """One record of payments.inbound."""

    key: str
    value: bytes
    timestamp_ms: int


def recording(seed: int, encoder: Encoder, payments: int = PAYMENTS) -> list[RecordedPayment]:
    """Build seeded traffic in the order of arrival. Some records are duplicated, unreadable, or dated ahead."""
    records = []
    traffic = Traffic(TrafficOptions(seed=seed, accounts=400, velocity_share=0.004, spike_share=0.003))
    for number, made in enumerate(islice(traffic, payments)):
        fields = made.transaction
        if number % 400 == 7:
            fields = {**fields, "event_time": made.arrives_ms + (600_000 if number % 800 == 7 else 60_000)}
        record = RecordedPayment(fields["account_id"], encoder.encode("Transaction", fields), made.arrives_ms)
        records.append(record)
        if number % 500 == 11:
            records += [record, RecordedPayment(record.key, record.value[:20], record.timestamp_ms)]
    return records


def tick(settings: Settings, folder: Path, last: RecordedPayment) -> None:
    """Run `fraudcase clock --from FILE` with a tick five hours after the last payment, when every deadline so far
    has passed.
    """
    file = folder / "ticks.jsonl"
    file.write_text(json.dumps({"now_ms": last.timestamp_ms + 5 * HOUR_MS}) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        result = command_line(settings, patch).invoke(app, ["clock", "--from", str(file)])
    assert result.exit_code == 0, result.output
