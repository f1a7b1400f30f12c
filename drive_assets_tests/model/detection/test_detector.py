import errno
import io
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, UnidentifiedImageError

from model.common.errors import DataError, is_out_of_memory
from model.detection.detector import BUNDLED, configure_ultralytics, load_detector, training_source, vehicle_classes
from model.detection.detector_config import DetectorConfig
from model.detection.detector_training import _restore, train_detector

COCO = {0: "person", 2: "car", 3: "motorcycle", 5: "bus", 7: "truck"}
TINY = DetectorConfig(
    weights="scratch", epochs=1, image_size=64, batch=4, workers=0, devices="cpu", warmup_epochs=0.0, multi_scale=0.0,
    mosaic=0.0, mixup=0.0, cutmix=0.0, copy_paste=0.0, close_mosaic=0,
)  # fmt: skip


def test_classes_become_vehicles() -> None:
    assert vehicle_classes(COCO) == ({2: 0, 3: 0, 5: 0, 7: 0}, ["vehicle"])
    sides = {0: "vehicle.left", 1: "vehicle.front", 2: "vehicle.right"}
    assert vehicle_classes(sides) == ({0: 0, 1: 1, 2: 2}, list(sides.values()))
    assert vehicle_classes(COCO, {"truck": "heavy", "bus": "heavy"}) == ({7: 0, 5: 0}, ["heavy"])
    with pytest.raises(DataError, match="no class lorry"):
        vehicle_classes(COCO, {"lorry": "vehicle"})
    with pytest.raises(DataError, match="no vehicle class"):
        vehicle_classes({0: "cat"})
    for names, doubtful in (({0: "car", 1: "Van", 2: "motor"}, "Van, motor"), ({0: "vehicle", 1: "truck"}, "truck")):
        with pytest.raises(
            DataError, match=f"classes {doubtful} may be vehicles: name all classes to use in class_map"
        ):
            vehicle_classes(names)
    assert vehicle_classes({0: "vehicle", 1: "truck"}, {"vehicle": "vehicle"}) == ({0: 0}, ["vehicle"])


def test_a_file_without_a_detector_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="are missing"):
        load_detector(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("no weights")
    torch.save({"weights": torch.zeros(2)}, tmp_path / "other.pt")
    for name in ("text.pt", "other.pt"):
        with pytest.raises(DataError, match="holds no YOLO detector"):
            load_detector(tmp_path / name)


def test_models_other_than_yolo_detectors_for_colour_images_are_named(tmp_path: Path) -> None:
    from ultralytics.nn.tasks import DetectionModel, RTDETRDetectionModel

    configure_ultralytics(tmp_path / "ultralytics")
    models = {"1 channels": DetectionModel("yolo11n.yaml", ch=1, verbose=False)}
    models["an RT-DETR"] = RTDETRDetectionModel("rtdetr-l.yaml", nc=1, verbose=False)
    for text, model in models.items():
        model.args = {}
        torch.save({"model": model, "train_args": {}}, tmp_path / "other.pt")
        with pytest.raises(DataError, match=text):
            load_detector(tmp_path / "other.pt")
    scripted = torch.jit.script(torch.nn.Linear(2, 2))
    for name, text in (("scripted.pt", r"a TorchScript archive.*\)\.$"), ("scripted.torchscript", "an exported model")):
        torch.jit.save(scripted, tmp_path / name)
        with pytest.raises(DataError, match=text):
            load_detector(tmp_path / name)


def test_files_that_are_no_pictures_need_no_plug_in(tmp_path: Path) -> None:
    configure_ultralytics(tmp_path)
    with pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(b"no picture"))


def test_the_bundled_detector_loads() -> None:
    detector = load_detector(BUNDLED)
    assert vehicle_classes(detector.names) == ({0: 0}, ["vehicle"])
    assert training_source(detector, BUNDLED) == "simulated"


