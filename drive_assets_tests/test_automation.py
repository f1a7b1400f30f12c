"""What follows automatically when a recording arrives, and the scheduled refresh."""

import time
from pathlib import Path

import dagster as dg
import pytest

from drive_assets.automation import AUTOMATION, REFRESH_TAG, refresh_schedule, refresh_training
from drive_assets.definitions import defs
from drive_assets.partitions import register_recordings
from drive_assets.resources.compute import LocalCompute
from drive_assets.resources.mlflow.client import Mlflow
from drive_assets.resources.storage import Storage
from drive_assets.running.environment import Cron, setting
from drive_assets.running.instance import open_instance
from drive_assets.splits.assets import split_manifest
from drive_assets_tests.model.dataset.test_windows import labelled_drive
from model.common.errors import DataError
from model.network.architectures import ARCHITECTURES

NAMES = [f"2024-05-0{day}_10-00-00" for day in range(1, 5)]
ARCHITECTURE = "simple_concat_lstm"
TINY = """
checkpoint: {epochs: 1, batch_size: 32, warmup_epochs: 0, embedding_dim: 16, hidden_dim: 16, attention_num_heads: 4,
  decoder_num_layers: 1}
evaluation: {bootstrap_samples: 20}
"""


def tick(instance: dg.DagsterInstance, storage: Storage) -> dg.RunRequest | dg.SkipReason:
    with dg.build_schedule_context(
        instance, repository_def=defs.get_repository_def(), resources={"storage": storage}
    ) as context:
        result = refresh_schedule(context)
    assert isinstance(result, (dg.RunRequest, dg.SkipReason))
    return result


def skipped(result: dg.RunRequest | dg.SkipReason) -> str:
    assert isinstance(result, dg.SkipReason)
    return str(result.skip_message)


def changed(result: dg.RunRequest | dg.SkipReason) -> str:
    assert isinstance(result, dg.RunRequest)
    return result.tags[REFRESH_TAG]


@pytest.mark.timeout(900)
def test_the_refresh_rebuilds_trains_and_compares_when_recordings_changed(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "refresh.yaml").write_text(TINY)
    monkeypatch.setenv("DRIVE_ASSETS_REFRESH_CONFIG", str(tmp_path / "refresh.yaml"))
    storage = Storage.from_environment()
    resources = {"storage": storage, "compute": LocalCompute(threads=1), "mlflow": Mlflow.from_environment()}
    with open_instance() as instance:
        register_recordings(instance, NAMES)
        assert skipped(tick(instance, storage)) == "0 recordings are annotated and labelled; 1 are needed."
        for seed, name in enumerate(NAMES[:3]):
            labelled_drive(storage.recording(name), rows=80, seed=seed)
        storage.checkpoint(ARCHITECTURE).mkdir(parents=True)
        (storage.checkpoint(ARCHITECTURE) / "best_model.pt").write_bytes(b"of an earlier training")
        first = tick(instance, storage)
        assert changed(first) == ", ".join(NAMES[:3])
        assert isinstance(first, dg.RunRequest)
        automation = dg.evaluate_automation_conditions(defs, instance)
        job = defs.resolve_job_def("rebuild_data_set")
        rebuilt = job.execute_in_process(first.run_config, instance, tags=first.tags, resources=resources)
        assert rebuilt.success
        assert instance.get_materialized_partitions(dg.AssetKey("h5_split")) == {"train", "val", "test"}

        (training,) = after(instance, rebuilt, storage)
        assert training.partition_key == ARCHITECTURE
        job = defs.resolve_job_def("train")
        assert job.execute_in_process(
            training.run_config, instance, partition_key=ARCHITECTURE, tags=training.tags, resources=resources
        ).success
        assert instance.get_materialized_partitions(dg.AssetKey("evaluation")) == {ARCHITECTURE}
        automation = dg.evaluate_automation_conditions(defs, instance, cursor=automation.cursor)
        assert automation.get_num_requested(dg.AssetKey("model_comparison")) == 1
        assert automation.get_num_requested(dg.AssetKey("checkpoint")) == 0
        automation = dg.evaluate_automation_conditions(defs, instance, cursor=automation.cursor)
        assert automation.total_requested == 0

        assert skipped(tick(instance, storage)).startswith("0 of 3 recordings are new, changed or gone")
        text = storage.annotations(NAMES[0]).read_text()
        storage.annotations(NAMES[0]).write_text(text)  # rewritten with the same content
        assert skipped(tick(instance, storage)).startswith("0 of 3 recordings")
        time.sleep(0.02)
        storage.annotations(NAMES[0]).write_text(text.replace("0.9", "0.8"))
        assert changed(tick(instance, storage)) == f"{NAMES[0]} (annotations.csv changed)"
        storage.annotations(NAMES[0]).write_text(text)
        labelled_drive(storage.recording(NAMES[3]), rows=80, seed=3)
        assert changed(tick(instance, storage)) == f"{NAMES[3]} (new)"
        monkeypatch.setenv("DRIVE_ASSETS_REFRESH_AFTER", "2")
        assert skipped(tick(instance, storage)).startswith("1 of 3 recordings")


def after(instance: dg.DagsterInstance, result: dg.ExecuteInProcessResult, storage: Storage) -> list[dg.RunRequest]:
    """The runs that the refresh requests after a run has rebuilt the data set."""
    context = dg.build_run_status_sensor_context(
        "refresh_training",
        dagster_event=result.get_run_success_event(),
        dagster_instance=instance,
        dagster_run=result.dagster_run,
        repository_def=defs.get_repository_def(),
        resources={"storage": storage},
    )
    requests = list(refresh_training(context))  # type: ignore[call-overload]
    return [request for request in requests if isinstance(request, dg.RunRequest)]


