"""The pages of rule packs: active, shadow and waiting packs, their history, and the actions that are possible."""

import json
from collections.abc import Callable
from typing import Annotated, Any, Final

import yaml
from confluent_kafka import KafkaException
from confluent_kafka.schema_registry.error import SchemaRegistryError
from fastapi import FastAPI, Path, Query, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.responses import RedirectResponse

from console.people.accounts import Person
from console.people.roles import Permission
from console.rules.diff import RulePackDifference, differences
from console.rules.files import MAX_FILE_BYTES, parse_file
from console.rules.store import RulePackActionError, RulePackStore
from console.web.pages.parts import PageServices, page_services_of
from console.web.pages.rendering import page
from console.web.problems import Problem
from console.web.services import person_of, services_of
from domain.risk.packs import BadRulePack, RulePack
from migrations.models import RulePackLogRow, RulePackRow, WhatifRunRow
from projections.logs.partition_writer import NotAcknowledged

PackId = Annotated[str, Path(pattern=r"^[0-9a-f]{8,64}$")]
ACTS: Final = ("approve", "activate", "shadow", "retire")
LOG_OUTAGE_ERRORS: Final = (NotAcknowledged, KafkaException, SchemaRegistryError, OSError)
"""Errors of logs that cannot be written now. A retry continues where the first attempt stopped."""
OVERHEAD: Final = 16 << 10
_ORDER = {"active": 0, "approved": 2, "draft": 3, "retired": 4}
_PLAIN = ("name", "family", "typology", "points", "severity", "reason_code")
_NEW: Final = """\
name: my-rules
version: 1
flag_at: 400
rules:
  - name: fast
    family: velocity
    typology: rapid_spending
    points: 600
    window_ms: 60s
    at_least: 5
"""


def register(app: FastAPI) -> None:
    """Add these routes."""
    app.get("/rules", include_in_schema=False)(rules)
    app.post("/rules", include_in_schema=False, max_body_size=MAX_FILE_BYTES * 3 + OVERHEAD)(draft)
    app.get("/rules/draft", include_in_schema=False)(new_draft)
    app.get("/rules/{pack_id}", include_in_schema=False)(rule_pack)
    for what in ACTS:
        app.post(f"/rules/{{pack_id}}/{what}", include_in_schema=False)(_act(what))


async def rules(request: Request) -> Response:
    """Show all packs, the active one first."""
    rows = await run_in_threadpool(page_services_of(request).control.packs)
    rows.sort(key=lambda row: (1 if row.shadow else _ORDER[row.state], row.name, -row.version))
    return page(request, "rules.html", packs=[(row, len(json.loads(row.document)["rules"])) for row in rows])


async def rule_pack(request: Request, pack_id: PackId) -> Response:
    """Show one pack, rule by rule."""
    return await _pack_page(request, pack_id)


async def _pack_page(request: Request, pack_id: str, error: str = "") -> Response:
    parts, person = page_services_of(request), person_of(request)

    def read() -> dict[str, Any]:
        row = parts.control.pack(pack_id)
        against = base_of(parts.control, row)
        return {
            "pack": row, "log": steps_of(parts.control.history(row.pack_id))[::-1], "against": against,
            "parts": _parts(against, row), "run": _last_done(parts, row), "needed": parts.control.needed,
            "acts": acts_for(row, person),
        }  # fmt: skip

    try:
        known = await run_in_threadpool(read)
    except RulePackActionError as refused:
        raise Problem(404, "there is no such rule pack") from refused
    document = json.loads(known["pack"].document)
    plain = dict.fromkeys(_PLAIN, "") | {"severity": "medium"}
    found = [({**plain, **rule}, _settings(rule)) for rule in document["rules"]]
    known |= {"flag_at": document.get("flag_at", 1), "rules": found, "error": error}
    return page(request, "rule_pack.html", 409 if error else 200, **known)


