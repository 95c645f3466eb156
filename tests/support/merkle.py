"""The Merkle tree hash as RFC 9162 defines it, without an optimization."""

from hashlib import sha256


def naive_root(leaves: list[bytes]) -> bytes:
    """Return MTH of RFC 9162, section 2.1.1, over leaf hashes."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return sha256(b"\x01" + naive_root(leaves[:k]) + naive_root(leaves[k:])).digest()
