"""What detection adds to the asset graph."""

import dagster as dg

from drive_assets.detection.assets import boxy_dataset, boxy_detector, nuimages_dataset, nuimages_detector
from drive_assets.detection.checks import DETECTOR_CHECKS

defs = dg.Definitions(
    assets=[boxy_dataset, boxy_detector, nuimages_dataset, nuimages_detector], asset_checks=DETECTOR_CHECKS
)
