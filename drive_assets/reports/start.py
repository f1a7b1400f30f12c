"""The start page: all recordings, to sort and to filter, then models and data sets."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlencode

import dagster as dg

from drive_assets.partitions import is_recording_name
from drive_assets.reports.page import Cell, Link, Page, Section, Table, Thumbnail
from drive_assets.reports.records import failed_checks, latest_metadata
from drive_assets.resources.storage import Storage
from drive_assets.splits.manifest import read_manifest
from model.dataset.assignment import SPLITS
from model.network.architectures import ARCHITECTURES

PER_PAGE = 100
LEFT_OUT = "left out"
SORTED_BY = ("recording", "minutes", "split", "vehicles a frame", "warnings")
FIGURES = ("minutes", "vehicles a frame")


class Choice(NamedTuple):
    """What the address of the page asks for."""

    sort: str = SORTED_BY[0]
    down: str = ""
    """Not empty: the greatest first"""
    search: str = ""
    """Part of the recording's name"""
    split: str = ""
    warnings: str = ""
    """Not empty: only recordings with warnings"""
    page: str = "1"

    @property
    def splits(self) -> Sequence[str]:
        """Values of `split`."""
        return ("", *SPLITS, LEFT_OUT)

    def link(self, text: str, **changes: str) -> Link:
        """The same page with another choice."""
        chosen = self._replace(**changes)._asdict()
        return Link(text, "?" + urlencode({key: value for key, value in chosen.items() if value}))


Figures = tuple[float | None, float | None]
"""Minutes, and vehicles a frame; None if unknown"""


def start_page(
    storage: Storage, instance: dg.DagsterInstance, checks: Sequence[dg.AssetCheckKey], others: Table, choice: Choice
) -> Page:
    """Recordings, models and data sets.

    Args:
        checks: of the assets that are partitioned by recording.
        others: the outputs that are neither recordings nor networks.
    """
    every = [name for name in storage.recording_names() if is_recording_name(name)]
    splits, warnings = _splits(storage), failed_checks(instance, checks)
    names = [
        name
        for name in every
        if choice.search in name
        and choice.split in ("", splits.get(name))
        and (name in warnings or not choice.warnings)
    ]
    # Figures of all recordings are read only to sort by them: of ten thousand, that takes some seconds.
    figures = _figures(instance, names) if choice.sort in FIGURES else {}

    def place(name: str) -> tuple[Any, ...]:
        if choice.sort in FIGURES:
            return (figures[name][FIGURES.index(choice.sort)] or 0, name)
        return ({"split": splits.get(name, ""), "warnings": warnings.get(name, [])}.get(choice.sort, ""), name)

    names.sort(key=place, reverse=bool(choice.down))
    first = PER_PAGE * (int(choice.page) - 1) if re.fullmatch("[1-9][0-9]{0,8}", choice.page) else 0
    shown = names[first : first + PER_PAGE]
    figures = figures or _figures(instance, shown)
    rows = [_row(name, splits.get(name, ""), figures[name], warnings.get(name, [])) for name in shown]
    recordings = Section(
        "Recordings",
        f"{len(names):,} of {len(every):,}; with warnings: {sum(name in warnings for name in every):,}.",
        Table(_columns(choice), rows),
        links=[
            choice.link(f"{start + 1:,} to {min(start + PER_PAGE, len(names)):,}", page=str(start // PER_PAGE + 1))
            for start in range(0, len(names), PER_PAGE)
            if len(names) > PER_PAGE
        ],
    )
    models = Section("Models", table=_models(storage, instance))
    return Page("Reports", sections=[recordings, models, Section("Data sets and comparison", table=others)])


def _columns(choice: Choice) -> list[Cell]:
    """Headings that sort by their column, and the other way if the table is sorted by it already."""
    headings = []
    for name in SORTED_BY:
        is_chosen = name == choice.sort
        mark = f" {'▼' if choice.down else '▲'}" if is_chosen else ""
        headings.append(choice.link(name + mark, sort=name, page="", down="" if choice.down or not is_chosen else "1"))
    return ["picture", *headings]


def _row(name: str, split: str, figures: Figures, warnings: Sequence[str]) -> list[Cell]:
    page = f"recording/{name}"
    picture = Thumbnail(f"thumbnail/{name}", page, f"A frame from the middle of recording {name}")
    minutes, vehicles = (_fixed(figure, 1) for figure in figures)
    return [picture, Link(name, page), minutes, split, vehicles, "; ".join(warnings)]


def _splits(storage: Storage) -> dict[str, str]:
    manifest = read_manifest(storage) if storage.manifest.is_file() else {"splits": {}, "skipped": {}}
    splits = dict.fromkeys(manifest["skipped"], LEFT_OUT)
    return splits | {name: split for split, part in manifest["splits"].items() for name in part["recordings"]}


def _figures(instance: dg.DagsterInstance, names: Sequence[str]) -> dict[str, Figures]:
    recorded, annotated = (latest_metadata(instance, asset, names) for asset in ("recording", "annotations"))
    return {
        name: (_minutes(recorded.get(name, {})), _number(annotated.get(name, {}), "vehicles_per_frame"))
        for name in names
    }


def _minutes(metadata: Mapping[str, Any]) -> float | None:
    rows = metadata["telemetry"].value.records if "telemetry" in metadata else []
    seconds = {row.data["rows"]: row.data["count"] for row in rows}.get("duration_s")
    return None if seconds is None else round(seconds / 60, 1)


def _number(metadata: Mapping[str, Any], name: str) -> float | None:
    return metadata[name].value if name in metadata else None


def _fixed(figure: float | None, digits: int) -> str:
    """A figure whose digits stand below those of its column; empty if unknown."""
    return "" if figure is None else f"{figure:.{digits}f}"


def _models(storage: Storage, instance: dg.DagsterInstance) -> Table:
    """The networks, the best on val first."""
    names = [name for name in ARCHITECTURES if storage.checkpoint(name).is_dir()]
    trained, evaluated = (latest_metadata(instance, asset, names) for asset in ("checkpoint", "evaluation"))
    rows: list[list[Cell]] = [
        [
            Link(name, f"checkpoint/{name}"),
            _fixed(_number(trained.get(name, {}), "val_pr_auc_mean"), 3),
            _fixed(_number(evaluated.get(name, {}), "mean_pr_auc"), 3),
            _fixed(_number(evaluated.get(name, {}), "mean_onset_pr_auc"), 3),
            Link("evaluation", f"evaluation/{name}") if name in evaluated else "",
        ]
        for name in names
    ]
    rows.sort(key=lambda row: str(row[1]), reverse=True)
    return Table(("network", "mean PR-AUC on val", "on test", "at onsets on test", "report"), rows)
