"""A report as sections of text, tables, charts and pictures, and how it becomes one HTML file, or Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from gan_runner.sweeps.report.charts import Chart, IntervalChart
from gan_runner.sweeps.report.thumbnails import Thumbnail

ROWS = 40  # of a table in Markdown, which is also printed


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar = "text"
    text: str


@dataclass(frozen=True)
class Code:
    """What can be typed."""

    kind: ClassVar = "code"
    text: str


@dataclass(frozen=True)
class Table:
    """Cells; the first column says what a row is about."""

    kind: ClassVar = "table"
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    folded: bool = False  # the page shows the title, and the rest when asked; Markdown has neither


@dataclass(frozen=True)
class Charts:
    """Charts side by side; with a legend, all of them have the same series."""

    kind: ClassVar = "charts"
    charts: Sequence[Chart]
    legend: Sequence[tuple[str, str]] = ()  # label and style


@dataclass(frozen=True)
class Intervals:
    """Charts of intervals side by side."""

    kind: ClassVar = "intervals"
    charts: Sequence[IntervalChart]


@dataclass(frozen=True)
class Pictures:
    """Pictures side by side."""

    kind: ClassVar = "pictures"
    pictures: Sequence[Thumbnail]


Part = Text | Code | Table | Charts | Intervals | Pictures


@dataclass(frozen=True)
class Section:
    """A part of the report under a heading. What is long is on the page alone, and folded there."""

    title: str
    parts: Sequence[Part]
    long: bool = False


@dataclass(frozen=True)
class Page:
    """A whole report. `lead` is the answer in a few sentences."""

    title: str
    lead: Sequence[str]
    sections: Sequence[Section] = field(default_factory=list)


def to_html(page: Page) -> str:
    """One file that needs no other. Everything in it is escaped, because a run directory may be anyone's making."""
    import jinja2

    folder = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=folder, autoescape=True, finalize=_for_html, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html").render(page=page)


def to_markdown(page: Page) -> str:
    """The text and the tables, without what is long."""
    lines = [f"# {_inline(page.title)}", *(f"\n{_inline(text)}" for text in page.lead)]
    for section in page.sections:
        parts = [part for part in map(_markdown, section.parts) if part]
        drawn = any(isinstance(part, Charts | Pictures) for part in section.parts)
        only_drawn = drawn and not any(isinstance(part, Table) for part in section.parts)
        if parts and not section.long and not only_drawn:
            lines += [f"\n## {_inline(section.title)}", *(f"\n{part}" for part in parts)]
    return "\n".join(lines) + "\n"


def _markdown(part: Part) -> str:
    if isinstance(part, Text):
        return _inline(part.text)
    if isinstance(part, Code):
        return f"    {printable(part.text)}"
    if not isinstance(part, Table) or part.folded:
        return ""
    rows = [[_inline(cell) for cell in row] for row in (part.heads, *part.rows[:ROWS])]
    widths = [max(3, *(len(row[column]) for row in rows)) for column in range(len(part.heads))]
    head, *body = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    title = [f"**{_inline(part.title)}**\n"] if part.title else []
    left = len(part.rows) - ROWS
    more = [f"\n… and {left:,} more in report.html"] if left > 0 else []
    return "\n".join([*title, head, rule, *body, *more])


def printable(text: str) -> str:
    """Text without what would steer a terminal, or turn the direction of writing around."""
    return "".join(c if c.isprintable() else " " for c in text)


def _for_html(value: Any) -> Any:
    """Likewise; but text that is escaped already, which is of a type of its own, stays as it is."""
    return printable(value) if type(value) is str else value


def _inline(text: str) -> str:
    """Text that is no markup in Markdown: no HTML, column, picture or link."""
    return printable(text).replace("<", "&lt;").replace("|", "\\|").replace("](", "]\\(")
