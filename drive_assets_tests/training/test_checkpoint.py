"""The asset with a real Dagster instance, MLflow store and workers: each training is separate, none runs twice."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from drive_assets.resources.compute import LocalCompute
from drive_assets.resources.mlflow.client import Mlflow
from drive_assets.resources.mlflow.tracking import GROUP
from drive_assets.resources.storage import Storage
from drive_assets.training import assets
from drive_assets_tests.model.split_files import write_split_file
from drive_assets_tests.training.conftest import SMALL
from model.training.published import HISTORY, Decline
from model.training.recipes import RECIPES

TWO = ["simple_concat_lstm", "simple_concat_transformer"]


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as instance:
        yield instance


def train(instance: dg.DagsterInstance, **options: Any) -> tuple[dg.ExecuteInProcessResult, list[str]]:
    """Train both architectures in one run -> its result and the messages of its log."""
    names = list(assets.ARCHITECTURE_PARTITIONS.get_partition_keys())
    assert names.index(TWO[1]) == names.index(TWO[0]) + 1
    resources = {"storage": Storage.from_environment(), "mlflow": Mlflow.from_environment()}
    defs = dg.Definitions([assets.checkpoint], resources={**resources, "compute": LocalCompute(threads=1)})
    result = defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance,
        tags={"dagster/asset_partition_range_start": TWO[0], "dagster/asset_partition_range_end": TWO[1]},
        run_config={"ops": {"checkpoint": {"config": {**SMALL, **options}}}},
        raise_on_error=False,
    )
    records = instance.get_records_for_run(result.run_id).records
    return result, [record.event_log_entry.user_message for record in records]


def runs(data_root: Path) -> list[Run]:
    """MLflow's runs of trainings, the oldest first."""
    every = MlflowClient(f"sqlite:///{data_root / 'mlflow.db'}").search_runs(["1"], order_by=["start_time"])
    return [run for run in every if GROUP in run.data.tags]


def group(data_root: Path) -> Run:
    """The MLflow run that groups them."""
    every = MlflowClient(f"sqlite:///{data_root / 'mlflow.db'}").search_runs(["1"])
    (only,) = [run for run in every if GROUP not in run.data.tags]
    return only


def steps(data_root: Path, run: Run) -> list[int]:
    client = MlflowClient(f"sqlite:///{data_root / 'mlflow.db'}")
    return [metric.step for metric in client.get_metric_history(run.info.run_id, "train_loss")]


