"""Ground truth of generated payments, kept in a file beside them."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from generator.traffic import GeneratedPayment


def truth_path(path: Path) -> Path:
    """Where the truth of a file of payments lies: beside it."""
    return path.with_name(f"{path.stem}.truth.jsonl")


def truth_line(generated: GeneratedPayment) -> dict[str, Any]:
    """What a payment was made as."""
    return {
        "transaction_id": generated.transaction["transaction_id"],
        "account_id": generated.transaction["account_id"],
        "behaviour": generated.behaviour.value,
    }


def write_truth(path: Path, made: Iterable[GeneratedPayment]) -> None:
    """Write what payments were made as, one JSON object a line."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(truth_line(generated)) + "\n" for generated in made)
