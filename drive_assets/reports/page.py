"""What a report page is made of, and how it becomes HTML."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from model.common.pages import UNDEFINED, render

Cell = Any
"""A text, a number, a `Link`, or None for what is undefined."""


@dataclass(frozen=True)
class Link:
    text: str
    href: str
    """Relative to the root of the server, such as recording/2024-05-01_10-00-00"""


@dataclass(frozen=True)
class Picture:
    content: bytes
    """PNG or JPEG"""
    caption: str
    href: str = ""
    """What a click opens, if anything"""


@dataclass(frozen=True)
class Table:
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    @classmethod
    def of(cls, values: Mapping[str, Cell], what: str = "", value: str = "") -> "Table":
        """Two columns: names and values."""
        return cls((what, value), [(name.replace("_", " "), found) for name, found in values.items()])


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
    """Whether pictures are small enough to stand three in a row"""
    films: Sequence[Film] = ()
    links: Sequence[Link] = ()


@dataclass(frozen=True)
class Page:
    title: str
    text: str = ""
    facts: Mapping[str, Cell] = field(default_factory=dict)
    """The few figures that come first"""
    sections: Sequence[Section] = ()


def html(page: Page, root: str, notice: str = "") -> str:
    """A page as HTML.

    Args:
        root: the path at which the server is called, such as "" or "/reports": links begin with it.
        notice: what must be read before anything else.
    """
    return render("drive_assets.reports", "page.html", page=page, root=root, notice=notice, cell=cell)


def sections_html(sections: Sequence[Section], root: str) -> str:
    """Sections alone, to be put at the end of a page that was made by others."""
    return render("drive_assets.reports", "sections.html", sections=sections, root=root, cell=cell)


def cell(value: Cell) -> str:
    """A value as text: numbers with separators and at most four significant digits after the point."""
    if value is None:
        return UNDEFINED
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)
