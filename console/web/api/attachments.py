"""Files to and from a case."""

import hashlib
import re
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import FastAPI, File, Request, Response, UploadFile
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from console.cases.attachments import MAX_BYTES, ErasedFile, UnacceptableFile
from console.web.inputs import CaseId, Sha256
from console.web.problems import PROBLEMS, Problem
from console.web.services import board_of, person_of, services_of

OVERHEAD = 16 << 10
"""Of a form around its file."""


class UploadedFile(BaseModel):
    """A file that a note may name by its digest."""

    file_name: str
    size: int
    media_type: str
    sha256: str


def register(app: FastAPI) -> None:
    """Add these routes."""
    shared: dict[str, Any] = {"tags": ["attachments"], "responses": PROBLEMS}
    path = "/api/v1/cases/{case_id}/attachments"
    app.post(path, status_code=201, max_body_size=MAX_BYTES + OVERHEAD, **shared)(upload)
    app.get(path + "/{sha256}", response_class=Response, **shared)(download)


async def upload(request: Request, case_id: CaseId, file: Annotated[UploadFile, File()]) -> UploadedFile:
    """Keep a file for a note on this case; the note names it by its digest."""
    doors = services_of(request)
    view = board_of(request).view(case_id)
    if view is None:
        raise Problem(404, "there is no such case")
    body = await file.read(MAX_BYTES + 1)
    try:
        stored = await run_in_threadpool(doors.attachments.store, case_id, view.account_id, file.filename or "", body)
    except UnacceptableFile as error:
        raise Problem(error.status, str(error)) from error
    return UploadedFile(
        file_name=stored.file_name, size=stored.size, media_type=stored.media_type, sha256=stored.sha256
    )


async def download(request: Request, case_id: CaseId, sha256: Sha256) -> Response:
    """A file, to be kept and not shown: nothing that somebody uploaded runs in our pages."""
    doors = services_of(request)
    try:
        found = await run_in_threadpool(doors.attachments.read, case_id, sha256)
    except ErasedFile as error:
        raise Problem(410, "the file was erased") from error
    if found is None:
        raise Problem(404, "there is no such file on this case")
    await run_in_threadpool(doors.people.log, person_of(request).name, "download", f"{case_id} {sha256}", "done")
    name = await run_in_threadpool(doors.vault.opened, found.attachment.file_name)
    disposition = f"attachment; filename=\"{_ascii(name)}\"; filename*=UTF-8''{quote(name, safe='')}"
    return Response(
        found.body,
        media_type="application/octet-stream",
        headers={"Content-Disposition": disposition, "Digest": f"sha-256={hashlib.sha256(found.body).hexdigest()}"},
    )


def _ascii(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)