def _settings(rule: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the settings of a rule that only its family has."""
    return [
        (name, ", ".join(map(str, value)) if isinstance(value, list) else str(value))
        for name, value in rule.items()
        if name not in _PLAIN and value not in (None, "", [])
    ]


def steps_of(log: list[RulePackLogRow]) -> list[tuple[RulePackLogRow, str]]:
    """Return the actions on a pack, each with the id of the what-if that it relied on, or an empty text."""
    return [(entry, str(json.loads(entry.detail).get("whatif_run") or "")) for entry in log]


def base_of(store: RulePackStore, row: RulePackRow) -> RulePackRow | None:
    """Return the pack to compare with: the active one, or for a pack that is or was active, the pack that was active
    before it.
    """
    packs = store.packs()
    active = next((each for each in packs if each.state == "active"), None)
    if active is not None and row.activated_at_ms is None:
        return active
    since_ms = row.activated_at_ms or 0
    before = [each for each in packs if each.pack_id != row.pack_id and 0 < (each.activated_at_ms or 0) < since_ms]
    return max(before, key=lambda each: each.activated_at_ms or 0, default=None)


def _parts(against: RulePackRow | None, row: RulePackRow) -> list[RulePackDifference]:
    return differences(json.loads(against.document), json.loads(row.document)) if against else []


def _last_done(parts: PageServices, row: RulePackRow) -> WhatifRunRow | None:
    return next((run for run in parts.runs.of_pack(row.pack_id) if run.state == "done"), None)


# -- what one may do --------------------------------------------------------------------------------------------


def acts_for(row: RulePackRow, person: Person) -> list[str]:
    """Return the actions that the pack's state and the person's permissions allow."""
    is_author = row.author.strip().casefold() == person.name.strip().casefold()
    fits = {
        "approve": row.state == "draft" and not is_author,
        "activate": row.state in ("approved", "retired") and row.approver is not None,
        "shadow": row.state not in ("active", "retired") and not row.shadow,
        "retire": row.state in ("draft", "approved") or row.shadow,
    }
    needs = {"shadow": Permission.WRITE_RULES}
    return [what for what in ACTS if fits[what] and person.may(needs.get(what, Permission.APPROVE_RULES))]


def _act(what: str) -> Callable[..., Any]:
    async def act(request: Request, pack_id: PackId) -> Response:
        """Carry out the action and show the pack, or show why it was refused."""
        parts, actor = page_services_of(request), person_of(request).name
        try:
            await run_in_threadpool(_run_action, parts, what, pack_id, actor)
        except RulePackActionError as refused:
            return await _pack_page(request, pack_id, str(refused))
        except LOG_OUTAGE_ERRORS as error:
            again = f"Not every partition was written: {error}. Repeat the action to continue."
            return await _pack_page(request, pack_id, again)
        await run_in_threadpool(services_of(request).people.log, actor, f"rules-{what}", pack_id, "done")
        return RedirectResponse(f"/rules/{pack_id}", 303)

    return act


def _run_action(parts: PageServices, what: str, pack_id: str, actor: str) -> None:
    store = parts.control
    if what == "approve":
        store.approve(pack_id, actor)
    elif what == "activate":
        store.activate(pack_id, actor, parts.rules_log())
    elif what == "shadow":
        store.shadow(pack_id, actor, parts.rules_log())
    else:
        store.retire(pack_id, actor, parts.rules_log())


# -- drafts -----------------------------------------------------------------------------------------------------


async def new_draft(request: Request, like: Annotated[str, Query(alias="from", max_length=64)] = "") -> Response:
    """Show a form with a pack to start from: the next version of another one, or a small example."""
    text = await run_in_threadpool(_next_version, page_services_of(request).control, like) if like else _NEW
    return page(request, "rule_draft.html", text=text, errors=[], like=like)


def _next_version(store: RulePackStore, reference: str) -> str:
    try:
        row = store.pack(reference)
    except RulePackActionError:
        return _NEW
    document = json.loads(row.document)
    document["version"] = 1 + max(each.version for each in store.packs() if each.name == row.name)
    lines = {name: document[name] for name in ("name", "version", "flag_at", "lists", "rules") if document.get(name)}
    return yaml.safe_dump(lines, sort_keys=False, allow_unicode=True, width=100)


async def draft(request: Request) -> Response:
    """Store a draft; or show its errors, line by line, beside the text that was sent."""
    form = await request.form()
    text, name = str(form.get("text") or ""), "draft.yaml"
    file = form.get("file")
    try:
        if isinstance(file, UploadFile) and file.filename:
            name = file.filename[:100]
            text = await _read_upload(file, name)
        made = await run_in_threadpool(_parse_upload, text.replace("\r\n", "\n"), name)
        row = await run_in_threadpool(page_services_of(request).control.draft, made, person_of(request).name)
    except (BadRulePack, RulePackActionError) as error:
        return page(request, "rule_draft.html", 422, text=text, errors=str(error).splitlines(), like="")
    finally:
        await form.close()
    return RedirectResponse(f"/rules/{row.pack_id}", 303)


def _parse_upload(text: str, name: str) -> RulePack:
    """Parse an uploaded pack. YAML aliases are refused: a few lines of them can expand to gigabytes. Raises
    BadRulePack.
    """
    try:
        for token in yaml.scan(text):
            if isinstance(token, yaml.AliasToken):
                line = token.start_mark.line + 1
                raise BadRulePack(f"{name}:{line}: *{token.value} refers to another part. Cure: write that part here")
    except yaml.YAMLError:
        pass  # it is said better where the file is read
    return parse_file(text, name)


async def _read_upload(file: UploadFile, name: str) -> str:
    body = await file.read(MAX_FILE_BYTES + 1)
    if len(body) > MAX_FILE_BYTES:
        raise BadRulePack(f"{name}: more than {MAX_FILE_BYTES:,} bytes. Cure: fewer entries in its lists")
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadRulePack(f"{name} is no text: {error.reason}. Cure: save it as UTF-8") from error
