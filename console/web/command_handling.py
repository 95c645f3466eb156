"""A command from the door to its answer: sent again it gets the same one, and who saw too little is told what."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from fastapi import Request, Response
from starlette.concurrency import run_in_threadpool

from console.cases.desk import AnswerTimeout, CommandNotSent
from console.privacy.vault import VaultError
from console.web.commands import CommandContext, CommandKind, NoteBody, command_of
from console.web.idempotency import IdempotencyKeyConflict, StoredAnswer, command_id, fingerprint
from console.web.inputs import RequestBody
from console.web.problems import Problem, answer
from console.web.services import ConsoleServices, board_of, person_of, services_of
from domain.cases.commands import Attachment, Command
from domain.cases.events import CaseEvent, CommandRejected, command_answered
from domain.digest import canonical_bytes
from domain.record_types import from_fields
from projections.views.case_view import CaseView

STATUSES: Final = {
    "stale": 412,
    "unknown_case": 404,
    "invalid": 422,
    "second_person": 409,
}
"""Of rejections by their code; the others are conflicts."""
SEEN_WITHIN_S: Final = 2.0
"""How long an answer waits until the board shows it too: who acts and looks sees what they did."""


def seen_sequence(if_match: str | None) -> int:
    """The version of the case that the asker has seen. Raises Problem."""
    text = (if_match or "").removeprefix("W/").strip('"')
    if not text:
        raise Problem(428, "say which version of the case you saw: If-Match with its ETag")
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise Problem(400, 'If-Match must be the ETag of a case, such as "7"')
    return int(text)


async def answer_once(
    request: Request, key: str | None, asked: tuple[Any, ...], act: Callable[[str, bool], Awaitable[StoredAnswer]]
) -> Response:
    """Do it, unless the same request with the same key has an answer: then that. `act` is told if it came before."""
    doors, person = services_of(request), person_of(request)
    made = command_id(person.person_id, key)
    if key is None:
        return make_response(await act(made, False))
    digest = fingerprint(request.method, request.url.path, *asked)
    try:
        came_before, known = await run_in_threadpool(doors.requests.begin, made, digest)
    except IdempotencyKeyConflict as error:
        raise Problem(422, str(error)) from error
    if known is not None:
        return make_response(known)
    found = await act(made, came_before)
    await run_in_threadpool(doors.requests.end, made, found)
    return make_response(found)


def make_response(found: StoredAnswer) -> Response:
    """An answer as it goes out."""
    kind = "application/json" if found.status < 400 else "application/problem+json"
    headers = {"ETag": found.etag} if found.etag else {}
    return Response(found.body, found.status, headers, kind)


async def act_on(
    request: Request, view: CaseView, kind: CommandKind, body: RequestBody, seen: int, made: str, again: bool
) -> StoredAnswer:
    """Send a command on a case and wait for what becomes of it. Raises Problem where nothing is known of that."""
    doors = services_of(request)
    if again and (found := await run_in_threadpool(earlier_answer, doors, view.case_id, made)) is not None:
        return answer_from_event(found)
    order = CommandContext(
        account_id=view.account_id,
        case_id=view.case_id,
        command_id=made,
        actor=person_of(request).name,
        seen_sequence=seen,
        requested_at_ms=doors.now_ms(),
    )
    attachments = await run_in_threadpool(find_named_files, doors, view.case_id, body)
    event = await ask(doors, command_of(kind, body, order, attachments))
    await _wait_until_on_board(request, event)
    return answer_from_event(event)


async def ask(doors: ConsoleServices, command: Command) -> CaseEvent:
    """The answer to a command. Raises Problem."""
    try:
        future = await run_in_threadpool(doors.desk.send, command)
        return await asyncio.wait_for(asyncio.wrap_future(future), doors.patience_s)
    except VaultError as error:
        raise Problem(503, "nothing can be sealed here: the console's master key is not the one") from error
    except CommandNotSent as error:
        raise Problem(503, "the command was not recorded: try again", {"Retry-After": "3"}) from error
    except (TimeoutError, AnswerTimeout) as error:
        raise Problem(504, "the command is recorded and not answered yet: look at the case again, or send it again "
                           "with the same idempotency key") from error  # fmt: skip


async def _wait_until_on_board(request: Request, event: CaseEvent) -> None:
    sequence = getattr(event, "sequence", 0)
    begun, board = time.monotonic(), board_of(request)
    while time.monotonic() - begun < SEEN_WITHIN_S:
        view = board.view(event.case_id)
        if view is None or view.sequence >= sequence:
            return
        await asyncio.sleep(0.01)


def earlier_answer(doors: ConsoleServices, case_id: str, made: str) -> CaseEvent | None:
    """What a command that was sent before was answered with, if that is stored by now."""
    for item in doors.table.items_of(case_id):
        if item["sk"] != "view" and made in item["body"]:
            data = json.loads(item["body"])
            event = from_fields(data.pop("type"), data)
            assert isinstance(event, CaseEvent)
            if command_answered(event) == made:
                return event
    return None


def find_named_files(doors: ConsoleServices, case_id: str, body: RequestBody) -> tuple[Attachment, ...]:
    """The files that a note names. Raises Problem for one that was not uploaded."""
    digests = body.attachments if isinstance(body, NoteBody) else []
    found = [(digest, doors.attachments.find(case_id, digest)) for digest in dict.fromkeys(digests)]
    missing = [digest for digest, attachment in found if attachment is None]
    if missing:
        raise Problem(422, f"no file {missing[0]} was uploaded to this case")
    return tuple(attachment for _, attachment in found if attachment is not None)


def answer_from_event(event: CaseEvent) -> StoredAnswer:
    """An event as the answer to the command that it answers."""
    if isinstance(event, CommandRejected):
        return answer_from_rejection(event)
    sequence = getattr(event, "sequence", None)
    fields = json.loads(canonical_bytes(event))
    document = {"answer": fields.pop("type"), "sequence": sequence, "event": fields}
    return StoredAnswer(200, None if sequence is None else etag_of(sequence), json.dumps(document))


def answer_from_rejection(event: CommandRejected) -> StoredAnswer:
    """A rejection as a problem: why, for people and for programs, and what its author had not seen."""
    status = STATUSES.get(event.code or "", 409)
    missed = [{"sequence": each.sequence, "kind": each.kind} for each in event.missed]
    problem = Problem(status, event.reason, code=event.code or "rejected", missed=missed, command_id=event.command_id)
    return StoredAnswer(status, None, bytes(answer(problem).body).decode())


def etag_of(sequence: int) -> str:
    """The version of a case, as the header has it."""
    return f'"{sequence}"'
