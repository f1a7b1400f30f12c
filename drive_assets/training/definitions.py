"""What training adds to the asset graph."""

import dagster as dg

from drive_assets.training.assets import checkpoint
from drive_assets.training.checks import of_current_splits

defs = dg.Definitions(assets=[checkpoint], asset_checks=[of_current_splits])