def test_a_wrong_schedule_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIVE_ASSETS_REFRESH_CRON", "at night")
    with pytest.raises(DataError, match=r"DRIVE_ASSETS_REFRESH_CRON is 'at night' .*no cron schedule.*'0 2 "):
        setting("DRIVE_ASSETS_REFRESH_CRON", Cron, "0 2 * * *")


def test_only_the_refresh_trains_after_the_data_set_was_rebuilt(data_root: Path) -> None:
    storage = Storage.from_environment()

    @dg.job
    def rebuild_data_set() -> None: ...

    with open_instance() as instance:
        assert after(instance, rebuild_data_set.execute_in_process(instance=instance), storage) == []
        tags = {REFRESH_TAG: "one recording"}
        requests = after(instance, rebuild_data_set.execute_in_process(instance=instance, tags=tags), storage)
        assert {request.partition_key for request in requests} == set(ARCHITECTURES)


def test_a_wrong_option_is_refused_before_the_data_set_is_rebuilt(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "refresh.yaml").write_text("checkpoint: {epochs: 0}")
    monkeypatch.setenv("DRIVE_ASSETS_REFRESH_CONFIG", str(tmp_path / "refresh.yaml"))
    storage = Storage.from_environment()
    with open_instance() as instance:
        register_recordings(instance, NAMES[:1])
        labelled_drive(storage.recording(NAMES[0]), rows=80, seed=0)
        with pytest.raises(DataError, match="greater than or equal to 1"):
            tick(instance, storage)


def test_a_recording_that_was_skipped_counts_once_it_changed(data_root: Path) -> None:
    storage = Storage.from_environment()
    with open_instance() as instance:
        register_recordings(instance, NAMES)
        for seed, name in enumerate(NAMES):
            labelled_drive(storage.recording(name), rows=80, seed=seed)
        content = storage.future_labels(NAMES[3]).read_bytes()
        storage.future_labels(NAMES[3]).unlink()
        assert dg.materialize([split_manifest], instance=instance, resources={"storage": storage}).success
        assert skipped(tick(instance, storage)).startswith("0 of 3 recordings")
        time.sleep(0.02)
        storage.future_labels(NAMES[3]).write_bytes(content)
        assert changed(tick(instance, storage)) == f"{NAMES[3]} (changed since it was skipped)"


def requested(
    instance: dg.DagsterInstance, earlier: dg.EvaluateAutomationConditionsResult
) -> tuple[set[str], dg.EvaluateAutomationConditionsResult]:
    """Assets that the next tick requests for the recording."""
    result = dg.evaluate_automation_conditions(defs, instance, cursor=earlier.cursor)
    keys = defs.resolve_asset_graph().get_all_asset_keys()
    return {key.to_user_string() for key in keys if NAMES[0] in result.get_requested_partitions(key)}, result


def test_a_recording_is_labelled_and_annotated_once_there_is_a_detector() -> None:
    assert AUTOMATION.default_status == dg.DefaultSensorStatus.RUNNING
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.evaluate_automation_conditions(defs, instance)
        register_recordings(instance, [NAMES[0]])
        found, result = requested(instance, result)
        assert found == set()  # a name, no recording yet
        instance.report_runless_asset_event(dg.AssetMaterialization("recording", partition=NAMES[0]))
        found, result = requested(instance, result)
        assert found == {"future_labels"}
        instance.report_runless_asset_event(dg.AssetMaterialization("boxy_detector"))
        found, result = requested(instance, result)
        assert found == {"annotations"}
        instance.report_runless_asset_event(dg.AssetMaterialization("annotations", partition=NAMES[0]))
        instance.report_runless_asset_event(dg.AssetMaterialization("boxy_detector"))
        found, result = requested(instance, result)
        assert found == set()  # a new detector alone does not annotate everything anew
        instance.report_runless_asset_event(dg.AssetMaterialization("recording", partition=NAMES[0]))
        found, result = requested(instance, result)
        assert found == {"future_labels", "annotations"}


def test_what_a_command_took_before_the_sensor_ran_or_while_it_was_off_is_caught_up() -> None:
    labelled = dg.AssetKey("future_labels")

    def take(instance: dg.DagsterInstance, names: list[str]) -> None:
        register_recordings(instance, names)
        for name in names:
            instance.report_runless_asset_event(dg.AssetMaterialization("recording", partition=name))

    with dg.DagsterInstance.ephemeral() as instance:
        take(instance, NAMES[:2])
        result = dg.evaluate_automation_conditions(defs, instance)
        assert result.get_requested_partitions(labelled) == set(NAMES[:2])
        for name in NAMES[:2]:
            instance.report_runless_asset_event(dg.AssetMaterialization("future_labels", partition=name))
        result = dg.evaluate_automation_conditions(defs, instance, cursor=result.cursor)
        take(instance, NAMES[1:3])  # one new, one that arrived anew
        result = dg.evaluate_automation_conditions(defs, instance, cursor=result.cursor)
        assert result.get_requested_partitions(labelled) == set(NAMES[1:3])
        instance.delete_dynamic_partition("recordings", NAMES[0])  # forgotten
        result = dg.evaluate_automation_conditions(defs, instance, cursor=result.cursor)
        assert result.total_requested == 0
