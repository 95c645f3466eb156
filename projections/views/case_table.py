"""The case views in DynamoDB: one table with the keys `case#ID / view` and `case#ID / event#SEQ`."""

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from domain.cases.status import STATUSES
from projections.views.case_view import QUEUE_SHARDS, CaseView, Item, view_item, view_of

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

WRITERS = 4
_BATCH, _KEYS = 25, 100  # DynamoDB's own limits, of writes and reads in one request
_TRANSACTION, _TRANSACTION_BYTES = 100, 2 << 20  # its own limit of items, and half of that of bytes
_ATTEMPTS = 10
_PAGE = 500
"""Views per page; longer pages delay other requests."""
_SEGMENTS = 64
"""Segments of a scan: at 100,000 cases 5,000 items each, for which DynamoDB Local needs about 10 MB."""


class CaseTable(Protocol):
    """Store of case views. One conformance suite tests the DynamoDB table and the table in memory."""

    def view(self, case_id: str) -> CaseView | None:
        """Return the stored view of a case, or None."""

    def items_of(self, case_id: str) -> list[Item]:
        """Return all items of a case: its view, and its events and answers in order."""

    def save(self, views: list[tuple[CaseView, int]], items: list[Item]) -> list[str]:
        """Store new items, and each view whose stored sequence equals the given one; return the refused cases.

        An event's item is written once, because its first record holds its known-at time.
        """

    def put(self, items: list[Item]) -> None:
        """Store items unconditionally. Idempotent."""

    def fill(self, items: Sequence[Item], threads: int = WRITERS) -> None:
        """Store items in a table that nobody else writes, as fast as the store allows. Items must be distinct."""

    def views(self) -> Iterator[CaseView]:
        """Yield every view."""

    def scan(self) -> Iterator[Item]:
        """Yield every item."""

    def keys(self) -> Iterator[tuple[str, str]]:
        """Yield the keys of every item."""


class TableWrite(NamedTuple):
    """One item of a transaction."""

    case_id: str
    size: int
    request: Any
    is_view: bool


