"""The content of a report page, and its rendering as HTML."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.common.figures import png_bytes
from model.common.pages import UNDEFINED, render

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURE_BYTES = 200_000
SCRIPTS = {
    name: (Path(__file__).parent / "templates" / f"{name}.js").read_text(encoding="utf-8")
    for name in ("timeline", "review")
}
"""The only scripts of the pages, by the field of `Section` that needs them."""
_HASHES = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in SCRIPTS.values())
SCRIPT_SOURCES = " ".join(f"'sha256-{each}'" for each in _HASHES)
"""By which browsers are told to run them"""
_PACKAGE = "drive_assets.reports"
Cell = Any
"""A text, a number, a list of these, a `Link`, a `Thumbnail`, or None if undefined."""


@dataclass(frozen=True)
class Link:
    text: str
    href: str
    """Relative to the root of the server, such as recording/2024-05-01_10-00-00; or an address of another server"""


@dataclass(frozen=True)
class Thumbnail:
    """A picture in a table."""

    source: str
    href: str
    """Opened by a click"""
    description: str


@dataclass(frozen=True)
class Picture:
    content: bytes
    """PNG or JPEG"""
    caption: str
    href: str = ""
    """Opened by a click"""
    description: str = ""
    """What it shows, for readers who cannot see it, if the caption does not say that"""


@dataclass(frozen=True)
class Table:
    columns: Sequence[Cell]
    rows: Sequence[Sequence[Cell]]

    @property
    def is_text(self) -> Sequence[bool]:
        """Of each column, whether it is aligned as text: any of its cells is neither a figure nor empty."""
        return [any(_is_text(value) for value in column) for column in zip(*self.rows, strict=True)]

    @classmethod
    def of(cls, values: Mapping[str, Cell]) -> "Table":
        """Two columns: names and values."""
        return cls(("", ""), [(name.replace("_", " "), value) for name, value in values.items()])


@dataclass(frozen=True)
class Film:
    href: str
    caption: str


@dataclass(frozen=True)
class Section:
    title: str
    text: str = ""
    table: Table | None = None
    pictures: Sequence[Picture] = ()
    side_by_side: bool = False
    """Whether pictures are small enough for three in a row"""
    films: Sequence[Film] = ()
    links: Sequence[Link] = ()
    timeline: Mapping[str, Any] | None = None
    """What templates/timeline.js draws"""
    review: Mapping[str, Any] | None = None
    """Clips that people tag: clips, tags by moment, and names of tags"""


@dataclass(frozen=True)
class Page:
    """A report. Functions that return one raise DataError if what it shows cannot be read."""

    title: str
    text: str = ""
    facts: Mapping[str, Cell] = field(default_factory=dict)
    """Key figures at the top"""
    sections: Sequence[Section] = ()
    from_metadata: bool = False
    """Whether the metadata of the latest materialisation is shown too: figures as facts, mappings as tables"""


def drawn(figure: "Figure", caption: str) -> Picture:
    """A figure of matplotlib."""
    return Picture(png_bytes(figure, FIGURE_BYTES), caption)


def html(page: Page, root: str, links: Sequence[Link] | None = (), notice: str = "", choice: Any = None) -> str:
    """A page as HTML.

    Args:
        root: the path prefix of the server, such as "" or "/reports", for links.
        links: to other pages, in the navigation; None: a page that stands alone has none.
        notice: a warning at the top.
        choice: what the start page shows, for its form.
    """
    values = {"page": page, "root": root, "links": links, "notice": notice, "choice": choice}
    return render(_PACKAGE, "page.html", **values, cell=cell, scripts=SCRIPTS)


def navigation_html(links: Sequence[Link], root: str) -> str:
    """The navigation alone, to put in front of a stored page."""
    return render(_PACKAGE, "navigation.html", links=links, root=root, cell=cell)


def sections_html(sections: Sequence[Section], root: str) -> str:
    """Sections alone, to append to a stored page."""
    return render(_PACKAGE, "sections.html", sections=sections, root=root, cell=cell)


def _is_text(value: Cell) -> bool:
    return bool(value) and not isinstance(value, (int, float)) and not (isinstance(value, str) and value[0].isdigit())


def cell(value: Cell) -> str:
    """A value as text: numbers with thousands separators and at most four significant digits."""
    if value is None:
        return UNDEFINED
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(cell, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {cell(each)}" for name, each in value.items())
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)
