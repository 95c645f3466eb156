"""The logs of a system, and the bucket: made once, checked ever after."""

import time
from typing import Any

import boto3
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from infra.errors import StackError
from infra.settings import Settings
from schemas.topics import Topics

LEADERS_WITHIN_S = 60
_CONFIG = {"cleanup.policy": "delete", "retention.ms": "-1", "max.message.bytes": str(16 << 20)}


def wanted_topics(settings: Settings) -> dict[str, int]:
    """The number of partitions of each log by name; quarantine is read as a whole, so it has one."""
    topics = Topics(prefix=settings.prefix)
    return {**dict.fromkeys(topics.decision_logs, settings.partitions), topics.quarantine: 1}


def ensure_topics(settings: Settings) -> None:
    """Make the logs that are missing. Raises StackError where one has another number of partitions than it must."""
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap})
    wanted = wanted_topics(settings)
    there = {name: len(topic.partitions) for name, topic in admin.list_topics(timeout=10).topics.items()}
    for name, partitions in wanted.items():
        if name in there and there[name] != partitions:
            raise StackError(
                f"topic {name} has {there[name]} partitions, the settings say {partitions}. A decision log keeps the "
                f"number it was made with. Cure: FRAUDCASE_PARTITIONS={there[name]}, or another FRAUDCASE_PREFIX"
            )
    new = [NewTopic(name, wanted[name], 1, config=_CONFIG) for name in wanted if name not in there]
    for name, made in (admin.create_topics(new) if new else {}).items():
        try:
            made.result(30)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise StackError(f"topic {name} could not be made: {error}. Look: fraudcase status") from error
    _wait_for_leaders(settings, [TopicPartition(topic.topic, n) for topic in new for n in range(topic.num_partitions)])


def _wait_for_leaders(settings: Settings, partitions: list[TopicPartition]) -> None:
    """A partition that was just made has no leader yet, or one that does not know it.

    Each round asks by a new client: one that has heard of no leader does not ask the broker again.
    """
    begun = time.monotonic()
    while partitions:
        admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap})
        asked = admin.list_offsets({partition: OffsetSpec.latest() for partition in partitions})
        partitions = [partition for partition, answer in asked.items() if answer.exception(10) is not None]
        if partitions and time.monotonic() - begun > LEADERS_WITHIN_S:
            raise StackError(f"{partitions[0]} has no leader after {LEADERS_WITHIN_S} s. Look: fraudcase status")
        time.sleep(0.1 if partitions else 0)


def ensure_bucket(settings: Settings) -> None:
    """Make the bucket if it is missing."""
    client = boto3.client(
        "s3",
        endpoint_url=settings.s3_url,
        region_name=settings.aws_region,
        aws_access_key_id=settings.aws_access_key_id,
        aws_secret_access_key=settings.aws_secret_access_key.get_secret_value(),
    )
    if settings.bucket not in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
        where: Any = settings.aws_region  # boto3's types list the regions one by one
        client.create_bucket(Bucket=settings.bucket, CreateBucketConfiguration={"LocationConstraint": where})
