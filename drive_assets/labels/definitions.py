"""What labels add to the asset graph."""

import dagster as dg

from drive_assets.labels.assets import future_labels_asset

defs = dg.Definitions(assets=[future_labels_asset])
