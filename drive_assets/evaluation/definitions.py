"""What evaluation adds to the asset graph."""

import dagster as dg

from drive_assets.evaluation.assets import evaluation
from drive_assets.evaluation.checks import better_than_the_baselines, complete
from drive_assets.evaluation.comparison import model_comparison

defs = dg.Definitions(assets=[evaluation, model_comparison], asset_checks=[complete, better_than_the_baselines])
