"""The start page: all recordings, to sort and to filter, then models and data sets."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlencode

import dagster as dg

from drive_assets.partitions import is_recording_name
from drive_assets.reports.page import Cell, Link, Page, Section, Table, Thumbnail
from drive_assets.reports.records import failed_checks, latest_metadata
from drive_assets.resources.storage import Storage
from drive_assets.splits.manifest import read_manifest
from model.network.architectures import ARCHITECTURES

PER_PAGE = 100
LEFT_OUT = "left out"
SORTED_BY = ("recording", "minutes", "split", "vehicles a frame", "warnings")


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

    def link(self, text: str, **changes: str) -> Link:
        """The same page with another choice."""
        chosen = self._replace(**changes)._asdict()
        return Link(text, "?" + urlencode({key: value for key, value in chosen.items() if value}))


class Row(NamedTuple):
    """A recording, in the order of `SORTED_BY`."""

    name: str
    minutes: float | None
    split: str
    vehicles: float | None
    warnings: list[str]


def start_page(
    storage: Storage, instance: dg.DagsterInstance, checks: Sequence[dg.AssetCheckKey], others: Table, choice: Choice
) -> Page:
    """Recordings, models and data sets.

    Args:
        checks: of the assets that are partitioned by recording.
        others: the outputs that are neither recordings nor networks.
    """
    rows = _recordings(storage, instance, checks)
    shown = [
        row
        for row in rows
        if choice.search in row.name and choice.split in ("", row.split) and (row.warnings or not choice.warnings)
    ]
    column = SORTED_BY.index(choice.sort) if choice.sort in SORTED_BY else 0
    shown.sort(key=lambda row: (row[column] is not None, row[column], row.name), reverse=bool(choice.down))
    first = PER_PAGE * (max(int(choice.page), 1) - 1 if choice.page.isdecimal() else 0)
    sections = [
        Section(
            "Recordings",
            f"{len(shown):,} of {len(rows):,}; {sum(bool(row.warnings) for row in rows):,} have warnings.",
            Table(_columns(choice), [_cells(row) for row in shown[first : first + PER_PAGE]]),
            links=[
                choice.link(f"{start + 1:,} to {min(start + PER_PAGE, len(shown)):,}", page=str(start // PER_PAGE + 1))
                for start in range(0, len(shown), PER_PAGE)
                if len(shown) > PER_PAGE
            ],
        ),
        Section("Models", table=_models(storage, instance)),
        Section("Data sets and comparison", table=others),
    ]
    minutes = sum(row.minutes or 0 for row in rows)
    return Page("Reports", facts={"recordings": len(rows), "hours": round(minutes / 60, 1)}, sections=sections)


def _columns(choice: Choice) -> list[Cell]:
    """Headings that sort by their column, and the other way if the table is sorted by it already."""
    headings = []
    for name in SORTED_BY:
        is_chosen = name == choice.sort
        mark = f" {'▼' if choice.down else '▲'}" if is_chosen else ""
        headings.append(choice.link(name + mark, sort=name, page="", down="" if choice.down or not is_chosen else "1"))
    return ["picture", *headings]


def _cells(row: Row) -> list[Cell]:
    page = f"recording/{row.name}"
    picture = Thumbnail(f"thumbnail/{row.name}", page, f"A frame from the middle of recording {row.name}")
    return [picture, Link(row.name, page), row.minutes, row.split, row.vehicles, "; ".join(row.warnings)]


def _recordings(storage: Storage, instance: dg.DagsterInstance, checks: Sequence[dg.AssetCheckKey]) -> list[Row]:
    names = [name for name in storage.recording_names() if is_recording_name(name)]
    manifest = read_manifest(storage) if storage.manifest.is_file() else {"splits": {}, "skipped": {}}
    splits = dict.fromkeys(manifest["skipped"], LEFT_OUT)
    splits |= {name: split for split, part in manifest["splits"].items() for name in part["recordings"]}
    recorded, annotated = (latest_metadata(instance, asset, names) for asset in ("recording", "annotations"))
    warnings = failed_checks(instance, checks)
    return [
        Row(
            name,
            _minutes(recorded.get(name, {})),
            splits.get(name, ""),
            _number(annotated.get(name, {}), "vehicles_per_frame"),
            warnings.get(name, []),
        )
        for name in names
    ]


def _minutes(metadata: Mapping[str, Any]) -> float | None:
    rows = metadata["telemetry"].value.records if "telemetry" in metadata else []
    seconds = {row.data["rows"]: row.data["count"] for row in rows}.get("duration_s")
    return None if seconds is None else round(seconds / 60, 1)


def _number(metadata: Mapping[str, Any], name: str) -> float | None:
    return metadata[name].value if name in metadata else None


def _models(storage: Storage, instance: dg.DagsterInstance) -> Table:
    """The networks, the best on val first."""
    names = [name for name in ARCHITECTURES if storage.checkpoint(name).is_dir()]
    trained, evaluated = (latest_metadata(instance, asset, names) for asset in ("checkpoint", "evaluation"))
    rows: list[list[Cell]] = [
        [
            Link(name, f"checkpoint/{name}"),
            _number(trained.get(name, {}), "val_pr_auc_mean"),
            _number(evaluated.get(name, {}), "mean_pr_auc"),
            _number(evaluated.get(name, {}), "mean_onset_pr_auc"),
            Link("evaluation", f"evaluation/{name}") if name in evaluated else "",
        ]
        for name in names
    ]
    rows.sort(key=lambda row: -(row[1] or 0))
    return Table(("network", "mean PR-AUC on val", "on test", "at onsets on test", "report"), rows)
