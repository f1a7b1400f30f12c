"""What annotation adds to the asset graph."""

import dagster as dg

from drive_assets.annotation.assets import annotations

defs = dg.Definitions(assets=[annotations])
