"""A report as one Markdown file and one self-contained HTML page, which works offline, on a phone and in the dark.

Both templates render the same sections, so that neither can say what the other does not.
"""

import base64
import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jinja2
import pandas as pd

from tfrecords_builder import files
from tfrecords_builder.labels.canonical import EXTRA_SEPARATOR


@dataclasses.dataclass(frozen=True)
class Picture:
    """A PNG: its path from the page's folder, and what it shows."""

    file: str
    caption: str


@dataclasses.dataclass(frozen=True)
class Table:
    """A table as text: `numeric` says per column whether to align right, `alerts` per row whether it needs a look."""

    caption: str
    columns: list[str]
    rows: list[list[str]]
    numeric: list[bool]
    alerts: list[bool]


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading with paragraphs, bullets, pictures, tables and further sections, in that order.

    In HTML the sections inside another one are folded until they are opened.
    """

    title: str
    text: list[str] = dataclasses.field(default_factory=list)
    bullets: list[str] = dataclasses.field(default_factory=list)
    tables: list[Table] = dataclasses.field(default_factory=list)
    pictures: list[Picture] = dataclasses.field(default_factory=list)
    sections: list["Section"] = dataclasses.field(default_factory=list)

    @property
    def anchor(self) -> str:
        """The section's id in the page."""
        return "-".join(self.title.lower().split())

    def list_pictures(self) -> list[Picture]:
        """Its pictures and those of the sections in it."""
        return [*self.pictures, *(picture for section in self.sections for picture in section.list_pictures())]


def write(folder: str | os.PathLike, *, title: str, subtitle: str, program: str, sections: Sequence[Section]) -> None:
    """Writes report.md and report.html.

    Args:
        folder: where; the files of the pictures are relative to it.
        title, subtitle: of the page.
        program: that made it.
        sections: of the page.
    """
    folder = pathlib.Path(folder)
    pictures = {picture.file for section in sections for picture in section.list_pictures()}
    images = {name: base64.b64encode((folder / name).read_bytes()).decode("ascii") for name in sorted(pictures)}
    for name, escape in (("report.md", False), ("report.html", True)):
        environment = jinja2.Environment(
            loader=jinja2.PackageLoader("tfrecords_builder"),
            autoescape=escape,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        environment.filters["cell"] = escape_markdown
        page = environment.get_template(f"{name}.j2").render(
            title=title, subtitle=subtitle, program=program, sections=sections, images=images
        )
        files.write_text(folder / name, page)


def make_table(caption: str, frame: pd.DataFrame, alerts: Sequence[bool] | None = None) -> Table:
    """A frame as text: thousands separated, <NA> empty, the labels of a combination joined by " + "."""
    numeric = [pd.api.types.is_numeric_dtype(dtype) for dtype in frame.dtypes]
    rows = [[_format(value) for value in row] for row in frame.itertuples(index=False)]
    columns = [str(column).replace("_", " ") for column in frame.columns]
    return Table(caption, columns, rows, numeric, list(alerts or [False] * len(rows)))


def _format(value: Any) -> str:
    if pd.isna(value):
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if value == int(value) else f"{value:,.2f}"
    return value.replace(EXTRA_SEPARATOR, " + ") if isinstance(value, str) else f"{value:,}"


def escape_markdown(text: str) -> str:
    """A text in which Markdown sees no mark-up and no end of a table's cell, on one line."""
    for special in "\\`*<>|":
        text = text.replace(special, f"\\{special}")
    return " ".join(text.split())
