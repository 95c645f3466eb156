"""Packing of Flink state entries with LZ4. Every checkpoint copies and writes all of them, and payments look alike.

A chunk of payments shrinks to about a third in a few microseconds, once; every later checkpoint writes the packed form.
"""

import re
from collections.abc import Iterator
from mmap import mmap

from pyarrow import Codec

MAGIC = b"\xf8lz4"
"""First bytes of a packed entry. An unpacked one never has them: a pickle begins with 0x80, JSON with a bracket."""
LENGTH = 4
"""Size in bytes of each of the two lengths after MAGIC, little-endian: of the entry, and of its packed form."""
HEAD = len(MAGIC) + 2 * LENGTH
LEAST = 256
"""Minimum length in bytes of an entry that is packed."""
MOST = 1 << 28
"""Maximum length in bytes of an entry; bytes that claim more are no packed entry."""
_CODEC = Codec("lz4_raw")
_MAGIC = re.compile(re.escape(MAGIC))


def pack(entry: bytes) -> bytes:
    """Return the stored form of an entry: packed, or unchanged if it is shorter than LEAST bytes."""
    if len(entry) < LEAST:
        return entry
    packed: bytes = _CODEC.compress(entry, asbytes=True)
    return b"".join((MAGIC, len(entry).to_bytes(LENGTH, "little"), len(packed).to_bytes(LENGTH, "little"), packed))


def unpack(stored: bytes) -> bytes:
    """Return an entry from its stored form. Raise OSError if the stored form is damaged."""
    if not stored.startswith(MAGIC):
        return stored
    length, _ = _lengths(stored)
    entry: bytes = _CODEC.decompress(stored[HEAD:], length, asbytes=True)
    return entry


def unpack_entries(content: bytes | mmap, begin: int, end: int) -> Iterator[bytes]:
    """Yield every packed entry in `content[begin:end]`, unpacked, e.g. to search the files of a checkpoint."""
    for match in _MAGIC.finditer(content, begin, end):
        start = match.start() + HEAD
        length, packed = _lengths(content[match.start() : start])
        if length <= MOST and start + packed <= end:
            try:
                yield _CODEC.decompress(bytes(content[start : start + packed]), length, asbytes=True)
            except OSError:
                continue  # the four bytes of MAGIC by chance


def _lengths(head: bytes) -> tuple[int, int]:
    middle = len(MAGIC) + LENGTH
    return int.from_bytes(head[len(MAGIC) : middle], "little"), int.from_bytes(head[middle:HEAD], "little")
