"""The readable part of a pack, as self-contained HTML and as PDF. It contains only what the pack contains."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from projections.archive.heads import Head
from projections.archive.signing import fingerprint

if TYPE_CHECKING:
    from fpdf import FPDF

PDF_RECORDS = 400
"""Maximum number of records in the PDF, which names the files with the others."""
PDF_TEXT = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRecord:
    """A record in the form for human readers."""

    at_ms: int
    known_ms: int
    place: str
    kind: str
    data: dict[str, Any]
    withheld: tuple[str, ...]

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "ReportRecord":
        """Convert a record of the pack."""
        data = record["data"] or {}
        times = [value for name, value in data.items() if is_time(name) and isinstance(value, int)]
        return cls(
            at_ms=times[0] if times else record["timestamp_ms"],
            known_ms=record["timestamp_ms"],
            place=f"{record['topic']} {record['partition']}:{record['offset']}",
            kind=record["type"] or "unreadable",
            data=data,
            withheld=tuple(name for name, salt, _ in record["parts"] if salt is None),
        )

    def lines(self) -> Iterable[tuple[str, str]]:
        """Yield the fields as name and text."""
        for name, value in self.data.items():
            if value not in (None, [], {}):
                if is_time(name) and isinstance(value, int):
                    yield name, format_time(value)
                else:
                    yield name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name in self.withheld:
            yield name, "(withheld)"


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceReport:
    """Contents of a report."""

    title: str
    claims: list[str]
    redacted: list[str]
    head: Head
    key: bytes
    shown: list[ReportRecord]

    def facts(self) -> list[tuple[str, str]]:
        """Return the facts that the report is based on, as label and text."""
        none = "Nothing is claimed: the log may contain further records"
        return [
            ("Records", f"{len(self.shown)}, each proved to be in the log"),
            *(("Complete", claim) for claim in self.claims or [none]),
            ("Withheld", ", ".join(self.redacted) or "nothing"),
            (
                "Head of the log",
                f"number {self.head.number}, {self.head.records} records up to {format_time(self.head.time_ms)}",
            ),
            ("Head's SHA-256", self.head.sha256),
            ("Signed by", fingerprint(self.key)),
        ]

    def timeline(self) -> list[ReportRecord]:
        """Return the records in the order of their event times."""
        return sorted(self.shown, key=lambda shown: (shown.at_ms, shown.place))

    def points(self) -> list[tuple[int, int, int]]:
        """Return time, amount in minor units and score of each record with an amount: payments and flags."""
        found = []
        for shown in self.timeline():
            amount, score = shown.data.get("amount_minor"), shown.data.get("score", 0)
            if isinstance(amount, int):
                found.append((shown.at_ms, amount, score if isinstance(score, int) else 0))
        return found


def is_time(name: str) -> bool:
    """Return whether a field is a time of its record."""
    return name == "event_time" or name.endswith("_at_ms")


def format_time(at_ms: int) -> str:
    """Format a time in UTC milliseconds for human readers."""
    try:
        return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(sep=" ", timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return f"{at_ms} ms"


_STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--paper:#fff;--line:#c9d1d9;--soft:#57606a;--mark:#b3261e;--bar:#2f6f9f}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--paper:#0d1117;--line:#30363d;--soft:#9da7b3;--mark:#ff8a80;--bar:#6cb6ff}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);
  max-width:72rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;width:100%}th,td{text-align:left;vertical-align:top;
  padding:.3rem .6rem;border-bottom:1px solid var(--line);
  overflow-wrap:anywhere}
code,dd{overflow-wrap:anywhere}dt{color:var(--soft)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1rem;margin:.3rem 0}dd{margin:0}
svg{width:100%;height:auto}.soft{color:var(--soft)}summary{cursor:pointer}
.dot{fill:var(--bar)}.flag{fill:var(--mark)}line{stroke:var(--line)}text{fill:var(--soft);font-size:12px}
"""


def render_html(report: EvidenceReport) -> str:
    """Return one self-contained page: no script, font or image from elsewhere."""
    facts = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in report.facts())
    rows = "".join(_row(shown) for shown in report.timeline())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(report.title)}</title><style>{_STYLE}</style></head><body><main>"
        f"<h1>{escape(report.title)}</h1><table>{facts}</table>"
        f"{_chart(report.points())}<h2>Timeline</h2>"
        "<table><thead><tr><th>Happened</th><th>Known</th><th>Record</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>"
        '<p class="soft">This page is for reading. verify.py in the same pack checks the proofs.</p>'
        "</main></body></html>\n"
    )


def _row(shown: ReportRecord) -> str:
    fields = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in shown.lines())
    return (
        f"<tr><td>{escape(format_time(shown.at_ms))}</td><td>{escape(format_time(shown.known_ms))}</td><td><details>"
        f'<summary>{escape(shown.kind)} <span class="soft">{escape(shown.place)}</span></summary>'
        f"<dl>{fields}</dl></details></td></tr>"
    )


