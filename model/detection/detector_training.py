"""Fine-tuning a YOLO detector with ultralytics: resumed after a kill, with a batch that the memory allows."""

import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field

from model.common.config import Config, fingerprint
from model.common.errors import DataError, is_out_of_memory
from model.common.files import atomic_path, full_disk_named, remove_abandoned, sha256, write_json
from model.detection.detector import BUNDLED, FINAL, configure_ultralytics
from model.detection.yolo_dataset import dataset_version

STRIDE = 32
CPU_BATCH, MEMORY_SHARE = 8, 0.6
POLL_S = 1.0
SAVED_BYTES = 200_000_000
"""Weights with the optimizer's state, four times, and pictures."""
HALVINGS = 4
RESULTS = "results.csv"
"""In the working folder: ultralytics' table of epochs."""
PUBLISHED = "published.json"
"""In the working folder: what a finished training made."""
ULTRALYTICS_NAMES = {"image_size": "imgsz", "learning_rate": "lr0", "final_rate": "lrf", "class_gain": "cls"}
"""Ultralytics' names of options, where ours are other ones."""
NOT_OF_ITS_RECIPE = ("architecture", "weights", "batch", "devices")
OnEpoch = Callable[[dict[str, float | int]], None]


class DetectorConfig(Config):
    """Recipe of a detector. Defaults: highway vehicles on Boxy."""

    architecture: str = Field("yolo12n.yaml", description="Network, built from ultralytics' own description")
    weights: str = Field("bundled", description="Start from: bundled (trained on simulated frames), scratch, or a file")
    epochs: int = Field(110, ge=1, description="Most epochs")
    image_size: int = Field(704, ge=STRIDE, multiple_of=STRIDE, description="Longer side of the images, px")
    batch: int = Field(0, ge=0, description="Images a step over all devices; 0: 60 % of the GPU's memory, 8 on a CPU")
    devices: str = Field(
        "auto",
        pattern=r"^(auto|cpu|\d+(,\d+)*)$",
        description="auto (all GPUs, else CPU), cpu, or GPU numbers such as 0,1",
    )
    learning_rate: float = Field(0.0075, gt=0, description="Initial learning rate (lr0)")
    final_rate: float = Field(
        0.011, gt=0, le=1, description="Final learning rate as a share of the initial one (lrf), cosine"
    )
    optimizer: str = Field("AdamW", description="ultralytics' name of the optimiser")
    warmup_epochs: float = Field(5.0, ge=0, description="Epochs of warm-up")
    patience: int = Field(15, ge=0, description="Epochs without a better fitness that end the run")
    multi_scale: float = Field(0.5, ge=0, lt=1, description="Vary the image size by this share; 0 for none")
    degrees: float = Field(6.0, ge=0, le=180, description="Rotation, degrees")
    perspective: float = Field(0.00025, ge=0, le=0.01, description="Perspective")
    mixup: float = Field(0.075, ge=0, le=1, description="Chance of mixup")
    cutmix: float = Field(0.075, ge=0, le=1, description="Chance of cutmix")
    copy_paste: float = Field(0.1, ge=0, le=1, description="Chance of copy-paste")
    mosaic: float = Field(1.0, ge=0, le=1, description="Chance of mosaic")
    close_mosaic: int = Field(10, ge=0, description="Last epochs without mosaic")
    dropout: float = Field(0.175, ge=0, lt=1, description="Dropout")
    class_gain: float = Field(0.55, ge=0, description="Gain of the class loss (cls)")
    workers: int = Field(8, ge=0, description="Loader processes a device; 0 loads in the training process")
    seed: int = Field(0, ge=0, description="Seed")


class NuimagesDetectorConfig(DetectorConfig):
    """Recipe of the nuImages detector: other classes, other network."""

    architecture: str = Field("yolo11n.yaml", description="Network, built from ultralytics' own description")
    weights: str = Field("scratch", description="Start from: bundled (trained on simulated frames), scratch, or a file")
    epochs: int = Field(60, ge=1, description="Most epochs")
    image_size: int = Field(640, ge=STRIDE, multiple_of=STRIDE, description="Longer side of the images, px")


@dataclass(frozen=True)
class DetectorResult:
    """What a training made."""

    weights: Path
    metrics: dict[str, float]
    """map50, map50_95, precision and recall on val, of the best weights."""
    epochs: int
    batch: int
    resumed: bool
    """Whether an earlier run had done a part, or all."""
    files: list[Path] = field(default_factory=list)
    """Curves, confusion matrix, pictures and figures that ultralytics wrote, in the working folder."""


