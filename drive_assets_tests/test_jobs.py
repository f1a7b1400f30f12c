"""The jobs that people launch: their assets, their options, and a run over several partitions."""

from pathlib import Path

import dagster as dg
import pytest

from drive_assets.definitions import defs
from drive_assets.partitions import register_recordings
from drive_assets.resources.storage import Storage
from drive_assets.running.instance import open_instance
from drive_assets_tests.drives import write_drive

ASSETS = {
    "ingest_and_label": {"recording", "future_labels"},
    "annotate": {"annotations"},
    "rebuild_data_set": {"split_manifest", "h5_split"},
    "train": {"checkpoint", "evaluation"},
    "train_quick": {"checkpoint", "evaluation"},
    "evaluate": {"evaluation"},
}
NAMES = [f"2024-05-0{day}_10-00-00" for day in range(1, 4)]


def test_their_assets_and_the_fixed_options_of_the_quick_one() -> None:
    for name, assets in ASSETS.items():
        job = defs.resolve_job_def(name)
        assert {key.to_user_string() for key in job.asset_layer.selected_asset_keys} == assets
    quick = defs.resolve_job_def("train_quick").get_run_config_for_partition_key("simple_concat_lstm")
    assert quick["ops"]["checkpoint"]["config"] == {"epochs": 12, "batch_size": 128}
    dg.validate_run_config(defs.resolve_job_def("train_quick"), quick)


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
    of_the_asset = defs.resolve_implicit_global_asset_job_def().get_subset(asset_selection={dg.AssetKey(asset)})
    jobs = [defs.resolve_job_def(name) for name, assets in ASSETS.items() if asset in assets]
    for job in (of_the_asset, *jobs):
        with pytest.raises(dg.DagsterInvalidConfigError, match=words):
            dg.validate_run_config(job, {"ops": {asset: {"config": options}}})


def test_a_range_of_recordings_is_ingested_and_labelled_in_one_run(data_root: Path) -> None:
    storage = Storage.from_environment()
    for name in NAMES:
        write_drive(storage.inbox / name, rows=4)
    with open_instance() as instance:
        register_recordings(instance, NAMES)
        tags = {"dagster/asset_partition_range_start": NAMES[0], "dagster/asset_partition_range_end": NAMES[-1]}
        job = defs.resolve_job_def("ingest_and_label")
        assert job.execute_in_process(instance=instance, tags=tags, resources={"storage": storage}).success
        assert instance.get_materialized_partitions(dg.AssetKey("future_labels")) == set(NAMES)
