"""Plant an act in the catalogue, then read what the console made of it: `python -m tests.support.planted_act FOLDER`.

This is a program of its own: routes, permissions and subcommands are made when their modules are imported.
"""

import json
import re
import sys
from concurrent.futures import Future
from pathlib import Path

from typer.testing import CliRunner

from console.cases.act_catalog import ACTS, ActAnswer, AnalystAct
from console.people.roles import Permission
from domain.cases.commands import Command, VersionedCommand
from domain.cases.events import CaseEvent, CaseReleased


class FreezeCase(VersionedCommand, frozen=True, kw_only=True):
    """Command of the planted act."""

    reason: str


class FreezingDesk:
    """Desk that records commands and answers each of them with an event of the case."""

    def __init__(self) -> None:
        self.commands: list[Command] = []

    def send(self, command: Command) -> "Future[CaseEvent]":
        """Record a command and answer it."""
        self.commands.append(command)
        future: Future[CaseEvent] = Future()
        future.set_result(
            CaseReleased(
                account_id=command.account_id,
                case_id=command.case_id,
                sequence=1,
                command_id=command.command_id,
                actor=command.actor,
                previous_assignee="ann",
                released_at_ms=command.requested_at_ms,
            )
        )
        return future


ACTS["freeze"] = AnalystAct(
    name="freeze",
    command=FreezeCase,
    summary="Freeze a case.",
    permission=Permission.LEAD_CASES,
    answers=(ActAnswer(event=CaseReleased, message="Frozen", undo="wake"),),
    is_offered=lambda _, __: True,
    label="Freeze",
    key="f",
    bulk_label="Freeze",
)


def report(folder: Path) -> dict[str, object]:
    """Return what routes, pages and the command line know of the planted act."""
    from console.cli.app import app as command_line
    from console.people.roles import Role
    from console.web.route_permissions import ROUTES
    from tests.support.desk import opened

    sender = FreezingDesk()
    with opened(folder, desk=sender) as desk:
        case_id = desk.case()
        lead, analyst = desk.signed_in(Role.LEAD, name="lea"), desk.signed_in(Role.ANALYST, name="ann")
        path, body = f"/cases/{case_id}/freeze", {"reason": "a court order"}
        headers = {"If-Match": '"1"'}
        operation = lead.get("/api/v1/openapi.json").json()["paths"]["/api/v1/cases/{case_id}/freeze"]["post"]
        form = {**body, "seen_sequence": "1"}
        return {
            "operation": {name: operation[name] for name in ("operationId", "summary")},
            "permissions": sorted(f"{route} {ROUTES[route]}" for route in ROUTES if route.endswith("/freeze")),
            "button": _button(lead.get(f"/cases/{case_id}").text),
            "button of an analyst": _button(analyst.get(f"/cases/{case_id}").text),
            "dialog": 'id="dialog-freeze"' in lead.get(f"/cases/{case_id}").text,
            "key in the help": "<dt><kbd>f</kbd></dt><dd>freeze</dd>" in lead.get(f"/cases/{case_id}").text,
            "bulk action": '<option value="freeze">Freeze</option>' in lead.get("/queue").text,
            "status for a lead": lead.post(f"/api/v1{path}", json=body, headers=headers).status_code,
            "status for an analyst": analyst.post(f"/api/v1{path}", json=body, headers=headers).status_code,
            "status without a reason": lead.post(f"/api/v1{path}", json={}, headers=headers).status_code,
            "page": lead.post(path, data=form).text,
            "commands": [[type(command).__name__, command.actor] for command in sender.commands],
            "help": re.sub(r"\s+", " ", CliRunner().invoke(command_line, ["case", "act", "freeze", "--help"]).output),
        }


def _button(page: str) -> str:
    found = re.search(r'<button[^>]*data-dialog="freeze"[^>]*>', page)
    return found.group() if found else ""


if __name__ == "__main__":
    sys.stdout.write(json.dumps(report(Path(sys.argv[1]))))
