"""Fine-tuning a YOLO detector with ultralytics: resumed after a kill, with a batch that fits into the memory."""

import errno
import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from model.common.config import fingerprint
from model.common.errors import DataError, is_out_of_memory
from model.common.files import atomic_path, explained_errors, sha256, write_json, write_text
from model.detection.dataset_folder import dataset_version
from model.detection.detector import BUNDLED, TRAINED_ON, configure_ultralytics
from model.detection.detector_config import DetectorConfig, DetectorResult
from model.detection.yolo_dataset import SOURCE

CPU_BATCH, GPU_BATCH, MEMORY_SHARE = 8, 16, 0.6
POLL_S = 1.0
LAST, BEST = "weights/last.pt", "weights/best.pt"
"""Ultralytics' checkpoints in the working folder."""
RESULTS = "results.csv"
"""Ultralytics' table of epochs there."""
PUBLISHED = "published.json"
"""Record of a finished training there."""
ULTRALYTICS_NAMES = {"image_size": "imgsz", "learning_rate": "lr0", "final_rate": "lrf", "class_gain": "cls"}
"""Ultralytics' names of the options that have another name here."""
OWN_OPTIONS = ("architecture", "weights", "batch", "devices")
"""Options that ultralytics does not take as they are."""
OnEpoch = Callable[[dict[str, float | int]], None]


def train_detector(
    dataset: Path,
    output: Path,
    config: DetectorConfig,
    on_epoch: OnEpoch,
    work: Path,
) -> DetectorResult:
    """Fine-tune a detector on `dataset` (a dataset.yaml) and publish its best weights as `output`.

    An interrupted training resumes after its last epoch from its files in `work`/<fingerprint>. If `output` is already
    the result of the same recipe and data set, it is returned without training.

    Raises:
        DataError: data set or starting weights missing, not enough memory for one image, or a full disk.
    """
    if not dataset.is_file():
        raise DataError(f"{dataset} is missing: expected a YOLO data set; materialise it first.")
    configure_ultralytics(work / "ultralytics")
    from ultralytics import YOLO

    start = _starting_weights(config)
    folder = work / fingerprint(config.model_dump(mode="json"), str(dataset), dataset_version(dataset.parent))
    if published := _published(folder, output):
        shutil.rmtree(folder / "weights", ignore_errors=True)  # left if the earlier run was killed after publishing
        return published
    folder.mkdir(parents=True, exist_ok=True)
    devices = _devices(config.devices)
    try:
        with explained_errors(folder):
            saved = _restore(folder)
            if saved is None:
                detector = YOLO(config.architecture)
                if start is not None:
                    detector.load(str(start))
                batch = _fit(detector, folder, devices, on_epoch, **_options(config, dataset, folder, devices))
            elif 0 <= saved["epoch"] < config.epochs - 1:
                batch = _fit(YOLO(str(folder / LAST)), folder, devices, on_epoch, resume=True)
            else:
                batch = saved["train_args"]["batch"]
    except (RuntimeError, subprocess.CalledProcessError) as error:
        # Processes of several GPUs leave only an exit status; what they print goes to this one's output.
        if not is_out_of_memory(error) and not isinstance(error, subprocess.CalledProcessError):
            raise
        raise DataError(
            f"Training the detector failed: {error}. If memory ran out, choose a smaller batch or image_size; if the "
            "disk is full, free some space and run it again."
        ) from error
    return _publish(dataset.parent, folder, output, batch, saved is not None)


def _restore(folder: Path) -> dict[str, Any] | None:
    """Prepare the files of an interrupted training for a resume.

    Ultralytics writes last.pt in place and then, after the best epoch so far, the same content to best.pt: a kill
    damages one of them at most.

    Returns:
        The last whole checkpoint, whose `epoch` is -1 once the training is over; None if the training has to start
        over.
    """
    last, best, table = folder / LAST, folder / BEST, folder / RESULTS
    contents = {path: _read_checkpoint(path) for path in (last, best)}
    saved = contents[last] or contents[best]
    if saved is None or not table.is_file() or (contents[best] is None and saved["epoch"] < 0):
        shutil.rmtree(folder, ignore_errors=True)
        return None
    for path, other in ((last, best), (best, last)):
        if contents[path] is None:
            with atomic_path(path) as temporary:
                shutil.copyfile(other, temporary)
    if saved["epoch"] >= 0:
        lines = table.read_text(encoding="utf-8").splitlines(keepends=True)
        write_text(table, "".join(lines[: saved["epoch"] + 2]))  # the header and the saved epochs
    return saved


def _read_checkpoint(path: Path) -> dict[str, Any] | None:
    """A checkpoint of ultralytics; None if it is missing, damaged or holds foreign classes."""
    from ultralytics.nn.tasks import torch_safe_load

    if not path.is_file():
        return None
    try:
        content, _ = torch_safe_load(path, safe_only=True)
        return content if isinstance(content["epoch"], int) and content["train_args"]["batch"] else None
    except Exception as error:  # torch and ultralytics raise many kinds for a damaged file, for a cut one EINVAL
        if is_out_of_memory(error) or (isinstance(error, OSError) and error.errno != errno.EINVAL):
            raise
        return None