def train_detector(
    dataset: Path,
    output: Path,
    config: DetectorConfig,
    on_epoch: OnEpoch,
    work: Path,
) -> DetectorResult:
    """Fine-tune a detector on `dataset` (a dataset.yaml) and publish its best weights as `output`.

    A run that was killed resumes after its last epoch: working files lie in `work`/<fingerprint>. Where `output` is
    what this recipe made of this data set before, it is taken over: what failed then came after the training.

    Raises:
        DataError: data set or starting weights missing, not enough memory for one image, disk full.
    """
    if not dataset.is_file():
        raise DataError(f"{dataset} is missing: expected a YOLO data set; materialise it first.")
    configure_ultralytics(work / "ultralytics")
    start = _starting_weights(config)
    folder = work / fingerprint(config.model_dump(mode="json"), str(dataset), dataset_version(dataset.parent))
    if published := _published(folder, output):
        shutil.rmtree(folder / "weights", ignore_errors=True)  # as the one before may have had no time to
        return published
    remove_abandoned(folder)
    saved_batch = _saved_batch(folder / "weights" / "last.pt")
    if saved_batch is None:
        shutil.rmtree(folder, ignore_errors=True)
    batch = _fit_into_memory(dataset, folder, config, start, saved_batch, on_epoch)
    return _publish(folder, output, batch, saved_batch is not None)


