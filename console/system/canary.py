"""Where does a text still stand? Looks through every store, raw and decoded, in each form that a text commonly has."""

import base64
import json
import mmap
import os
import re
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from sqlalchemy import column as named_column
from sqlalchemy import inspect, select, table

from console.wiring import object_store, table_store
from infra.settings import Settings
from migrations.store import connect, read_transaction
from schemas.packing import unpack_entries

MIN_LENGTH: Final = 4
"""A shorter text is found everywhere, by chance."""
MAX_PLACES: Final = 10_000
_SKIPPED: Final = frozenset({"jars"})
"""Folders of a home that hold nothing of ours: downloaded programs."""


class CanaryTooShort(ValueError):
    """A text that would be found by chance."""


class TextLocation(NamedTuple):
    """Where a text was found."""

    store: str
    where: str


TextMatcher = Callable[[bytes], bool]


def forms_of(text: str) -> list[bytes]:
    """A text as bytes, in the forms in which programs store texts: plain, escaped, wide, hexadecimal, base64."""
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
    ):  # where the text begins within a group of three bytes; what depends on neighbours is left out
        coded = base64.b64encode(bytes(shift) + plain)
        core = coded[4 if shift else 0 : (shift + len(plain)) // 3 * 4]
        if len(core) >= 8:  # a shorter one is found by chance
            forms |= {core, core.replace(b"+", b"-").replace(b"/", b"_")}
    return sorted(forms)


def search(settings: Settings, text: str, also: Iterable[Path] = ()) -> tuple[list[TextLocation], dict[str, int]]:
    """Where a text is, and how much was looked through of each store, and of other files. Raises TooShort."""
    if len(text.strip()) < MIN_LENGTH:
        raise CanaryTooShort(f"a text of at least {MIN_LENGTH} characters can be looked for")
    wanted = re.compile(b"|".join(map(re.escape, forms_of(text))))

    def is_in(content: bytes) -> bool:
        return wanted.search(content) is not None

    found: list[TextLocation] = []
    looked: dict[str, int] = {}
    for store, places in (
        ("kafka", _kafka(settings, is_in)),
        ("s3", _s3(settings, is_in)),
        ("dynamodb", _dynamodb(settings, is_in)),
        ("control_store", _control_store(settings, is_in)),
        ("files", _files(settings.home, wanted)),
        ("also", _extra_files(also, wanted)),
    ):
        looked[store] = 0
        for where, is_hit in places:
            looked[store] += 1
            if is_hit and len(found) < MAX_PLACES:
                found.append(TextLocation(store, where))
    return found, looked


def _kafka(settings: Settings, is_in: TextMatcher) -> Iterator[tuple[str, bool]]:
    """Every record of every topic of the broker, keys and headers too; batches come decompressed."""
    consumer = Consumer(
        {
            "bootstrap.servers": settings.kafka_bootstrap,
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
    """To the ends that they had when they were reached; also what was compacted leaves no gap to wait for."""
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


def _s3(settings: Settings, is_in: TextMatcher) -> Iterator[tuple[str, bool]]:
    """Every object of every bucket: its name, its metadata, its bytes, and of Parquet every value decompressed."""
    client = object_store(settings)
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
        return False  # its bytes were looked at
    return any(
        is_in(bytes(memoryview(buffer)))
        for column in found.columns
        for chunk in column.chunks
        for buffer in chunk.buffers()
        if buffer is not None
    )


def _dynamodb(settings: Settings, is_in: TextMatcher) -> Iterator[tuple[str, bool]]:
    """Every item of every table, each value as it is stored."""
    client = table_store(settings)
    for names in client.get_paginator("list_tables").paginate():
        for name in names["TableNames"]:
            for page in client.get_paginator("scan").paginate(TableName=name):
                for item in page["Items"]:
                    yield f"{name}/{_key(item)}", any(is_in(text) for text in _texts(item))


def _key(item: dict[str, Any]) -> str:
    return " ".join(str(value) for name in ("pk", "sk") if name in item for value in item[name].values())


def _texts(value: Any) -> Iterator[bytes]:
    """All texts and bytes in a value, names of fields too."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield str(name).encode()
            yield from _texts(inner)
    elif isinstance(value, list | tuple | set):
        for inner in value:
            yield from _texts(inner)
    else:
        yield bytes(value) if isinstance(value, bytes | bytearray | memoryview) else str(value).encode()


def _control_store(settings: Settings, is_in: TextMatcher) -> Iterator[tuple[str, bool]]:
    """Every row of every table; SQLite's file is among the files, deleted rows with it."""
    engine = connect(settings.control_database)
    with read_transaction(engine) as connection:
        for name in sorted(inspect(connection).get_table_names()):
            columns = [each["name"] for each in inspect(connection).get_columns(name)]
            rows: Any = connection.execute(select(*map(named_column, columns)).select_from(table(name)))
            for number, row in enumerate(rows):
                yield f"{name}, row {number}", any(is_in(text) for text in _texts(tuple(row)))


def _files(home: Path, wanted: re.Pattern[bytes]) -> Iterator[tuple[str, bool]]:
    """Every file of the home: logs, checkpoints, what the stores wrote, the control store, whatever was put there."""
    for file in sorted(home.rglob("*")):
        if file.relative_to(home).parts[0] in _SKIPPED or not file.is_file() or file.is_symlink():
            continue
        yield str(file.relative_to(home)), _is_in_file(file, wanted)


def _extra_files(paths: Iterable[Path], wanted: re.Pattern[bytes]) -> Iterator[tuple[str, bool]]:
    """Files, and all files of folders: what was exported, backed up, handed on."""
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
        return False  # its owner removed it meanwhile


def _written_ranges(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """The parts of a file that hold anything: Kafka's indexes are gigabytes that nobody has written to yet."""
    end = 0
    while end < size:
        try:
            begin = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError:  # nothing more
            return
        end = os.lseek(descriptor, begin, os.SEEK_HOLE)
        yield begin, end
