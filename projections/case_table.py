"""The case views in DynamoDB: one table, `case#ID / view` and `case#ID / event#SEQ`."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from botocore.exceptions import ClientError

from projections.case_view import CaseView, Item, view_item, view_of

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

WRITERS = 8
_BATCH, _KEYS = 25, 100  # DynamoDB's own limits, of writes and reads in one request
_WRITE = TypeSerializer()
_READ = TypeDeserializer()


class Overtaken(Exception):
    """Somebody else has written this case further: what we hold of it is old."""


class CaseTable(Protocol):
    """Where views are kept; the conformance suite holds the real table and the one in memory to the same."""

    def view(self, case_id: str) -> CaseView | None:
        """The stored view of a case."""

    def items_of(self, case_id: str) -> list[Item]:
        """All that is stored of a case: its view, and its events and answers in order."""

    def save(self, views: list[tuple[CaseView, int]], items: list[Item]) -> list[str]:
        """Store items, then each view if the stored sequence is the given one; returns the cases where it is not."""

    def put(self, items: list[Item]) -> None:
        """Store items as they are; the same item twice is the same as once."""

    def scan(self) -> Iterator[Item]:
        """Everything there is."""


class DynamoCaseTable:
    """The real one."""

    def __init__(self, client: "DynamoDBClient", name: str) -> None:
        self._client = client
        self._name = name
        self._pool = ThreadPoolExecutor(WRITERS)

    def ensure(self) -> None:
        """Make the table if it is missing."""
        if self._name in self._client.list_tables()["TableNames"]:
            return
        keys = ("pk", "sk", "queue", "priority", "account")
        try:
            self._client.create_table(
                TableName=self._name,
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
                    for index, hash_key in (("by-queue", "queue"), ("by-account", "account"))
                ],
            )
        except self._client.exceptions.ResourceInUseException:
            return  # another worker was faster
        self._client.get_waiter("table_exists").wait(TableName=self._name)

    def view(self, case_id: str) -> CaseView | None:
        """The stored view of a case, read consistently."""
        key = {"pk": {"S": f"case#{case_id}"}, "sk": {"S": "view"}}
        found = self._client.get_item(TableName=self._name, Key=key, ConsistentRead=True).get("Item")
        return view_of(_from_dynamo(found)) if found else None

    def sequences(self, case_ids: Sequence[str]) -> dict[str, int]:
        """How far the stored views of these cases are, read consistently; cases without one are left out."""
        found: dict[str, int] = {}
        for start in range(0, len(case_ids), _KEYS):
            keys = [{"pk": {"S": f"case#{each}"}, "sk": {"S": "view"}} for each in case_ids[start : start + _KEYS]]
            wanted: Any = {self._name: {"Keys": keys, "ConsistentRead": True}}
            while wanted:
                answer = self._client.batch_get_item(RequestItems=wanted)
                for item in map(_from_dynamo, answer["Responses"].get(self._name, [])):
                    found[item["case_id"]] = item["sequence"]
                wanted = answer.get("UnprocessedKeys")
        return found

    def items_of(self, case_id: str) -> list[Item]:
        """Page by page, read consistently."""
        pages = self._client.get_paginator("query").paginate(
            TableName=self._name,
            ConsistentRead=True,
            KeyConditionExpression="pk = :case",
            ExpressionAttributeValues={":case": {"S": f"case#{case_id}"}},
        )
        return [_from_dynamo(item) for page in pages for item in page["Items"]]

    def save(self, views: list[tuple[CaseView, int]], items: list[Item]) -> list[str]:
        """Events first, so that no view ever speaks of an event that is not there."""
        self.put(items)
        saved = self._pool.map(lambda pair: self._save_view(*pair), views)
        return [view.case_id for (view, _), is_saved in zip(views, saved, strict=True) if not is_saved]

    def _save_view(self, view: CaseView, before: int) -> bool:
        condition: dict[str, Any] = {"ConditionExpression": "attribute_not_exists(pk)"}
        if before:
            condition = {
                "ConditionExpression": "#sequence = :before",
                "ExpressionAttributeNames": {"#sequence": "sequence"},
                "ExpressionAttributeValues": {":before": {"N": str(before)}},
            }
        try:
            self._client.put_item(TableName=self._name, Item=_to_dynamo(view_item(view)), **condition)
        except ClientError as error:
            if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
                raise
            return False
        return True

    def put(self, items: list[Item]) -> None:
        """BatchWriteItem answers with what it did not write; that is sent again."""
        unique = {(item["pk"], item["sk"]): item for item in items}
        requests: list[Any] = [{"PutRequest": {"Item": _to_dynamo(item)}} for item in unique.values()]
        batches = [requests[start : start + _BATCH] for start in range(0, len(requests), _BATCH)]
        list(self._pool.map(self._put_batch, batches))

    def _put_batch(self, requests: list[Any]) -> None:
        attempt = 0
        while requests:
            answer = self._client.batch_write_item(RequestItems={self._name: requests})
            requests = list(answer.get("UnprocessedItems", {}).get(self._name, []))
            if requests:
                time.sleep(min(2.0, 0.05 * 2**attempt))
                attempt += 1

    def scan(self) -> Iterator[Item]:
        """Everything there is, page by page."""
        pages = self._client.get_paginator("scan").paginate(TableName=self._name, ConsistentRead=True)
        return (_from_dynamo(item) for page in pages for item in page["Items"])


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
        """Items, then views on their condition."""
        self.put(items)
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

    def scan(self) -> Iterator[Item]:
        """Everything there is."""
        return iter(self.items.values())


def _to_dynamo(item: Item) -> dict[str, Any]:
    return {name: _WRITE.serialize(value) for name, value in item.items()}


def _from_dynamo(item: dict[str, Any]) -> Item:
    return {name: _plain(_READ.deserialize(value)) for name, value in item.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return int(value)
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value
