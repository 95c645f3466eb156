"""Searches every store for a text: raw and decoded, in each encoding that programs commonly use."""

import base64
import json
import mmap
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from sqlalchemy import Engine, inspect, select, table
from sqlalchemy import column as named_column

from migrations.store import read_transaction
from schemas.packing import unpack_entries

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_s3 import S3Client

MIN_LENGTH: Final = 4
"""Minimum length of a text in characters; shorter texts occur by chance."""
MAX_PLACES: Final = 10_000
_SKIPPED: Final = frozenset({"jars"})
"""Folders of a home that hold only downloaded programs."""


class CanaryTooShort(ValueError):
    """A text so short that it would be found by chance."""


class TextLocation(NamedTuple):
    """A store, and the place in it, where a text was found."""

    store: str
    where: str


TextMatcher = Callable[[bytes], bool]


def forms_of(text: str) -> list[bytes]:
    """Return a text as bytes in the forms that programs store: plain, escaped, UTF-16, hexadecimal, base64."""
    plain = text.encode()
    forms = {
        plain,
        text.encode("utf-16-le"),
        text.encode("utf-16-be"),
        plain.hex().encode(),
        plain.hex().upper().encode(),
    }
    forms |= {json.dumps(text, ensure_ascii=ascii_only)[1:-1].encode() for ascii_only in (True, False)}
    for shift in range(
        3
    ):  # the text's start within a group of three bytes; bytes that depend on neighbours are left out
        coded = base64.b64encode(bytes(shift) + plain)
        core = coded[4 if shift else 0 : (shift + len(plain)) // 3 * 4]
        if len(core) >= 8:  # a shorter one is found by chance
            forms |= {core, core.replace(b"+", b"-").replace(b"/", b"_")}
    return sorted(forms)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchedStores:
    """Stores of a system that a search reads: Kafka's address, the store clients, the control store, the home."""

    bootstrap: str
    objects: "S3Client"
    tables: "DynamoDBClient"
    database: Engine
    home: Path


def search(stores: SearchedStores, text: str, also: Iterable[Path] = ()) -> tuple[list[TextLocation], dict[str, int]]:
    """Return the places that hold a text, and the number of items read by store. Raise CanaryTooShort.

    `also` names more files, and folders whose files are read.
    """
    if len(text.strip()) < MIN_LENGTH:
        raise CanaryTooShort(f"the text is too short: it must have at least {MIN_LENGTH} characters")
    wanted = re.compile(b"|".join(map(re.escape, forms_of(text))))

    def is_in(content: bytes) -> bool:
        return wanted.search(content) is not None

    found: list[TextLocation] = []
    looked: dict[str, int] = {}
    for store, places in (
        ("kafka", _kafka(stores.bootstrap, is_in)),
        ("s3", _s3(stores.objects, is_in)),
        ("dynamodb", _dynamodb(stores.tables, is_in)),
        ("control_store", _control_store(stores.database, is_in)),
        ("files", _files(stores.home, wanted)),
        ("also", _extra_files(also, wanted)),
    ):
        looked[store] = 0
        for where, is_hit in places:
            looked[store] += 1
            if is_hit and len(found) < MAX_PLACES:
                found.append(TextLocation(store, where))
    return found, looked


def _kafka(bootstrap: str, is_in: TextMatcher) -> Iterator[tuple[str, bool]]:
    """Check every record of every topic, with keys and headers; batches arrive decompressed."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "fraudcase-canary",  # required by the client, never committed to
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
        }
    )
    try:
        topics = consumer.list_topics(timeout=10).topics
        places = {(topic, number) for topic, about in topics.items() for number in about.partitions}
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for topic, number in sorted(places)])
        yield from _read_to_ends(consumer, places, is_in)
    finally:
        consumer.close()


def _read_to_ends(consumer: Consumer, places: set[tuple[str, int]], is_in: TextMatcher) -> Iterator[tuple[str, bool]]:
    """Read up to the end of each partition as the broker reports it; compacted gaps are skipped."""
    while places:
        for message in consumer.consume(1_000, timeout=0.1):
            error = message.error()
            if error is not None and error.code() == KafkaError._PARTITION_EOF:
                places.discard((message.topic(), message.partition()))
                continue
            if error is not None:
                raise KafkaException(error)
            headers = [value for _, value in message.headers() or ()]
            parts = [each.encode() if isinstance(each, str) else each or b"" for each in
                     (message.key(), message.value(), *headers)]  # fmt: skip
            yield f"{message.topic()}/{message.partition()}/{message.offset()}", any(map(is_in, parts))


def _s3(client: "S3Client", is_in: TextMatcher) -> Iterator[tuple[str, bool]]:
    """Check every object of every bucket: name, metadata, bytes, and the decompressed values of Parquet files."""
    for bucket in client.list_buckets().get("Buckets", []):
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket["Name"]):
            for each in page.get("Contents", []):
                answer = client.get_object(Bucket=bucket["Name"], Key=each["Key"])
                body = answer["Body"].read()
                about = (each["Key"] + json.dumps(answer["Metadata"])).encode()
                hit = is_in(about) or is_in(body) or (body[:4] == b"PAR1" and _is_in_parquet(body, is_in))
                yield f"{bucket['Name']}/{each['Key']}", hit


def _is_in_parquet(body: bytes, is_in: TextMatcher) -> bool:
    try:
        found = pq.read_table(BytesIO(body))
    except (pa.ArrowException, OSError):
        return False  # its raw bytes were checked
    return any(
        is_in(bytes(memoryview(buffer)))
        for column in found.columns
        for chunk in column.chunks
        for buffer in chunk.buffers()
        if buffer is not None
    )


def _dynamodb(client: "DynamoDBClient", is_in: TextMatcher) -> Iterator[tuple[str, bool]]:
    """Check every item of every table, each value as it is stored."""
    for names in client.get_paginator("list_tables").paginate():
        for name in names["TableNames"]:
            for page in client.get_paginator("scan").paginate(TableName=name):
                for item in page["Items"]:
                    yield f"{name}/{_key(item)}", any(is_in(text) for text in _texts(item))


def _key(item: dict[str, Any]) -> str:
    return " ".join(str(value) for name in ("pk", "sk") if name in item for value in item[name].values())


def _texts(value: Any) -> Iterator[bytes]:
    """Yield all texts and bytes in a value, with the names of fields."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield str(name).encode()
            yield from _texts(inner)
    elif isinstance(value, list | tuple | set):
        for inner in value:
            yield from _texts(inner)
    else:
        yield bytes(value) if isinstance(value, bytes | bytearray | memoryview) else str(value).encode()


def _control_store(engine: Engine, is_in: TextMatcher) -> Iterator[tuple[str, bool]]:
    """Check every row of every table; `_files` reads SQLite's file, with its deleted rows."""
    with read_transaction(engine) as connection:
        for name in sorted(inspect(connection).get_table_names()):
            columns = [each["name"] for each in inspect(connection).get_columns(name)]
            rows: Any = connection.execute(select(*map(named_column, columns)).select_from(table(name)))
            for number, row in enumerate(rows):
                yield f"{name}, row {number}", any(is_in(text) for text in _texts(tuple(row)))


def _files(home: Path, wanted: re.Pattern[bytes]) -> Iterator[tuple[str, bool]]:
    """Check every file of the home: logs, checkpoints, files of the stores, the control store."""
    for file in sorted(home.rglob("*")):
        if file.relative_to(home).parts[0] in _SKIPPED or not file.is_file() or file.is_symlink():
            continue
        yield str(file.relative_to(home)), _is_in_file(file, wanted)


def _extra_files(paths: Iterable[Path], wanted: re.Pattern[bytes]) -> Iterator[tuple[str, bool]]:
    """Check files, and all files of folders, such as exports and backups."""
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                yield str(file), _is_in_file(file, wanted)


def _is_in_file(file: Path, wanted: re.Pattern[bytes]) -> bool:
    try:
        size = file.stat().st_size
        if not size:
            return False
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return any(
                wanted.search(content, *part) is not None
                or any(wanted.search(entry) is not None for entry in unpack_entries(content, *part))
                for part in _written_ranges(opened.fileno(), size)
            )
    except FileNotFoundError:
        return False  # its owner has removed it


def _written_ranges(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield the written parts of a sparse file: Kafka's indexes reserve gigabytes ahead."""
    end = 0
    while end < size:
        try:
            begin = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError:  # nothing more
            return
        end = os.lseek(descriptor, begin, os.SEEK_HOLE)
        yield begin, end