def _chart(points: list[tuple[int, int, int]]) -> str:
    if not points:
        return ""
    dots = "".join(
        f'<circle class="{"flag" if score else "dot"}" cx="{60 + x * 8.2:.1f}" cy="{200 - y * 1.8:.1f}" r="4">'
        f"<title>{escape(f'{format_time(at)}: {amount} minor units, score {score}')}</title></circle>"
        for (x, y), (at, amount, score) in zip(_scale_points(points), points, strict=True)
    )
    first, last = format_time(points[0][0]), format_time(points[-1][0])
    top = max(amount for _, amount, _ in points)
    return (
        "<h2>Amounts</h2>"
        '<svg viewBox="0 0 900 230" role="img" aria-label="amounts by time; those with a score are marked">'
        f'<line x1="60" y1="200" x2="880" y2="200"/><line x1="60" y1="20" x2="60" y2="200"/>{dots}'
        f'<text x="4" y="24">{top}</text><text x="4" y="204">0</text>'
        f'<text x="60" y="222">{escape(first)}</text>'
        f'<text x="880" y="222" text-anchor="end">{escape(last)}</text></svg>'
    )


def _scale_points(points: list[tuple[int, int, int]]) -> list[tuple[float, float]]:
    """Return time and amount, each scaled to 0 to 100."""
    begin, span = points[0][0], max(1, points[-1][0] - points[0][0])
    top = max(1, *(abs(amount) for _, amount, _ in points))
    return [((at - begin) * 100 / span, max(0, amount) * 100 / top) for at, amount, _ in points]


def render_pdf(report: EvidenceReport) -> bytes:
    """Return the report as PDF, dated by the head, so that the same pack always has the same bytes."""
    from fpdf import FPDF  # here, because it takes half a second that other commands need not spend

    pdf = FPDF()
    pdf.set_creation_date(datetime.fromtimestamp(report.head.time_ms / 1000, UTC))
    pdf.set_title(report.title)
    pdf.add_page()
    shown = report.timeline()[:PDF_RECORDS]
    blocks = [(each, [f"{name}: {value}"[:PDF_TEXT] for name, value in each.lines()]) for each in shown]
    texts = [
        report.title,
        *(value for fact in report.facts() for value in fact),
        *(line for _, lines in blocks for line in lines),
    ]
    font = _font(pdf, texts)
    pdf.set_font(font, size=18)
    pdf.multi_cell(0, 9, _printable(report.title), new_x="LMARGIN", new_y="NEXT")
    pdf.set_font(font, size=10)
    for name, value in report.facts():
        pdf.multi_cell(0, 5, _printable(f"{name}: {value}"), new_x="LMARGIN", new_y="NEXT")
    _draw(pdf, report.points())
    for each, lines in blocks:
        pdf.set_font(font, size=10)
        pdf.ln(2)
        pdf.multi_cell(
            0, 5, _printable(f"{format_time(each.at_ms)}  {each.kind}  {each.place}"), new_x="LMARGIN", new_y="NEXT"
        )
        pdf.set_font(font, size=8)
        for line in lines:
            pdf.multi_cell(0, 4, _printable(line), new_x="LMARGIN", new_y="NEXT")
    left = len(report.shown) - len(shown)
    if left:
        pdf.multi_cell(0, 5, f"{left} further records: report.html, records.jsonl", new_x="LMARGIN", new_y="NEXT")
    return bytes(pdf.output())


def _font(pdf: "FPDF", texts: Iterable[str]) -> str:
    """Return a built-in font if it has all the characters; another one adds 20 KB to the file."""
    if all(text.isprintable() and _is_latin(text) for text in texts):
        return "helvetica"
    import matplotlib  # takes another half second, for its font

    pdf.add_font("dejavu", fname=Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")
    return "dejavu"


def _is_latin(text: str) -> bool:
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        return False
    return True


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() else " " for each in text)


def _draw(pdf: "FPDF", points: list[tuple[int, int, int]]) -> None:
    if not points:
        return
    top, left, width, height = pdf.get_y() + 4, pdf.l_margin, pdf.epw, 40.0
    pdf.set_draw_color(160)
    pdf.line(left, top + height, left + width, top + height)
    pdf.line(left, top, left, top + height)
    for (x, y), (_, _, score) in zip(_scale_points(points), points, strict=True):
        pdf.set_fill_color(*((179, 38, 30) if score else (47, 111, 159)))
        pdf.ellipse(left + x * width / 100 - 0.8, top + height - y * height / 100 - 0.8, 1.6, 1.6, style="F")
    pdf.set_y(top + height + 3)
