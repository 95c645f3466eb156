"""Evidence packs: archived records with their proofs, for readers who trust only a public key."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from console.evidence import verify_pack
from console.evidence.report import EvidenceReport, ReportRecord, render_html, render_pdf
from domain.digest import canonical_json
from projections.archive.bucket import Bucket
from projections.archive.case_counts import CaseCounts
from projections.archive.heads import Head, TreeHead, head_key, head_numbers, read_head, stored_head
from projections.archive.merkle import MerkleTree
from projections.archive.record_leaf import FIELDS, NONE, headers_part, key_part, part_hash, part_salts
from projections.archive.segments import (
    SchemaArchive,
    partition_folder,
    read_segment,
    row_leaf,
    row_record,
    segments,
    table_to_parquet,
)
from projections.archive.signing import Signer
from schemas.catalog import all_schemas
from schemas.topics import Topics

MAX_RECORDS = 100_000
MAX_HEADS = 20
README = """An evidence pack of fraudcase.

  report.html, report.pdf   the records for human readers
  records.jsonl             each record: its place, its parts as raw bytes, their decoded values, and its proof
  records.parquet           the records for programs: raw bytes and JSON
  schemas/                  the writers' schemas, by their SHA-256
  heads/                    signed heads of the audit log; the proofs end at the last one
  manifest.json, .sig       the selection, the claims of completeness, the SHA-256 of every file; signed
  verify.py                 checks the pack:  python3 verify.py PACK --public-key KEY --head LAST_HEAD_SEEN

Get KEY from the company that made the pack, not from the pack. Read verify.py, or use a copy that you trust.
"""


class EvidenceExportError(Exception):
    """Error: the pack cannot be made. The message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordSelection:
    """Contents of a pack: one case, one account, or the records of a period by their Kafka timestamps."""

    case_id: str | None = None
    account_id: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None
    topics: tuple[str, ...] = ()


@dataclass(slots=True)
class EvidencePartition:
    """A partition of the archive as of a head: all leaves, and the chosen rows by their index."""

    tree: TreeHead
    leaves: list[bytes] = field(default_factory=list)
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)

    @property
    def place(self) -> tuple[str, int]:
        """Return the topic and number of the partition."""
        return self.tree.topic, self.tree.partition


Chooser = Callable[[pa.Table], Iterable[int]]
"""Returns the numbers of the wanted rows of a segment."""


