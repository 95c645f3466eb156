"""Certificate of a replay: one root digest over everything derived, and whether the recorded history matches.

`root` is a function of the logs alone. It does not depend on the source of the logs, the number of processes or the
machine, and redelivered records do not change it. docs/replay.md explains each part.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Final

from domain.digest import canonical_json
from projections.replay.compare import sort_mismatches
from projections.replay.compare_views import encoded_digest
from projections.replay.outcome import Ends, ReplayMismatch, ReplayResult
from schemas.catalog import all_schemas
from schemas.topics import Topics

FORMAT: Final = 1


def certificate(
    replayed: ReplayResult, topics: Topics, until_ms: int | None, view_mismatches: Iterable[ReplayMismatch]
) -> dict[str, Any]:
    """Return the certificate as plain data; `view_mismatches` are the differences of the stored case views."""
    derived, comparison = replayed.derived, replayed.comparison
    history = derived.history
    counts = {
        "payments": history.payments,
        "duplicates": history.duplicates,
        "quarantined": history.quarantined,
        "flags": history.flags,
        "entity_flags": history.entity_flags,
        "cases_opened": history.opened,
        "cases_escalated": history.escalated,
        "case_events": history.case_events,
        "views": derived.views,
    }
    digests = {
        "inbound": derived.inbound,
        "decisions": derived.decisions,
        "history": history.digest.hexdigest(),
        "views": encoded_digest(derived.encoded),
    }
    differences = sort_mismatches(topics, [*replayed.altered, *comparison.differences, *view_mismatches])
    first = differences[0] if differences else comparison.first_missing
    return {
        "format": FORMAT,
        "root": hashlib.sha256(canonical_json({"format": FORMAT, "digests": digests, "counts": counts})).hexdigest(),
        "records": derived.records,
        "matches_live": not differences and not comparison.missing,
        "first_difference": None if first is None else _describe_mismatch(first, topics),
        "differences": len(differences),
        "missing": comparison.missing,
        "until": until_ms,
        "log_ranges": _ranges(replayed.ranges, topics),
        "schemas": _schemas(replayed.schemas),
        "rule_packs": derived.packs,
        "engine": {"version": version("fraudcase"), "domain_sha256": source_digest()},
        "counts": counts,
        "digests": digests,
    }


def failed_certificate(reason: str, altered: Iterable[str], until_ms: int | None) -> dict[str, Any]:
    """Return the certificate of logs with missing records, from which nothing can be derived."""
    details = [*dict.fromkeys(altered), reason]
    return {
        "format": FORMAT,
        "root": None,
        "records": 0,
        "matches_live": False,
        "first_difference": {"detail": details[0]},
        "differences": len(details),
        "missing": 0,
        "until": until_ms,
        "engine": {"version": version("fraudcase"), "domain_sha256": source_digest()},
    }


def source_digest() -> str:
    """Return the SHA-256 over the source of `domain/`, file by file in the order of their paths, with LF line ends."""
    total = hashlib.sha256()
    for name, text in sorted(_sources(files("domain"), "")):
        for piece in (name.encode(), text.replace(b"\r\n", b"\n")):
            total.update(len(piece).to_bytes(8, "big") + piece)
    return total.hexdigest()


def _sources(folder: Traversable, path: str) -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _sources(entry, f"{path}{entry.name}/")
        elif entry.name.endswith(".py"):
            yield path + entry.name, entry.read_bytes()


def _describe_mismatch(difference: ReplayMismatch, topics: Topics) -> dict[str, Any]:
    recorded, derived = _event(difference.recorded), _event(difference.derived)
    payment = (recorded or derived or {}).get("transaction_id")
    return {
        "topic": difference.topic.removeprefix(topics.prefix),
        "partition": difference.partition,
        "offset": difference.offset,
        "account": difference.account_id,
        "transaction_id": payment,
        "place": list(difference.place),
        "recorded": recorded,
        "derived": derived,
        "detail": difference.text,
    }


def _event(encoded: bytes | None) -> dict[str, Any] | None:
    event: dict[str, Any] | None = None if encoded is None else json.loads(encoded)
    return event


def _ranges(ends: Ends, topics: Topics) -> dict[str, dict[str, list[int]]]:
    """Return the first offset and the one after the last, by topic and partition, without empty partitions."""
    return {
        topic.removeprefix(topics.prefix): {str(partition): [0, end] for partition, end in sorted(found.items()) if end}
        for topic, found in ends.items()
    }


def _schemas(recorded: dict[str, str]) -> list[dict[str, Any]]:
    """Return each writer's schema by the SHA-256 of its canonical JSON, with our version number if it is ours."""
    our_versions = {_fingerprint(schema.text): schema.version for schema in all_schemas()}
    found = {_fingerprint(text): name for text, name in recorded.items()}
    named = [(name, our_versions.get(sha256), sha256) for sha256, name in found.items()]
    return [
        {"record": name, "version": number, "sha256": sha256}
        for name, number, sha256 in sorted(named, key=lambda each: (each[0], each[1] or 0, each[2]))
    ]


def _fingerprint(text: str) -> str:
    return hashlib.sha256(canonical_json(json.loads(text))).hexdigest()
