"""YOLO detectors: loading them safely, and mapping their classes to vehicles."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.common.errors import DataError
from model.common.files import atomic_path, sha256
from model.detection.vehicles import COCO_VEHICLES, OWN_CLASSES, VEHICLE_WORDS

BUNDLED = Path(__file__).parent / "pretrained" / "yolo12n_simulated.pt"
TRAINED_ON = "trained_on"
"""Key in weights: the source of the frames that they were trained on."""
SIMULATED = "simulated"
"""The source of the bundled weights' frames; sources below a folder of this name are simulated, too."""


def configure_ultralytics(folder: Path) -> None:
    """Keep ultralytics and child processes offline, silent and inside `folder`. Call it before the first import."""
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
    from PIL import Image
    from ultralytics import settings, utils

    utils.LOGGER.setLevel("WARNING")
    # Ultralytics' own function imports a HEIF plug-in, which may be missing, for files that are no picture.
    Image.open = utils.patches._image_open

    integrations = ("clearml", "comet", "dvc", "hub", "mlflow", "neptune", "raytune", "tensorboard", "wandb", "sync")
    wanted: dict[str, Any] = {name: False for name in integrations if name in settings}
    settings.update(wanted | {f"{kind}_dir": str(folder / kind) for kind in ("datasets", "weights", "runs")})
    # In place of a font and of a detector for a test of mixed precision, which ultralytics would download. This process
    # has read the settings before they were changed; the processes of several GPUs read them now.
    utils.WEIGHTS_DIR = folder / "weights"
    font = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    fonts = [(Path(utils.USER_CONFIG_DIR) / name, font) for name in ("Arial.ttf", "Arial.Unicode.ttf")]
    for place, source in (*fonts, (utils.WEIGHTS_DIR / "yolo26n.pt", BUNDLED)):
        if not place.is_file():
            with atomic_path(place) as temporary:
                shutil.copyfile(source, temporary)


def load_detector(weights: Path) -> Any:
    """A YOLO from a weights file. Only known classes are unpickled, so that a file cannot run code.

    Raises:
        DataError: the file is missing or holds another model.
    """
    if not weights.is_file():
        raise DataError(
            f"Detector weights {weights} are missing: train a detector (asset boxy_detector), or name a file "
            "(`drive-assets run --weights FILE`, or `weights` in the launchpad)."
        )
    from ultralytics import RTDETR, YOLO

    try:
        detector = YOLO(str(weights))
        names = detector.names if not isinstance(detector.model, str) else {}
    except Exception as error:  # ultralytics and torch raise many kinds for other files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{weights} holds no YOLO detector ({reason}).") from error
    if isinstance(detector.model, str):
        raise DataError(f"{weights} is an exported model: expected the .pt file that it was exported from.")
    if isinstance(detector, RTDETR):
        raise DataError(f"{weights} is an RT-DETR: expected a YOLO detector.")
    if detector.task != "detect" or not names:
        raise DataError(f"{weights} is a YOLO for {detector.task}: expected one for detect.")
    if (channels := detector.model.yaml.get("channels", 3)) != 3:
        raise DataError(f"{weights} takes images of {channels} channels: expected a detector for colour images, of 3.")
    return detector


def training_source(detector: Any, weights: Path) -> str:
    """The source of the frames that a detector was trained on; empty if the weights do not say."""
    return SIMULATED if sha256(weights) == sha256(BUNDLED) else str((detector.ckpt or {}).get(TRAINED_ON, ""))


def vehicle_classes(
    names: Mapping[int, str], wanted: Mapping[str, str] | None = None
) -> tuple[dict[int, int], list[str]]:
    """Which of a detector's classes count as vehicles.

    Args:
        names: the detector's class names by id.
        wanted: output name by detector's name. If empty: classes named vehicle or vehicle.left, .front, .right keep
            their names; else COCO's car, motorcycle, bus and truck become vehicle.

    Returns:
        Output id by detector's class id, and the output names.

    Raises:
        DataError: the detector has none of the requested classes, or others that may be vehicles.
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
        doubtful = sorted(name for name in ids.keys() - chosen.keys() if name.lower() in VEHICLE_WORDS)
        if doubtful:
            raise DataError(
                f"The detector's classes {', '.join(doubtful)} may be vehicles: name all classes to use in class_map, "
                f'such as {{"{doubtful[0]}": "vehicle"}}. It has {", ".join(sorted(ids))}.'
            )
    if not chosen:
        raise DataError(
            f"The detector has no vehicle class (it has {', '.join(sorted(ids))}): name the ones to use in class_map."
        )
    outputs = list(dict.fromkeys(chosen.values()))
    return {ids[name]: outputs.index(output) for name, output in chosen.items()}, outputs
