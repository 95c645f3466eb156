"""How pages say amounts, times and names: money by its currency, times in UTC with how long ago that was."""

from datetime import UTC, datetime
from typing import Any, Final

from markupsafe import Markup

from domain.currencies import DECIMALS

NOTHING: Final = "\u2013"
"""Stands where there is nothing to say."""
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
_UNITS: Final = ((DAY_MS, "d"), (HOUR_MS, "h"), (MINUTE_MS, "min"), (1000, "s"))
_NAMES: Final = {
    "sla": "SLA", "pending_approval": "awaiting approval", "ECOM": "online", "POS": "at a terminal",
    "ATM": "at a cash machine",
}  # fmt: skip


def money(amount_minor: int, currency: str) -> str:
    """An amount as people write it: 1,234.50 EUR, 1,235 JPY."""
    decimals = DECIMALS.get(currency, 2)
    sign, size = "-" if amount_minor < 0 else "", abs(amount_minor)
    whole, part = divmod(size, 10**decimals)
    return f"{sign}{whole:,}{f'.{part:0{decimals}d}' if decimals else ''} {currency}"


def moneys(value_minor: dict[str, int]) -> str:
    """Amounts in several currencies, the largest number first."""
    amounts = sorted(value_minor.items(), key=lambda pair: -pair[1] / 10 ** DECIMALS.get(pair[0], 2))
    return ", ".join(money(amount, currency) for currency, amount in amounts if amount) or "nothing"


def words(name: str | None) -> str:
    """The name of a thing in our code, as words."""
    if name is None:
        return NOTHING
    return _NAMES.get(name, name.replace("_", " ").replace("-", " "))


def title(name: str | None) -> str:
    """The same, to begin a line with."""
    text = words(name)
    return text[:1].upper() + text[1:]


def kind_words(kind: str) -> str:
    """The kind of an event, as words: `CaseEscalated` is "case escalated"."""
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in kind).strip()


def duration(span_ms: int) -> str:
    """A span of time in its two largest units."""
    rest, parts = abs(span_ms), []
    for size, unit in _UNITS:
        many, rest = divmod(rest, size)
        if many:
            parts.append(f"{many} {unit}")
        if len(parts) == 2 or (parts and not many):
            break
    return " ".join(parts) or "0 s"


def utc(at_ms: int) -> str:
    """A time to the second."""
    return _second(at_ms).replace("T", " ")


def iso(at_ms: int) -> str:
    """A time to the millisecond, for programs."""
    return f"{_second(at_ms)}.{at_ms % 1000:03}Z"


def _second(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms // 1000, UTC).isoformat()[:19]


def clock(at_ms: int | None) -> Markup:
    """A time as people read it, with how long ago it was; the page keeps that up to date."""
    if at_ms is None:
        return Markup('<span class="quiet">unknown</span>')
    whole = iso(at_ms)
    return Markup(  # noqa: S704 - all of it is made of numbers
        f'<time datetime="{whole}" title="{whole}">{utc(at_ms)}<span class="zone"> UTC</span></time> {ago(at_ms)}'
    )


def ago(at_ms: int) -> Markup:
    """How long ago something was, or how long it will be until then."""
    return Markup(f'<span class="ago" data-ago="{at_ms:d}"></span>')  # noqa: S704 - it is made of a number


def measured(value: int, measure: str, currency: str) -> str:
    """A rule's measure with its unit."""
    if measure == "minor units":
        return money(value, currency)
    if measure == "m" and abs(value) >= 10_000:
        return f"{value // 1000:,} km"
    if measure == "value" or measure.startswith("in list"):
        return f"{value:,}"
    if measure.startswith("permille"):
        return f"{value / 10:g} %{measure.removeprefix('permille')}"
    return f"{value:,} {measure}"


def short_id(identity: str) -> str:
    """The beginning of a long id; its whole stands in the link."""
    return identity if len(identity) <= 14 else identity[:8]


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: "1 payment", "2,000 payments"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def count(number: float) -> str:
    """A number as people read it, with one decimal where it is not whole."""
    return f"{number:,.0f}" if number == int(number) else f"{number:,.1f}"


def figure_text(value: Any) -> str:
    """Format a figure for a table: thousands separators, four decimals, yes or no, `-` for None."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.4f}" if isinstance(value, float) else str(value)


FILTERS: Final[dict[str, Any]] = {
    "money": money, "moneys": moneys, "words": words, "heading": title, "kind_words": kind_words, "duration": duration,
    "utc": utc, "iso": iso, "clock": clock, "ago": ago, "short_id": short_id,
    "measured": measured, "count": count,
}  # fmt: skip
"""What templates call."""
