"""Reference job in the style of PyFlink's documentation, with the three rules of the pack `three`.

It is keyed by account, with one Python call and one keyed state access per payment. Like most such jobs it trusts the
order of arrival, detects no duplicate and stops at a record that it cannot read.
"""

from collections.abc import Iterator
from io import BytesIO
from typing import Any

from fastavro import schemaless_reader, schemaless_writer
from pyflink.common import Row, Types, WatermarkStrategy
from pyflink.common.serialization import ByteArraySchema
from pyflink.datastream import KeyedProcessFunction, MapFunction, RuntimeContext
from pyflink.datastream.connectors.base import DeliveryGuarantee
from pyflink.datastream.connectors.kafka import (
    KafkaOffsetsInitializer,
    KafkaRecordSerializationSchema,
    KafkaSink,
    KafkaSource,
    KafkaTopicPartition,
)
from pyflink.datastream.state import ListState, ListStateDescriptor, MapState, MapStateDescriptor

from domain.geo import distance_m, microdegrees
from schemas.catalog import latest, parse
from schemas.registry import SchemaRegistry
from schemas.topics import Topics
from stream.job import JobOptions, environment, parse_options, prepare_process, wait

SCORED = "reference.textbook"
"""Topic of the decisions, without the prefix."""
_FIELDS = (
    "account_id", "transaction_id", "card_id", "amount_minor", "currency", "event_time", "merchant_id",
    "payment_method", "channel", "country", "latitude", "longitude",
)  # fmt: skip
_TYPES = Types.ROW(
    [
        Types.STRING(), Types.STRING(), Types.STRING(), Types.LONG(), Types.STRING(), Types.LONG(), Types.STRING(),
        Types.STRING(), Types.STRING(), Types.STRING(), Types.DOUBLE(), Types.DOUBLE(),
    ]
)  # fmt: skip


def _schema(registry: SchemaRegistry, schema_id: int) -> Any:
    text = registry.schema_text(schema_id)
    assert text is not None
    return parse(text)[1]


class AvroRowDecoder(MapFunction):  # type: ignore[misc]  # PyFlink ships no types
    """Decoder of Avro payments to rows, by fastavro."""

    def __init__(self, registry_url: str) -> None:
        self._registry_url = registry_url

    def open(self, runtime_context: RuntimeContext) -> None:  # noqa: ARG002
        """Connect to the registry. Flink calls this before the first payment."""
        self._registry = SchemaRegistry(self._registry_url)
        self._schemas: dict[int, Any] = {}

    def map(self, value: bytes) -> Row:
        """Decode one payment to a row."""
        schema_id = int.from_bytes(value[1:5], "big")
        if schema_id not in self._schemas:
            self._schemas[schema_id] = _schema(self._registry, schema_id)
        stream = BytesIO(value)
        stream.seek(5)
        payment = schemaless_reader(stream, self._schemas[schema_id], None)
        return Row(*[payment[name] for name in _FIELDS])


