"""Formats of amounts, times and names: money by its currency, times in UTC with their age."""

from datetime import UTC, datetime
from typing import Any, Final

from markupsafe import Markup

from domain.currencies import DECIMALS
from domain.durations import DAY_MS, HOUR_MS, MINUTE_MS

NOTHING: Final = "\u2013"
"""Shown in place of a missing value."""
_UNITS: Final = ((DAY_MS, "d"), (HOUR_MS, "h"), (MINUTE_MS, "min"), (1000, "s"))
_NAMES: Final = {
    "sla": "SLA", "pending_approval": "awaiting approval", "ECOM": "online", "POS": "at a terminal",
    "ATM": "at a cash machine",
}  # fmt: skip


def money(amount_minor: int, currency: str) -> str:
    """Format an amount in minor units, e.g. 1,234.50 EUR or 1,235 JPY."""
    decimals = DECIMALS.get(currency, 2)
    sign, size = "-" if amount_minor < 0 else "", abs(amount_minor)
    whole, part = divmod(size, 10**decimals)
    return f"{sign}{whole:,}{f'.{part:0{decimals}d}' if decimals else ''} {currency}"


def moneys(value_minor: dict[str, int]) -> str:
    """Format amounts in several currencies, the largest number first."""
    amounts = sorted(value_minor.items(), key=lambda pair: -pair[1] / 10 ** DECIMALS.get(pair[0], 2))
    return ", ".join(money(amount, currency) for currency, amount in amounts if amount) or "nothing"


def words(name: str | None) -> str:
    """Turn a name in the code into words."""
    if name is None:
        return NOTHING
    return _NAMES.get(name, name.replace("_", " ").replace("-", " "))


def title(name: str | None) -> str:
    """Turn a name in the code into words that begin with a capital letter."""
    text = words(name)
    return text[:1].upper() + text[1:]


def kind_words(kind: str) -> str:
    """Turn the kind of an event into words: `CaseEscalated` becomes "case escalated"."""
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in kind).strip()


def duration(span_ms: int) -> str:
    """Format a duration in its two largest units."""
    rest, parts = abs(span_ms), []
    for size, unit in _UNITS:
        many, rest = divmod(rest, size)
        if many:
            parts.append(f"{many} {unit}")
        if len(parts) == 2 or (parts and not many):
            break
    return " ".join(parts) or "0 s"


def utc(at_ms: int) -> str:
    """Format a time to the second."""
    return _second(at_ms).replace("T", " ")


def iso(at_ms: int) -> str:
    """Format a time to the millisecond, for programs."""
    return f"{_second(at_ms)}.{at_ms % 1000:03}Z"


def _second(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms // 1000, UTC).isoformat()[:19]


def clock(at_ms: int | None) -> Markup:
    """Format a time for people, with its age, which the page keeps up to date."""
    if at_ms is None:
        return Markup('<span class="quiet">unknown</span>')
    whole = iso(at_ms)
    return Markup(  # noqa: S704 - it consists of numbers
        f'<time datetime="{whole}" title="{whole}">{utc(at_ms)}<span class="zone"> UTC</span></time> {ago(at_ms)}'
    )


def ago(at_ms: int) -> Markup:
    """Return a placeholder that the page fills with the time since, or until, this moment."""
    return Markup(f'<span class="ago" data-ago="{at_ms:d}"></span>')  # noqa: S704 - it consists of a number


def measured(value: int, measure: str, currency: str) -> str:
    """Format a rule's measure with its unit."""
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
    """Shorten a long id to its beginning; the link beside it holds the whole id."""
    return identity if len(identity) <= 14 else identity[:8]


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: "1 payment", "2,000 payments"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def count(number: float) -> str:
    """Format a number for people, with one decimal unless it is whole."""
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
"""Filters that templates use."""
