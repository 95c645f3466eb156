"""Types of the texts that people and programs send: bounded, printable, and without card numbers."""

import re
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from domain.cases.answers import MAX_NOTE_CHARS, MAX_REASON_CHARS
from domain.masking import mask_card_numbers

MAX_NAMES: Final = 20
"""Maximum number of statuses, typologies or dispositions in one filter."""
_UNWANTED: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def _refuse_control_characters(text: str) -> str:
    """Refuse control characters other than tabs and line ends. Raises ValueError."""
    if _UNWANTED.search(text):
        raise ValueError("control characters are not taken")
    return text


def _no_card_number(text: str) -> str:
    if mask_card_numbers(text) != text:
        raise ValueError("this is a card number: send its token")
    return text


class RequestBody(BaseModel):
    """The base of request bodies: members that are not described are refused."""

    model_config = ConfigDict(extra="forbid")


Reason = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_REASON_CHARS),
    AfterValidator(_refuse_control_characters),
    AfterValidator(mask_card_numbers),
]
"""Why, in words."""
Note = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_NOTE_CHARS),
    AfterValidator(_refuse_control_characters),
    AfterValidator(mask_card_numbers),
]
"""What somebody found out."""
Token = Annotated[
    str,
    StringConstraints(min_length=1, max_length=128, pattern=r"^[!-~]([ -~]*[!-~])?$"),
    AfterValidator(_no_card_number),
]
"""The id of an account, a card, a device, a merchant, a payment."""
Word = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$"), AfterValidator(_no_card_number)]
"""A status, a typology."""
CASE_ID_PATTERN: Final = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
"""Regular expression of a case id, without anchors."""
CaseId = Annotated[str, StringConstraints(pattern=f"^{CASE_ID_PATTERN}$")]
PersonName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
ScoreBound = Annotated[int, Field(ge=0, le=10_000)]
"""Lower bound of a score filter."""
