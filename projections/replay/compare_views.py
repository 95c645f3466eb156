"""Comparison of stored case views with derived ones."""

import hashlib
from collections.abc import Iterator, Mapping

from domain.digest import canonical_json
from projections.replay.outcome import CASE_VIEWS, Items, ReplayComparison, ReplayMismatch
from projections.views.case_view import Item


def views_digest(items: Items) -> str:
    """Return the SHA-256 over all items of the case table in key order, each as canonical JSON after its length.

    Leaves out `known_at_ms`: it is the only field that differs if the same payments are decided again. `compare_views`
    compares it.
    """
    return encoded_digest(
        {
            key: canonical_json({name: value for name, value in item.items() if name != "known_at_ms"})
            for key, item in items.items()
        }
    )


def encoded_digest(encoded: Mapping[tuple[str, str], bytes]) -> str:
    """Return the SHA-256 over items that are already canonical JSON, in key order, each after its length."""
    digest = hashlib.sha256()
    for key in sorted(encoded):
        digest.update(len(encoded[key]).to_bytes(8, "big") + encoded[key])
    return digest.hexdigest()


def compare_views(stored: Items, derived: Items) -> ReplayComparison:
    """Compare the items one by one. A stored item that is missing or older than the derived one is behind."""
    differences: list[ReplayMismatch] = []
    behind = sum(key not in stored for key in derived)
    for key in sorted(stored):
        item, wanted = stored[key], derived.get(key)
        if wanted is not None and _is_same(item, wanted):
            continue
        if wanted is not None and _is_behind(item, wanted):
            behind += 1
            continue
        recorded, expected = canonical_json(item), None if wanted is None else canonical_json(wanted)
        expected_text = shown_item(expected) if expected else "nothing"
        text = f"view item {' '.join(key)}: stored {shown_item(recorded)}, derived {expected_text}"
        differences.append(
            ReplayMismatch(CASE_VIEWS, None, None, item.get("account_id"), key, recorded, expected, text)
        )
    return ReplayComparison(differences, behind)


def _is_same(stored: Item, derived: Item) -> bool:
    """Return whether two items are equal; `known_at_ms` counts only if the log was read far enough to know it."""
    if "known_at_ms" in derived:
        return stored == derived
    return {name: value for name, value in stored.items() if name != "known_at_ms"} == derived


def _is_behind(stored: Item, derived: Item) -> bool:
    return int(stored.get("sequence", 0)) < int(derived.get("sequence", 0))


def shown_item(encoded: bytes) -> str:
    """Return the first 400 characters of an encoded item."""
    text = encoded.decode()
    return text if len(text) <= 400 else f"{text[:400]}…"


def stored_items(items: Iterator[Item]) -> Items:
    """Return the items of a case table by their keys."""
    return {(item["pk"], item["sk"]): item for item in items}
