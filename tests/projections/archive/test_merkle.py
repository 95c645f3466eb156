"""The Merkle tree against a naive one that follows the text of RFC 9162, and against published vectors."""

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from console.evidence.verify_pack import is_consistent, is_included
from projections.archive.merkle import EMPTY, Frontier, MerkleTree, leaf_hash
from tests.support.merkle import naive_root

ENTRIES = [bytes.fromhex(each) for each in (
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
)]  # fmt: skip
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
"""Roots of the first 1 to 8 entries, from the tests of Certificate Transparency."""


def naive_path(m: int, leaves: list[bytes]) -> list[bytes]:
    """Return PATH of RFC 9162, section 2.1.3.1."""
    if len(leaves) == 1:
        return []
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if m < k:
        return [*naive_path(m, leaves[:k]), naive_root(leaves[k:])]
    return [*naive_path(m - k, leaves[k:]), naive_root(leaves[:k])]


def naive_subproof(m: int, leaves: list[bytes], known: bool) -> list[bytes]:
    """Return SUBPROOF of RFC 9162, section 2.1.4.1."""
    if m == len(leaves):
        return [] if known else [naive_root(leaves)]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if m <= k:
        return [*naive_subproof(m, leaves[:k], known), naive_root(leaves[k:])]
    return [*naive_subproof(m - k, leaves[k:], False), naive_root(leaves[:k])]


def leaves_of(count: int) -> list[bytes]:
    return [leaf_hash(b"%d" % number) for number in range(count)]


def test_published_vectors() -> None:
    leaves = [leaf_hash(entry) for entry in ENTRIES]
    assert [MerkleTree(leaves[:n]).root().hex() for n in range(1, 9)] == ROOTS
    assert [Frontier().extend(leaves[:n]).root().hex() for n in range(1, 9)] == ROOTS
    assert MerkleTree([]).root() == Frontier().root() == EMPTY == sha256(b"").digest()


@pytest.mark.parametrize("size", [*range(1, 34), 63, 64, 65, 100])
def test_every_proof_of_small_trees(size: int) -> None:
    leaves = leaves_of(size)
    tree, root = MerkleTree(leaves), naive_root(leaves)
    assert tree.root() == root
    for index in range(size):
        path = tree.inclusion(index)
        assert path == naive_path(index, leaves)
        assert is_included(leaves[index], index, size, path, root)
        assert not is_included(leaves[index], (index + 1) % (size + 1), size, path, root)
    for old in range(1, size + 1):
        path = tree.consistency(old)
        assert path == naive_subproof(old, leaves, True)
        assert is_consistent(old, naive_root(leaves[:old]), size, root, path)


@settings(deadline=None)
@given(st.integers(1, 300), st.data())
def test_proof_of_another_leaf_or_tree_is_refused(size: int, data: st.DataObject) -> None:
    leaves = leaves_of(size)
    tree, root = MerkleTree(leaves), naive_root(leaves)
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    path, grown = tree.inclusion(index), tree.consistency(old)
    assert not is_included(leaf_hash(b"other"), index, size, path, root)
    assert not is_included(leaves[index], index, size, [*path, root], root)
    assert not is_included(leaves[index], index, size, path, leaves[index][::-1])
    if path:
        assert not is_included(leaves[index], index, size, path[1:], root)
        assert not is_included(leaves[index], index, size, path[:-1], root)
    rewritten = naive_root([leaf_hash(b"other"), *leaves[1:old]])
    assert not is_consistent(old, rewritten, size, root, grown)
    assert not is_consistent(old, naive_root(leaves[:old]), size, root, [*grown, root])


@settings(deadline=None)
@given(st.lists(st.binary(max_size=4), max_size=70), st.data())
def test_frontier_equals_the_tree_however_it_grew(entries: list[bytes], data: st.DataObject) -> None:
    leaves = [leaf_hash(entry) for entry in entries]
    cut = data.draw(st.integers(0, len(leaves)))
    first = Frontier().extend(leaves[:cut])
    again = Frontier(first.size, first.peaks).extend(leaves[cut:])
    assert (again.size, again.root()) == (len(leaves), naive_root(leaves))
    assert first.root() == naive_root(leaves[:cut])


@settings(deadline=None)
@given(st.integers(1, 80), st.data())
def test_replaced_leaf_results_in_the_root_of_the_tree_with_it(size: int, data: st.DataObject) -> None:
    leaves, index = leaves_of(size), data.draw(st.integers(0, size - 1))
    tree = MerkleTree(leaves)
    tree.replace(index, leaf_hash(b"new"))
    leaves[index] = leaf_hash(b"new")
    assert tree.root() == naive_root(leaves)
    assert [tree.inclusion(n) for n in range(size)] == [naive_path(n, leaves) for n in range(size)]
