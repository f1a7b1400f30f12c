"""The jobs that people launch: what `drive-assets run` does, with the config filled in in the launchpad.

An asset's own launchpad makes one partition, or a backfill of many. A job makes several assets, one after the other and
each in a run of its own, for the recordings and architectures that are named; one that fails does not stop the others.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from drive_assets.annotation.assets import annotations
from drive_assets.detection.assets import boxy_dataset, boxy_detector, nuimages_dataset, nuimages_detector
from drive_assets.evaluation.assets import evaluation
from drive_assets.evaluation.comparison import model_comparison
from drive_assets.labels.assets import future_labels_asset
from drive_assets.presets import FULL, QUICK, Preset
from drive_assets.recordings.assets import recording
from drive_assets.resources.storage import Storage
from drive_assets.running.materialize import materialize
from drive_assets.splits.assets import h5_split, split_manifest
from drive_assets.training.assets import checkpoint
from model.common.errors import DataError
from model.network.architectures import ARCHITECTURES

REFRESH = "refresh"
"""The job that refresh_schedule launches."""
Names = Mapping[str, Sequence[str]]
"""Kinds of partitions that a job asks for, and the names that stand filled in."""
RECORDINGS: Names = {"recordings": []}
EACH: Names = {"architectures": []}
ONE: Names = {"architectures": [ARCHITECTURES[0]]}
LACKING = "only_lacking"
WORDS = {
    "recordings": "Recordings to make, by name; empty: all that are known (default [])",
    "architectures": "Architectures to make, by name; empty: all twelve (default [])",
    LACKING: "Make only what is missing, failed or out of date (default false)",
}
DETECTORS = [boxy_dataset, boxy_detector, nuimages_dataset, nuimages_detector]
LABELLED = [recording, future_labels_asset]
DATA_SET = [split_manifest, h5_split]
MODELS = [checkpoint, evaluation, model_comparison]


def operation(
    name: str, description: str, assets: Sequence[dg.AssetsDefinition], names: Names, presets: Mapping[str, Preset]
) -> list[dg.JobDefinition]:
    """Jobs that make `assets`: one a preset, by the ending of the job's name.

    Options of an asset have the very schema that the asset has: the same texts, defaults and ranges.
    """
    options = {asset.key.to_user_string(): asset.op.config_schema.as_field() for asset in assets if _has_options(asset)}
    asked = {kind: dg.Field([str], is_required=False, default_value=[], description=WORDS[kind]) for kind in names}
    asked[LACKING] = dg.Field(bool, default_value=False, description=WORDS[LACKING])

    @dg.op(name=op_name(name), description=description, config_schema=asked | options)
    def make(context: dg.OpExecutionContext, storage: Storage) -> None:
        given = _given(context)
        config = {asset: values for asset, values in given.items() if asset in options}
        chosen = {kind: given.get(kind, []) for kind in names}
        lacking_in = storage if given.get(LACKING) else None
        make_assets(context, [asset.key.to_user_string() for asset in assets], config, lacking_in, **chosen)

    graph = dg.GraphDefinition(name=name, node_defs=[make])
    jobs = []
    for ending, preset in presets.items():
        filled = {
            LACKING: bool(names.get("recordings") == []),
            **names,
            **{asset: preset.get(asset, {}) for asset in options},
        }
        jobs.append(
            graph.to_job(
                f"{name}_{ending}" if ending else name,
                description=description,
                config={"ops": {op_name(name): {"config": filled}}},
            )
        )
    return jobs


def op_name(job: str) -> str:
    """The op of a job: Dagster wants other names for ops than for jobs."""
    return f"run_{job}"


def make_assets(
    context: dg.OpExecutionContext,
    assets: Sequence[str],
    config: Preset,
    lacking_in: Storage | None,
    **names: Any,
) -> None:
    """Materialise in an op what a command would.

    Raises:
        dagster.Failure: something could not be made, after the rest was; or nothing, as the input is wrong.
    """
    selection = ",".join(assets)
    try:
        succeeded = materialize(
            context.repository_def,
            context.instance,
            selection,
            config=config,
            tell=context.log.info,
            lacking_in=lacking_in,
            **names,
        )
    except DataError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    if not succeeded:
        raise dg.Failure("Some could not be made: the log above names each, and why.", allow_retries=False)


def _has_options(asset: dg.AssetsDefinition) -> bool:
    field = asset.op.config_schema.as_field()
    return bool(getattr(field.config_type, "fields", None))


def _given(context: dg.OpExecutionContext) -> Mapping[str, Any]:
    """The op's config as it was given, without the defaults of all other options: those are the recipe's to say."""
    run_config: Mapping[str, Any] = context.run.run_config or context.job_def.run_config or {}
    given: Mapping[str, Any] = run_config["ops"][context.op_def.name]["config"]
    return given


JOBS = [
    *operation(
        "ingest_and_label",
        "Take the recordings whose sources are known into the data root, check and label them.",
        LABELLED,
        RECORDINGS,
        {"": FULL},
    ),
    *operation(
        "annotate",
        "Find the vehicles in the frames of recordings, with the detector that was trained, or other weights.",
        [annotations],
        RECORDINGS,
        {"": FULL},
    ),
    *operation(
        "rebuild_data_set",
        "Share the annotated and labelled recordings out into train, val and test, and build the split files.",
        DATA_SET,
        {},
        {"": FULL},
    ),
    *operation("train_one", "Train one architecture and evaluate it.", MODELS[:2], ONE, {"": FULL, "quick": QUICK}),
    *operation(
        "train_all", "Train all architectures, evaluate and compare them.", MODELS, EACH, {"": FULL, "quick": QUICK}
    ),
    *operation(
        "evaluate_and_compare",
        "Score the checkpoints that are there on the test split, and compare them.",
        MODELS[1:],
        EACH,
        {"": FULL, "quick": QUICK},
    ),
    *operation(
        "everything",
        "The whole graph: detectors, recordings, annotations, labels, data set, models and their comparison.",
        [*DETECTORS, *LABELLED[:1], annotations, *LABELLED[1:], *DATA_SET, *MODELS],
        {**RECORDINGS, **EACH},
        {"": FULL, "quick": QUICK},
    ),
    *operation(
        REFRESH,
        "Make the data set anew from all recordings, train on it, evaluate and compare.",
        [*DATA_SET, *MODELS],
        EACH,
        {"": FULL},
    ),
]
"""In the order in which people need them; what is named `_quick` shows in minutes that all works."""
