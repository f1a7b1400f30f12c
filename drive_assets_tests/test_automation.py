"""What follows by itself when a recording arrives, and the refresh: when it runs, what it makes, and what it says."""

import os
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import numpy as np
import pytest
import yaml

from drive_assets.automation import AUTOMATION, refresh_schedule
from drive_assets.definitions import defs
from drive_assets.operations import REFRESH
from drive_assets.partitions import register_recordings
from drive_assets.resources.storage import Storage
from drive_assets.running.environment import Cron, setting
from drive_assets.running.instance import open_instance
from drive_assets_tests.drives import write_drive
from model.common.errors import DataError
from model.recording.annotations import Annotations, write_annotations
from model.recording.labels import future_labels, write_future_labels
from model.recording.telemetry import read_telemetry

NAMES = [f"2024-05-0{day}_10-00-00" for day in range(1, 5)]
ARCHITECTURE = "simple_concat_lstm"
TINY = """
split_manifest: {window: {stride: 1}}
checkpoint: {epochs: 1, batch_size: 32, warmup_epochs: 0, embedding_dim: 16, hidden_dim: 16, attention_num_heads: 4,
  decoder_num_layers: 1}
evaluation: {bootstrap_samples: 20}
"""


def make_ready(storage: Storage, name: str, seed: int) -> None:
    """A recording that is annotated (one vehicle a frame) and labelled."""
    folder = write_drive(storage.recording(name), seed=seed)
    telemetry, _ = read_telemetry(folder / "telemetry.csv")
    times = telemetry["Time"].tolist()
    box = np.array([[10, 10, 500, 300, 0.9, 0]], np.float32)
    frames = Annotations.from_frames(times, [f"{time}.jpg" for time in times], [box] * len(times))
    write_annotations(storage.annotations(name), frames)
    write_future_labels(storage.future_labels(name), future_labels(telemetry))


def tick(instance: dg.DagsterInstance, storage: Storage) -> dg.RunRequest | dg.SkipReason:
    with dg.build_schedule_context(instance=instance, resources={"storage": storage}) as context:
        result = refresh_schedule(context)
    assert isinstance(result, (dg.RunRequest, dg.SkipReason))
    return result


def skipped(result: dg.RunRequest | dg.SkipReason) -> str:
    assert isinstance(result, dg.SkipReason)
    return str(result.skip_message)


def changed(result: dg.RunRequest | dg.SkipReason) -> str:
    assert isinstance(result, dg.RunRequest)
    return result.tags["drive_assets/changed"]


@pytest.mark.timeout(900)
def test_it_runs_when_recordings_changed_and_makes_all_anew(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "refresh.yaml").write_text(TINY)
    monkeypatch.setenv("DRIVE_ASSETS_REFRESH_CONFIG", str(tmp_path / "refresh.yaml"))
    storage = Storage.from_environment()
    with open_instance() as instance:
        register_recordings(instance, NAMES)
        assert "No recording is annotated and labelled yet" in skipped(tick(instance, storage))
        for seed, name in enumerate(NAMES[:3]):
            make_ready(storage, name, seed)
        storage.checkpoint(ARCHITECTURE).mkdir(parents=True)
        (storage.checkpoint(ARCHITECTURE) / "best_model.pt").write_bytes(b"of an earlier training")
        first = tick(instance, storage)
        assert changed(first) == "3 recordings"
        assert isinstance(first, dg.RunRequest)
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(first.run_config))
        status, told = execute(REFRESH, "--config", str(tmp_path / "run.yaml"))
        assert status == 0, told
        for asset in ("split_manifest", "h5_split", "checkpoint", "evaluation", "model_comparison"):
            assert instance.get_latest_materialization_event(dg.AssetKey(asset)) is not None
        assert instance.get_materialized_partitions(dg.AssetKey("checkpoint")) == {ARCHITECTURE}
        assert (storage.evaluations / "comparison.html").is_file()

        assert "None of the 3 recordings" in skipped(tick(instance, storage))
        text = storage.annotations(NAMES[0]).read_text()
        storage.annotations(NAMES[0]).write_text(text)  # written anew, and the same
        assert "None of the 3 recordings" in skipped(tick(instance, storage))
        time.sleep(0.02)
        storage.annotations(NAMES[0]).write_text(text.replace("0.9", "0.8"))
        assert changed(tick(instance, storage)) == f"{NAMES[0]} (annotations.csv changed)"
        storage.annotations(NAMES[0]).write_text(text)
        make_ready(storage, NAMES[3], 3)
        assert changed(tick(instance, storage)) == f"{NAMES[3]} (new)"
        monkeypatch.setenv("DRIVE_ASSETS_REFRESH_AFTER", "2")
        assert skipped(tick(instance, storage)).startswith("1 of the 3 recordings")
        monkeypatch.delenv("DRIVE_ASSETS_REFRESH_AFTER")
        monkeypatch.delenv("DRIVE_ASSETS_REFRESH_CONFIG")
        as_jobs_do = tick(instance, storage)
        assert isinstance(as_jobs_do, dg.RunRequest)
        assert as_jobs_do.run_config["ops"]["run_refresh"]["config"]["checkpoint"]["recipe"] == "best"


def test_a_recording_that_was_skipped_counts_once_it_changed(data_root: Path) -> None:
    storage = Storage.from_environment()
    with open_instance() as instance:
        register_recordings(instance, NAMES)
        for seed, name in enumerate(NAMES):
            make_ready(storage, name, seed)
        kept = storage.future_labels(NAMES[3]).read_bytes()
        storage.future_labels(NAMES[3]).unlink()
        from drive_assets.splits.assets import split_manifest

        assert dg.materialize([split_manifest], instance=instance, resources={"storage": storage}).success
        assert "None of the 3 recordings" in skipped(tick(instance, storage))
        time.sleep(0.02)
        storage.future_labels(NAMES[3]).write_bytes(kept)
        assert changed(tick(instance, storage)) == f"{NAMES[3]} (changed since it was skipped)"


def test_a_refresh_that_fails_says_why(data_root: Path) -> None:
    open_instance().dispose()
    status, told = execute(REFRESH)
    assert status != 0
    assert "too few" in told and "Some could not be made" in told


def execute(job: str, *arguments: str) -> tuple[int, str]:
    """Run a job in a process of its own, as the daemon does."""
    command = [
        str(Path(sys.executable).parent / "dagster"),
        "job",
        "execute",
        "-m",
        "drive_assets.definitions",
        "-j",
        job,
    ]
    ended = subprocess.run([*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return ended.returncode, ended.stdout


@pytest.mark.parametrize(("text", "is_right"), [("30 1 * * 1-5", True), ("@daily", True), ("never", False)])
def test_the_time_of_the_refresh(monkeypatch: pytest.MonkeyPatch, text: str, is_right: bool) -> None:
    monkeypatch.setenv("DRIVE_ASSETS_REFRESH_CRON", text)
    if is_right:
        assert setting("DRIVE_ASSETS_REFRESH_CRON", Cron, "0 2 * * *") == text
        return
    with pytest.raises(DataError, match=r"DRIVE_ASSETS_REFRESH_CRON is .never. .*not a cron schedule"):
        setting("DRIVE_ASSETS_REFRESH_CRON", Cron, "0 2 * * *")


def test_without_a_variable_it_is_at_night(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DRIVE_ASSETS_REFRESH_CRON", raising=False)
    assert setting("DRIVE_ASSETS_REFRESH_CRON", Cron, "0 2 * * *") == "0 2 * * *"
    assert "DRIVE_ASSETS_REFRESH_CRON" not in os.environ


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
