"""Commands on cases, made from the name of an act and the fields that a caller gives."""

import uuid
from typing import Any

from console.cases.act_catalog import ACTS, AnalystAct
from console.cases.act_fields import FIELDS, REQUIRED
from console.times import now_ms
from domain.cases.commands import AnalystCommand
from domain.payment import holds_card_number


class BadAct(ValueError):
    """An act that makes no command. The message says which field is missing, unknown or unacceptable."""


def find_act(name: str) -> AnalystAct:
    """Return the act of this name. Raise BadAct if there is none."""
    if name not in ACTS:
        raise BadAct(f"there is no act {name}: it is one of {', '.join(ACTS)}")
    return ACTS[name]


def make_command(
    name: str, account_id: str, case_id: str, actor: str, seen_sequence: int, told: dict[str, Any], command_id: str = ""
) -> AnalystCommand:
    """Return the command of an act on a case, requested now.

    `told` are the fields of the act; fields that are None count as missing. Raise BadAct if a required field is
    missing, if the act has no such field, or if a text holds a card number.
    """
    act, given = find_act(name), {field: value for field, value in told.items() if value is not None}
    stray = sorted(given.keys() - set(act.fields))
    if stray:
        raise BadAct(f"{name} takes no {', '.join(stray)}; it takes {', '.join(act.fields) or 'nothing more'}")
    missing = [field for field in act.fields if field not in given and FIELDS[field].default is REQUIRED]
    if missing:
        raise BadAct(f"{name} needs {', '.join(missing)}")
    for field, value in given.items():
        if isinstance(value, str) and holds_card_number(value):
            raise BadAct(f"the {field} holds a card number, which must not be stored: leave it out")
    command: AnalystCommand = act.command(
        account_id=account_id,
        case_id=case_id,
        command_id=command_id or str(uuid.uuid4()),
        actor=actor,
        seen_sequence=seen_sequence,
        requested_at_ms=now_ms(),
        **{field: given.get(field, FIELDS[field].default) for field in act.fields},
    )
    return command
