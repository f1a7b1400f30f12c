"""Training learns, is reproducible, resumes exactly, refuses other data, and reports wrong input."""

import json
import math
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch

from drive_assets_tests.model.split_files import rewrite, write_split_file
from drive_assets_tests.model.training.test_published import killed_at
from model.common.errors import DataError
from model.factory import architecture_of, create_model_variant
from model.network.architectures import ARCHITECTURES
from model.recording.schema import BINARY_LABELS
from model.training import loop, published
from model.training.checkpoint import load_checkpoint
from model.training.data import load_split
from model.training.epoch import evaluate, train_one_epoch
from model.training.loop import train
from model.training.loss import UnifiedFocalLoss, training_loss
from model.training.published import TrainingResult, read_history
from model.training.recipes import RECIPES, TrainingConfig
from model.training.step import Step

SMALL: dict[str, Any] = {
    "epochs": 4,
    "batch_size": 16,
    "learning_rate": 2e-3,
    "warmup_epochs": 1,
    "embedding_dim": 16,
    "hidden_dim": 16,
    "attention_num_heads": 2,
    "decoder_num_layers": 2,
    "device": "cpu",
}
CONFIG = TrainingConfig(**SMALL)
NAME = "simple_cross_attention_lstm"
PUBLISHED = ["best_model.pt", "latest_checkpoint.pt", "training_history.json"]


@pytest.fixture
def splits(tmp_path: Path) -> Path:
    write_split_file(tmp_path / "train.h5", frames=80, seed=1)
    write_split_file(tmp_path / "val.h5", frames=60, seed=2)
    return tmp_path


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def figures(result: TrainingResult) -> list[dict[str, Any]]:
    return [{name: value for name, value in epoch.items() if name != "epoch_seconds"} for epoch in result.history]


def assert_same_training(one: TrainingResult, other: TrainingResult) -> None:
    assert figures(one) == figures(other)
    for name in PUBLISHED[:2]:
        ours, theirs = weights(one.output / name), weights(other.output / name)
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


class Killed(BaseException):
    pass


def kill_after(epoch: int) -> Any:
    def on_epoch(metrics: dict[str, float | int]) -> None:
        if metrics["epoch"] == epoch:
            raise Killed

    return on_epoch


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_trains_and_its_checkpoint_loads(architecture: str, splits: Path) -> None:
    seen: list[dict[str, float | int]] = []
    result = train(architecture, splits, splits / "out", CONFIG.replace(epochs=2), "v1", seen.append)

    assert [epoch["epoch"] for epoch in seen] == [0, 1]
    assert set(seen[0]) == {
        *("epoch", "lr", "epoch_seconds", "bad_steps", "train_loss", "val_loss", "val_pr_auc_mean"),
        *(f"val_{kind}_auc_{task}" for kind in ("pr", "roc") for task in CONFIG.tasks),
    }
    assert all(math.isfinite(value) for epoch in seen for value in epoch.values())
    assert result.best_metrics == max(result.history, key=lambda epoch: epoch["val_pr_auc_mean"] or 0)
    assert sorted(path.name for path in result.output.iterdir()) == sorted([".work", *PUBLISHED])
    assert not [path for path in (result.output / ".work").iterdir() if path.is_dir()]
    made = result.record["made"]
    assert (made["device"], made["precision"], result.resumed_from) == ("cpu", "fp32", 0)
    assert made["windows_per_s"] > 0 and made["parameters"] > 1000
    model, checkpoint = load_checkpoint(result.best_model, architecture)
    assert checkpoint["epoch"] == result.record["best_epoch"]
    assert checkpoint["val_metrics"] == result.best_metrics
    assert TrainingConfig(**checkpoint["training_config"]).epochs == 2
    data = load_split(splits / "val.h5", TrainingConfig(**checkpoint["training_config"]), "cpu")
    assert not model.training
    loss = UnifiedFocalLoss(CONFIG.tasks)
    again = evaluate(model, data, loss, CONFIG)
    assert again == {name: result.best_metrics[name] for name in again}


def test_a_learnable_set_is_learnt(tmp_path: Path) -> None:
    write_split_file(tmp_path / "train.h5", frames=400, seed=1)
    write_split_file(tmp_path / "val.h5", frames=200, seed=2)
    config = CONFIG.replace(epochs=14, batch_size=32, learning_rate=4e-3)
    result = train("attention_cross_attention_transformer", tmp_path, tmp_path / "out", config)

    first, best = result.history[0], result.best_metrics
    assert first["train_loss"] and result.history[-1]["train_loss"]
    assert result.history[-1]["train_loss"] < 0.5 * first["train_loss"]
    assert (best["val_pr_auc_mean"] or 0) > 0.8 > 0.65 > (first["val_pr_auc_mean"] or 0)


