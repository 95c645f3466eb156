"""Counts that commands wait for, and a broker that has just started."""

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from projections.logs import log
from projections.logs.log import end_offset


class StartingBroker:
    """Consumer whose broker answers with errors first."""

    def __init__(self, *errors: int) -> None:
        self.errors = list(errors)

    def get_watermark_offsets(self, partition: TopicPartition, timeout: float) -> tuple[int, int]:
        assert (partition.topic, timeout) == ("cases.inbox", 10)
        if self.errors:
            raise KafkaException(KafkaError(self.errors.pop(0)))
        return 3, 12


def test_partition_without_a_leader_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "ASK_AGAIN_S", 0)
    broker: Any = StartingBroker(KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE)
    assert end_offset(broker, TopicPartition("cases.inbox", 5)) == 12
    assert broker.errors == []


@pytest.mark.parametrize(
    ("patience_s", "error"),
    [(30.0, KafkaError.TOPIC_AUTHORIZATION_FAILED), (-1.0, KafkaError.NOT_LEADER_FOR_PARTITION)],
)
def test_any_other_error_and_one_that_lasts_are_raised(
    monkeypatch: pytest.MonkeyPatch, patience_s: float, error: int
) -> None:
    monkeypatch.setattr(log, "LEADERLESS_S", patience_s)
    broker: Any = StartingBroker(error)
    with pytest.raises(KafkaException):
        end_offset(broker, TopicPartition("cases.inbox", 5))