def test_sizes_and_starting_weights_are_checked_without_a_download(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="multiple of 32"):
        DetectorConfig(image_size=700)
    (tmp_path / "dataset.yaml").write_text("")
    config = DetectorConfig(weights="yolo12n.pt")
    with pytest.raises(DataError, match="not downloaded"):
        train_detector(tmp_path / "dataset.yaml", tmp_path / "out.pt", config, print, tmp_path / "work")


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        (tmp_path / "images" / split).mkdir(parents=True)
        (tmp_path / "labels" / split).mkdir(parents=True)
        for number in range(4):
            image = np.full((64, 64, 3), 40 * number, np.uint8)
            image[16:48, 16:48] = 255
            cv2.imwrite(str(tmp_path / "images" / split / f"{number}.png"), image)
            (tmp_path / "labels" / split / f"{number}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "dataset.yaml").write_text("train: images/train\nval: images/val\nnames:\n  0: vehicle\n")
    (tmp_path / "source.json").write_text('{"source": "simulated/boxy"}')
    return tmp_path / "dataset.yaml"


def test_a_tiny_training_publishes_its_best_weights(dataset: Path, tmp_path: Path) -> None:
    epochs: list[dict[str, float | int]] = []
    result = train_detector(dataset, tmp_path / "out.pt", TINY, epochs.append, tmp_path / "work")
    assert [epoch["epoch"] for epoch in epochs] == [0]
    assert {"train/box_loss", "metrics/mAP50", "val/box_loss"} <= set(epochs[0])
    assert set(result.metrics) == {"map50", "map50_95", "precision", "recall"}
    assert (result.epochs, result.batch, result.resumed) == (1, 4, False)
    detector = load_detector(result.weights)
    assert (detector.names, training_source(detector, result.weights)) == ({0: "vehicle"}, "simulated/boxy")
    expected = {"results.csv", "results.png", "args.yaml", "confusion_matrix.png", "BoxPR_curve.png"}
    assert expected | {"val_batch0_labels.jpg", "val_batch0_pred.jpg"} <= {path.name for path in result.files}
    repeated = train_detector(dataset, tmp_path / "out.pt", TINY, epochs.append, tmp_path / "work")
    assert repeated == replace(result, resumed=True)
    (tmp_path / "out.pt").write_bytes(b"other weights")
    retrained = train_detector(dataset, tmp_path / "out.pt", TINY, epochs.append, tmp_path / "work")
    assert ([epoch["epoch"] for epoch in epochs], retrained.resumed) == ([0, 0], False)


def test_processes_of_several_gpus_need_no_downloads(tmp_path: Path) -> None:
    """They read ultralytics' settings themselves, and test mixed precision with a detector."""
    code = (
        "import subprocess, sys; from pathlib import Path; from model.detection.detector import configure_ultralytics\n"
        "configure_ultralytics(Path(sys.argv[1]))\n"
        "look = 'from ultralytics.utils import WEIGHTS_DIR; from ultralytics.utils.checks import check_font;'\n"
        "look += 'print((WEIGHTS_DIR / \"yolo26n.pt\").is_file(), check_font())'\n"
        "subprocess.run([sys.executable, '-c', look], check=True)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", code, str(tmp_path)]
    output = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert output.split() == ["True", str(tmp_path / "Ultralytics" / "Arial.ttf")]


TRAINING = """
import os, signal, sys
from pathlib import Path
from drive_assets_tests.model.detection.test_detector import TINY
from model.detection.detector_training import train_detector

def report(epoch):
    print("epoch", epoch["epoch"], flush=True)
    if "die" in sys.argv and epoch["epoch"] == 1:
        os.kill(os.getpid(), signal.SIGKILL)

root = Path(sys.argv[1])
result = train_detector(root / "dataset.yaml", root / "out.pt", TINY.replace(epochs=4), report, root / "work")
print("done", result.resumed, result.epochs, result.batch)
"""


def test_a_killed_training_resumes_and_writes_nothing_outside_its_folder(dataset: Path, tmp_path: Path) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "YOLO_", "MPL"))}
    environment |= {"HOME": str(home), "TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", TRAINING, str(dataset.parent)]
    options: dict[str, Any] = {"env": environment, "cwd": elsewhere, "stdout": subprocess.PIPE, "text": True}
    assert subprocess.run([*command, "die"], **options, timeout=120).returncode == -signal.SIGKILL
    assert not (tmp_path / "out.pt").exists()
    (last,) = (tmp_path / "work").glob("*/weights/last.pt")
    content = torch.load(last, map_location="cpu", weights_only=False)
    assert content["train_args"]["batch"] == 4
    content["train_args"]["batch"] = 2  # as if ultralytics had halved it
    torch.save(content, last)
    with (last.parents[1] / "results.csv").open("a") as table:
        table.write("3,0.1,0.")  # the line of an epoch that was not saved
    second = subprocess.run(command, **options, check=True, timeout=120).stdout.splitlines()
    assert [line for line in second if line.startswith(("epoch", "done"))] == ["epoch 2", "epoch 3", "done True 4 2"]
    assert list(home.rglob("*")) == list(elsewhere.rglob("*")) == []


