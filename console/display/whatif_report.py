"""The report of a what-if as one HTML file that needs no other file, no network and no script."""

import base64
from typing import Any, Final

from console.display.templates import FOLDER, TEMPLATES
from console.display.whatif_view import KINDS, MORE, WORSE, event_lines, moved, view_of

MAX_CASES: Final = 400
"""Maximum number of changed cases in the file, the most important first."""
_FONT: Final = "vendor/inter-latin-5.3.0.woff2"
SHOWING: Final[dict[str, Any]] = {
    "event_lines": event_lines, "moved": moved, "change_words": KINDS, "worse": WORSE, "more": MORE,
}  # fmt: skip
"""Functions and names that the templates of a what-if use."""


def report(found: dict[str, Any]) -> str:
    """Return the text of the report."""
    style = (FOLDER / "static" / "console.css").read_text(encoding="utf-8")
    font = base64.b64encode((FOLDER / "static" / _FONT).read_bytes()).decode()
    inlined = style.replace(f'url("{_FONT}")', f"url(data:font/woff2;base64,{font})")
    shown = view_of({**found, "changed": found["changed"][:MAX_CASES]})
    return TEMPLATES.get_template("whatif_report.html").render(view=shown, style=inlined, **SHOWING)
