"""SharePoint as a kind of source: its sensor, and the job that compares the whole library."""

import dagster as dg

from drive_assets.recordings.sharepoint.reconciliation import SCHEDULE, sharepoint_reconciliation
from drive_assets.recordings.sharepoint.sensor import sharepoint_sensor
from drive_assets.recordings.sharepoint.source import SharePointSource
from drive_assets.recordings.sources import Kind, Source
from drive_assets.resources.storage import Storage


def _find(storage: Storage, name: str) -> Source | None:
    """Only the sensor finds recordings there: a name alone would need the whole library listed."""
    return None


KIND = Kind(
    SharePointSource,
    _find,
    dg.Definitions(jobs=[sharepoint_reconciliation], schedules=[SCHEDULE], sensors=[sharepoint_sensor]),
)
