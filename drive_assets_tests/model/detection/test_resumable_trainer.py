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
KILLS = {
    0: [
        ("_save_best", 0),  # last.pt is written, best.pt is not
        ("save_model", 1),  # the table has a line of an epoch that is not saved
    ],
    2: [
        ("optimizer_step", 1),  # an epoch has begun
        ("final_eval", 2),  # the last epoch is saved, nothing is published
    ],
}
"""By the number of processes that load: methods of the trainer before which, in an epoch (from 0), it is killed."""

TRAININGS = """
import os, signal, sys
from pathlib import Path
from drive_assets_tests.model.detection.test_resumable_trainer import CONFIG, KILLS
from model.detection.detector import configure_ultralytics
from model.detection.detector_training import train_detector

root = Path(sys.argv[1])
configure_ultralytics(root / "ultralytics")
from ultralytics.utils.callbacks.base import default_callbacks
from model.detection.resumable_trainer import ResumableTrainer

def train(name, workers, killed_in=None, at_epoch=None):
    child = os.fork()  # spares the imports
    if child == 0:
        def configure(trainer):
            trainer.args.workers = workers  # on a CPU ultralytics has no processes that load
            trainer.args.plots = False  # they take most of the time

        default_callbacks["on_pretrain_routine_start"].append(configure)
        if killed_in:
            method = getattr(ResumableTrainer, killed_in)
            def killed(trainer, *args):
                if trainer.epoch == at_epoch:
                    os.kill(os.getpid(), signal.SIGKILL)
                return method(trainer, *args)
            setattr(ResumableTrainer, killed_in, killed)
        work = root / f"{name} {workers}"
        train_detector(root / "dataset.yaml", work / "out.pt", CONFIG, lambda _: None, work)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == (-signal.SIGKILL if killed_in else 0), (name, workers, killed_in, status)

for workers, kills in KILLS.items():
    train("undisturbed", workers)
    for killed_in, at_epoch in kills:
        train("killed", workers, killed_in, at_epoch)
    train("killed", workers)
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


def test_a_training_killed_again_and_again_is_the_undisturbed_one(dataset: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", TRAININGS, str(dataset)], env=environment, check=True)
    for workers in KILLS:
        _compare(dataset / f"undisturbed {workers}", dataset / f"killed {workers}")


def _compare(undisturbed: Path, killed: Path) -> None:
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
