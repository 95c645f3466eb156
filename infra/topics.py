"""Logs and bucket of a system: created once, checked at every later start."""

import time
from typing import Any

import boto3
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from infra.errors import StackError
from infra.settings import Settings
from schemas.topics import Topics

LEADERS_WITHIN_S = 60
"""Maximum time until every new partition has a leader."""
_CONFIG = {"cleanup.policy": "delete", "retention.ms": "-1", "max.message.bytes": str(16 << 20)}


def wanted_topics(settings: Settings) -> dict[str, int]:
    """Return the number of partitions by log name. The quarantine has one partition, because it is read as a whole."""
    topics = Topics(prefix=settings.prefix)
    return {**dict.fromkeys(topics.decision_logs, settings.partitions), topics.quarantine: 1}


def ensure_topics(settings: Settings) -> None:
    """Create the missing logs. Raise StackError if a log has another number of partitions than the settings."""
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap})
    wanted = wanted_topics(settings)
    existing = {name: len(topic.partitions) for name, topic in admin.list_topics(timeout=10).topics.items()}
    for name, partitions in wanted.items():
        if name in existing and existing[name] != partitions:
            raise StackError(
                f"topic {name} has {existing[name]} partitions, but the settings say {partitions}. The number of a "
                f"decision log's partitions cannot change. Cure: set FRAUDCASE_PARTITIONS={existing[name]}, or "
                "another FRAUDCASE_PREFIX"
            )
    new = [NewTopic(name, wanted[name], 1, config=_CONFIG) for name in wanted if name not in existing]
    for name, created in (admin.create_topics(new) if new else {}).items():
        try:
            created.result(30)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise StackError(f"topic {name} could not be created: {error}. Check: fraudcase status") from error
    _wait_for_leaders(settings, [TopicPartition(topic.topic, n) for topic in new for n in range(topic.num_partitions)])


def _wait_for_leaders(settings: Settings, partitions: list[TopicPartition]) -> None:
    """Wait until new partitions have a leader that answers. Raise StackError after LEADERS_WITHIN_S seconds.

    Each round uses a new client, because a client that knows no leader does not ask the broker again.
    """
    begun = time.monotonic()
    while partitions:
        admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap})
        answers = admin.list_offsets({partition: OffsetSpec.latest() for partition in partitions})
        partitions = [partition for partition, answer in answers.items() if answer.exception(10) is not None]
        if partitions and time.monotonic() - begun > LEADERS_WITHIN_S:
            raise StackError(f"{partitions[0]} has no leader after {LEADERS_WITHIN_S} s. Check: fraudcase status")
        time.sleep(0.1 if partitions else 0)


def ensure_bucket(settings: Settings) -> None:
    """Create the bucket if it is missing."""
    client = boto3.client(
        "s3",
        endpoint_url=settings.s3_url,
        region_name=settings.aws_region,
        aws_access_key_id=settings.aws_access_key_id,
        aws_secret_access_key=settings.aws_secret_access_key.get_secret_value(),
    )
    if settings.bucket not in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
        region: Any = settings.aws_region  # Any, because boto3's type lists every region
        client.create_bucket(Bucket=settings.bucket, CreateBucketConfiguration={"LocationConstraint": region})