class DynamoCaseTable:
    """A table of case views in DynamoDB."""

    def __init__(self, client: "DynamoDBClient", name: str) -> None:
        self._client = client
        self.name = name
        self._pool = ThreadPoolExecutor(WRITERS)

    def ensure(self) -> None:
        """Create the table if it is missing."""
        if self.name in self._client.list_tables()["TableNames"]:
            return
        keys = ("pk", "sk", "queue", "priority", "account", "assigned")
        try:
            self._client.create_table(
                TableName=self.name,
                BillingMode="PAY_PER_REQUEST",
                AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"} for key in keys],
                KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
                GlobalSecondaryIndexes=[
                    {
                        "IndexName": index,
                        "KeySchema": [
                            {"AttributeName": hash_key, "KeyType": "HASH"},
                            {"AttributeName": "priority", "KeyType": "RANGE"},
                        ],
                        "Projection": {"ProjectionType": "ALL"},
                    }
                    for index, hash_key in (
                        ("by-queue", "queue"),
                        ("by-account", "account"),
                        ("by-assignee", "assigned"),
                    )
                ],
            )
        except self._client.exceptions.ResourceInUseException:
            return  # another worker created it
        self._client.get_waiter("table_exists").wait(TableName=self.name)

    def drop(self) -> None:
        """Delete the table if it exists."""
        try:
            self._client.delete_table(TableName=self.name)
        except self._client.exceptions.ResourceNotFoundException:
            return
        self._client.get_waiter("table_not_exists").wait(TableName=self.name)

    def view(self, case_id: str) -> CaseView | None:
        """Return the stored view of a case, or None, by a consistent read."""
        key = {"pk": {"S": f"case#{case_id}"}, "sk": {"S": "view"}}
        found = self._client.get_item(TableName=self.name, Key=key, ConsistentRead=True).get("Item")
        return view_of(_from_dynamo(found)) if found else None

    def sequences(self, case_ids: Sequence[str]) -> dict[str, int]:
        """Return the sequences of the stored views of these cases, by consistent reads; cases without a view are
        left out.
        """
        found: dict[str, int] = {}
        for start in range(0, len(case_ids), _KEYS):
            keys = [{"pk": {"S": f"case#{each}"}, "sk": {"S": "view"}} for each in case_ids[start : start + _KEYS]]
            wanted: Any = {self.name: {"Keys": keys, "ConsistentRead": True}}
            while wanted:
                answer = self._client.batch_get_item(RequestItems=wanted)
                for item in map(_from_dynamo, answer["Responses"].get(self.name, [])):
                    found[item["case_id"]] = item["sequence"]
                wanted = answer.get("UnprocessedKeys")
        return found

    def items_of(self, case_id: str) -> list[Item]:
        """Return all items of a case, page by page, by consistent reads."""
        pages = self._client.get_paginator("query").paginate(
            TableName=self.name,
            ConsistentRead=True,
            KeyConditionExpression="pk = :case",
            ExpressionAttributeValues={":case": {"S": f"case#{case_id}"}},
        )
        return [_from_dynamo(item) for page in pages for item in page["Items"]]

    def save(self, views: list[tuple[CaseView, int]], items: list[Item]) -> list[str]:
        """Store items and views in transactions; return the refused cases.

        A view is thus never newer than the stored events, and one commit stores many items.
        """
        writes = _by_case(self.name, views, items)
        chains = list(_chains(writes.values()))
        return [case_id for refused in self._pool.map(self._commit_all, chains) for case_id in refused]

    def _commit_all(self, chain: list[list[TableWrite]]) -> list[str]:
        return [case_id for writes in chain for case_id in self._commit(writes)]

    def _commit(self, writes: list[TableWrite]) -> list[str]:
        """Write a transaction without existing items and overtaken views; return the cases of the latter."""
        refused: list[str] = []
        attempt = 0
        while writes:
            try:
                self._client.transact_write_items(TransactItems=[write.request for write in writes])
            except self._client.exceptions.TransactionCanceledException as cancelled:
                codes = [reason.get("Code") for reason in cancelled.response["CancellationReasons"]]
                overtaken = [code == "ConditionalCheckFailed" for code in codes]
                if not any(overtaken):  # a conflict with another transaction, or throttling: both are temporary
                    if attempt == _ATTEMPTS:
                        raise
                    time.sleep(min(2.0, 0.05 * 2**attempt))
                    attempt += 1
                refused += [
                    write.case_id for write, is_over in zip(writes, overtaken, strict=True) if is_over and write.is_view
                ]
                writes = [write for write, is_over in zip(writes, overtaken, strict=True) if not is_over]
            else:
                break
        return refused

    def put(self, items: list[Item]) -> None:
        """Store items unconditionally with BatchWriteItem, and repeat unprocessed ones."""
        unique = {(item["pk"], item["sk"]): item for item in items}
        list(self._pool.map(self.put_prepared, self.prepared(list(unique.values()))))

    def prepared(self, items: Sequence[Item]) -> list[list[Any]]:
        """Return items as BatchWriteItem requests of the maximum size."""
        requests: list[Any] = [{"PutRequest": {"Item": _to_dynamo(item)}} for item in items]
        return [requests[start : start + _BATCH] for start in range(0, len(requests), _BATCH)]

    def put_prepared(self, requests: list[Any]) -> None:
        """Send one BatchWriteItem request until all of its items are processed."""
        attempt = 0
        while requests:
            answer = self._client.batch_write_item(RequestItems={self.name: requests})
            requests = list(answer.get("UnprocessedItems", {}).get(self.name, []))
            if requests:
                time.sleep(min(2.0, 0.05 * 2**attempt))
                attempt += 1

    def fill(self, items: Sequence[Item], threads: int = WRITERS) -> None:
        """Store items in transactions of the maximum size, so that the store waits for its disk once for each.

        BatchWriteItem would commit each item separately.
        """
        writes = (
            TableWrite(
                "", len(item.get("body", "")), {"Put": {"TableName": self.name, "Item": _to_dynamo(item)}},
                is_view=False,
            )
            for item in items
        )  # fmt: skip
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(self._commit, _split(writes)))

    def keys(self) -> Iterator[tuple[str, str]]:
        """Yield the keys of every item."""
        return ((item["pk"]["S"], item["sk"]["S"]) for item in self._scanned(ProjectionExpression="pk, sk"))

    def views(self) -> Iterator[CaseView]:
        """Yield every view from the queue index, queue by queue, without reading timelines.

        The index is eventually consistent: a new view may be missing and a moved one may occur twice. A scan is no
        alternative, because DynamoDB Local loads the whole index into memory for each page, too much at 100,000 cases.
        """
        query = self._client.get_paginator("query")
        for status in STATUSES:
            for shard in range(QUEUE_SHARDS):
                for page in query.paginate(
                    TableName=self.name,
                    IndexName="by-queue",
                    KeyConditionExpression="queue = :queue",
                    ExpressionAttributeValues={":queue": {"S": f"{status}#{shard}"}},
                    PaginationConfig={"PageSize": _PAGE},
                ):
                    for item in page["Items"]:
                        yield view_of(_from_dynamo(item))

    def scan(self) -> Iterator[Item]:
        """Yield every item, page by page."""
        return map(_from_dynamo, self._scanned())

    def _scanned(self, **more: Any) -> Iterator[dict[str, Any]]:
        """Yield raw items, scanned in segments: DynamoDB Local loads a whole segment into memory for each page."""
        pages = self._client.get_paginator("scan")
        for segment in range(_SEGMENTS):
            for page in pages.paginate(
                TableName=self.name, ConsistentRead=True, Segment=segment, TotalSegments=_SEGMENTS, **more
            ):
                yield from page["Items"]


