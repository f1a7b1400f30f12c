"""The jobs that people launch: what stands filled in, what is refused at launch, and what they make."""

import dagster as dg
import pytest

from drive_assets.definitions import defs
from drive_assets.operations import JOBS

NAMES = [
    "ingest_and_label",
    "annotate",
    "rebuild_data_set",
    "train_one",
    "train_one_quick",
    "train_all",
    "train_all_quick",
    "evaluate_and_compare",
    "evaluate_and_compare_quick",
    "everything",
    "everything_quick",
    "refresh",
]


def config_of(job: dg.JobDefinition) -> dict:
    (op,) = job.run_config["ops"].values()  # type: ignore[index]
    return dict(op["config"])


def test_the_ui_can_load_all() -> None:
    defs.get_repository_def().load_all_definitions()  # which a command does not need


def test_each_stands_filled_in_and_is_right_as_it_stands() -> None:
    assert [job.name for job in JOBS] == NAMES
    for job in JOBS:
        assert job.description and config_of(job)
        dg.validate_run_config(job, job.run_config)


@pytest.mark.parametrize(
    ("asset", "options", "words"),
    [
        ("checkpoint", {"epochs": 0}, "epochs 0: expected greater than or equal to 1"),
        ("checkpoint", {"tasks": ["brake_9s"]}, "brake_9s"),
        ("annotations", {"roi": [1, 2]}, "expected x, y, width, height"),
        ("split_manifest", {"split": {"train": 0.9}}, "that add up to 1"),
        ("evaluation", {"false_alarms_per_hour": [-1.0]}, "greater than 0"),
    ],
)
def test_a_value_out_of_range_is_refused_when_a_run_is_launched(asset: str, options: dict, words: str) -> None:
    """Of an asset's own launchpad, and of a job's."""
    of_the_asset = defs.resolve_implicit_global_asset_job_def().get_subset(asset_selection={dg.AssetKey(asset)})
    everything = defs.resolve_job_def("everything")
    for job, config in (
        (of_the_asset, {asset: {"config": options}}),
        (everything, {"run_everything": {"config": {asset: options}}}),
    ):
        with pytest.raises(dg.DagsterInvalidConfigError, match=words):
            dg.validate_run_config(job, {"ops": config})


def test_each_option_tells_what_it_is_its_range_and_its_default() -> None:
    options = defs.resolve_job_def("train_one").nodes[0].definition.config_schema.as_field().config_type.fields  # type: ignore[attr-defined]
    epochs = options["checkpoint"].config_type.fields["epochs"]
    assert epochs.description == "Most epochs (at least 1; default 100)"
    for asset in ("checkpoint", "evaluation"):
        assert all("default" in field.description for field in options[asset].config_type.fields.values())
