"""Types of the values that people and programs send: bounded, printable, and without card numbers."""

import re
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from console.people.accounts import MAX_NAME, NAME_PATTERN
from domain.cases.answers import MAX_NOTE_CHARS, MAX_REASON_CHARS
from domain.masking import mask_card_numbers
from domain.payment import LAST_EVENT_TIME_MS

MAX_PAGE: Final = 200
"""Maximum number of rows on a page."""
MAX_NAMES: Final = 20
"""Maximum number of statuses, typologies or dispositions in one filter."""
_UNWANTED: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def _refuse_control_characters(text: str) -> str:
    """Return the text. Raise ValueError if it has control characters other than tabs and line ends."""
    if _UNWANTED.search(text):
        raise ValueError("control characters are not allowed")
    return text


def _no_card_number(text: str) -> str:
    if mask_card_numbers(text) != text:
        raise ValueError("this is a card number: send its token instead")
    return text


class RequestBody(BaseModel):
    """Base of request bodies: a member that is not described is an error."""

    model_config = ConfigDict(extra="forbid")


Reason = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_REASON_CHARS),
    AfterValidator(_refuse_control_characters),
    AfterValidator(mask_card_numbers),
]
"""Reason, in words."""
Note = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_NOTE_CHARS),
    AfterValidator(_refuse_control_characters),
    AfterValidator(mask_card_numbers),
]
"""Text of a note."""
Token = Annotated[
    str,
    StringConstraints(min_length=1, max_length=128, pattern=r"^[!-~]([ -~]*[!-~])?$"),
    AfterValidator(_no_card_number),
]
"""Id of an account, a card, a device, a merchant or a payment."""
Word = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$"), AfterValidator(_no_card_number)]
"""Status, typology or disposition."""
CASE_ID_PATTERN: Final = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
"""Regular expression of a case id, without anchors."""
CaseId = Annotated[str, StringConstraints(pattern=f"^{CASE_ID_PATTERN}$")]
PersonName = Annotated[str, StringConstraints(pattern=f"^{NAME_PATTERN}$")]
PersonFilter = Annotated[str, Field(max_length=MAX_NAME)]
"""User name that a filter looks for, perhaps empty or unknown."""
Cursor = Annotated[str, Field(max_length=200)]
"""Cursor of a page of the queue."""
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
ScoreBound = Annotated[int, Field(ge=0, le=10_000)]
"""Lower bound of a score filter."""
TimeMs = Annotated[int, Field(ge=0, le=LAST_EVENT_TIME_MS)]
"""Time in UTC milliseconds, up to the end of the year 9999."""
