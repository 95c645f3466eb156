"""The audit search: events of cases by account, card, merchant, payment, actor, kind and time."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal, get_args
from urllib.parse import urlencode

from fastapi import FastAPI, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from console.cases.board import CaseBoard, QueueFilter
from console.times import parse_time
from console.web.api.queue import SearchKey, case_ids_by
from console.web.inputs import PersonFilter, Token
from console.web.pages.case_evidence import event_details
from console.web.pages.rendering import page
from console.web.pages.timeline import TimelineEntry, timeline
from console.web.services import board_of, services_of
from domain.cases.events import CaseEvent
from projections.views.case_table import CaseTable

MAX_CASES: Final = 300
"""Maximum number of cases that a search reads: those that changed last."""
MAX_SHOWN: Final = 200
KINDS: Final = tuple(kind.__name__ for kind in get_args(CaseEvent))
Moment = Annotated[str, Field(pattern=r"^(\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d)?)?$")]


class AuditQuery(BaseModel):
    """A search; an empty field does not restrict it."""

    model_config = ConfigDict(extra="ignore")

    by: SearchKey = "account"
    value: Token | Literal[""] = ""
    actor: PersonFilter = ""
    kind: Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z]*$")] = ""
    since: Moment = ""
    until: Moment = ""

    @property
    def query(self) -> str:
        """Return the search as the query of a URL."""
        return urlencode({name: value for name, value in self.model_dump().items() if value})


def register(app: FastAPI) -> None:
    """Add this route."""
    app.get("/audit", include_in_schema=False)(audit)


async def audit(request: Request, asking: Annotated[AuditQuery, Query()]) -> Response:
    """Show the events that were found, newest first."""
    board, services = board_of(request), services_of(request)
    found, looked_at, of = await run_in_threadpool(_find, board, services.table, asking)
    entries = found[:MAX_SHOWN]
    log = await run_in_threadpool(services.people.door_log, None, 50)
    return page(
        request, "audit.html", asking=asking, entries=entries, found=len(found), looked_at=looked_at, of=of,
        kinds=KINDS, bys=get_args(SearchKey), door_log=log,
    )  # fmt: skip


def _find(board: CaseBoard, table: CaseTable, asking: AuditQuery) -> tuple[list[tuple[str, TimelineEntry]], int, int]:
    """Return the events found with their cases, the number of cases read, and the number of cases that match."""
    if asking.value:
        ids = case_ids_by(board, asking.by, asking.value)
        of = len(ids)
    else:
        got = board.page(QueueFilter(sort="-changed"), MAX_CASES)
        ids, of = [event_details(row.decode())["case_id"] for row in got.rows], got.total
    found = [(case_id, entry) for case_id in ids[:MAX_CASES] for entry in _of_case(table, case_id, asking)]
    found.sort(key=lambda pair: pair[1].known_at_ms or 0, reverse=True)
    return found, min(len(ids), MAX_CASES), of


def _of_case(table: CaseTable, case_id: str, asking: AuditQuery) -> Iterator[TimelineEntry]:
    since, until = _ms(asking.since), _ms(asking.until)
    for item in table.items_of(case_id):
        if item["sk"] == "view" or (asking.kind and item["kind"] != asking.kind):
            continue
        if (since is not None and _known_at_ms(item) < since) or (until is not None and _known_at_ms(item) >= until):
            continue
        if asking.by == "transaction" and asking.value and asking.value not in item["body"]:
            continue
        entry = timeline([item], "known")[0]
        if not asking.actor or entry.actor == asking.actor:
            yield entry


def _known_at_ms(item: Mapping[str, Any]) -> int:
    return int(item.get("known_at_ms") or 0)


def _ms(moment: str) -> int | None:
    return parse_time(moment) if moment else None