class MemoryCaseTable:
    """A table of case views in a dict, for fast tests and replays."""

    def __init__(self) -> None:
        self.items: dict[tuple[str, str], Item] = {}

    def view(self, case_id: str) -> CaseView | None:
        """Return the stored view of a case, or None."""
        found = self.items.get((f"case#{case_id}", "view"))
        return view_of(found) if found else None

    def items_of(self, case_id: str) -> list[Item]:
        """Return all items of a case in the order of their sort keys."""
        return [self.items[key] for key in sorted(self.items) if key[0] == f"case#{case_id}"]

    def save(self, views: list[tuple[CaseView, int]], items: list[Item]) -> list[str]:
        """Store new items, and each view whose stored sequence equals the given one; return the refused cases."""
        self.put([item for item in _first_by_key(items) if (item["pk"], item["sk"]) not in self.items])
        refused = []
        for view, before in views:
            stored = self.view(view.case_id)
            if (stored.sequence if stored else 0) == before:
                self.put([view_item(view)])
            else:
                refused.append(view.case_id)
        return refused

    def put(self, items: list[Item]) -> None:
        """Store items unconditionally."""
        self.items.update({(item["pk"], item["sk"]): item for item in items})

    def fill(self, items: Sequence[Item], threads: int = WRITERS) -> None:
        """Store items unconditionally; `threads` is ignored."""
        assert threads
        self.put(list(items))

    def keys(self) -> Iterator[tuple[str, str]]:
        """Yield the keys of every item."""
        return iter(list(self.items))

    def views(self) -> Iterator[CaseView]:
        """Yield every view."""
        return (view_of(item) for item in list(self.items.values()) if item["sk"] == "view")

    def scan(self) -> Iterator[Item]:
        """Yield every item."""
        return iter(self.items.values())