def _options(config: DetectorConfig, dataset: Path, folder: Path, devices: str | list[int]) -> dict[str, Any]:
    """A new training's options under ultralytics' names."""
    return {
        **{ULTRALYTICS_NAMES.get(name, name): value for name, value in config if name not in OWN_OPTIONS},
        "data": str(dataset),
        "project": str(folder.parent),
        "name": folder.name,
        "exist_ok": True,
        "batch": config.batch or _automatic_batch(devices),
        "cos_lr": True,
        "deterministic": True,
        "verbose": False,
        "plots": True,
    }


def _fit(detector: Any, folder: Path, devices: str | list[int], on_epoch: OnEpoch, **options: Any) -> int:
    """Train to the end, reporting each epoch; return the batch, which ultralytics halves if one GPU is too small."""
    results = folder / RESULTS
    reported = len(read_epochs(results))

    def report(*_: object) -> None:
        nonlocal reported
        for epoch in read_epochs(results)[reported:]:
            reported += 1
            on_epoch(epoch)

    if isinstance(devices, list) and len(devices) > 1:
        with _repeated(report):
            detector.train(device=devices, **options)
        report()
    else:
        detector.add_callback("on_model_save", report)
        detector.train(device=devices, **options)
    return int(detector.trainer.batch_size)


@contextmanager
def _repeated(call: Callable[[], None]) -> Iterator[None]:
    """Make a call every second while the block runs: ultralytics' callbacks run in the processes of several GPUs."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(POLL_S):
            call()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _publish(dataset: Path, folder: Path, output: Path, batch: int, resumed: bool) -> DetectorResult:
    """Copy the best weights to `output`, and drop the checkpoints."""
    from ultralytics.utils.torch_utils import strip_optimizer

    epochs = read_epochs(folder / RESULTS)
    with atomic_path(output) as temporary:
        strip_optimizer(folder / BEST, temporary, updates={TRAINED_ON: _source(dataset)})
    best = max(epochs, key=lambda epoch: epoch["metrics/mAP50_95"])
    names = {"mAP50": "map50", "mAP50_95": "map50_95", "precision": "precision", "recall": "recall"}
    metrics = {short: float(best[f"metrics/{long}"]) for long, short in names.items()}
    figures: dict[str, Any] = {"metrics": metrics, "epochs": len(epochs), "batch": batch}
    write_json(folder / PUBLISHED, {"weights": sha256(output), **figures})
    shutil.rmtree(folder / "weights")
    return DetectorResult(output, **figures, resumed=resumed, files=_files(folder))


def _source(dataset: Path) -> str:
    """Where a data set's frames come from; its name if it was made elsewhere."""
    try:
        return str(json.loads((dataset / SOURCE).read_text(encoding="utf-8"))["source"])
    except (OSError, ValueError, LookupError, TypeError):
        return dataset.name


def _published(folder: Path, output: Path) -> DetectorResult | None:
    """The result of an earlier training in `folder`, if `output` still holds its weights."""
    try:
        figures = json.loads((folder / PUBLISHED).read_text(encoding="utf-8"))
        if figures.pop("weights") != sha256(output):
            return None
        return DetectorResult(output, **figures, resumed=True, files=_files(folder))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in (".png", ".jpg", ".csv", ".yaml"))


def read_epochs(results: Path) -> list[dict[str, float | int]]:
    """The epochs in ultralytics' results.csv: `epoch` from 0, and metrics under tidy names.

    A line without its end is still being written.
    """
    if not results.is_file():
        return []
    header, *lines = [line for line in results.read_text().splitlines(keepends=True) if line.endswith("\n")] or [""]
    names = [name.strip().replace("(B)", "").replace("-", "_") for name in header.split(",")]
    rows = [dict(zip(names, map(float, line.split(",")), strict=True)) for line in lines]
    return [row | {"epoch": int(row["epoch"]) - 1} for row in rows]


def _automatic_batch(devices: str | list[int]) -> float:
    """Images a step over all devices, or the share of a single GPU's memory that they may take."""
    if isinstance(devices, str):
        return CPU_BATCH
    return MEMORY_SHARE if len(devices) == 1 else GPU_BATCH * len(devices)


def _starting_weights(config: DetectorConfig) -> Path | None:
    if config.weights == "scratch":
        return None
    path = BUNDLED if config.weights == "bundled" else Path(config.weights).expanduser()
    if not path.is_file():
        raise DataError(
            f"Starting weights {config.weights!r}: no such file. Expected bundled, scratch, or the path of a weights "
            "file; weights are not downloaded."
        )
    return path


def _devices(devices: str) -> str | list[int]:
    import torch

    if devices == "auto":
        count = torch.cuda.device_count()
        return list(range(count)) if count else "cpu"
    return devices if devices == "cpu" else [int(number) for number in devices.split(",")]
