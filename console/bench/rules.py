"""Benchmark of rule packs: payments per second and memory, from Avro to Avro through the fold, without Flink or
Kafka.
"""

import gc
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from typing import Any

import psutil

from console.rules.files import load_pack
from domain.payment import FIELDS, Refusal
from domain.risk.events import TUPLES, RiskScored, RulesActivated
from domain.risk.fold import RiskFold
from generator.traffic import Traffic, TrafficOptions
from schemas.catalog import all_schemas, latest
from schemas.codec import Decoder, Encoder

BATCH = 1_000
NAMES = sorted({schema.name for schema in all_schemas()})
IDS = {name: number for number, name in enumerate(NAMES, start=1)}


def bench_rules(packs: Sequence[str], transactions: int, accounts: int, seed: int) -> dict[str, Any]:
    """Measure each pack in a fresh process, one after the other; ratios are to the first pack."""
    figures = {}
    for name in packs:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            figures[name] = pool.submit(measure, name, transactions, accounts, seed).result()
    first = figures[packs[0]]["tx_per_s"]
    return {
        "transactions": transactions,
        "accounts": accounts,
        "packs": figures,
        **{f"{name}_vs_{packs[0]}": round(figures[name]["tx_per_s"] / first, 2) for name in packs[1:]},
    }


def measure(pack_name: str, transactions: int, accounts: int, seed: int) -> dict[str, Any]:
    """Decide seeded traffic with all steps of the job's Python code; return processor time and memory figures.

    `memory_mb` is the memory of the process at the end minus that before the first payment.
    """
    encoder, decoder = Encoder(IDS, TUPLES), Decoder(_schema_text, {"Transaction": FIELDS})
    traffic = Traffic(TrafficOptions(seed=seed, accounts=accounts))
    fold = RiskFold(0, hot_accounts=accounts)
    pack = load_pack(pack_name)
    fold.activate(RulesActivated(pack_id=pack.pack_id, pack=pack.canonical, activated_by="benchmark"))
    store: dict[str, bytes] = {}
    stream = iter(traffic)
    gc.collect()
    gc.set_threshold(200_000, 20, 50)  # as in the job
    before, spent_s, flagged, seen = psutil.Process().memory_info().rss, 0.0, 0, set[str]()
    for first in range(0, transactions, BATCH):
        made = [each.transaction for each in islice(stream, min(BATCH, transactions - first))]
        seen.update(each["account_id"] for each in made)
        values = [encoder.encode("Transaction", each) for each in made]
        del made
        begun = time.process_time()
        flagged += _decide(fold, decoder, encoder, values, first)
        spent_s += time.process_time() - begun
        for key, entry in fold.take_writes().items():
            if entry is None:
                store.pop(key, None)
            else:
                store[key] = entry
    stored = sum(len(key) + len(entry) for key, entry in store.items())
    del store
    gc.collect()
    held = psutil.Process().memory_info().rss - before
    return {
        "rules": len(pack.rules),
        "tx_per_s": round(transactions / spent_s),
        "flagged": flagged,
        "accounts_seen": len(seen),
        "memory_mb": held >> 20,
        "memory_bytes_per_account": held // len(seen),
        "state_mb": stored >> 20,
        "state_bytes_per_account": stored // len(seen),
    }


def _decide(fold: RiskFold, decoder: Decoder, encoder: Encoder, values: list[bytes], first: int) -> int:
    scored = []
    for offset, value in enumerate(values, start=first):
        name, data = decoder.decode(value)
        outputs = fold.read(name, data, offset, None)
        if not isinstance(outputs, Refusal):
            scored += [output for output in outputs if isinstance(output, RiskScored)]
    made = {"partition": 0, "scored": scored, "duplicates": []}
    encoder.encode("DecisionsMade", made)
    return sum(bool(each.rules) for each in scored)


def _schema_text(schema_id: int) -> str:
    return latest(NAMES[schema_id - 1]).text