def _by_case(table: str, views: list[tuple[CaseView, int]], items: list[Item]) -> dict[str, list[TableWrite]]:
    """Return the writes of each case: its new events, then its view on condition that the stored one is unchanged."""
    writes: dict[str, list[TableWrite]] = {}
    for item in _first_by_key(items):
        case_id = item["pk"].removeprefix("case#")
        put = {"TableName": table, "Item": _to_dynamo(item), **_unchanged_condition(0)}
        writes.setdefault(case_id, []).append(TableWrite(case_id, len(item["body"]), {"Put": put}, is_view=False))
    for view, before in views:
        put = {"TableName": table, "Item": _to_dynamo(view_item(view)), **_unchanged_condition(before)}
        size = sum(map(len, view.transactions))
        writes.setdefault(view.case_id, []).append(TableWrite(view.case_id, size, {"Put": put}, is_view=True))
    return writes


def _first_by_key(items: Iterable[Item]) -> list[Item]:
    firsts: dict[tuple[str, str], Item] = {}
    for item in items:
        firsts.setdefault((item["pk"], item["sk"]), item)
    return list(firsts.values())


def _unchanged_condition(sequence: int) -> dict[str, Any]:
    if not sequence:
        return {"ConditionExpression": "attribute_not_exists(pk)"}
    return {
        "ConditionExpression": "#sequence = :before",
        "ExpressionAttributeNames": {"#sequence": "sequence"},
        "ExpressionAttributeValues": {":before": {"N": str(sequence)}},
    }


def _chains(cases: Iterable[list[TableWrite]]) -> Iterator[list[list[TableWrite]]]:
    """Group writes into transactions of the maximum size, each a chain of its own.

    A case too large for one transaction is a chain of several, to be written in order, with its view in the last.
    """
    batch: list[TableWrite] = []
    for writes in cases:
        if not _fits_transaction(writes):
            yield list(_split(writes))
        elif _fits_transaction([*batch, *writes]):
            batch += writes
        else:
            yield [batch]
            batch = writes
    if batch:
        yield [batch]


def _fits_transaction(writes: Sequence[TableWrite]) -> bool:
    return len(writes) <= _TRANSACTION and sum(write.size for write in writes) <= _TRANSACTION_BYTES


def _split(writes: Iterable[TableWrite]) -> Iterator[list[TableWrite]]:
    batch: list[TableWrite] = []
    for write in writes:
        if batch and not _fits_transaction([*batch, write]):
            yield batch
            batch = []
        batch.append(write)
    yield batch


def _to_dynamo(item: Item) -> dict[str, Any]:
    return {name: _to_typed_value(value) for name, value in item.items()}


def _to_typed_value(value: Any) -> dict[str, Any]:
    """Return a value in DynamoDB's format, three times as fast as boto's serialiser, which uses decimals."""
    if isinstance(value, str):
        return {"S": value}
    if isinstance(value, bool):
        return {"BOOL": value}
    if isinstance(value, int):
        return {"N": str(value)}
    if isinstance(value, list):
        return {"L": [_to_typed_value(inner) for inner in value]}
    if isinstance(value, dict):
        return {"M": {name: _to_typed_value(inner) for name, inner in value.items()}}
    if value is None:
        return {"NULL": True}
    raise TypeError(f"a value of type {type(value).__name__} cannot be stored")


def _from_dynamo(item: dict[str, Any]) -> Item:
    return {name: _from_typed_value(value) for name, value in item.items()}


def _from_typed_value(value: dict[str, Any]) -> Any:
    """Return the value of a typed DynamoDB value, many times as fast as boto's deserialiser, which uses decimals."""
    [(kind, raw)] = value.items()
    match kind:
        case "S" | "BOOL":
            return raw
        case "N":
            return int(raw)
        case "L":
            return [_from_typed_value(inner) for inner in raw]
        case "M":
            return {name: _from_typed_value(inner) for name, inner in raw.items()}
        case "NULL":
            return None
        case _:
            raise TypeError(f"values of DynamoDB type {kind} are not supported")
