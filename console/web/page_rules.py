"""Rule packs: what decides, what looks on, what waits for a second person, and who did what."""

import json
from typing import Annotated, Any

from fastapi import FastAPI, Path, Request, Response
from starlette.concurrency import run_in_threadpool

from console.control import Refused
from console.web.page_parts import parts_of
from console.web.problems import Problem
from console.web.rendering import page
from migrations.models import RulePackLogRow, RulePackRow

PackId = Annotated[str, Path(pattern=r"^[0-9a-f]{8,64}$")]
_ORDER = {"active": 0, "approved": 2, "draft": 3, "retired": 4}
_PLAIN = ("name", "family", "typology", "points", "severity", "reason_code")


def register(app: FastAPI) -> None:
    """Add these routes."""
    app.get("/rules", include_in_schema=False)(rules)
    app.get("/rules/{pack_id}", include_in_schema=False)(rule_pack)


async def rules(request: Request) -> Response:
    """All packs, the one that decides first."""
    rows = await run_in_threadpool(parts_of(request).control.packs)
    rows.sort(key=lambda row: (1 if row.shadow else _ORDER[row.state], row.name, -row.version))
    return page(request, "rules.html", packs=[(row, len(json.loads(row.document)["rules"])) for row in rows])


async def rule_pack(request: Request, pack_id: PackId) -> Response:
    """One pack, rule by rule."""

    def read() -> tuple[RulePackRow, list[RulePackLogRow]]:
        store = parts_of(request).control
        row = store.pack(pack_id)
        return row, store.history(row.pack_id)

    try:
        row, log = await run_in_threadpool(read)
    except Refused as error:
        raise Problem(404, "there is no such rule pack") from error
    document = json.loads(row.document)
    plain = dict.fromkeys(_PLAIN, "") | {"severity": "medium"}
    found = [({**plain, **rule}, _settings(rule)) for rule in document["rules"]]
    return page(request, "rule_pack.html", pack=row, flag_at=document["flag_at"], rules=found, log=log[::-1])


def _settings(rule: dict[str, Any]) -> list[tuple[str, str]]:
    """What is particular to a rule."""
    return [
        (name, ", ".join(map(str, value)) if isinstance(value, list) else str(value))
        for name, value in rule.items()
        if name not in _PLAIN and value not in (None, "", [])
    ]
