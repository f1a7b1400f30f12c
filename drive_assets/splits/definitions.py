"""What splits add to the asset graph."""

import dagster as dg

from drive_assets.splits.assets import h5_split, split_manifest
from drive_assets.splits.checks import (
    balanced_splits,
    every_split_has_positives,
    manifest_is_current,
    no_recording_in_two_splits,
    one_detector,
    recordings_keep_their_split,
)

defs = dg.Definitions(
    assets=[split_manifest, h5_split],
    asset_checks=[
        no_recording_in_two_splits,
        manifest_is_current,
        every_split_has_positives,
        balanced_splits,
        recordings_keep_their_split,
        one_detector,
    ],
)
