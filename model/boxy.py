"""Boxy (Behrendt 2019) as published -> a YOLO data set: zips of half-size PNG frames, labels in full-size pixels."""

import json
import re
import zipfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from model.config import option
from model.errors import DataError
from model.yolo_dataset import DatasetReport, link_or_copy, replaced_folder, split_groups, write_yaml, yolo_lines

FULL_WIDTH, FULL_HEIGHT = 2464, 2056
BONNET_X, BONNET_Y = (0.35, 0.65), 0.90
"""A box whose centre lies here is the own car's bonnet."""
SAME_EDGE_PX = 10
"""Rear and whole box closer than this on both sides: the vehicle is seen from straight behind."""
LARGEST_PNG = 64 * 1024 * 1024
CLASSES = {"vehicle": ("vehicle",), "sides": ("vehicle.left", "vehicle.front", "vehicle.right")}
_FRAME = re.compile(r"^\./(?P<sequence>[\w.-]+)/(?P<frame>[\w.-]+)\.png$")


@dataclass(frozen=True)
class BoxyConfig:
    """What of Boxy becomes a data set."""

    classes: str = option("vehicle", "vehicle: one class; sides: vehicle.left, vehicle.front, vehicle.right")
    min_box_px: float = option(0.0, "Boxes narrower or lower than this (px of the full-size image) are dropped")
    val_share: float = option(0.2, "Share of sequences for validation, whole")
    sequences: tuple[str, ...] = option((), "Only these sequences; empty: all")

    def __post_init__(self) -> None:
        if self.classes not in CLASSES:
            raise DataError(f"classes {self.classes!r}: expected one of {', '.join(CLASSES)}.")
        if not 0 < self.val_share < 1:
            raise DataError(f"val_share {self.val_share}: expected within (0, 1).")


def convert_boxy(
    raw: Path, output: Path, config: BoxyConfig, progress: Callable[[str], None] = lambda line: None
) -> DatasetReport:
    """Convert the raw folder (`*.zip` or extracted sequence folders, and label JSON files) to a YOLO data set.

    An image of an earlier conversion is linked, not extracted again. The result replaces `output` when it is whole.

    Raises:
        DataError: no labels, no frames, a broken zip or label file; names it.
    """
    report = DatasetReport()
    labels = _by_sequence(_read_labels(raw), config, report)
    split_of = split_groups(list(labels), config.val_share)
    sizes: list[np.ndarray] = []
    with replaced_folder(output) as new:
        for part in ("train", "val"):
            (new / "images" / part).mkdir(parents=True)
            (new / "labels" / part).mkdir(parents=True)
        for number, sequence in enumerate(sorted(labels), 1):
            part = split_of[sequence]
            report.groups[part].append(sequence)
            for stem, png in _frames(raw, output / "images", sequence, sorted(labels[sequence]), report):
                classes, boxes = _boxes(labels[sequence][stem.split("__", 1)[1]], config, report)
                if classes is None or boxes is None:
                    continue
                target = new / "images" / part / f"{stem}.png"
                if isinstance(png, Path):
                    link_or_copy(png, target)
                else:
                    target.write_bytes(png)
                lines = yolo_lines(classes, boxes, FULL_WIDTH, FULL_HEIGHT)
                (new / "labels" / part / f"{stem}.txt").write_text(lines)
                report.images[part] += 1
                report.boxes[part] += len(boxes)
                sizes.append((boxes[:, 2:] - boxes[:, :2]) / [FULL_WIDTH, FULL_HEIGHT])
            progress(f"Sequence {number} of {len(labels)} ({part}): {sequence}")
        if not report.images["train"] or not report.images["val"]:
            raise DataError(
                f"{raw}: no usable image for training or for validation ({report.dropped}): expected the zips that "
                "the label files name."
            )
        write_yaml(new, CLASSES[config.classes])
    every = np.concatenate(sizes)
    report.median_box = np.median(every, axis=0).round(4).tolist() if len(every) else []
    return report


def _read_labels(raw: Path) -> dict[str, dict[str, Any]]:
    files = sorted(raw.glob("*.json")) if raw.is_dir() else []
    labels: dict[str, dict[str, Any]] = {}
    for path in files:
        try:
            content = json.loads(path.read_bytes())
        except ValueError as error:
            raise DataError(f"{path} is no JSON ({error}): download it again.") from error
        if isinstance(content, dict) and all(isinstance(v, dict) and "vehicles" in v for v in content.values()):
            labels.update(content)
    if not labels:
        raise DataError(
            f"{raw} holds no Boxy labels: expected boxy_labels_*.json beside the zips. Download them, or make a "
            "simulated set with `drive-assets simulate`."
        )
    return labels