def test_a_published_training_is_reused_unless_forced_or_damaged(splits: Path) -> None:
    first = train(NAME, splits, splits / "out", CONFIG, "v1")
    assert figures(first)  # read before another training replaces them
    seen: list[dict[str, float | int]] = []
    again = train(NAME, splits, splits / "out", CONFIG, "v1", seen.append)
    assert (again.reused, again.resumed_from, seen) == (True, 4, [])
    assert again.record == first.record

    forced = train(NAME, splits, splits / "out", CONFIG, "v1", seen.append, force=True)
    assert (forced.reused, forced.resumed_from, len(seen)) == (False, 0, 4)
    other = train(NAME, splits, splits / "out", CONFIG.replace(seed=1), "v1")
    assert not other.reused
    with pytest.raises(DataError, match="out holds another training, published since this one ended"):
        _ = forced.record
    assert train(NAME, splits, splits / "out", CONFIG, "v1").reused  # published again from the folder previous
    assert published.is_published(splits / "out" / "previous", other.identity)
    (splits / "out" / "best_model.pt").write_bytes(b"damaged")
    assert not train(NAME, splits, splits / "out", CONFIG, "v1").reused
    history = splits / "out" / PUBLISHED[2]
    history.write_text(history.read_text().replace('"learning_rate"', '"leerning_rate"', 1))
    with pytest.raises(DataError, match="was modified since"):
        read_history(splits / "out")
    repeated = train(NAME, splits, splits / "out", CONFIG, "v1")
    assert not repeated.reused and figures(repeated) == figures(first)


def test_a_forced_training_that_was_killed_is_resumed_with_or_without_force(splits: Path) -> None:
    train(NAME, splits, splits / "out", CONFIG, "v1")
    for force in (True, False):
        with pytest.raises(Killed):
            train(NAME, splits, splits / "out", CONFIG, "v1", kill_after(1), force=True)
        resumed = train(NAME, splits, splits / "out", CONFIG, "v1", force=force)
        assert (resumed.resumed_from, resumed.reused) == (2, False)


def test_publishing_that_is_killed_at_any_step_is_completed_without_training(splits: Path) -> None:
    older = train(NAME, splits, splits / "out", CONFIG.replace(seed=1), "v1")
    with pytest.raises(Killed):
        train(NAME, splits, splits / "out", CONFIG, "v1", kill_after(3))
    (work,) = (path for path in (splits / "out" / ".work").iterdir() if path.is_dir())
    published_at = []
    for step in range(100):
        shutil.copytree(splits / "out", splits / str(step))
        output = splits / str(step)
        killed = killed_at(step, published.publish, output / ".work" / work.name, output)
        history = json.loads((splits / str(step) / "training_history.json").read_text())
        published_at.append(history["fingerprint"] != older.record["fingerprint"])
        seen: list[dict[str, float | int]] = []
        result = train(NAME, splits, splits / str(step), CONFIG, "v1", seen.append)
        assert (result.record["fingerprint"], result.resumed_from, seen) == (work.name, 4, [])
        assert sorted(path.name for path in (splits / str(step)).iterdir()) == sorted([".work", "previous", *PUBLISHED])
        assert not [path for path in (splits / str(step) / ".work").iterdir() if path.is_dir()]
        assert load_checkpoint(result.best_model)[1]["training_config"]["seed"] == 0
        assert published.is_published(output / "previous", older.record["fingerprint"])
        if not killed:
            break
    assert not killed and step >= 10
    assert published_at == sorted(published_at)


def test_two_runs_of_a_seed_are_equal_whatever_ran_before_and_leave_the_callers_random_numbers_alone(
    splits: Path,
) -> None:
    one = train(NAME, splits, splits / "one", CONFIG)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    two = train(NAME, splits, splits / "two", CONFIG)
    assert torch.equal(torch.rand(3), expected)
    assert_same_training(one, two)
    assert figures(one) != figures(train(NAME, splits, splits / "three", CONFIG.replace(seed=1)))


@pytest.mark.parametrize(
    "config",
    [
        CONFIG.replace(epochs=5, plateau_patience=1),
        CONFIG.replace(epochs=5, precision="bf16", sampling="balanced"),
        RECIPES["best"].replace(**{**SMALL, "epochs": 5}, dropout_prob=0.3),
    ],
    ids=["reference", "bf16", "best"],
)
def test_a_training_killed_between_epochs_ends_like_an_undisturbed_one(splits: Path, config: TrainingConfig) -> None:
    whole = train(NAME, splits, splits / "whole", config, "v1")
    for epoch in (0, 2, 4):
        with pytest.raises(Killed):
            train(NAME, splits, splits / "out", config, "v1", kill_after(epoch))
        assert not (splits / "out" / "best_model.pt").exists()
    resumed = train(NAME, splits, splits / "out", config, "v1")

    assert resumed.resumed_from == 5
    assert_same_training(whole, resumed)


