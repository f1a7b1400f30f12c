"""Simulated drives as sources: made by `drive-assets simulate`, taken by name."""

import dagster as dg

from drive_assets.recordings.local import LocalSource, find_folder
from drive_assets.recordings.sources import Kind, Source
from drive_assets.resources.storage import Storage


def _find(storage: Storage, name: str) -> Source | None:
    return find_folder(storage.simulated / "recordings" / name)


KIND = Kind(LocalSource, _find, dg.Definitions())