def _by_sequence(
    labels: dict[str, dict[str, Any]], config: BoxyConfig, report: DatasetReport
) -> dict[str, dict[str, dict[str, Any]]]:
    found: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for name, label in labels.items():
        match = _FRAME.match(name)
        if match is None or ".." in name:
            raise DataError(f"Label of {name!r}: expected a frame as ./<sequence>/<frame>.png.")
        if config.sequences and match["sequence"] not in config.sequences:
            continue
        if label.get("flaws"):
            report.drop("images with flaws")
            continue
        found[match["sequence"]][match["frame"]] = label
    missing = set(config.sequences) - set(found)
    if missing:
        raise DataError(f"sequences {', '.join(sorted(missing))}: not in the labels.")
    return dict(found)


def _frames(raw: Path, earlier: Path, sequence: str, frames: list[str], report: DatasetReport) -> Any:
    """Yield (stem, PNG bytes or a file to link) of the frames that are there."""
    folder = raw / sequence
    archive = next(
        (raw / name for name in (f"{sequence}.zip", f"bluefox_{sequence}_bag.zip") if (raw / name).is_file()), None
    )
    if archive is None and not folder.is_dir():
        report.drop("images whose zip is missing", len(frames))
        return
    if archive is None:
        for frame in frames:
            path = folder / f"{frame}.png"
            if path.is_file():
                yield f"{sequence}__{frame}", path
            else:
                report.drop("labels whose image is missing")
        return
    try:
        with zipfile.ZipFile(archive) as opened:
            members = {PurePosixPath(info.filename).name: info for info in opened.infolist() if not info.is_dir()}
            for frame in frames:
                info, stem = members.get(f"{frame}.png"), f"{sequence}__{frame}"
                if info is None:
                    report.drop("labels whose image is missing")
                    continue
                if info.file_size > LARGEST_PNG:
                    report.drop("images too large")
                    continue
                known = next((p for part in ("train", "val") if (p := earlier / part / f"{stem}.png").is_file()), None)
                same = known is not None and known.stat().st_size == info.file_size
                yield stem, known if same else opened.read(info)
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise DataError(f"{archive} is a broken zip ({error}): delete it and download it again.") from error


def _boxes(
    label: dict[str, Any], config: BoxyConfig, report: DatasetReport
) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
    """Classes (n,) and boxes (n,4) of a frame in full-size px; None for a frame with a degenerate box."""
    vehicles = [v for v in label["vehicles"] if v.get("rear") or v.get("AABB")]
    if not vehicles:
        return np.empty(0, np.int64), np.empty((0, 4))
    whole = np.array([_corners(v.get("AABB") or v["rear"]) for v in vehicles], float)
    rear = np.array([_corners(v.get("rear") or v["AABB"]) for v in vehicles], float)
    if (rear[:, 0] >= rear[:, 2]).any() or (rear[:, 1] >= rear[:, 3]).any():
        report.drop("images with a degenerate box")
        return None, None
    centre = (rear[:, :2] + rear[:, 2:]) / 2 / [FULL_WIDTH, FULL_HEIGHT]
    bonnet = (centre[:, 0] >= BONNET_X[0]) & (centre[:, 0] <= BONNET_X[1]) & (centre[:, 1] > BONNET_Y)
    small = ((rear[:, 2:] - rear[:, :2]) < config.min_box_px).any(axis=1)
    report.drop("boxes on the bonnet", int(bonnet.sum()))
    report.drop("boxes too small", int((small & ~bonnet).sum()))
    kept = ~bonnet & ~small
    return (_sides(whole, rear) if config.classes == "sides" else np.zeros(len(rear), np.int64))[kept], rear[kept]


def _corners(box: dict[str, float]) -> list[float]:
    return [box["x1"], box["y1"], box["x2"], box["y2"]]


def _sides(whole: np.ndarray, rear: np.ndarray) -> np.ndarray:
    """0 left, 1 front, 2 right: where the vehicle drives relative to us, told by the flank that we see."""
    left_flank, right_flank = rear[:, 0] - whole[:, 0], whole[:, 2] - rear[:, 2]
    front = (left_flank <= SAME_EDGE_PX) & (right_flank <= SAME_EDGE_PX)
    return np.where(front, 1, np.where(left_flank > right_flank, 2, 0))
