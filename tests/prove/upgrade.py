"""A home written by an earlier release, continued by this one: equal certificate and views, no decision made twice."""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from infra.settings import CHECKOUT, Settings

EARLIER = "f3b79c500ef889adfe934c3b1d0634640e4e24e9"
"""The last commit of release 0.1.0, before modules moved into rooms."""
LATE = 3
"""Exit code of `fraudcase replay` while records are still on their way."""
PATIENCE_S = 300.0
DAY_S = 86_400
QUIET_S = 15.0
"""How long the log is watched after the start: jobs that derive history again would write their decisions again."""


class UpgradeFailure(Exception):
    """The earlier home and this release disagree. The message says where."""


@dataclass(frozen=True, slots=True)
class Release:
    """Command line of one release: its source, its module, and its settings."""

    source: Path
    module: str
    settings: Settings

    def run(self, *arguments: str, codes: tuple[int, ...] = (0,)) -> subprocess.CompletedProcess[str]:
        """Run one command. Raise UpgradeFailure if it ends with another code than `codes`."""
        result = subprocess.run(
            [sys.executable, "-m", self.module, *arguments],
            cwd=self.source, env={**os.environ, **self.settings.variables(), "PYTHONPATH": str(self.source)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if result.returncode not in codes:
            said = result.stdout[-1500:] + result.stderr[-1500:]
            raise UpgradeFailure(f"{self.source.name}: {' '.join(arguments)} ended with {result.returncode}: {said}")
        return result

    def report(self, *arguments: str) -> Any:
        """Return what a command prints as JSON."""
        return json.loads(self.run(*arguments, "--json").stdout)

    def certificate(self, file: Path, *options: str) -> dict[str, Any]:
        """Replay until no record is pending, and return the certificate."""
        begun = time.monotonic()
        while self.run("replay", *options, "--certificate", str(file), codes=(0, LATE)).returncode == LATE:
            if time.monotonic() - begun > PATIENCE_S:
                raise UpgradeFailure(f"records are on their way for more than {PATIENCE_S:.0f} s")
            time.sleep(2)
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return found


def upgrade() -> dict[str, Any]:
    """Write a home with the earlier release, continue with this one, and compare. Raise UpgradeFailure."""
    with tempfile.TemporaryDirectory() as folder, _home() as settings:
        source = _earlier_source(Path(folder) / "earlier")
        old, new = Release(source, "console.cli", settings), Release(CHECKOUT, "console.cli.app", settings)
        first, second = Path(folder) / "first.parquet", Path(folder) / "second.parquet"
        old.run("generate", "--transactions", "8000", "--accounts", "200", "--seed", "19",
                "--start", "2025-06-01T00:00:00", "--out", str(first))  # fmt: skip
        old.run("generate", "--transactions", "2000", "--accounts", "200", "--seed", "20",
                "--start", "2025-06-02T00:00:00", "--out", str(second))  # fmt: skip
        old.run("up")
        try:
            _fill(old, first, Path(folder))
            before = old.certificate(Path(folder) / "before.json", "--from", "kafka")
            ends = _ends(settings)
        finally:
            old.run("down")
        new.run("up")
        try:
            time.sleep(QUIET_S)
            if _ends(settings) != ends:
                raise UpgradeFailure(f"the logs grew after the start, from {ends} to {_ends(settings)}")
            for origin in ("kafka", "s3"):
                after = new.certificate(Path(folder) / f"{origin}.json", "--from", origin)
                _compare(before, after, origin)
            new.run("audit", "verify")
            new.run("ingest", str(second))
            later = new.certificate(Path(folder) / "later.json", "--from", "kafka")
            new.run("audit", "verify")
        finally:
            new.run("down")
    if not later["matches_live"] or later["counts"]["flags"] <= before["counts"]["flags"]:
        raise UpgradeFailure(f"after more payments: {later['counts']}, matches live: {later['matches_live']}")
    return {"root": before["root"], "views": before["digests"]["views"], "flags": before["counts"]["flags"],
            "flags_later": later["counts"]["flags"]}  # fmt: skip


def _fill(old: Release, payments: Path, folder: Path) -> None:
    """Enter payments, labels and commands, so that each kind of state is written."""
    old.run("ingest", str(payments))
    flagged = old.run("flags", "--out", str(folder / "flags.csv"))
    rows = [line.split(",") for line in (folder / "flags.csv").read_text(encoding="utf-8").splitlines()]
    if len(rows) < 2:
        raise UpgradeFailure(f"the earlier release has flagged nothing: {flagged.stdout}")
    place = rows[0].index("transaction_id")
    labels = folder / "labels.csv"
    chosen = list(dict.fromkeys(row[place] for row in rows[1:]))[:20]
    labels.write_text("transaction_id,fraud\n" + "".join(f"{each},1\n" for each in chosen), encoding="utf-8")
    old.run("labels", "ingest", str(labels))
    old.certificate(folder / "settled.json", "--from", "kafka")
    acts = (
        ("note", "--text", "seen"),
        ("take",),
        ("snooze", "--until", str(int(time.time() + DAY_S) * 1000), "--reason", "later"),
    )
    for case, (act, *words) in zip(old.report("case", "list"), acts, strict=False):
        old.run("case", "act", act, case["case_id"], "--actor", "ana", *words)


def _compare(before: dict[str, Any], after: dict[str, Any], origin: str) -> None:
    for name in ("root", "digests", "counts", "log_ranges", "schemas", "rule_packs", "matches_live"):
        if before[name] != after[name]:
            raise UpgradeFailure(f"from {origin}, {name}: {before[name]} before, {after[name]} after")


def _earlier_source(folder: Path) -> Path:
    """Unpack the earlier release. Raise UpgradeFailure if the repository does not hold it."""
    archive = subprocess.run(["git", "archive", EARLIER], cwd=CHECKOUT, capture_output=True, check=False)
    if archive.returncode:
        raise UpgradeFailure(f"commit {EARLIER[:7]} is not in this clone. Cure: git fetch --unshallow")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    return folder


@contextmanager
def _home() -> Iterator[Settings]:
    """Return a system on ports of its own, in a new home that is removed afterwards."""
    ports: dict[str, Any] = {
        "kafka_port": 22092, "kafka_controller_port": 22093, "registry_port": 22081, "dynamodb_port": 22000,
        "s3_port": 22090, "flink_port": 22082, "metrics_port": 22400, "console_port": 22080,
    }  # fmt: skip
    home = CHECKOUT / ".fraudcase"
    shutil.rmtree(home / "upgrade", ignore_errors=True)
    yield Settings(
        home=home / "upgrade", jars=home / "jars", partitions=4, clock_every_s=0, checkpoint_every_ms=1_000,
        flink_snapshot_every=100, **ports,
    )  # fmt: skip
    shutil.rmtree(home / "upgrade", ignore_errors=True)


def _ends(settings: Settings) -> dict[str, int]:
    """Return the offset after the last record of every partition of our topics."""
    found = AdminClient({"bootstrap.servers": settings.kafka_bootstrap}).list_topics(timeout=10).topics
    consumer = Consumer({"bootstrap.servers": settings.kafka_bootstrap, "group.id": "upgrade"})
    try:
        return {
            f"{topic}/{partition}": consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)[1]
            for topic, about in sorted(found.items())
            if not topic.startswith("_")
            for partition in sorted(about.partitions)
        }
    finally:
        consumer.close()