def test_the_published_network_has_the_average_of_the_weights_and_derives_its_inputs_as_in_training(
    splits: Path,
) -> None:
    config = RECIPES["best"].replace(**SMALL)
    model, checkpoint = load_checkpoint(train(NAME, splits, splits / "out", config, "v1").best_model)
    assert list(model.config.prediction_tasks)[:4] == config.tasks and len(model.config.prediction_tasks) == 10
    assert model.members is not None and (model.members.deviation != 1).any()
    loss, data = training_loss(config, config.tasks), load_split(splits / "val.h5", config, "cpu")
    again = evaluate(model, data, loss, CONFIG)
    assert again == {name: checkpoint["val_metrics"][name] for name in again}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_process_that_is_killed_within_an_epoch_resumes_after_the_one_before(splits: Path, number: int) -> None:
    script = (
        "import time, torch; from pathlib import Path\n"
        "from model.training.loop import train\n"
        "from model.training.recipes import TrainingConfig\n"
        "from model.training.step import Step\n"
        "step, steps = Step._step, []\n"
        "def stopped(*arguments):\n"
        "    steps.append(0)\n"
        "    if len(steps) == 10: print('stopped', flush=True); time.sleep(600)\n"
        "    return step(*arguments)\n"
        "Step._step = stopped\n"
        f"torch.set_num_threads({torch.get_num_threads()})\n"
        f"config = TrainingConfig(**{SMALL!r})\n"
        f"train({NAME!r}, Path({str(splits)!r}), Path({str(splits / 'out')!r}), config, 'v1')\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "stopped\n"
        process.send_signal(number)
    resumed = train(NAME, splits, splits / "out", CONFIG, "v1")

    assert resumed.resumed_from == 2
    assert_same_training(train(NAME, splits, splits / "whole", CONFIG, "v1"), resumed)


def test_another_data_version_or_config_does_not_resume(splits: Path) -> None:
    with pytest.raises(Killed):
        train(NAME, splits, splits / "out", CONFIG, "v1", kill_after(2))
    assert train(NAME, splits, splits / "out", CONFIG.replace(seed=3), "v1").resumed_from == 0
    assert train(NAME, splits, splits / "out", CONFIG).resumed_from == 3
    rebuild(splits, "v2")
    assert train(NAME, splits, splits / "out", CONFIG, "v2").resumed_from == 0


def rebuild(splits: Path, version: str, names: Sequence[str] = ("train", "val")) -> None:
    for name in names:
        write_split_file(splits / f"{name}.h5", frames=70, seed=9, version=version)


@pytest.mark.parametrize("rebuilt", ["train", "val"])
def test_splits_rebuilt_between_launch_and_load_are_refused(splits: Path, rebuilt: str) -> None:
    with pytest.raises(Killed):
        train(NAME, splits, splits / "out", CONFIG, "v1", kill_after(1))
    rebuild(splits, "v2", [rebuilt])
    for folder in ("out", "other"):  # resumed, or queued since the launch
        with pytest.raises(DataError, match=rf"{rebuilt}.h5 holds data version v2, expected v1"):
            train(NAME, splits, splits / folder, CONFIG, "v1")
        assert not (splits / folder / "best_model.pt").exists()
    write_split_file(splits / "train.h5", frames=80, seed=1)
    write_split_file(splits / "val.h5", frames=60, seed=2)
    assert train(NAME, splits, splits / "out", CONFIG, "v1").resumed_from == 2


def test_a_step_that_is_not_finite_changes_no_weight_and_is_counted(
    splits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CONFIG.replace(epochs=1, batch_size=61)
    result = train(NAME, splits, splits / "clean", config)
    assert [epoch["bad_steps"] for epoch in result.history] == [0]

    data = load_split(splits / "train.h5", config, "cpu")
    data.telemetry[:] = float("nan")
    model = create_model_variant({**architecture_of(NAME), **config.network})
    before = {name: value.clone() for name, value in model.state_dict().items()}
    step = Step(model, data, UnifiedFocalLoss(config.tasks), config)
    metrics = train_one_epoch(step, data.order(), 1)
    assert metrics == {"train_loss": None, "bad_steps": 1}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(FloatingPointError, match=r"loss is nan.*at step 0 .*at 1 of 1 steps; .*may leave out 0: lower"):
        train_one_epoch(step, data.order(), 0)
    monkeypatch.setattr("model.training.epoch.CHECK_EVERY", 2)
    small = Step(model, data, UnifiedFocalLoss(config.tasks), config.replace(batch_size=8))
    with pytest.raises(FloatingPointError, match="at 2 of 2 steps"):  # not at the end of the epoch
        train_one_epoch(small, data.order(), 1)


def test_too_many_steps_that_are_not_finite_end_the_run_and_publish_nothing(splits: Path) -> None:
    before = train(NAME, splits, splits / "out", CONFIG)
    kept = before.best_model.read_bytes()
    with pytest.raises(FloatingPointError, match=r"loss is nan.*lower learning_rate"):
        train(NAME, splits, splits / "out", CONFIG.replace(learning_rate=1e30, warmup_epochs=0, most_bad_steps=1))
    assert before.best_model.read_bytes() == kept


@pytest.mark.parametrize("missing", [["brake_1s"], BINARY_LABELS])
def test_a_task_without_positives_on_val_is_left_out_of_the_mean_and_without_any_val_loss_decides(
    splits: Path, missing: Sequence[str]
) -> None:
    with h5py.File(splits / "val.h5") as file:
        labels = file["labels"][()]
    labels[:, [BINARY_LABELS.index(task) for task in missing]] = 0
    rewrite(splits / "val.h5", labels=labels)
    seen: list[dict[str, float | int]] = []
    result = train(NAME, splits, splits / "out", CONFIG, on_epoch=seen.append)

    epoch = result.history[0]
    assert epoch["val_pr_auc_brake_1s"] is None and epoch["val_roc_auc_brake_1s"] is None
    assert "val_pr_auc_brake_1s" not in seen[0]
    if missing == BINARY_LABELS:
        assert result.best_metrics["val_pr_auc_mean"] is None
        assert result.best_metrics["val_loss"] == min(each["val_loss"] or 0 for each in result.history)
    else:
        defined = [epoch[f"val_pr_auc_{task}"] or 0 for task in CONFIG.tasks[1:]]
        assert epoch["val_pr_auc_mean"] == pytest.approx(sum(defined) / 3)


def test_an_unknown_device_or_architecture_is_refused(splits: Path) -> None:
    with pytest.raises(DataError, match="device 'warp9' cannot be used here"):
        train(NAME, splits, splits / "out", CONFIG.replace(device="warp9"))
    with pytest.raises(DataError, match="Unknown architecture 'simple_lstm'"):
        train("simple_lstm", splits, splits / "other", CONFIG)
    assert not (splits / "other").exists()


def test_a_second_run_into_the_same_folder_is_refused(splits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "LOCK_WAIT_S", 0.0)

    def second(metrics: dict[str, float | int]) -> None:
        train(NAME, splits, splits / "out", CONFIG.replace(seed=9))

    with pytest.raises(DataError, match=r"out is in use: process \d+ on .* trains into it"):
        train(NAME, splits, splits / "out", CONFIG, on_epoch=second)
    train(NAME, splits, splits / "out", CONFIG)


def test_a_gpu_with_too_little_memory_is_explained(splits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr(loop, "load_train", full)
    with pytest.raises(DataError, match=r"batch_size of 16: lower batch_size, .*Tried to allocate 2 GiB"):
        train(NAME, splits, splits / "out", CONFIG)


def test_a_checkpoint_that_is_not_the_expected_one_is_refused(splits: Path) -> None:
    path = train(NAME, splits, splits / "out", CONFIG.replace(epochs=1)).best_model
    with pytest.raises(DataError, match=f"is a checkpoint of {NAME}: expected simple_query_lstm"):
        load_checkpoint(path, "simple_query_lstm")
    with pytest.raises(DataError, match=r"absent\.pt is missing"):
        load_checkpoint(path.with_name("absent.pt"))
    cut = path.with_name("cut.pt")
    cut.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(DataError, match=r"cut\.pt cannot be read as a checkpoint"):
        load_checkpoint(cut)
    flipped = bytearray(path.read_bytes())
    flipped[len(flipped) // 2] ^= 1
    cut.write_bytes(flipped)
    with pytest.raises(DataError, match=r"cut\.pt cannot be read as a checkpoint"):
        load_checkpoint(cut)
    content = torch.load(path, weights_only=True)
    for foreign in ({"weights": 1}, {**content, "schema_version": 99}):
        torch.save(foreign, cut)
        with pytest.raises(DataError, match="no checkpoint of this version: expected schema 3"):
            load_checkpoint(cut)
    torch.save({**content, "model_config": {**content["model_config"], "hidden_dim": 32}}, cut)
    with pytest.raises(DataError, match="does not fit its own model_config"):
        load_checkpoint(cut)


@pytest.mark.parametrize("fact", ["LAGS", "OWN_LANE", "VEHICLE_WORDS", "HAZARDS", "STEP_MS", "class ObjectSets"])
def test_facts_that_decide_what_is_learnt_belong_to_its_version(fact: str) -> None:
    model = Path(published.__file__).parents[1]
    modules = [
        f"model.{path.parent.name}.{path.stem}" for path in model.rglob("*.py") if f"\n{fact}" in path.read_text()
    ]
    assert len(modules) == 1 and set(modules) <= set(published.LEARNT_BY)
