"""Simulated drives as sources: made by `drive-assets simulate`, ingested by name."""

from drive_assets.recordings.local import LocalSource, find_folder
from drive_assets.recordings.sources import Kind

KIND = Kind(LocalSource, lambda storage, name: find_folder(storage.simulated / "recordings" / name))
