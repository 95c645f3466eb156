"""Where the live figures come from."""

from collections.abc import Mapping

from console.live import Paid
from console.web.evidence import Seen


def seen_of(payments: Mapping[str, Paid]) -> dict[str, Seen]:
    """Remembered payments as pages take them."""
    return {
        name: Seen(
            transaction_id=paid.transaction_id, event_time=paid.event_time, amount_minor=paid.amount_minor,
            currency=paid.currency, merchant_id=paid.merchant_id, country=paid.country, channel=paid.channel,
            payment_method=paid.payment_method,
        )
        for name, paid in payments.items()
    }  # fmt: skip
