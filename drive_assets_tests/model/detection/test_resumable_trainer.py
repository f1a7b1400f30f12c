import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from model.detection.detector import BUNDLED, load_detector
from model.detection.detector_training import DetectorConfig

CONFIG = DetectorConfig(
    epochs=3, image_size=64, batch=4, devices="cpu", warmup_epochs=1.0, close_mosaic=1, learning_rate=0.001
)
"""Three batches an epoch, of which in the end nine make a step; all that is random is on."""

TRAININGS = """
import os, signal, sys
from pathlib import Path
from drive_assets_tests.model.detection.test_resumable_trainer import CONFIG
from model.detection.detector import configure_ultralytics
from model.detection.detector_training import train_detector

root, workers, kills = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
configure_ultralytics(root / "ultralytics")
from ultralytics.utils.callbacks.base import default_callbacks
from model.detection.resumable_trainer import ResumableTrainer

def configure(trainer):
    trainer.args.workers = workers  # on a CPU ultralytics has no processes that load
    trainer.args.plots = False  # they take most of the time

default_callbacks["on_pretrain_routine_start"].append(configure)

def train(name, killed_in=None, at_epoch=None):
    child = os.fork()  # spares the imports
    if child == 0:
        if killed_in:
            method = getattr(ResumableTrainer, killed_in)
            def killed(trainer, *args):
                if trainer.epoch == at_epoch:
                    os.kill(os.getpid(), signal.SIGKILL)
                return method(trainer, *args)
            setattr(ResumableTrainer, killed_in, killed)
        train_detector(root / "dataset.yaml", root / name / "out.pt", CONFIG, lambda _: None, root / name)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == (-signal.SIGKILL if killed_in else 0), (name, killed_in, status)

train("undisturbed")
for kill in kills:
    killed_in, at_epoch = kill.split()
    train("killed", killed_in, int(at_epoch))
train("killed")
"""


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for split, count in (("train", 10), ("val", 4)):
        for folder in ("images", "labels"):
            (tmp_path / folder / split).mkdir(parents=True)
        for number in range(count):
            image = rng.integers(0, 120, (64, 64, 3), np.uint8)
            x, y = rng.integers(0, 32, 2)
            image[y : y + 32, x : x + 32] = rng.integers(150, 255, 3)
            cv2.imwrite(str(tmp_path / "images" / split / f"{number}.png"), image)
            (tmp_path / "labels" / split / f"{number}.txt").write_text(f"0 {(x + 16) / 64} {(y + 16) / 64} 0.5 0.5\n")
    (tmp_path / "dataset.yaml").write_text("train: images/train\nval: images/val\nnames:\n  0: vehicle\n")
    return tmp_path


KILLS = {
    "last.pt is written, best.pt is not": (0, "_save_best 0"),
    "the table has a line of an epoch that is not saved": (0, "save_model 1"),
    "an epoch has begun": (2, "optimizer_step 1"),
    "the last epoch is saved, nothing is published": (2, "final_eval 2"),
}
"""Loader processes, method and epoch (from 0) that are killed."""


@pytest.mark.parametrize("workers", [0, 2])
def test_a_training_killed_again_and_again_is_the_undisturbed_one(dataset: Path, workers: int) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1"}
    kills = [kill for processes, kill in KILLS.values() if processes == workers]
    subprocess.run([sys.executable, "-c", TRAININGS, str(dataset), str(workers), *kills], env=environment, check=True)
    undisturbed, killed = dataset / "undisturbed", dataset / "killed"
    weights, expected = _weights(killed), _weights(undisturbed)
    assert all(torch.equal(weights[name], value) for name, value in expected.items())
    assert any(not torch.equal(value, _bundled()[name]) for name, value in expected.items())  # it has learnt
    table = _table(killed)
    assert table == _table(undisturbed)
    assert [row["epoch"] for row in table] == ["1", "2", "3"]
    assert len({row["train/box_loss"] for row in table}) == 3
    files = {path.name for path in killed.glob("*/*")}
    assert files == {path.name for path in undisturbed.glob("*/*")}
    assert not any(name.startswith(".") for name in files)


def _weights(root: Path) -> dict[str, torch.Tensor]:
    return load_detector(root / "out.pt").model.state_dict()


def _bundled() -> Any:
    return load_detector(BUNDLED).model.state_dict()


def _table(root: Path) -> list[dict[str, str]]:
    (path,) = root.glob("*/results.csv")
    with path.open(newline="") as stream:
        return [{name: value for name, value in row.items() if name != "time"} for row in csv.DictReader(stream)]
