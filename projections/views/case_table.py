"""The case views in DynamoDB: one table, `case#ID / view` and `case#ID / event#SEQ`."""

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from projections.views.case_view import QUEUE_SHARDS, STATUSES, CaseView, Item, view_item, view_of

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

WRITERS = 4
_BATCH, _KEYS = 25, 100  # DynamoDB's own limits, of writes and reads in one request
_TRANSACTION, _TRANSACTION_BYTES = 100, 2 << 20  # its own limit of items, and half of that of bytes
_ATTEMPTS = 10
_PAGE = 500
"""Views that one answer holds: what is longer makes everybody else wait for it."""
_SEGMENTS = 64
"""Of a scan: at 100,000 cases 5,000 items each, for which DynamoDB Local needs some 10 MB."""


class CaseTable(Protocol):
    """Where views are kept; the conformance suite holds the real table and the one in memory to the same."""

    def view(self, case_id: str) -> CaseView | None:
        """The stored view of a case."""

    def items_of(self, case_id: str) -> list[Item]:
        """All that is stored of a case: its view, and its events and answers in order."""

    def save(self, views: list[tuple[CaseView, int]], items: list[Item]) -> list[str]:
        """Store items that are not there, and each view if the stored sequence is the given one.

        Returns the cases where it is another.
        An event's item is written once: its first record says when the event became known.
        """

    def put(self, items: list[Item]) -> None:
        """Store items as they are; the same item twice is the same as once."""

    def fill(self, items: Sequence[Item], threads: int = WRITERS) -> None:
        """The same for a table that nobody else writes, as fast as the store goes. No item may come twice."""

    def views(self) -> Iterator[CaseView]:
        """Every view."""

    def scan(self) -> Iterator[Item]:
        """Everything there is."""

    def keys(self) -> Iterator[tuple[str, str]]:
        """The keys of everything there is."""


class TableWrite(NamedTuple):
    """One item of a transaction."""

    case_id: str
    size: int
    request: Any
    is_view: bool


