"""The whole graph on a real Dagster instance with a real MLflow store: drives to a comparison."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import h5py
import psutil
import pytest

from drive_assets.instance import open_instance
from drive_assets_tests.drives import write_drive
from model.dataset.windows import read_split
from model.detection.detector import BUNDLED

NAMES = [f"2024-05-0{day}_10-00-00" for day in range(1, 5)]
BROKEN = "2024-05-09_10-00-00"
TWO = ["simple_concat_lstm", "attention_cross_attention_transformer"]
CONFIG = """
annotations: {image_size: 320, backend: torch}
split_manifest: {window: {stride: 1}}
checkpoint: {epochs: 2, batch_size: 32, warmup_epochs: 0, learning_rate: 0.001, embedding_dim: 16, hidden_dim: 16,
  attention_num_heads: 4, decoder_num_layers: 1}
evaluation: {bootstrap_samples: 20}
"""


COMMAND = """
import atexit, sys
atexit.register(lambda: print("heavy:", [name for name in ("torch", "ultralytics") if name in sys.modules]))
from drive_assets.cli import main
main()
"""


def drive_assets(*arguments: str) -> tuple[int, str]:
    """Run the command as a user does; its exit status and all that it printed, last the heavy modules it imported."""
    command = [sys.executable, "-c", COMMAND, *arguments]
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return ended.returncode, ended.stdout


@pytest.mark.timeout(600)
def test_from_drives_to_the_comparison(data_root: Path, tmp_path: Path) -> None:
    given = tmp_path / "given"
    for seed, name in enumerate(NAMES):
        write_drive(given / name, seed=seed)
    broken = write_drive(given / BROKEN, rows=4)
    text = (broken / "telemetry.csv").read_text()
    (broken / "telemetry.csv").write_text(text.replace(",2000,", ",fast,"))
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG)

    status, told = drive_assets("ingest", str(given))
    assert status == 1  # the broken one failed, by name, and the others went on
    assert "row 2, column RPM: 'fast' is not a number" in told
    assert sorted(p.name for p in (data_root / "recordings").iterdir() if not p.name.startswith(".")) == NAMES

    rest = "annotations,future_labels,split_manifest,h5_split,checkpoint,evaluation,model_comparison"
    chosen = ["--recordings", *NAMES, "--architectures", *TWO, "--weights", str(BUNDLED), "--config", str(config)]
    status, told = drive_assets("run", "--select", rest, *chosen)
    assert status == 0, told
    assert "  model_comparison: " in told and "left out: " in told
    assert told.endswith("heavy: []\n")  # GPU work and its libraries live in the worker

    manifest = json.loads((data_root / "datasets" / "multimodal" / "dataset_config.json").read_text())
    assert BROKEN not in manifest["recordings"]
    splits = {
        name: read_split(data_root / "datasets" / "multimodal" / f"{name}.h5") for name in ("train", "val", "test")
    }
    members = [set(split.recordings) for split in splits.values()]
    assert sorted(name for part in members for name in part) == NAMES
    assert all(split.fingerprint == manifest["fingerprint"] for split in splits.values())

    comparison = json.loads((data_root / "evaluation" / "comparison.json").read_text())
    assert {row["architecture"] for row in comparison["variants"]} == set(TWO)
    page = (data_root / "evaluation" / "comparison.html").read_text()
    assert all(name in page for name in TWO)

    _check_dagster()
    assert [row["architecture"] for row in comparison["baselines"]][-1] == "random"
    _check_mlflow(data_root)

    for how in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        _check_that_it_can_be_ended(tmp_path / "long.yaml", how)

    # Splits that are not of the manifest are not trained on.
    older = data_root / "datasets" / "multimodal" / "train.h5"
    kept = older.read_bytes()
    with h5py.File(older, "a") as file:
        file.attrs["fingerprint"] = "older"
    status, told = drive_assets("run", "--select", "checkpoint", *chosen)
    assert (status, "materialise h5_split again" in told) == (1, True)
    older.write_bytes(kept)

    # The same again: annotations and trainings have nothing to redo, and MLflow gets no second run a training.
    before = (data_root / "recordings" / NAMES[0] / "annotations.csv").stat().st_mtime_ns
    shutil.rmtree(data_root / "evaluation")
    status, told = drive_assets("run", "--select", "evaluation,model_comparison", *chosen)
    assert status == 0, told
    assert (data_root / "recordings" / NAMES[0] / "annotations.csv").stat().st_mtime_ns == before
    assert (data_root / "evaluation" / "comparison.csv").is_file()


def _check_that_it_can_be_ended(config: Path, how: signal.Signals) -> None:
    """A training ends with its worker at once, though the asset's policy retries failures; the next run goes on."""
    config.write_text(CONFIG.replace("epochs: 2", "epochs: 5000, early_stop_patience: 5000"))
    command = [sys.executable, "-c", COMMAND, "run", "--select", "checkpoint", "--architectures", TWO[0]]
    told = config.with_suffix(".log")
    with told.open("w") as log, subprocess.Popen([*command, "--config", str(config)], stdout=log) as run:
        deadline = time.monotonic() + 120
        while f"{TWO[0]} epoch " not in told.read_text():
            assert time.monotonic() < deadline and run.poll() is None, told.read_text()
            time.sleep(0.2)
        children = psutil.Process(run.pid).children(recursive=True)
        workers = [process for process in children if "drive_assets.worker" in process.cmdline()]
        assert len(workers) == 1
        run.send_signal(how)
        try:
            status = run.wait(60)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{how.name} is not heard: {told.read_text()[-5000:]}") from None
        finally:
            run.kill()
    _, alive = psutil.wait_procs(workers, 10)
    assert not alive
    if how != signal.SIGKILL:
        assert (status, "The run was terminated" in told.read_text()) == (130, True)