class Interrupted(BaseException):
    pass


def interrupted_training(dataset: Path, root: Path, last_epoch: int) -> Path:
    """Train on until an epoch of two is saved; return the folder of the checkpoints."""

    def interrupt(epoch: dict[str, float | int]) -> None:
        if epoch["epoch"] == last_epoch:
            raise Interrupted

    with pytest.raises(Interrupted):
        train_detector(dataset, root / "out.pt", TINY.replace(epochs=2), interrupt, root / "work")
    (last,) = (root / "work").glob("*/weights/last.pt")
    return last.parent


class Hostile:
    """Unpickling it creates a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize(
    ("hostile", "cut", "resumed"), [("last.pt", "", True), ("", "best.pt", True), ("last.pt", "best.pt", False)]
)
def test_a_damaged_or_hostile_checkpoint_is_replaced_by_the_other_one(
    dataset: Path, tmp_path: Path, hostile: str, cut: str, resumed: bool
) -> None:
    weights = interrupted_training(dataset, tmp_path, 0)
    if hostile:
        content = torch.load(weights / hostile, weights_only=False)
        torch.save(content | {"stop": Hostile(tmp_path / "code was run")}, weights / hostile)
    if cut:
        os.truncate(weights / cut, 10_000)
    epochs: list[dict[str, float | int]] = []
    result = train_detector(dataset, tmp_path / "out.pt", TINY.replace(epochs=2), epochs.append, tmp_path / "work")
    assert ([epoch["epoch"] for epoch in epochs], result.resumed) == ([1] if resumed else [0, 1], resumed)
    assert not (tmp_path / "code was run").exists()


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), MemoryError()])
def test_checkpoints_that_cannot_be_read_now_are_kept(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "last.pt").write_bytes(b"checkpoint")
    monkeypatch.setattr("ultralytics.nn.tasks.torch_safe_load", Mock(side_effect=error))
    with pytest.raises(type(error)):
        _restore(tmp_path)
    assert (weights / "last.pt").exists()


def test_a_training_interrupted_after_its_last_epoch_is_published(dataset: Path, tmp_path: Path) -> None:
    weights = interrupted_training(dataset, tmp_path, 1)
    result = train_detector(dataset, tmp_path / "out.pt", TINY.replace(epochs=2), pytest.fail, tmp_path / "work")
    assert (result.epochs, result.batch, result.resumed) == (2, 4, True)
    assert load_detector(result.weights).ckpt["optimizer"] is None
    assert not weights.exists()


def test_errors_of_a_full_gpu_are_recognized() -> None:
    for text in ("CUDA out of memory. Tried", "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR", "unable to find an engine"):
        assert is_out_of_memory(RuntimeError(text))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
