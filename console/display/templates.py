"""Templates of pages and reports: everything is escaped, and a name that a template lacks is an error."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from console.display.formats import FILTERS

FOLDER = Path(__file__).parents[1] / "web"
"""The folder of the templates and the static files."""
TEMPLATES = Environment(
    loader=FileSystemLoader(FOLDER / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,  # templates never change while a program runs; a check costs one system call per template
)
TEMPLATES.filters.update(FILTERS)