class DynamoCaseTable:
    """The real one."""

    def __init__(self, client: "DynamoDBClient", name: str) -> None:
        self._client = client
        self.name = name
        self._pool = ThreadPoolExecutor(WRITERS)

    def ensure(self) -> None:
        """Make the table if it is missing."""
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
            return  # another worker was faster
        self._client.get_waiter("table_exists").wait(TableName=self.name)

    def drop(self) -> None:
        """Do away with the table, if it is there."""
        try:
            self._client.delete_table(TableName=self.name)
        except self._client.exceptions.ResourceNotFoundException:
            return
        self._client.get_waiter("table_not_exists").wait(TableName=self.name)

    def view(self, case_id: str) -> CaseView | None:
        """The stored view of a case, read consistently."""
        key = {"pk": {"S": f"case#{case_id}"}, "sk": {"S": "view"}}
        found = self._client.get_item(TableName=self.name, Key=key, ConsistentRead=True).get("Item")
        return view_of(_from_dynamo(found)) if found else None

    def sequences(self, case_ids: Sequence[str]) -> dict[str, int]:
        """How far the stored views of these cases are, read consistently; cases without one are left out."""
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
        """Page by page, read consistently."""
        pages = self._client.get_paginator("query").paginate(
            TableName=self.name,
            ConsistentRead=True,
            KeyConditionExpression="pk = :case",
            ExpressionAttributeValues={":case": {"S": f"case#{case_id}"}},
        )
        return [_from_dynamo(item) for page in pages for item in page["Items"]]

    def save(self, views: list[tuple[CaseView, int]], items: list[Item]) -> list[str]:
        """In transactions: a view never speaks of an event that is not there, and one commit stores many items."""
        writes = _by_case(self.name, views, items)
        chains = list(_chains(writes.values()))
        return [case_id for refused in self._pool.map(self._commit_all, chains) for case_id in refused]

    def _commit_all(self, chain: list[list[TableWrite]]) -> list[str]:
        return [case_id for writes in chain for case_id in self._commit(writes)]

    def _commit(self, writes: list[TableWrite]) -> list[str]:
        """Store a transaction; what is there already and a view that was overtaken are left out of it."""
        refused: list[str] = []
        attempt = 0
        while writes:
            try:
                self._client.transact_write_items(TransactItems=[write.request for write in writes])
            except self._client.exceptions.TransactionCanceledException as cancelled:
                codes = [reason.get("Code") for reason in cancelled.response["CancellationReasons"]]
                overtaken = [code == "ConditionalCheckFailed" for code in codes]
                if not any(overtaken):  # a conflict with somebody else's transaction, or a limit: both pass
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
        """BatchWriteItem answers with what it did not write; that is sent again."""
        unique = {(item["pk"], item["sk"]): item for item in items}
        list(self._pool.map(self.put_prepared, self.prepared(list(unique.values()))))

    def prepared(self, items: Sequence[Item]) -> list[list[Any]]:
        """Items as the requests of as many as one BatchWriteItem takes."""
        requests: list[Any] = [{"PutRequest": {"Item": _to_dynamo(item)}} for item in items]
        return [requests[start : start + _BATCH] for start in range(0, len(requests), _BATCH)]

    def put_prepared(self, requests: list[Any]) -> None:
        """One BatchWriteItem."""
        attempt = 0
        while requests:
            answer = self._client.batch_write_item(RequestItems={self.name: requests})
            requests = list(answer.get("UnprocessedItems", {}).get(self.name, []))
            if requests:
                time.sleep(min(2.0, 0.05 * 2**attempt))
                attempt += 1

    def fill(self, items: Sequence[Item], threads: int = WRITERS) -> None:
        """In transactions as large as they may be: the store commits, and waits for its disk, once for each.

        BatchWriteItem would commit each item by itself.
        """
        writes = (
            TableWrite(
                "", len(item.get("body", "")), {"Put": {"TableName": self.name, "Item": _to_dynamo(item)}},
                is_view=False,
            )
            for item in items
        )  # fmt: skip
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(self._commit, _cut(writes)))

    def keys(self) -> Iterator[tuple[str, str]]:
        """The keys of everything there is."""
        return ((item["pk"]["S"], item["sk"]["S"]) for item in self._scanned(ProjectionExpression="pk, sk"))

    def views(self) -> Iterator[CaseView]:
        """Every view, queue by queue, from their index: the timelines are not read for it.

        The index follows the table: what was just written may be missing, what just moved may come twice. Not a scan:
        DynamoDB Local holds the whole index in memory for each page of one, and 100,000 cases are too much for it.
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
        """Everything there is, page by page."""
        return map(_from_dynamo, self._scanned())

    def _scanned(self, **more: Any) -> Iterator[dict[str, Any]]:
        """In segments: DynamoDB Local holds all in memory that a page is cut from, and dies of a large table as one."""
        pages = self._client.get_paginator("scan")
        for segment in range(_SEGMENTS):
            for page in pages.paginate(
                TableName=self.name, ConsistentRead=True, Segment=segment, TotalSegments=_SEGMENTS, **more
            ):
                yield from page["Items"]


class MemoryCaseTable:
    """The same in a dict, for fast tests and for replays."""

    def __init__(self) -> None:
        self.items: dict[tuple[str, str], Item] = {}

    def view(self, case_id: str) -> CaseView | None:
        """The stored view of a case."""
        found = self.items.get((f"case#{case_id}", "view"))
        return view_of(found) if found else None

    def items_of(self, case_id: str) -> list[Item]:
        """By sort key, as the real table has them."""
        return [self.items[key] for key in sorted(self.items) if key[0] == f"case#{case_id}"]

    def save(self, views: list[tuple[CaseView, int]], items: list[Item]) -> list[str]:
        """Items that are not there, then views on their condition."""
        self.put([item for item in _first_of_each(items) if (item["pk"], item["sk"]) not in self.items])
        refused = []
        for view, before in views:
            stored = self.view(view.case_id)
            if (stored.sequence if stored else 0) == before:
                self.put([view_item(view)])
            else:
                refused.append(view.case_id)
        return refused

    def put(self, items: list[Item]) -> None:
        """As they are."""
        self.items.update({(item["pk"], item["sk"]): item for item in items})

    def fill(self, items: Sequence[Item], threads: int = WRITERS) -> None:
        """As they are."""
        assert threads
        self.put(list(items))

    def keys(self) -> Iterator[tuple[str, str]]:
        """The keys of everything there is."""
        return iter(list(self.items))

    def views(self) -> Iterator[CaseView]:
        """Every view."""
        return (view_of(item) for item in list(self.items.values()) if item["sk"] == "view")

    def scan(self) -> Iterator[Item]:
        """Everything there is."""
        return iter(self.items.values())


def _by_case(table: str, views: list[tuple[CaseView, int]], items: list[Item]) -> dict[str, list[TableWrite]]:
    """What to write of each case: its events, each once, and last its view, on the condition that it is unchanged."""
    writes: dict[str, list[TableWrite]] = {}
    for item in _first_of_each(items):
        case_id = item["pk"].removeprefix("case#")
        put = {"TableName": table, "Item": _to_dynamo(item), **_unchanged_condition(0)}
        writes.setdefault(case_id, []).append(TableWrite(case_id, len(item["body"]), {"Put": put}, is_view=False))
    for view, before in views:
        put = {"TableName": table, "Item": _to_dynamo(view_item(view)), **_unchanged_condition(before)}
        size = sum(map(len, view.transactions))
        writes.setdefault(view.case_id, []).append(TableWrite(view.case_id, size, {"Put": put}, is_view=True))
    return writes


def _first_of_each(items: Iterable[Item]) -> list[Item]:
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
    """Transactions as large as they may be, each a chain by itself; a case that does not fit into one is a chain of
    several, to be written in order: its view is in the last."""
    share: list[TableWrite] = []
    for writes in cases:
        if not _fit(writes):
            yield list(_cut(writes))
        elif _fit([*share, *writes]):
            share += writes
        else:
            yield [share]
            share = writes
    if share:
        yield [share]


def _fit(writes: Sequence[TableWrite]) -> bool:
    return len(writes) <= _TRANSACTION and sum(write.size for write in writes) <= _TRANSACTION_BYTES


def _cut(writes: Iterable[TableWrite]) -> Iterator[list[TableWrite]]:
    share: list[TableWrite] = []
    for write in writes:
        if share and not _fit([*share, write]):
            yield share
            share = []
        share.append(write)
    yield share


def _to_dynamo(item: Item) -> dict[str, Any]:
    return {name: _to_typed_value(value) for name, value in item.items()}


def _to_typed_value(value: Any) -> dict[str, Any]:
    """A value as DynamoDB has it; boto's own writer takes three times as long, by way of decimals."""
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
    raise TypeError(f"we store no {type(value).__name__}")


def _from_dynamo(item: dict[str, Any]) -> Item:
    return {name: _from_typed_value(value) for name, value in item.items()}


def _from_typed_value(value: dict[str, Any]) -> Any:
    """What a typed value of DynamoDB means; boto's own reader takes many times as long, by way of decimals."""
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
            raise TypeError(f"we store no values of DynamoDB's type {kind}")