def _check_dagster() -> None:
    with open_instance() as instance:
        for asset in ("recording", "annotations", "future_labels"):
            assert instance.get_materialized_partitions(dg.AssetKey(asset)) == set(NAMES)
        for asset in ("checkpoint", "evaluation"):
            assert instance.get_materialized_partitions(dg.AssetKey(asset)) == set(TWO)
        event = instance.get_latest_materialization_event(dg.AssetKey("model_comparison"))
        assert event is not None and event.asset_materialization is not None
        assert {"best", "table", "figure", "verdict", "no_better_than_a_baseline"} <= set(
            event.asset_materialization.metadata
        )
        labels = instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=dg.AssetKey("future_labels"), asset_partitions=[NAMES[1]]), limit=1
        )
        shown = labels.records[0].asset_materialization
        assert shown is not None and "timeline" in shown.metadata


def _check_mlflow(data_root: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{data_root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("drive-assets")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == set(TWO)
    for run in runs.values():
        assert run.info.status == "FINISHED"
        assert len(client.get_metric_history(run.info.run_id, "train_loss")) == 2
        assert run.data.params["batch_size"] == "32"
        assert {"test_mean_pr_auc", "test_pr_auc_brake_1s"} <= set(run.data.metrics)
        assert run.inputs.dataset_inputs[0].dataset.name == "multimodal"
        folders = {item.path for item in client.list_artifacts(run.info.run_id)}
        assert {"checkpoint", "evaluation"} <= folders
    assert not client.search_registered_models()  # two epochs do not beat the baselines


def test_unknown_names_are_refused(data_root: Path) -> None:
    status, told = drive_assets("run", "--select", "checkpoint", "--architectures", "simple_concat_gru")
    assert (status, "Unknown architecture: simple_concat_gru" in told) == (2, True)
    status, told = drive_assets("run", "--select", "annotations", "--recordings", "2024-05-01_10-00-00")
    assert (status, "Unknown recording" in told) == (2, True)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("checkpoints: {epochs: 3}", "no such asset. Is checkpoint meant?"),
        ("checkpoint: {epoch: 3}", 'unexpected config entry "epoch"'),
        ("checkpoint: {epochs: ten}", "epochs"),
    ],
)
def test_a_misspelt_option_is_refused_before_anything_runs(
    data_root: Path, tmp_path: Path, config: str, words: str
) -> None:
    (tmp_path / "config.yaml").write_text(config)
    status, told = drive_assets("run", "--select", "checkpoint", "--config", str(tmp_path / "config.yaml"))
    assert status == 2
    assert words in told
    assert "Traceback" not in told


def test_training_without_splits_says_what_to_do(data_root: Path) -> None:
    status, told = drive_assets("run", "--select", "checkpoint", "--architectures", "simple_concat_lstm")
    assert (status, "materialise split_manifest first" in told) == (1, True)


def test_too_few_recordings_say_so(data_root: Path, tmp_path: Path) -> None:
    write_drive(tmp_path / NAMES[0], rows=6)
    assert drive_assets("ingest", str(tmp_path / NAMES[0]))[0] == 0
    status, told = drive_assets("run", "--select", "split_manifest")
    assert (status, "too few" in told, NAMES[0] in told) == (1, True, True)


def test_a_data_root_that_cannot_be_written(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DRIVE_ASSETS_DATA", str(tmp_path / "file" / "data"))
    monkeypatch.delenv("DAGSTER_HOME")
    status, told = drive_assets("ingest", str(tmp_path))
    assert (status, "DRIVE_ASSETS_DATA" in told) == (2, True)
