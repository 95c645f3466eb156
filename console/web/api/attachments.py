"""API routes that upload and download the files of a case."""

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

FORM_OVERHEAD = 16 << 10
"""Size of a form without its file, in bytes."""


class UploadedFile(BaseModel):
    """Description of an uploaded file. A note names the file by its digest."""

    file_name: str
    size: int
    media_type: str
    sha256: str


def register(app: FastAPI) -> None:
    """Add the routes of this module."""
    shared: dict[str, Any] = {"tags": ["attachments"], "responses": PROBLEMS}
    path = "/api/v1/cases/{case_id}/attachments"
    app.post(path, status_code=201, max_body_size=MAX_BYTES + FORM_OVERHEAD, **shared)(upload)
    app.get(path + "/{sha256}", response_class=Response, **shared)(download)


async def upload(request: Request, case_id: CaseId, file: Annotated[UploadFile, File()]) -> UploadedFile:
    """Store a file for a note on this case. The note names it by its digest."""
    services = services_of(request)
    view = board_of(request).view(case_id)
    if view is None:
        raise Problem(404, "there is no such case")
    body = await file.read(MAX_BYTES + 1)
    try:
        name, account_id = file.filename or "", view.account_id
        stored = await run_in_threadpool(services.attachments.store, case_id, account_id, name, body)
    except UnacceptableFile as error:
        raise Problem(error.status, str(error)) from error
    return UploadedFile(
        file_name=stored.file_name, size=stored.size, media_type=stored.media_type, sha256=stored.sha256
    )


async def download(request: Request, case_id: CaseId, sha256: Sha256) -> Response:
    """Return a file as a download. Browsers never show it, so that no uploaded content runs in a page."""
    services = services_of(request)
    try:
        found = await run_in_threadpool(services.attachments.read, case_id, sha256)
    except ErasedFile as error:
        raise Problem(410, "the file was erased") from error
    if found is None:
        raise Problem(404, "there is no such file on this case")
    await run_in_threadpool(services.people.log, person_of(request).name, "download", f"{case_id} {sha256}", "done")
    name = await run_in_threadpool(services.vault.opened, found.attachment.file_name)
    disposition = f"attachment; filename=\"{_ascii(name)}\"; filename*=UTF-8''{quote(name, safe='')}"
    return Response(
        found.body,
        media_type="application/octet-stream",
        headers={"Content-Disposition": disposition, "Digest": f"sha-256={hashlib.sha256(found.body).hexdigest()}"},
    )


def _ascii(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)