def _fit_into_memory(
    dataset: Path, folder: Path, config: DetectorConfig, start: Path | None, saved_batch: int | None, on_epoch: OnEpoch
) -> int:
    """Train to the end, with half the batch where memory is short before the first epoch ends; return the batch."""
    devices = _devices(config.devices)
    # One that resumes keeps to the batch that memory was found to allow.
    batch = saved_batch or config.batch or _automatic_batch(config, devices)
    _check_room(folder)
    for halvings_left in reversed(range(HALVINGS + 1)):
        try:
            with full_disk_named(folder), _told(folder / RESULTS, on_epoch):
                batch = _fit(dataset, folder, config, start, batch, devices, resume=saved_batch is not None)
            break
        except (RuntimeError, subprocess.CalledProcessError) as error:
            _check_room(folder)
            # Of several GPUs' processes only the exit status is known: memory is the one cause that less batch mends.
            short = is_out_of_memory(error) or isinstance(error, subprocess.CalledProcessError)
            count = len(devices) if isinstance(devices, list) else 1
            if not short or (folder / RESULTS).is_file() or batch < 2 * count or not halvings_left:
                raise
            saved_batch, batch = None, max(int(batch) // 2 // count, 1) * count
            print(f"Training failed ({error}). If memory was short: the batch is halved to {batch} images.", flush=True)
            shutil.rmtree(folder, ignore_errors=True)
    return batch


def _check_room(folder: Path) -> None:
    """Raises DataError if there is no room for what a training saves: processes of several GPUs tell only a status.

    Torch, which writes in them, names neither disk nor file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < SAVED_BYTES:
        raise DataError(
            f"{folder} cannot be written: the disk is full. A training saves about {SAVED_BYTES / 1e6:,.0f} MB there, "
            f"{free / 1e6:,.0f} MB are free; free some and run it again: it resumes."
        )


def _publish(folder: Path, output: Path, batch: int, resumed: bool) -> DetectorResult:
    """Copy the best weights to `output`, and drop what a resume would need."""
    epochs = read_epochs(folder / RESULTS)
    with atomic_path(output) as temporary:
        shutil.copyfile(folder / "weights" / FINAL / "best.pt", temporary)
    best = max(epochs, key=lambda epoch: epoch["metrics/mAP50_95"])
    names = {"mAP50": "map50", "mAP50_95": "map50_95", "precision": "precision", "recall": "recall"}
    metrics = {short: float(best[f"metrics/{long}"]) for long, short in names.items()}
    made: dict[str, Any] = {"metrics": metrics, "epochs": int(epochs[-1]["epoch"]) + 1, "batch": batch}
    write_json(folder / PUBLISHED, {"weights": sha256(output), **made})
    shutil.rmtree(folder / "weights")  # a finished training is not resumed
    return DetectorResult(output, **made, resumed=resumed, files=_pictures(folder))


def _published(folder: Path, output: Path) -> DetectorResult | None:
    """What an earlier training in `folder` made, if its weights are still `output`."""
    try:
        made = json.loads((folder / PUBLISHED).read_text(encoding="utf-8"))
        if made.pop("weights") != sha256(output):
            return None
        return DetectorResult(output, **made, resumed=True, files=_pictures(folder))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in (".png", ".jpg", ".csv", ".yaml"))


def read_epochs(results: Path) -> list[dict[str, float | int]]:
    """The epochs that ultralytics has written to its results.csv: `epoch` from 0, and figures by tidy names.

    The file is written by the process that trains, be it this one or, with several GPUs, the first of its children. A
    line without its end is still being written. Of an epoch that was done again after a kill the later line counts.
    """
    if not results.is_file():
        return []
    header, *lines = [line for line in results.read_text().splitlines(keepends=True) if line.endswith("\n")] or [""]
    names = [name.strip().replace("(B)", "").replace("-", "_") for name in header.split(",")]
    epochs: dict[int, dict[str, float | int]] = {}
    for line in lines:
        figures: dict[str, float | int] = dict(zip(names, map(float, line.split(",")), strict=True))
        number = int(figures["epoch"]) - 1
        epochs[number] = figures | {"epoch": number}
    return list(epochs.values())


@contextmanager
def _told(results: Path, on_epoch: OnEpoch) -> Iterator[None]:
    """Call `on_epoch` from a thread for each epoch that appears in `results` while the block runs.

    Callbacks of ultralytics do not do: with several GPUs it trains in other processes.
    """
    told, ended = {epoch["epoch"] for epoch in read_epochs(results)}, threading.Event()

    def tell() -> None:
        for epoch in read_epochs(results):
            if epoch["epoch"] not in told:
                told.add(epoch["epoch"])
                on_epoch(epoch)

    def watch() -> None:
        while not ended.wait(POLL_S):
            tell()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        tell()


def _fit(
    dataset: Path,
    folder: Path,
    config: DetectorConfig,
    start: Path | None,
    batch: int,
    devices: str | list[int],
    resume: bool,
) -> int:
    """Train to the end; return the batch used."""
    from ultralytics import YOLO

    from model.detection.resumable_trainer import ResumableTrainer

    detector = YOLO(str(folder / "weights" / "last.pt") if resume else config.architecture)
    if start is not None and not resume:
        detector.load(str(start))
    recipe = {ULTRALYTICS_NAMES.get(name, name): value for name, value in config if name not in NOT_OF_ITS_RECIPE}
    detector.train(
        trainer=ResumableTrainer,
        data=str(dataset),
        project=str(folder.parent),
        name=folder.name,
        exist_ok=True,
        resume=resume,
        batch=batch,
        device=devices,
        cos_lr=True,
        deterministic=True,
        verbose=False,
        plots=True,
        **recipe,
    )
    used = int(detector.trainer.batch_size)
    if used < batch:
        print(f"Out of memory: ultralytics halved the batch to {used} images.", flush=True)
    return used


def _saved_batch(checkpoint: Path) -> int | None:
    """Images a step of the training that was saved; None if there is none that can be resumed."""
    from ultralytics.utils.patches import torch_load

    try:
        content = torch_load(checkpoint, map_location="cpu")
        return int(content["train_args"]["batch"]) if "stop" in content else None
    except Exception:  # torch refuses a file that is damaged or foreign in many ways
        return None


def _automatic_batch(config: DetectorConfig, devices: str | list[int]) -> int:
    """Images a step over all devices: 60 % of a GPU's memory each. ultralytics measures it for one GPU only."""
    if isinstance(devices, str):
        return CPU_BATCH
    import torch
    from ultralytics import YOLO
    from ultralytics.utils.autobatch import check_train_batch_size

    network = YOLO(config.architecture).model.to(f"cuda:{devices[0]}").train()
    # Multi-scale training grows the images to (1 + multi_scale) times their size.
    largest = round(config.image_size * (1 + config.multi_scale) / STRIDE) * STRIDE
    each = int(check_train_batch_size(network, largest, amp=True, batch=MEMORY_SHARE))
    del network
    torch.cuda.empty_cache()
    return each * len(devices)


def _starting_weights(config: DetectorConfig) -> Path | None:
    if config.weights == "scratch":
        return None
    path = BUNDLED if config.weights == "bundled" else Path(config.weights).expanduser()
    if not path.is_file():
        raise DataError(
            f"Starting weights {config.weights!r}: no such file. Expected bundled, scratch, or the path of a weights "
            "file that you have downloaded; nothing is downloaded here."
        )
    return path


def _devices(devices: str) -> str | list[int]:
    import torch

    if devices == "auto":
        count = torch.cuda.device_count()
        return list(range(count)) if count else "cpu"
    return devices if devices == "cpu" else [int(number) for number in devices.split(",")]
