"""Pages from templates: everything is escaped, and a name that a template lacks is an error."""

from pathlib import Path
from typing import Any

from fastapi import Request, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from console.people import csrf_token
from console.web.formats import FILTERS

FOLDER = Path(__file__).parent
TEMPLATES = Environment(
    loader=FileSystemLoader(FOLDER / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters.update(FILTERS)


def page(request: Request, template: str, status: int = 200, **context: Any) -> Response:
    """A page; templates know `person` (None if nobody is signed in), `csrf_token` and `path` besides their context."""
    token = getattr(request.state, "session_token", None)
    known = {
        "person": getattr(request.state, "person", None),
        "csrf_token": csrf_token(token) if token else "",
        "path": request.url.path,
        "theme": theme if (theme := request.cookies.get("theme")) in ("light", "dark") else "",
    }
    return Response(TEMPLATES.get_template(template).render(**known, **context), status, media_type="text/html")
