"""Compare stored case views with derived ones."""

import hashlib
from collections.abc import Iterator, Mapping

from domain.digest import canonical_json
from projections.replay.outcome import CASE_VIEWS, Items, ReplayComparison, ReplayMismatch
from projections.views.case_view import Item


def views_digest(items: Items) -> str:
    """SHA-256 over all items of the case table by their keys, each as canonical JSON preceded by its length.

    Without `known_at_ms`: when a record was written is the one thing that differs where the same payments are decided
    again. `compare_views` looks at it.
    """
    return encoded_digest(
        {
            key: canonical_json({name: value for name, value in item.items() if name != "known_at_ms"})
            for key, item in items.items()
        }
    )


def encoded_digest(encoded: Mapping[tuple[str, str], bytes]) -> str:
    """The same of items that are canonical JSON already."""
    digest = hashlib.sha256()
    for key in sorted(encoded):
        digest.update(len(encoded[key]).to_bytes(8, "big") + encoded[key])
    return digest.hexdigest()


def compare_views(stored: Items, derived: Items) -> ReplayComparison:
    """Item by item."""
    differences: list[ReplayMismatch] = []
    behind = sum(key not in stored for key in derived)
    for key in sorted(stored):
        item, wanted = stored[key], derived.get(key)
        if wanted is not None and _is_same(item, wanted):
            continue
        if wanted is not None and _is_behind(item, wanted):
            behind += 1
            continue
        was, should = canonical_json(item), None if wanted is None else canonical_json(wanted)
        should_text = shown_item(should) if should else "nothing"
        text = f"view item {' '.join(key)}: stored {shown_item(was)}, derived {should_text}"
        differences.append(ReplayMismatch(CASE_VIEWS, None, None, item.get("account_id"), key, was, should, text))
    return ReplayComparison(differences, behind)


def _is_same(stored: Item, derived: Item) -> bool:
    """When a record was written is compared where the log was read as far: the table may have got ahead since."""
    if "known_at_ms" in derived:
        return stored == derived
    return {name: value for name, value in stored.items() if name != "known_at_ms"} == derived


def _is_behind(stored: Item, derived: Item) -> bool:
    return int(stored.get("sequence", 0)) < int(derived.get("sequence", 0))


def shown_item(encoded: bytes) -> str:
    text = encoded.decode()
    return text if len(text) <= 400 else f"{text[:400]}…"


def stored_items(items: Iterator[Item]) -> Items:
    """The items of a case table by their keys."""
    return {(item["pk"], item["sk"]): item for item in items}
