"""What annotation adds to the asset graph."""

import dagster as dg

from drive_assets.annotation.assets import annotations
from drive_assets.annotation.checks import plausible_detections

defs = dg.Definitions(assets=[annotations], asset_checks=[plausible_detections])
