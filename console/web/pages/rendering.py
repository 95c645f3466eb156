"""Rendering of pages: templates with the signed-in person, and a cache of rendered queue rows."""

from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from threading import Lock
from typing import Any, Final

from fastapi import Request, Response
from markupsafe import Markup

from console.cases.act_fields import SNOOZE_CHOICES
from console.display.templates import TEMPLATES
from console.people.accounts import csrf_token
from console.web.inputs import CASE_ID_PATTERN
from console.web.pages import shortcuts
from console.web.pages.maps import country_name
from domain.cases.answers import MAX_NOTE_CHARS, MAX_REASON_CHARS
from domain.cases.status import DONE_STATUSES, OPEN_STATUSES, STATUSES
from projections.views.case_view import CaseView

TEMPLATES.filters["country"] = country_name
MAX_ROWS: Final = 20_000


class QueueRowCache:
    """Rendered rows of the queue; a row stays valid until its case changes."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, int, bool], Markup] = OrderedDict()
        self._lock = Lock()
        self._render: Callable[[CaseView, bool], Markup] = vars(TEMPLATES.get_template("_row.html").module)["row"]

    def row(self, view: CaseView, may_choose: bool) -> Markup:
        """Return the rendered row of a case."""
        key = view.case_id, view.sequence, may_choose
        found = self._kept.get(key)
        if found is None:
            found = self._render(view, may_choose)
            with self._lock:
                self._kept[key] = found
                if len(self._kept) > MAX_ROWS:
                    self._kept.popitem(last=False)
        return found


@cache
def icon(name: str) -> Markup:
    """Render an icon, once per process: a page shows dozens."""
    return Markup(TEMPLATES.get_template("_icon.html").render(name=name))  # noqa: S704


TEMPLATES.globals |= {
    "case_id_pattern": CASE_ID_PATTERN,
    "done_statuses": DONE_STATUSES,
    "icon": icon,
    "max_note": MAX_NOTE_CHARS,
    "max_reason": MAX_REASON_CHARS,
    "open_statuses": OPEN_STATUSES,
    "shortcuts": shortcuts,
    "snooze_choices": SNOOZE_CHOICES,
    "statuses": STATUSES,
}
TEMPLATES.globals["case_row"] = QueueRowCache().row


def page(request: Request, template: str, status: int = 200, **context: Any) -> Response:
    """Render a page. Besides their context, templates know `person` (None if nobody is signed in), `csrf_token`,
    `path` and `theme`.
    """
    token = getattr(request.state, "session_token", None)
    known = {
        "person": getattr(request.state, "person", None),
        "csrf_token": csrf_token(token) if token else "",
        "path": request.url.path,
        "theme": theme if (theme := request.cookies.get("theme")) in ("light", "dark") else "",
    }
    return Response(TEMPLATES.get_template(template).render(**known, **context), status, media_type="text/html")
