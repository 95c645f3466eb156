"""Handle one analyst command over HTTP.

A retry with the same idempotency key gets the same answer. A command that names an old version of its case is
rejected, and its author gets the events that they missed.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from fastapi import Request, Response
from starlette.concurrency import run_in_threadpool

from console.cases.act_catalog import AnalystAct
from console.cases.desk import AnswerTimeout, CommandNotSent
from console.privacy.vault import VaultError
from console.web.act_bodies import CommandContext, build_command
from console.web.idempotency import IdempotencyKeyConflict, StoredAnswer, command_id, fingerprint
from console.web.inputs import RequestBody
from console.web.problems import Problem, answer
from console.web.services import ConsoleServices, board_of, person_of, services_of
from domain.cases.commands import Attachment, Command
from domain.cases.events import CaseEvent, CommandRejected, command_answered
from domain.digest import canonical_bytes
from domain.record_types import from_fields
from projections.views.case_view import CaseView

MAX_SEQUENCE: Final = 999_999_999
"""Highest version of a case that a request may name."""
REJECTION_STATUSES: Final = {
    "stale": 412,
    "unknown_case": 404,
    "invalid": 422,
    "second_person": 409,
}
"""HTTP status of a rejection, by its code. Every other code is a conflict, 409."""
BOARD_PATIENCE_S: Final = 2.0
"""Longest wait of an answer for the board, so that the next page shows what the command changed."""


def parse_sequence(text: str) -> int | None:
    """Return the version of a case that a text names, or None if it names none."""
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(MAX_SEQUENCE))
    return int(text) if is_number else None


def seen_sequence(if_match: str | None) -> int:
    """Return the version of the case in an If-Match header. Raise Problem if it is missing or malformed."""
    text = (if_match or "").removeprefix("W/").strip('"')
    if not text:
        raise Problem(428, "the version of the case is missing: send its ETag in the If-Match header")
    sequence = parse_sequence(text)
    if sequence is None:
        raise Problem(400, 'If-Match must be the ETag of a case, such as "7"')
    return sequence


async def answer_once(
    request: Request, key: str | None, parts: tuple[Any, ...], act: Callable[[str, bool], Awaitable[StoredAnswer]]
) -> Response:
    """Return the stored answer of a request with this idempotency key, or call `act` and store its answer.

    `parts` are what a retry must repeat. `act` gets the id of the command and True if this key was used before
    without an answer. Raise Problem if the key was used for another request.
    """
    services, person = services_of(request), person_of(request)
    made = command_id(person.person_id, key)
    if key is None:
        return make_response(await act(made, False))
    digest = fingerprint(request.method, request.url.path, *parts)
    try:
        came_before, known = await run_in_threadpool(services.requests.begin, made, digest)
    except IdempotencyKeyConflict as error:
        raise Problem(422, str(error)) from error
    if known is not None:
        return make_response(known)
    found = await act(made, came_before)
    await run_in_threadpool(services.requests.end, made, found)
    return make_response(found)


def make_response(found: StoredAnswer) -> Response:
    """Return the HTTP response for an answer."""
    kind = "application/json" if found.status < 400 else "application/problem+json"
    headers = {"ETag": found.etag} if found.etag else {}
    return Response(found.body, found.status, headers, kind)


async def act_on(
    request: Request, view: CaseView, act: AnalystAct, body: RequestBody, seen: int, made: str, again: bool
) -> StoredAnswer:
    """Send the command of an act on a case and return its answer.

    `seen` is the version of the case that the person saw, `made` the id of the command; `again` is True for a retry.
    Raise Problem if the command cannot be sent or has no answer yet.
    """
    services = services_of(request)
    if again and (found := await run_in_threadpool(earlier_answer, services, view.case_id, made)) is not None:
        return answer_from_event(found)
    context = CommandContext(
        account_id=view.account_id,
        case_id=view.case_id,
        command_id=made,
        actor=person_of(request).name,
        seen_sequence=seen,
        requested_at_ms=services.now_ms(),
    )
    attachments = await run_in_threadpool(find_named_files, services, view.case_id, body)
    event = await ask(services, build_command(act, body, context, attachments))
    await _wait_until_on_board(request, event)
    return answer_from_event(event)


async def ask(services: ConsoleServices, command: Command) -> CaseEvent:
    """Send a command and return the event that answers it. Raise Problem if there is none."""
    try:
        future = await run_in_threadpool(services.desk.send, command)
        return await asyncio.wait_for(asyncio.wrap_future(future), services.patience_s)
    except VaultError as error:
        raise Problem(
            503, "the text of the command cannot be sealed: the console's master key does not fit its vault"
        ) from error
    except CommandNotSent as error:
        raise Problem(503, "the command was not recorded: try again", {"Retry-After": "3"}) from error
    except (TimeoutError, AnswerTimeout) as error:
        raise Problem(504, "the command is recorded and has no answer yet: look at the case again, or send the "
                           "command again with the same idempotency key") from error  # fmt: skip


async def _wait_until_on_board(request: Request, event: CaseEvent) -> None:
    sequence = getattr(event, "sequence", 0)
    begun, board = time.monotonic(), board_of(request)
    while time.monotonic() - begun < BOARD_PATIENCE_S:
        view = board.view(event.case_id)
        if view is None or view.sequence >= sequence:
            return
        await asyncio.sleep(0.01)


def earlier_answer(services: ConsoleServices, case_id: str, made: str) -> CaseEvent | None:
    """Return the stored event that answered an earlier command, or None if no answer is stored yet."""
    for item in services.table.items_of(case_id):
        if item["sk"] != "view" and made in item["body"]:
            data = json.loads(item["body"])
            event = from_fields(data.pop("type"), data)
            assert isinstance(event, CaseEvent)
            if command_answered(event) == made:
                return event
    return None


def find_named_files(services: ConsoleServices, case_id: str, body: RequestBody) -> tuple[Attachment, ...]:
    """Return the files that a body names by digest. Raise Problem for a file that was not uploaded to the case."""
    digests: list[str] = getattr(body, "attachments", [])
    found = [(digest, services.attachments.find(case_id, digest)) for digest in dict.fromkeys(digests)]
    missing = [digest for digest, attachment in found if attachment is None]
    if missing:
        raise Problem(422, f"no file {missing[0]} was uploaded to this case")
    return tuple(attachment for _, attachment in found if attachment is not None)


def answer_from_event(event: CaseEvent) -> StoredAnswer:
    """Return the answer to a command from the event that answers it."""
    if isinstance(event, CommandRejected):
        return answer_from_rejection(event)
    sequence = getattr(event, "sequence", None)
    fields = json.loads(canonical_bytes(event))
    document = {"answer": fields.pop("type"), "sequence": sequence, "event": fields}
    return StoredAnswer(200, None if sequence is None else etag_of(sequence), json.dumps(document))


def answer_from_rejection(event: CommandRejected) -> StoredAnswer:
    """Return a rejection as a problem document: its code, its reason, and the events that its author missed."""
    status = REJECTION_STATUSES.get(event.code or "", 409)
    missed = [{"sequence": each.sequence, "kind": each.kind} for each in event.missed]
    problem = Problem(status, event.reason, code=event.code or "rejected", missed=missed, command_id=event.command_id)
    return StoredAnswer(status, None, bytes(answer(problem).body).decode())


def etag_of(sequence: int) -> str:
    """Return the ETag of a version of a case."""
    return f'"{sequence}"'
