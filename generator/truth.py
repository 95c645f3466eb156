"""Ground truth of generated payments, kept in a file beside them."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from generator.traffic import GeneratedPayment


def truth_path(path: Path) -> Path:
    """Return the path of the truth of a file of payments: a file beside it."""
    return path.with_name(f"{path.stem}.truth.jsonl")


def truth_line(generated: GeneratedPayment) -> dict[str, Any]:
    """Return the truth of a payment: its ids and its behaviour."""
    return {
        "transaction_id": generated.transaction["transaction_id"],
        "account_id": generated.transaction["account_id"],
        "behaviour": generated.behaviour.value,
    }


def write_truth(path: Path, payments: Iterable[GeneratedPayment]) -> None:
    """Write the truth of payments, one JSON object per line."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(truth_line(generated)) + "\n" for generated in payments)