@pytest.mark.timeout(600)
def test_each_training_has_a_run_of_its_own_and_a_published_one_is_reused(
    data_root: Path, splits: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    version_of = assets.sha256

    def broken(path: Path) -> str:
        if path.parent.name == TWO[0]:
            raise ZeroDivisionError("a bug")
        return version_of(path)

    with monkeypatch.context() as patch:
        patch.setattr(assets, "sha256", broken)
        result, log = train(instance)
    materialized = instance.get_materialized_partitions(dg.AssetKey("checkpoint"))
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    description = failure.step_failure_data.user_failure_data.description
    assert (materialized, description.count("failed")) == ({TWO[1]}, 1)
    assert description.startswith(f"1 of 2 failed.\n{TWO[0]}: ZeroDivisionError")
    assert any(line.startswith(f"{TWO[0]} epoch 1/2  loss ") and "  PR-AUC " in line for line in log)

    first, second = runs(data_root)
    assert [run.info.run_name for run in (first, second)] == [f"{name}, best changed" for name in TWO]
    assert [run.info.status for run in (first, second)] == ["FINISHED"] * 2
    assert first.info.end_time <= second.info.start_time
    assert (
        first.data.tags.items()
        >= {"architecture": TWO[0], "data_version": "v1", "dagster.run_id": result.run_id}.items()
    )
    assert first.inputs.dataset_inputs[0].dataset.name == "multimodal"
    assert {run.data.tags[GROUP] for run in (first, second)} == {group(data_root).info.run_id}
    assert (group(data_root).info.run_name, group(data_root).info.status) == ("best changed on v1", "FINISHED")
    assert group(data_root).info.start_time <= first.info.start_time
    assert group(data_root).info.end_time == second.info.end_time
    (page,) = (data_root / "mlflow_artifacts" / second.info.run_id).rglob("report.html")
    assert f"Checkpoint of {TWO[1]}" in page.read_text() and 'src="data:image' in page.read_text()
    published = (data_root / "models" / "multimodal" / TWO[0] / HISTORY).read_bytes()

    result, log = train(instance)
    assert result.success
    assert instance.get_materialized_partitions(dg.AssetKey("checkpoint")) == set(TWO)
    assert not any(" epoch " in line for line in log)
    (event,) = [event for event in result.asset_materializations_for_node("checkpoint") if event.partition == TWO[0]]
    assert "already trained" in str(event.metadata["summary"].value)
    assert event.metadata["mlflow"].value == "http://127.0.0.1:5000/#/experiments/1/runs?workflowType=machine_learning"
    assert (data_root / "models" / "multimodal" / TWO[0] / HISTORY).read_bytes() == published
    again = runs(data_root)
    assert [(run.info.run_id, run.info.end_time) for run in again] == [
        (run.info.run_id, run.info.end_time) for run in (first, second)
    ]
    assert [steps(data_root, run) for run in again] == [[1, 2]] * 2

    with monkeypatch.context() as patch:
        patch.setattr(assets, "decline", lambda output: Decline(0.9, 0.8))
        result, log = train(instance, train_anew=True, keep_better=True)
    assert result.success
    assert (data_root / "models" / "multimodal" / TWO[0] / HISTORY).read_bytes() == published
    (event,) = [event for event in result.asset_materializations_for_node("checkpoint") if event.partition == TWO[0]]
    assert event.metadata["previous"].value == "kept: mean PR-AUC on val fell from 0.900 to 0.800"
    assert any(f"{TWO[0]} epoch 2/2  " in line for line in log)
    assert [steps(data_root, run) for run in runs(data_root)] == [[1, 2]] * 4

    with monkeypatch.context() as patch:  # a failure after the better one was restored is no reason to train again
        patch.setattr(assets, "decline", lambda output: Decline(0.9, 0.8))
        patch.setattr(assets, "sha256", broken)
        assert not train(instance, seed=1, keep_better=True)[0].success
        patch.setattr(assets, "sha256", version_of)
        result, log = train(instance, seed=1, keep_better=True)
    assert result.success and not any(" epoch " in line for line in log)
    (changed,) = [line for line in log if line.startswith("Replaces ")]
    assert changed.startswith(f"Replaces {', '.join(TWO)}, with other options: seed 1 instead of ")
    (event,) = [event for event in result.asset_materializations_for_node("checkpoint") if event.partition == TWO[0]]
    assert str(event.metadata["previous"].value).startswith("kept")
    assert (data_root / "models" / "multimodal" / TWO[0] / HISTORY).read_bytes() == published
    assert [steps(data_root, run) for run in runs(data_root)] == [[1, 2]] * 6


@pytest.mark.timeout(600)
def test_splits_rebuilt_between_launch_and_load_fail_the_training(
    data_root: Path, splits: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_each = LocalCompute.run_each

    def rebuilt(*arguments: Any) -> Any:
        write_split_file(splits / "train.h5", frames=60, seed=9, version="v2")
        return run_each(*arguments)

    monkeypatch.setattr(LocalCompute, "run_each", rebuilt)
    result, _ = train(instance)
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    description = failure.step_failure_data.user_failure_data.description
    assert description.count("train.h5 holds data version v2, expected v1") == 2
    assert not (data_root / "models" / "multimodal" / TWO[0] / HISTORY).exists()


def test_options_that_equal_the_default_are_used() -> None:
    options = {name: getattr(RECIPES["best"], name) for name in ("epochs", "learning_rate")}

    @dg.asset
    def trained(config: assets.TrainingLaunchpad) -> None:
        assert config.training_config(options) == RECIPES["best"]

    assert dg.materialize([trained], run_config={"ops": {"trained": {"config": options}}}).success
