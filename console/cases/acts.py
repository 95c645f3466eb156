"""Commands on cases from what a door was told: by the name of the act, with the fields that it takes."""

import time
import uuid
from collections.abc import Callable
from typing import Any, Final, get_args

from domain.cases.commands import (
    AddNote,
    AnalystCommand,
    ApproveClosing,
    ApproveReopening,
    AssignCase,
    CloseCase,
    EscalateCase,
    LinkCase,
    MergeCases,
    RefuseClosing,
    RefuseReopening,
    ReleaseCase,
    ReopenCase,
    SnoozeCase,
    TakeCase,
    UnlinkCase,
    UnmergeCase,
    WakeCase,
    WithdrawClosing,
    WithdrawReopening,
)
from domain.payment import holds_card_number

ACTS: Final[dict[str, type[AnalystCommand]]] = {
    "take": TakeCase,
    "assign": AssignCase,
    "release": ReleaseCase,
    "note": AddNote,
    "escalate": EscalateCase,
    "snooze": SnoozeCase,
    "wake": WakeCase,
    "close": CloseCase,
    "approve-closing": ApproveClosing,
    "refuse-closing": RefuseClosing,
    "withdraw-closing": WithdrawClosing,
    "reopen": ReopenCase,
    "approve-reopening": ApproveReopening,
    "refuse-reopening": RefuseReopening,
    "withdraw-reopening": WithdrawReopening,
    "merge": MergeCases,
    "unmerge": UnmergeCase,
    "link": LinkCase,
    "unlink": UnlinkCase,
}
"""What analysts can do, by the name that doors use."""
assert set(ACTS.values()) == set(get_args(AnalystCommand))
_COMMON: Final = ("account_id", "case_id", "command_id", "actor", "requested_at_ms", "seen_sequence")
_OPTIONAL: Final = {"typology": None, "attachments": ()}


class BadAct(ValueError):
    """What was told makes no command; the message says what is missing or must not be there."""


def fields_of(act: str) -> list[str]:
    """The fields that an act takes beside those of every command. Raises BadAct."""
    if act not in ACTS:
        raise BadAct(f"there is no act {act}: it is one of {', '.join(ACTS)}")
    return [name for name in ACTS[act].__struct_fields__ if name not in _COMMON]


def make_command(
    act: str, account_id: str, case_id: str, actor: str, seen_sequence: int, told: dict[str, Any], command_id: str = ""
) -> AnalystCommand:
    """The command of an act on a case, requested now. Fields that are None count as not told. Raises BadAct."""
    wanted, given = fields_of(act), {name: value for name, value in told.items() if value is not None}
    stray = sorted(given.keys() - set(wanted))
    if stray:
        raise BadAct(f"{act} takes no {', '.join(stray)}; it takes {', '.join(wanted) or 'nothing more'}")
    missing = [name for name in wanted if name not in given and name not in _OPTIONAL]
    if missing:
        raise BadAct(f"{act} needs {', '.join(missing)}")
    for name, value in given.items():
        if isinstance(value, str) and holds_card_number(value):
            raise BadAct(f"the {name} holds a card number, which must not be stored: say it without")
    make: Callable[..., AnalystCommand] = ACTS[act]  # its fields are those of `wanted`, which no type can say
    return make(
        account_id=account_id,
        case_id=case_id,
        command_id=command_id or str(uuid.uuid4()),
        actor=actor,
        seen_sequence=seen_sequence,
        requested_at_ms=time.time_ns() // 1_000_000,
        **{name: given.get(name, _OPTIONAL.get(name)) for name in wanted},
    )
