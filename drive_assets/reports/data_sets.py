"""Report pages of what all recordings become together: the splits; and of detectors and their data sets."""

import csv
from pathlib import Path

from drive_assets.reports.history import History
from drive_assets.reports.page import Cell, Link, Page, Picture, Section, Table
from drive_assets.resources.storage import Storage
from drive_assets.splits.manifest import read_manifest
from model.common.errors import DataError
from model.common.figures import png_bytes
from model.common.images import read_image, small_jpeg
from model.dataset.plots import split_overview
from model.dataset.split_file import read_split
from model.detection.yolo_dataset import mosaic
from model.recording.schema import BINARY_LABELS, DEFAULT_TASKS

FIGURE_BYTES, PICTURE_BYTES = 200_000, 250_000


def manifest_page(storage: Storage) -> Page:
    """Which recording is in which split, what each brings, and what was left out and why.

    Raises:
        DataError: there is no manifest, or it cannot be read.
    """
    manifest = read_manifest(storage)
    splits, recordings = manifest["splits"], manifest["recordings"]
    wanted = manifest["split"]
    by_split: list[list[Cell]] = [
        [
            name,
            len(part["recordings"]),
            part["frames"],
            part["windows"],
            f"{part['share_of_windows']:.1%} of {wanted[name]:.0%}",
            *(f"{part['positives'][task]:,} ({part['label_rates'][task]:.1%})" for task in DEFAULT_TASKS),
        ]
        for name, part in splits.items()
    ]
    by_recording: list[list[Cell]] = [
        [Link(name, f"recording/{name}"), split, recordings[name]["frames"], recordings[name]["windows"],
         f"{recordings[name]['windows'] / max(part['windows'], 1):.1%}",
         *(recordings[name]["positives"][task] for task in DEFAULT_TASKS)]
        for split, part in splits.items()
        for name in part["recordings"]
    ]  # fmt: skip
    told = {key: manifest.get(key, {}) for key in ("skipped", "accepted", "no_longer_used", "moved")}
    left_out = {
        key.replace("_", " ").capitalize(): [_why(name, reason) for name, reason in found.items()]
        for key, found in told.items()
        if found
    }
    return Page(
        "Splits",
        f"Data version {manifest['fingerprint']}: no recording is in two splits.",
        facts={f"windows in {name}": part["windows"] for name, part in splits.items()}
        | {"recordings": len(recordings), "left out": len(told["skipped"])},
        sections=[
            Section("Shares and rates", pictures=[Picture(png_bytes(split_overview(manifest), FIGURE_BYTES), "")]),
            Section(
                "By split",
                table=Table(("split", "recordings", "frames", "windows", "share", *DEFAULT_TASKS), by_split),
            ),
            Section(
                "By recording",
                "Share of its split's windows, and windows in which each label is true.",
                Table(("recording", "split", "frames", "windows", "share", *DEFAULT_TASKS), by_recording),
            ),
            *(Section(title, table=Table(("recording", "why"), rows)) for title, rows in left_out.items()),
            Section("Files", links=[Link("dataset_config.json", _file(storage, storage.manifest))]),
        ],
    )


