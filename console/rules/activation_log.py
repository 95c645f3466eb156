"""Activations of rule packs and of engines in the logs, on Kafka."""

from collections.abc import Iterable

from console.rules.store import Offsets
from console.waiting import end_offsets
from domain.engines import EngineActivated
from domain.record_types import Event, from_fields, to_fields
from domain.risk.events import RulesActivated
from projections.logs.kafka_logs import KafkaLogs
from projections.logs.partition_writer import AddressedRecord
from schemas.codec import UnreadableRecord


class KafkaRulesLog:
    """The logs into which activations of rule packs or engines are written, in the order in which they are written."""

    def __init__(self, logs: KafkaLogs, topics: Iterable[str]) -> None:
        self._logs, self._topics = logs, tuple(topics)

    def ends(self) -> Offsets:
        """Return the offset after the last record of each partition."""
        return {topic: end_offsets(self._logs.bootstrap, topic) for topic in self._topics}

    def write(self, record: RulesActivated | EngineActivated, since: Offsets) -> int:
        """Write a record into every partition that has none of its pack and mode, or of its engine, from these
        offsets on. Return the number of partitions written.
        """
        value = self._logs.encoder().encode(type(record).__name__, to_fields(record))
        key = (record.pack_id if isinstance(record, RulesActivated) else record.activation_id).encode()
        written = 0
        for topic in self._topics:
            missing = since[topic].keys() - self._holders(topic, record, since)
            self._logs.writer(topic).write(AddressedRecord(partition, key, value) for partition in sorted(missing))
            written += len(missing)
        return written

    def _holders(self, topic: str, wanted: RulesActivated | EngineActivated, since: Offsets) -> set[int]:
        """Return the partitions that have the record already: some do after a crash in the middle of writing it."""
        log, decoder = self._logs.reader(), self._logs.decoder()
        holders = set()
        for partition, end in end_offsets(self._logs.bootstrap, topic).items():
            for record in log.read(topic, partition, end, since[topic][partition]):
                try:
                    event = from_fields(*decoder.decode(record.value))
                except (UnreadableRecord, KeyError, TypeError):
                    continue
                if _is_activation_of(event, wanted):
                    holders.add(partition)
                    break
        return holders


def _is_activation_of(event: Event, wanted: RulesActivated | EngineActivated) -> bool:
    """Return True if an event activates the same pack and mode, or engine. The person who activated it is not
    compared.
    """
    if isinstance(wanted, EngineActivated):
        return isinstance(event, EngineActivated) and event.engine == wanted.engine
    return isinstance(event, RulesActivated) and (event.pack_id, event.mode) == (wanted.pack_id, wanted.mode)
