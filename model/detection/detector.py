"""YOLO detectors: loading them safely, and mapping their classes to vehicles."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.common.errors import DataError
from model.common.files import atomic_path

BUNDLED = Path(__file__).parent / "pretrained" / "yolo12n_simulated.pt"
COCO_VEHICLES = ("car", "motorcycle", "bus", "truck")
OWN_CLASSES = ("vehicle", "vehicle.left", "vehicle.front", "vehicle.right")


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