def split_page(storage: Storage, name: str) -> Page:
    """What a split file holds, by label and by recording.

    Raises:
        DataError: there is no such split, or its file is missing or of another version.
    """
    split = read_split(storage.split(name))
    labels = split.labels[split.window_start + split.window.length - 1]
    of = split.recording[split.window_start]
    rates: list[list[Cell]] = []
    for column, label in enumerate(split.label_names):
        if label in BINARY_LABELS:
            known, true = int((labels[:, column] >= 0).sum()), int((labels[:, column] == 1).sum())
            rates.append([label, true, known, f"{true / known:.2%}" if known else None])
    by_recording: list[list[Cell]] = [
        [Link(recording, f"recording/{recording}"), int((split.recording == i).sum()), int((of == i).sum())]
        for i, recording in enumerate(split.recordings)
    ]
    region = [f"{w} x {h}" for w, h in dict.fromkeys(map(tuple, split.region.tolist()))]
    return Page(
        f"Split {name}",
        f"Made from the manifest of data version {split.fingerprint}.",
        facts={
            "recordings": len(split.recordings),
            "frames": len(split.time_ms),
            "windows": len(split.window_start),
            "kB": round(storage.split(name).stat().st_size / 1e3),
        },
        sections=[
            Section("Labels of the windows", table=Table(("label", "true", "known", "rate"), rates)),
            Section("Recordings", table=Table(("recording", "frames", "windows"), by_recording)),
            Section(
                "What it is made of",
                table=Table.of(
                    {
                        "channels": ", ".join(split.feature_names),
                        "classes": ", ".join(split.class_names),
                        "regions of interest, px": ", ".join(region),
                        **split.window.model_dump(),
                    }
                ),
            ),
            Section("Next", links=[Link("how recordings are shared out", "split_manifest")]),
        ],
    )


def detector_dataset_page(storage: Storage, asset: str, history: History) -> Page:
    """Labelled frames of a detector's data set, and what its last conversion counted.

    Raises:
        DataError: the data set is not there.
    """
    folder = {"boxy_dataset": storage.boxy_dataset, "nuimages_dataset": storage.nuimages_dataset}[asset]
    if not (folder / "dataset.yaml").is_file():
        raise DataError(f"{folder} holds no data set now: materialise {asset}.")
    pictures = [
        Picture(mosaic(folder, split, PICTURE_BYTES), f"{split}: labelled frames, evenly picked")
        for split in ("train", "val")
        if any((folder / "images" / split).iterdir())
    ]
    return Page(
        asset.replace("_", " ").capitalize(),
        f"YOLO's layout, in {folder}.",
        sections=[Section("Labelled frames", pictures=pictures), *history.mappings(asset, None)],
    )


def detector_page(storage: Storage, asset: str, history: History) -> Page:
    """Curves of a detector's training, and what it sees in frames that it was not trained on.

    Raises:
        DataError: there is no such detector.
    """
    weights = {"boxy_detector": storage.boxy_detector, "nuimages_detector": storage.nuimages_detector}[asset]
    if not weights.is_file():
        raise DataError(f"There is no detector {weights} now: materialise {asset}.")
    folder = storage.detector_files(weights)
    captions = {
        "results.png": "losses and figures by epoch",
        "BoxPR_curve.png": "precision and recall on val",
        "confusion_matrix_normalized.png": "confusion on val",
        "val_batch0_labels.jpg": "frames of val as labelled",
        "val_batch0_pred.jpg": "the same frames as the detector sees them",
    }
    shown = [
        Picture(small_jpeg(read_image(folder / name), PICTURE_BYTES), caption, _file(storage, folder / name))
        for name, caption in captions.items()
        if (folder / name).is_file()
    ]
    return Page(
        asset.replace("_", " ").capitalize(),
        f"Weights: {weights}.",
        facts={key: value for key, value in history.facts(asset, None).items() if key != "mlflow_run"},
        sections=[
            Section(
                "Curves and examples", "" if shown else "The pictures of its training are not kept.", pictures=shown
            ),
            *_epochs(folder / "results.csv"),
        ],
    )


def _epochs(path: Path) -> list[Section]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8") as stream:
        header, *rows = list(csv.reader(stream))
    wanted = [i for i, name in enumerate(header) if name.strip() == "epoch" or "metrics" in name or "val/" in name]
    names = [header[i].strip().split("/")[-1].replace("(B)", "") for i in wanted]
    table = Table(names, [[float(row[i]) for i in wanted] for row in rows])
    return [Section("Epochs", table=table)]


def _why(name: str, reason: Cell) -> list[Cell]:
    return [Link(name, f"recording/{name}"), " to ".join(reason) if isinstance(reason, list) else reason]


def _file(storage: Storage, path: Path) -> str:
    return f"files/{path.relative_to(storage.root)}"
