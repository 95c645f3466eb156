"""State entries packed for Flink: each checkpoint copies and writes all of them, and payments look alike.

A chunk of payments becomes a third of itself in a few microseconds, once; every checkpoint after that writes it.
"""

import re
from collections.abc import Iterator
from mmap import mmap

from pyarrow import Codec

MAGIC = b"\xf8lz4"
"""No entry begins so: pickles begin with 0x80, JSON with a bracket. What earlier code did not pack is read as it is."""
LENGTH = 4
"""Bytes of each of the two lengths that follow, little-endian: of the entry, and of what it was packed into."""
HEAD = len(MAGIC) + 2 * LENGTH
LEAST = 256
"""A shorter entry stays as it is."""
MOST = 1 << 28
"""No entry is longer: what looks like one is none."""
_CODEC = Codec("lz4_raw")
_MAGIC = re.compile(re.escape(MAGIC))


def pack(entry: bytes) -> bytes:
    """An entry as it is stored."""
    if len(entry) < LEAST:
        return entry
    packed: bytes = _CODEC.compress(entry, asbytes=True)
    return b"".join((MAGIC, len(entry).to_bytes(LENGTH, "little"), len(packed).to_bytes(LENGTH, "little"), packed))


def unpack(stored: bytes) -> bytes:
    """An entry from how it is stored. Raises OSError where it was damaged."""
    if not stored.startswith(MAGIC):
        return stored
    length, _ = _lengths(stored)
    entry: bytes = _CODEC.decompress(stored[HEAD:], length, asbytes=True)
    return entry


def unpack_entries(content: bytes | mmap, begin: int, end: int) -> Iterator[bytes]:
    """Every packed entry in a part of a file, unpacked: for who looks for something in Flink's checkpoints."""
    for found in _MAGIC.finditer(content, begin, end):
        at = found.start() + HEAD
        length, packed = _lengths(content[found.start() : at])
        if length <= MOST and at + packed <= end:
            try:
                yield _CODEC.decompress(bytes(content[at : at + packed]), length, asbytes=True)
            except OSError:
                continue  # four bytes that only look like the beginning of one


def _lengths(head: bytes) -> tuple[int, int]:
    middle = len(MAGIC) + LENGTH
    return int.from_bytes(head[len(MAGIC) : middle], "little"), int.from_bytes(head[middle:HEAD], "little")