class TextbookScorer(KeyedProcessFunction):  # type: ignore[misc]
    """Scorer of the three rules on the payments of an account, in order of arrival, with one state per rule."""

    def open(self, runtime_context: RuntimeContext) -> None:
        """Set up the three states. Flink calls this before the first payment."""
        self._recent: ListState = runtime_context.get_list_state(ListStateDescriptor("recent", Types.LONG()))
        self._amounts: ListState = runtime_context.get_list_state(ListStateDescriptor("amounts", Types.LONG()))
        place = Types.TUPLE([Types.LONG(), Types.DOUBLE(), Types.DOUBLE()])
        self._places: MapState = runtime_context.get_map_state(MapStateDescriptor("places", Types.STRING(), place))
        decisions = parse(latest("DecisionsMade").text)[1]
        self._schema = next(field for field in decisions["fields"] if field["name"] == "scored")["type"]["items"]

    def process_element(self, value: Row, ctx: KeyedProcessFunction.Context) -> Iterator[bytes]:  # noqa: ARG002
        """Score one payment and yield the decision in Avro."""
        payment = dict(zip(_FIELDS, value, strict=True))
        fired = {
            "velocity": self._is_fast(payment),
            "amount_spike": self._is_spike(payment["amount_minor"]),
            "impossible_travel": self._has_flown(payment),
        }
        rules = [name for name, has_fired in fired.items() if has_fired]
        stream = BytesIO()
        answer = {"content_digest": b"", "score": 500 * bool(rules), "rules": rules, "pack_id": "", "offset": 0}
        schemaless_writer(stream, self._schema, {**payment, **answer})
        yield stream.getvalue()

    def _is_fast(self, payment: dict[str, Any]) -> bool:
        now = payment["event_time"]
        recent = [at for at in self._recent if at >= now - 60_000] + [now]
        self._recent.update(recent)
        return len(recent) >= 5

    def _is_spike(self, amount: int) -> bool:
        amounts = list(self._amounts)
        n, s, q = len(amounts), sum(amounts), sum(each * each for each in amounts)
        self._amounts.update([*amounts, amount][-50:])
        return (
            n >= 5 and amount >= 10_000 and n * amount > s and 100 * n * amount >= 300 * s
            and (n * amount - s) ** 2 > 25 * (n * q - s * s)
        )  # fmt: skip

    def _has_flown(self, payment: dict[str, Any]) -> bool:
        card_id, latitude, longitude = payment["card_id"], payment["latitude"], payment["longitude"]
        if card_id is None or latitude is None or payment["channel"] not in ("POS", "ATM"):
            return False
        before = self._places.get(card_id)
        self._places.put(card_id, (payment["event_time"], latitude, longitude))
        if before is None:
            return False
        elapsed_ms = payment["event_time"] - before[0]
        metres = distance_m(*map(microdegrees, (*before[1:], latitude, longitude)))
        return elapsed_ms <= 86_400_000 and metres >= 300_000 and metres * 3600 > 900 * elapsed_ms


def submit(options: JobOptions) -> Any:
    """Start the job and return a handle to it."""
    stream, _ = environment("textbook", options)
    topic = Topics(prefix=options.prefix).payments_inbound
    starts = {KafkaTopicPartition(topic, number): 1 for number in range(options.partitions)}
    source = (
        KafkaSource.builder()
        .set_bootstrap_servers(options.bootstrap)
        .set_topics(topic)
        .set_group_id("reference-textbook")
        .set_starting_offsets(KafkaOffsetsInitializer.offsets(starts))
        .set_value_only_deserializer(ByteArraySchema())
        .build()
    )
    serializer = (
        KafkaRecordSerializationSchema.builder()
        .set_topic(f"{options.prefix}{SCORED}")
        .set_value_serialization_schema(ByteArraySchema())
        .build()
    )
    sink = (
        KafkaSink.builder()
        .set_bootstrap_servers(options.bootstrap)
        .set_record_serializer(serializer)
        .set_delivery_guarantee(DeliveryGuarantee.AT_LEAST_ONCE)
        .set_property("linger.ms", "5")
        .set_property("batch.size", "262144")
        .set_property("compression.type", "lz4")
        .build()
    )
    scored = (
        stream.from_source(source, WatermarkStrategy.no_watermarks(), "payments", Types.PRIMITIVE_ARRAY(Types.BYTE()))
        .uid("payments")
        .map(AvroRowDecoder(options.registry), _TYPES)
        .uid("decode")
        .key_by(lambda row: row[0], Types.STRING())
        .process(TextbookScorer(), Types.PRIMITIVE_ARRAY(Types.BYTE()))
        .uid("score")
    )
    scored.sink_to(sink).uid("scored")
    return stream.execute_async(f"{options.prefix}textbook")


def main() -> None:
    """Run the job until SIGTERM."""
    options = parse_options()
    prepare_process(options)
    wait([submit(options)])


if __name__ == "__main__":
    main()
