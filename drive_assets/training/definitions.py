"""What training adds to the asset graph."""

import dagster as dg

from drive_assets.training.assets import checkpoint

defs = dg.Definitions(assets=[checkpoint])
