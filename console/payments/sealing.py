"""Sealing of payments on their way into payments.inbound: attributes encrypted, places rounded."""

from collections.abc import Mapping
from typing import Any, Final

from console.privacy.sealer import Sealer
from domain.geo import round_angle
from domain.masking import mask_card_numbers
from domain.payment import Refusal

PLACES: Final = ("latitude", "longitude", "home_latitude", "home_longitude")
ATTRIBUTE_FIELD: Final = "attribute"
"""Field name of a sealed attribute; it is bound into the sealed text."""
_SEPARATOR: Final = "\x1f"


def prepare_row(row: Mapping[str, Any], sealer: Sealer, decimals: int | None = None) -> Mapping[str, Any] | Refusal:
    """Return the row as it enters the log: attributes sealed, places rounded to `decimals`. Or return its refusal.

    The rules read tokens and places. Other personal data is in the attributes. Card numbers are masked before
    sealing. Raise TypeError, ValueError or AttributeError if the row does not have the fields of Transaction.
    """
    attributes = row.get("attributes")
    if attributes:
        if any(_SEPARATOR in value for value in attributes.values()):  # the folds refuse it, and cannot see it sealed
            return Refusal("control_character", "an attribute holds the unit separator, U+001F")
        account = row["account_id"]
        sealed = {
            name: sealer.seal(account, ATTRIBUTE_FIELD, mask_card_numbers(value)) for name, value in attributes.items()
        }
        row = {**row, "attributes": sealed}
    if decimals is not None:
        row = {**row, **{name: round_angle(row[name], decimals) for name in PLACES if row.get(name) is not None}}
    return row
