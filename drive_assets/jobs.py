"""The jobs that people launch from the UI, for the partitions that they select there.

Options are the assets' own: default config of a partitioned job would silently override what a person enters for a
backfill. Only `train_quick` has fixed options.
"""

from collections.abc import Iterable
from typing import Any

import dagster as dg

from drive_assets.asset import declarations
from drive_assets.evaluation.assets import evaluation
from drive_assets.training.assets import checkpoint

Config = dict[str, dict[str, Any]]


def quick_config(definitions: Iterable[dg.AssetsDefinition]) -> Config:
    """The quick options by asset name, of assets that have some."""
    return {name: dict(declared.quick) for name, declared in declarations(definitions).items() if declared.quick}


REBUILD = dg.define_asset_job(
    "rebuild_data_set",
    ["split_manifest", "h5_split"],
    description="Assign annotated and labelled recordings to train, val and test, and write the split files. Select "
    "all three partitions: one run builds them.",
)
TRAIN = dg.define_asset_job(
    "train",
    [checkpoint, evaluation],
    description="Train and evaluate the selected architectures. model_comparison follows when all of them have ended.",
)
JOBS = [
    dg.define_asset_job(
        "ingest_and_label",
        ["recording", "future_labels"],
        description="Ingest recordings whose sources are known: copy, validate and label them.",
    ),
    dg.define_asset_job(
        "annotate",
        ["annotations"],
        description="Detect the vehicles in the frames of recordings, with the trained detector or other weights.",
    ),
    REBUILD,
    TRAIN,
    dg.define_asset_job(
        "train_quick",
        [checkpoint, evaluation],
        config={"ops": {name: {"config": options} for name, options in quick_config([checkpoint, evaluation]).items()}},
        description="The job train with fixed options that take minutes on a CPU, to see that everything works.",
    ),
    dg.define_asset_job(
        "evaluate",
        [evaluation],
        description="Score existing checkpoints on test. model_comparison follows when all of them have ended.",
    ),
]
"""In the order in which people need them."""
