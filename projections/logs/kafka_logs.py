"""Kafka logs of one system: addresses, topics, and clients that read, write, decode and encode."""

from dataclasses import dataclass

from projections.logs.log import QUEUED_KBYTES, KafkaLog
from projections.logs.partition_writer import PartitionWriter
from schemas.codec import Decoder, Encoder
from schemas.registry import SchemaRegistry
from schemas.topics import Topics


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaLogs:
    """Addresses of Kafka and of the schema registry, with the topics of one system.

    Plain data, so that it can be sent to another process. Each method makes a new client.
    """

    bootstrap: str
    registry_url: str
    topics: Topics

    def registry(self, retries: int = 3) -> SchemaRegistry:
        """Return a client of the schema registry that repeats a failed request up to `retries` times."""
        return SchemaRegistry(self.registry_url, retries)

    def reader(self, queued_kbytes: int = QUEUED_KBYTES) -> KafkaLog:
        """Return a reader of all topics, outside any consumer group, that buffers up to `queued_kbytes`."""
        return KafkaLog(self.bootstrap, queued_kbytes)

    def writer(self, topic: str) -> PartitionWriter:
        """Return a writer into single partitions of a topic."""
        return PartitionWriter(self.bootstrap, topic)

    def decoder(self) -> Decoder:
        """Return a decoder that looks up writers' schemas in the registry."""
        return Decoder(self.registry().schema_text)

    def encoder(self) -> Encoder:
        """Return an encoder of the newest schemas. Raise SchemaRegistryError if one is not registered."""
        return Encoder(self.registry().ids())
