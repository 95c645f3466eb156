"""Kafka's partition of a key, so that a reader of one key reads one partition only."""

_M, _SEED, _MASK = 0x5BD1E995, 0x9747B28C, 0xFFFFFFFF


def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition of a key under Kafka's `murmur2_random` partitioner, which our producers use."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def murmur2(data: bytes) -> int:
    """Return Kafka's MurmurHash2 (A. Appleby) as unsigned: `org.apache.kafka.common.utils.Utils.murmur2`."""
    state, whole = _SEED ^ len(data), len(data) & ~3
    for place in range(0, whole, 4):
        four = int.from_bytes(data[place : place + 4], "little") * _M & _MASK
        four = (four ^ four >> 24) * _M & _MASK
        state = state * _M & _MASK ^ four
    if whole < len(data):
        state = (state ^ int.from_bytes(data[whole:], "little")) * _M & _MASK
    state = (state ^ state >> 13) * _M & _MASK
    return state ^ state >> 15