class EvidencePackBuilder:
    """Builder of evidence packs from the last head of the archive."""

    def __init__(self, bucket: Bucket, topics: Topics, signer: Signer, redacted: Sequence[str] = ()) -> None:
        self._bucket, self._topics, self._signer = bucket, topics, signer
        self._schemas = SchemaArchive(bucket)
        self._redacted = check_redactions(redacted)
        numbers = head_numbers(bucket)
        head = stored_head(bucket, numbers[-1], signer.public_key) if numbers else None
        if head is None:
            raise EvidenceExportError(
                "the archive has no signed head yet. Wait a few seconds, then run: fraudcase audit heads"
            )
        self._head: Head = head

    # -- selection --------------------------------------------------------------------------------------

    def pack(self, selection: RecordSelection, since: bytes | None = None) -> bytes:
        """Return the bytes of a pack. Raises EvidenceExportError."""
        if selection.case_id is not None:
            chosen = self._choose_case(selection.case_id)
        elif selection.account_id is not None:
            chosen = self._choose_account(selection.account_id)
        else:
            chosen = self._choose_range(selection)
        records = [self._pack_record(part, index) for part in chosen for index in sorted(part.rows)]
        if not records:
            raise EvidenceExportError(f"the archive has no record of the selection up to head {self._head.number}")
        if len(records) > MAX_RECORDS:
            raise EvidenceExportError(
                f"{len(records)} records are selected, a pack has at most {MAX_RECORDS}: select fewer"
            )
        return self._build(selection, chosen, records, since)

    def _read(self, topic: str, choose: Chooser, partition: int | None = None) -> Iterator[EvidencePartition]:
        """Yield the partitions of a topic that have a chosen row, up to the head."""
        for place, tree in sorted(self._head.trees.items()):
            if place[0] == topic and partition in (None, place[1]):
                found = self._read_partition(tree, choose)
                if found.rows:
                    yield found

    def _read_partition(self, tree: TreeHead, choose: Chooser) -> EvidencePartition:
        part = EvidencePartition(tree)
        for segment in segments(self._bucket, partition_folder(tree.topic, tree.partition)):
            table = read_segment(self._bucket.get(segment.key))
            table = table.slice(0, tree.size - len(part.leaves))
            if not table.num_rows:
                break
            for number in choose(table):
                part.rows[len(part.leaves) + number] = table.slice(number, 1).to_pylist()[0]
            part.leaves += self._leaves(table)
        if MerkleTree(part.leaves).root().hex() != tree.root:
            where = f"{tree.topic} partition {tree.partition}"
            raise EvidenceExportError(f"{where} does not match head {self._head.number}. Run: fraudcase audit verify")
        return part

    def _leaves(self, table: pa.Table) -> list[bytes]:
        if table["leaf"].null_count == 0:
            leaves: list[bytes] = table["leaf"].to_pylist()
            return leaves
        return [row_leaf(row_record(self._bucket, row), row, self._schemas) for row in table.to_pylist()]

    def _choose_case(self, case_id: str) -> list[EvidencePartition]:
        """Return a case's events, the commands and flags that caused them, and its payments."""
        begin = f"{case_id}/"
        events = list(
            self._read(self._topics.cases_events, lambda table: _row_numbers(pc.starts_with(table["identity"], begin)))
        )
        rows = [row for part in events for row in part.rows.values()]
        keys = {row["key"] for row in rows}
        datas = [self._decode(row) or {} for row in rows]
        causes = {data[name] for data in datas for name in ("command_id", "flag_id", "cause_id") if data.get(name)}
        payments = {data["transaction_id"] for data in datas if data.get("transaction_id")}
        wanted = pa.array(sorted(key for key in keys if key is not None), pa.binary())

        def of_accounts(name: tuple[str, ...], ids: set[str]) -> Chooser:
            def choose(table: pa.Table) -> Iterable[int]:
                for number in _row_numbers(pc.is_in(table["key"], wanted)):
                    data = self._decode(table.slice(number, 1).to_pylist()[0]) or {}
                    if any(data.get(each) in ids for each in name):
                        yield number

            return choose

        inbox = self._read(self._topics.cases_inbox, of_accounts(("command_id", "flag_id"), causes))
        return [*events, *inbox, *self._read(self._topics.payments_inbound, of_accounts(("transaction_id",), payments))]

    def _choose_account(self, account_id: str) -> list[EvidencePartition]:
        key = pa.array([account_id.encode()], pa.binary())
        return [
            part
            for topic in sorted(self._topics.archived_logs)
            for part in self._read(topic, lambda table: _row_numbers(pc.is_in(table["key"], key)))
        ]

    def _choose_range(self, selection: RecordSelection) -> list[EvidencePartition]:
        """Return, for each partition, all records from the first to the last one of the period."""
        begin, end = selection.from_ms or 0, selection.to_ms if selection.to_ms is not None else 1 << 62

        def in_time(table: pa.Table) -> Iterable[int]:
            times = table["timestamp_ms"]
            return _row_numbers(pc.and_(pc.greater_equal(times, begin), pc.less(times, end)))

        found = []
        for topic in sorted(selection.topics or self._topics.archived_logs):
            for part in self._read(topic, in_time):
                first, last = min(part.rows), max(part.rows)
                if len(part.rows) < last - first + 1:
                    part = self._complete_range(part.tree, first, last)
                found.append(part)
        return found

    def _complete_range(self, tree: TreeHead, first: int, last: int) -> EvidencePartition:
        """Return the partition with all rows from `first` to `last`, because timestamps do not always ascend."""
        begun = 0

        def choose(table: pa.Table) -> Iterable[int]:
            nonlocal begun
            numbers = range(max(first - begun, 0), min(last + 1 - begun, table.num_rows))
            begun += table.num_rows
            return numbers

        return self._read_partition(tree, choose)

    # -- records ----------------------------------------------------------------------------------------

    def _decode(self, row: dict[str, Any]) -> dict[str, Any] | None:
        """Return the fields of a record as the verifier decodes them, or None if no schema describes it."""
        return self._record(row)["data"]  # type: ignore[no-any-return]

    def _record(self, row: dict[str, Any]) -> dict[str, Any]:
        record = row_record(self._bucket, row)
        value_parts = self._schemas.cut_value(record.value, row["schema_sha256"])
        schema = json.loads(self._schemas.text(row["schema_sha256"]) or "{}") if value_parts.form == FIELDS else {}
        names = ["key", "headers", *(each["name"] for each in schema["fields"])] if schema else ["key", "headers"]
        contents = [key_part(record.key), headers_part(record.headers), *value_parts.parts]
        names += [value_parts.form] * (len(contents) - len(names))
        salts = part_salts(row["salt"] or bytes(32), len(contents))
        shown: dict[str, Any] = {
            "topic": record.topic, "partition": record.partition, "offset": record.offset,
            "timestamp_ms": record.timestamp_ms, "form": value_parts.form, "schema_id": row["schema_id"],
            "schema": row["schema_sha256"], "type": schema.get("name"), "data": None,
            "parts": [[name, salt.hex(), part.hex()] for name, salt, part in zip(names, salts, contents, strict=True)],
        }  # fmt: skip
        if schema:
            shown["data"] = verify_pack.decode_fields(shown, schema)
        return shown

    def _pack_record(self, part: EvidencePartition, index: int) -> dict[str, Any]:
        """Return a record for the pack, without its proof. Withheld parts are replaced by their hashes."""
        row = part.rows[index]
        shown = {**self._record(row), "index": index}
        hidden = self._hidden(shown, row["key"])
        if not hidden:
            return shown
        if row["salt"] is None:
            raise EvidenceExportError("parts of records archived before salts existed cannot be withheld")
        for number, (name, salt, data) in enumerate(shown["parts"]):
            if name in hidden:
                hashed = part_hash(bytes.fromhex(salt), bytes.fromhex(data)).hex()
                shown["parts"][number] = [name, None, hashed]
        if shown["data"] is not None:
            shown["data"] = {name: value for name, value in shown["data"].items() if name not in hidden}
        return shown

    def _hidden(self, shown: dict[str, Any], key: bytes | None) -> set[str]:
        """Return the parts of a record to withhold. Of an unreadable record, all parts are withheld."""
        if not self._redacted:
            return set()
        names = [name for name, _, _ in shown["parts"]]
        if shown["data"] is None:
            return {"key", "headers", *names} if shown["form"] != NONE else {"key"} & self._redacted
        if shown["type"] in self._redacted:
            return set(names)
        hidden = {name for name in names if {name, f"{shown['type']}.{name}"} & self._redacted}
        values = {shown["data"].get(name) for name in hidden if isinstance(shown["data"].get(name), str)}
        return hidden | {"key"} if key is not None and key.decode("utf-8", "replace") in values else hidden

    # -- pack -------------------------------------------------------------------------------------------

    def _build(
        self,
        selection: RecordSelection,
        chosen: list[EvidencePartition],
        records: list[dict[str, Any]],
        since: bytes | None,
    ) -> bytes:
        trees = {part.place: MerkleTree(part.leaves) for part in chosen}
        for record in records:
            path = trees[record["topic"], record["partition"]].inclusion(record["index"])
            record["proof"] = [each.hex() for each in path]
        records.sort(key=lambda record: (record["topic"], record["partition"], record["index"]))
        older = self._older_heads(since)
        claims = self._claims(selection, chosen, records)
        described = self._describe_selection(selection)
        report = EvidenceReport(
            title=described["title"],
            claims=[
                verify_pack.check_claim(claim, _records_by_place(records), _head_fields(self._head)) for claim in claims
            ],
            redacted=sorted(self._redacted),
            head=self._head,
            key=self._signer.public_key,
            shown=[ReportRecord.from_record(record) for record in records],
        )
        members = {
            "README.txt": README.encode(),
            "verify.py": files("console.evidence").joinpath("verify_pack.py").read_bytes(),
            "records.jsonl": b"".join(canonical_json(record) + b"\n" for record in records),
            "records.parquet": _parquet(records),
            "report.html": render_html(report).encode(),
            "report.pdf": render_pdf(report),
            **{head_key(head.number): head.body for head in [*older, self._head]},
            **{
                f"schemas/{sha256}.avsc": (self._schemas.text(sha256) or "").encode() for sha256 in _schemas_of(records)
            },
        }
        manifest = {
            "format": verify_pack.FORMAT,
            "key": self._signer.public_key.hex(),
            "selection": {name: value for name, value in described.items() if name != "title"},
            "redacted": sorted(self._redacted),
            "claims": claims,
            "consistency": [proof for head in older for proof in self._consistency(head, trees)],
            "members": {name: verify_pack.sha256(data).hex() for name, data in members.items()},
        }
        body = canonical_json(manifest)
        signature = self._signer.sign(verify_pack.FORMAT.encode() + b"\n" + body).hex().encode()
        return verify_pack.make_zip([("manifest.json", body), ("manifest.sig", signature), *sorted(members.items())])

    def _describe_selection(self, selection: RecordSelection) -> dict[str, Any]:
        """Return the selection for the manifest, without withheld ids."""
        if selection.case_id is not None:
            case_id = None if "case_id" in self._redacted else selection.case_id
            return {"title": f"Case {case_id or '(withheld)'}", "case_id": case_id}
        if selection.account_id is not None:
            account_id = None if {"account_id", "key"} & self._redacted else selection.account_id
            return {"title": f"Account {account_id or '(withheld)'}", "account_id": account_id}
        topics = sorted(selection.topics or self._topics.archived_logs)
        described = {"from_ms": selection.from_ms, "to_ms": selection.to_ms, "topics": topics}
        return {"title": "A range of the log", **described}

    def _claims(
        self, selection: RecordSelection, chosen: list[EvidencePartition], records: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """Return the claims of completeness: the events of a case, or a range. For an account nothing is claimed."""
        if selection.account_id is not None:
            return []
        if selection.case_id is None:
            return [
                {"kind": "range", "topic": part.place[0], "partition": part.place[1],
                 "first": min(part.rows), "last": max(part.rows)}
                for part in chosen
            ]  # fmt: skip
        hidden = {name for record in records for name, salt, _ in record["parts"] if salt is None}
        if hidden & {"case_id", "sequence"}:
            return []  # a reader who cannot see the case of an event cannot check that the events are complete
        events = [part for part in chosen if part.place[0] == self._topics.cases_events]
        if len(events) != 1:
            raise EvidenceExportError(f"case {selection.case_id} has events in {len(events)} partitions, not in one")
        tree, counts = events[0].tree, CaseCounts()
        counts.extend(self._identities(tree))
        if counts.root().hex() != tree.cases:
            raise EvidenceExportError(
                f"the case counts do not match head {self._head.number}. Run: fraudcase audit verify"
            )
        entry, path = counts.proof(selection.case_id)
        return [
            {"kind": "case", "case_id": selection.case_id, "topic": tree.topic, "partition": tree.partition,
             "entry": json.loads(entry), "path": [each.hex() for each in path]}
        ]  # fmt: skip

    def _identities(self, tree: TreeHead) -> Iterator[str]:
        left = tree.size
        for segment in segments(self._bucket, partition_folder(tree.topic, tree.partition)):
            names = read_segment(self._bucket.get(segment.key))["identity"].to_pylist()[:left]
            left -= len(names)
            yield from (name for name in names if name is not None)

    def _older_heads(self, since: bytes | None) -> list[Head]:
        """Return earlier heads that a reader may have kept, denser near the last, and the requested one."""
        last = self._head.number
        numbers = {last - (1 << power) for power in range(MAX_HEADS)} | {1}
        heads = [
            stored_head(self._bucket, number, self._signer.public_key)
            for number in sorted(numbers)
            if 0 < number < last
        ]
        found = {head.number: head for head in heads if head is not None}
        if since is not None:
            seen = read_head(since, self._signer.public_key)
            if self._bucket.get(head_key(seen.number)) != seen.body:
                raise EvidenceExportError(f"head {seen.number} does not belong to this archive")
            if seen.number < last:
                found[seen.number] = seen
        return [found[number] for number in sorted(found)]

    def _consistency(self, head: Head, trees: dict[tuple[str, int], MerkleTree]) -> Iterator[dict[str, Any]]:
        for place, tree in sorted(trees.items()):
            old = head.trees.get(place)
            if old is not None and old.size < tree.size:
                path = [each.hex() for each in tree.consistency(old.size)]
                yield {"head": head.number, "topic": place[0], "partition": place[1], "path": path}


def check_redactions(names: Sequence[str]) -> frozenset[str]:
    """Return the names as a set. Raises EvidenceExportError for a name that no record has: a typo would reveal data."""
    known = {"key", "headers"}
    for schema in all_schemas():
        fields = {each["name"] for each in json.loads(schema.text)["fields"]}
        known |= {schema.name} | fields | {f"{schema.name}.{name}" for name in fields}
    unknown = sorted(set(names) - known)
    if unknown:
        raise EvidenceExportError(f"no record has {', '.join(unknown)}. Give FIELD, RecordType.FIELD or RecordType")
    return frozenset(names)


def _row_numbers(mask: pa.Array) -> list[int]:
    numbers: list[int] = pc.indices_nonzero(pc.fill_null(mask, False)).to_pylist()
    return numbers


def _records_by_place(records: Sequence[dict[str, Any]]) -> dict[Any, Any]:
    return {(record["topic"], record["partition"], record["index"]): record for record in records}


def _head_fields(head: Head) -> dict[str, Any]:
    return {"by_place": {place: tree.fields() for place, tree in head.trees.items()}}


def _schemas_of(records: Sequence[dict[str, Any]]) -> list[str]:
    return sorted({record["schema"] for record in records if record["form"] == FIELDS})


def _json(data: dict[str, Any] | None) -> str | None:
    return None if data is None else canonical_json(data).decode()


def _parquet(records: Sequence[dict[str, Any]]) -> bytes:
    """Return the records as Parquet. A record with withheld parts has only its JSON, without them."""

    def value(record: dict[str, Any]) -> bytes | None:
        parts = record["parts"][2:]
        if record["form"] not in ("fields", "whole") or any(salt is None for _, salt, _ in parts):
            return None
        begin = b"" if record["form"] == "whole" else b"\x00" + record["schema_id"].to_bytes(4, "big", signed=True)
        return begin + b"".join(bytes.fromhex(data) for _, _, data in parts)

    def key(record: dict[str, Any]) -> bytes | None:
        _, salt, data = record["parts"][0]
        return bytes.fromhex(data)[1:] if salt is not None and data else None

    columns = {
        "topic": ([record["topic"] for record in records], pa.string()),
        "partition": ([record["partition"] for record in records], pa.int32()),
        "offset": ([record["offset"] for record in records], pa.int64()),
        "timestamp_ms": ([record["timestamp_ms"] for record in records], pa.int64()),
        "leaf_index": ([record["index"] for record in records], pa.int64()),
        "record_type": ([record["type"] for record in records], pa.string()),
        "schema_sha256": ([record["schema"] for record in records], pa.string()),
        "key": ([key(record) for record in records], pa.binary()),
        "value": ([value(record) for record in records], pa.binary()),
        "json": ([_json(record["data"]) for record in records], pa.string()),
    }
    return table_to_parquet(pa.table({name: pa.array(*each) for name, each in columns.items()}))
