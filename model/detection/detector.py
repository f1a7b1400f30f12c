"""YOLO detectors: loading them safely, mapping their classes to vehicles, and fine-tuning them with ultralytics."""

import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field

from model.common.config import Config, fingerprint
from model.common.errors import DataError, is_out_of_memory
from model.common.files import atomic_path
from model.detection.yolo_dataset import dataset_version

BUNDLED = Path(__file__).parent / "pretrained" / "yolo12n_simulated.pt"
COCO_VEHICLES = ("car", "motorcycle", "bus", "truck")
OWN_CLASSES = ("vehicle", "vehicle.left", "vehicle.front", "vehicle.right")
STRIDE = 32
CPU_BATCH, MEMORY_SHARE = 8, 0.6
POLL_S = 1.0
HALVINGS = 4
FINISHED = -1
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
    files: list[Path] = field(default_factory=list)
    """Curves, confusion matrix, pictures and figures that ultralytics wrote, in the working folder."""


def configure_ultralytics(folder: Path) -> None:
    """Keep ultralytics offline, silent and inside `folder`. Call before it is imported; worker processes inherit it."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.update(
        YOLO_CONFIG_DIR=str(folder),
        YOLO_OFFLINE="true",
        YOLO_VERBOSE="false",
        YOLO_AUTOINSTALL="false",
        ULTRALYTICS_SAFE_LOAD="true",
        ULTRALYTICS_SKIP_REQUIREMENTS_CHECKS="true",
        MPLCONFIGDIR=str(folder / "matplotlib"),
        PET_LOG_DIR=str(folder / "torchelastic"),
    )
    import matplotlib
    from ultralytics import settings, utils

    utils.LOGGER.setLevel("WARNING")

    integrations = ("clearml", "comet", "dvc", "hub", "mlflow", "neptune", "raytune", "tensorboard", "wandb", "sync")
    wanted: dict[str, Any] = {name: False for name in integrations if name in settings}
    settings.update(wanted | {f"{kind}_dir": str(folder / kind) for kind in ("datasets", "weights", "runs")})
    # ultralytics would download a font, and a detector to try mixed precision on: it finds these in their place. This
    # process has read the settings before they were made; those that train on several GPUs read them as they are.
    utils.WEIGHTS_DIR = folder / "weights"
    font = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    fonts = [(Path(utils.USER_CONFIG_DIR) / name, font) for name in ("Arial.ttf", "Arial.Unicode.ttf")]
    for place, source in (*fonts, (utils.WEIGHTS_DIR / "yolo26n.pt", BUNDLED)):
        if not place.is_file():
            with atomic_path(place) as temporary:
                shutil.copyfile(source, temporary)


def load_detector(weights: Path) -> Any:
    """A YOLO from a weights file. Only known classes are unpickled: a weights file cannot run code.

    Raises:
        DataError: the file is missing or holds no YOLO detector.
    """
    if not weights.is_file():
        raise DataError(
            f"Detector weights {weights} are missing: train a detector (asset boxy_detector), or name a file "
            "(`drive-assets run --weights FILE`, or `weights` in the launchpad)."
        )
    from ultralytics import YOLO

    try:
        detector = YOLO(str(weights))
        names = detector.names
    except Exception as error:  # ultralytics and torch raise many kinds for a file that is no YOLO
        raise DataError(f"{weights} holds no YOLO detector ({type(error).__name__}: {error}).") from error
    if detector.task != "detect" or not names:
        raise DataError(f"{weights} is a YOLO for {detector.task}: expected one for detect.")
    return detector


def vehicle_classes(
    names: Mapping[int, str], wanted: Mapping[str, str] | None = None
) -> tuple[dict[int, int], list[str]]:
    """Which of a detector's classes to keep and as what.

    Args:
        names: the detector's class names by id.
        wanted: output name by detector's name. If empty: classes named vehicle or vehicle.left, .front, .right as they
            are, else COCO's car, motorcycle, bus and truck as vehicle.

    Returns:
        Output id by detector's class id, and the output names.

    Raises:
        DataError: the detector has none of the classes asked for.
    """
    ids = {name: number for number, name in names.items()}
    if wanted:
        missing = sorted(set(wanted) - set(ids))
        if missing:
            raise DataError(f"The detector has no class {', '.join(missing)}; it has {', '.join(sorted(ids))}.")
        chosen = dict(wanted)
    else:
        chosen = {name: name for name in OWN_CLASSES if name in ids}
        chosen = chosen or {name: "vehicle" for name in COCO_VEHICLES if name in ids}
    if not chosen:
        raise DataError(
            f"The detector has no vehicle class (it has {', '.join(sorted(ids))}): name the ones to use in class_map."
        )
    outputs = list(dict.fromkeys(chosen.values()))
    return {ids[name]: outputs.index(output) for name, output in chosen.items()}, outputs


def train_detector(
    dataset: Path,
    output: Path,
    config: DetectorConfig,
    on_epoch: OnEpoch,
    work: Path,
) -> DetectorResult:
    """Fine-tune a detector on `dataset` (a dataset.yaml) and publish its best weights as `output`.

    A run that was killed goes on from its last epoch: working files lie in `work`/<fingerprint>.

    Raises:
        DataError: data set or starting weights missing, not enough memory for one image.
    """
    if not dataset.is_file():
        raise DataError(f"{dataset} is missing: expected a YOLO data set; materialise it first.")
    configure_ultralytics(work / "ultralytics")
    start = _starting_weights(config)
    folder = work / fingerprint(config.model_dump(mode="json"), str(dataset), dataset_version(dataset.parent))
    devices = _devices(config.devices)
    saved = _saved(folder / "weights" / "last.pt")
    if saved is None:
        shutil.rmtree(folder, ignore_errors=True)
    # One that goes on keeps to the batch that memory was found to allow.
    batch = saved.batch if saved else config.batch or _automatic_batch(config, devices)
    halved = 0
    while True:
        try:
            with _told(folder / "results.csv", on_epoch):
                # A finished one was killed before its weights were published.
                if saved is None or saved.epoch != FINISHED:
                    batch = _fit(dataset, folder, config, start, batch, devices, resume=saved is not None)
            break
        except (RuntimeError, subprocess.CalledProcessError) as error:
            # Of several GPUs' processes only the exit status is known: memory is the one cause that less batch mends.
            short = is_out_of_memory(error) or isinstance(error, subprocess.CalledProcessError)
            count = len(devices) if isinstance(devices, list) else 1
            if not short or (folder / "results.csv").is_file() or batch < 2 * count or halved == HALVINGS:
                raise
            halved, saved = halved + 1, None
            batch = max(int(batch) // 2 // count, 1) * count
            print(f"Training failed ({error}). If memory was short: the batch is halved to {batch} images.", flush=True)
            shutil.rmtree(folder, ignore_errors=True)
    epochs = _epochs(folder / "results.csv")
    with atomic_path(output) as temporary:
        shutil.copyfile(folder / "weights" / "best.pt", temporary)
    best = max(epochs, key=lambda epoch: epoch["metrics/mAP50_95"])
    names = {"mAP50": "map50", "mAP50_95": "map50_95", "precision": "precision", "recall": "recall"}
    metrics = {short: float(best[f"metrics/{long}"]) for long, short in names.items()}
    kinds = (".png", ".jpg", ".csv", ".yaml")
    files = sorted(path for path in folder.iterdir() if path.suffix in kinds)
    shutil.rmtree(folder / "weights")  # a finished training is not resumed
    return DetectorResult(output, metrics, int(epochs[-1]["epoch"]) + 1, batch, saved is not None, files)


def _epochs(results: Path) -> list[dict[str, float | int]]:
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
    told, ended = {epoch["epoch"] for epoch in _epochs(results)}, threading.Event()

    def tell() -> None:
        for epoch in _epochs(results):
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

    detector = YOLO(str(folder / "weights" / "last.pt") if resume else config.architecture)
    if start is not None and not resume:
        detector.load(str(start))
    detector.train(
        data=str(dataset),
        project=str(folder.parent),
        name=folder.name,
        exist_ok=True,
        resume=resume,
        epochs=config.epochs,
        imgsz=config.image_size,
        batch=batch,
        device=devices,
        optimizer=config.optimizer,
        lr0=config.learning_rate,
        lrf=config.final_rate,
        cos_lr=True,
        warmup_epochs=config.warmup_epochs,
        patience=config.patience,
        multi_scale=config.multi_scale,
        degrees=config.degrees,
        perspective=config.perspective,
        mixup=config.mixup,
        cutmix=config.cutmix,
        copy_paste=config.copy_paste,
        mosaic=config.mosaic,
        close_mosaic=config.close_mosaic,
        dropout=config.dropout,
        cls=config.class_gain,
        workers=config.workers,
        seed=config.seed,
        deterministic=True,
        verbose=False,
        plots=True,
    )
    used = int(detector.trainer.batch_size)
    if used < batch:
        print(f"Out of memory: ultralytics halved the batch to {used} images.", flush=True)
    return used


class _Saved(NamedTuple):
    """How far a training came."""

    epoch: int
    """FINISHED after the last of all"""
    batch: int


def _saved(checkpoint: Path) -> _Saved | None:
    """What ultralytics saved last; None if there is none that can be read."""
    from ultralytics.utils.patches import torch_load

    try:
        content = torch_load(checkpoint, map_location="cpu")
        saved = _Saved(int(content["epoch"]), int(content["train_args"]["batch"]))
        return saved if checkpoint.with_name("best.pt").is_file() else None
    except Exception:  # a kill while it was being written leaves what torch refuses in many ways
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
