"""Report pages of the splits, and of detectors and their data sets."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drive_assets.reports.links import file_link
from drive_assets.reports.page import Cell, Link, Page, Picture, Section, Table, drawn
from drive_assets.resources.storage import Storage
from drive_assets.splits.manifest import read_manifest
from model.common.images import read_image, small_jpeg
from model.dataset.plots import split_overview
from model.dataset.split_file import read_fingerprint
from model.detection.dataset_folder import mosaic
from model.recording.schema import DEFAULT_TASKS

PICTURE_BYTES = 250_000
CAPTION = "Share of windows beside the wanted one, and rates of positives, by split"


def manifest_page(storage: Storage) -> Page:
    """Which recording is in which split, what each contributes, and which are left out and why."""
    manifest = read_manifest(storage)
    splits, recordings = manifest["splits"], manifest["recordings"]
    by_split: list[list[Cell]] = []
    by_recording: list[list[Cell]] = []
    for split, part in splits.items():
        share = f"{part['share_of_windows']:.1%} of {manifest['split'][split]:.0%}"
        rates = [f"{part['positives'][task]:,} ({part['label_rates'][task]:.1%})" for task in DEFAULT_TASKS]
        by_split.append([split, len(part["recordings"]), part["frames"], part["windows"], share, *rates])
        for name in part["recordings"]:
            frames, windows, positives = (recordings[name][key] for key in ("frames", "windows", "positives"))
            share = f"{windows / max(part['windows'], 1):.1%}"
            counts = [positives[task] for task in DEFAULT_TASKS]
            by_recording.append([Link(name, f"recording/{name}"), split, frames, windows, share, *counts])
    reasons = {key: manifest.get(key, {}) for key in ("skipped", "accepted", "no_longer_used", "moved")}
    left_out = [
        Section(
            key.replace("_", " ").capitalize(),
            table=Table(
                ("recording", "reason"), [(Link(name, f"recording/{name}"), why) for name, why in names.items()]
            ),
        )
        for key, names in reasons.items()
        if names
    ]
    content = {
        "channels": manifest["features"],
        "classes": manifest["class_names"],
        "regions of interest, px": sorted({f"{w} x {h}" for w, h in (each["region"] for each in recordings.values())}),
        **manifest["window"],
    }
    columns = ("frames", "windows", "share", *DEFAULT_TASKS)
    return Page(
        "Splits",
        f"Data version {manifest['fingerprint']}: no recording is in two splits.",
        facts={f"windows in {name}": part["windows"] for name, part in splits.items()}
        | {"recordings": len(recordings), "left out": len(reasons["skipped"])},
        sections=[
            Section("Shares and rates", pictures=[drawn(split_overview(manifest), CAPTION)]),
            Section("By split", table=Table(("split", "recordings", *columns), by_split)),
            Section(
                "By recording",
                "Share of its split's windows, and windows in which each label is true.",
                Table(("recording", "split", *columns), by_recording),
            ),
            *left_out,
            *_sources(manifest),
            *_review(manifest),
            Section("Content", table=Table.of(content)),
            Section("Files", links=[Link("dataset_config.json", file_link(storage, storage.manifest))]),
        ],
    )


def _sources(manifest: Mapping[str, Any]) -> list[Section]:
    """How many recordings come from each source."""
    sources = manifest.get("sources")  # not in manifests of earlier versions
    table = Table([*sources[0]], [[*source.values()] for source in sources]) if sources else None
    return [Section("Sources", table=table)] if table else []


def _review(manifest: Mapping[str, Any]) -> list[Section]:
    """What tags do to train and val, and which drives are near duplicates; nothing where there are none."""
    sections, review, similar = list[Section](), manifest.get("review"), manifest.get("similar")
    if review:
        kept = [f"{recording} {time}" for recording, time, _ in review["without_window"]]
        counts = {"tags that change train or val": len(review["tags"]), **review["windows"]}
        counts |= {"tags of test, which change nothing": review["of_test"], "tags without a window now, kept": kept}
        sections.append(Section("Review", table=Table.of(counts)))
    if similar:
        rows = [(name, other, f"{share:.0%}") for name, (other, share) in similar.items()]
        text = "Telemetry that two drives share: remove one, or lower the option same_drive of split_manifest."
        sections.append(Section("Near duplicates", text, Table(("recording", "similar to", "shared"), rows)))
    return sections


def split_page(storage: Storage, name: str) -> Page:
    """How often each label is true in a split."""
    part = read_manifest(storage)["splits"][name]
    rates = [(label, count, f"{part['label_rates'][label]:.2%}") for label, count in part["positives"].items()]
    return Page(
        f"Split {name}",
        f"Data version {read_fingerprint(storage.split(name))}.",
        facts={
            "recordings": len(part["recordings"]),
            "frames": part["frames"],
            "windows": part["windows"],
            "kB": round(storage.split(name).stat().st_size / 1e3),
        },
        sections=[Section("Labels of the windows", table=Table(("label", "true", "rate"), rates))],
    )


def detector_dataset_page(folder: Path) -> Page:
    """Labelled frames of a detector's data set."""
    pictures = [
        Picture(mosaic(folder, split, PICTURE_BYTES), f"{split}: labelled frames, evenly picked")
        for split in ("train", "val")
        if any((folder / "images" / split).iterdir())
    ]
    return Page(
        f"Data set {folder.name}",
        f"YOLO's layout, in {folder}.",
        sections=[Section("Labelled frames", pictures=pictures)],
        from_metadata=True,
    )


def detector_page(storage: Storage, weights: Path) -> Page:
    """Curves of a detector's training, and its predictions on validation frames."""
    folder = storage.detector_files(weights)
    captions = {
        "results.png": "losses and figures by epoch",
        "BoxPR_curve.png": "precision and recall on val",
        "confusion_matrix_normalized.png": "confusion on val",
        "val_batch0_labels.jpg": "validation frames with their labels",
        "val_batch0_pred.jpg": "the same frames with the detector's predictions",
    }
    pictures = [
        Picture(small_jpeg(read_image(folder / name), PICTURE_BYTES), caption, file_link(storage, folder / name))
        for name, caption in captions.items()
        if (folder / name).is_file()
    ]
    return Page(
        f"Detector {weights.stem}",
        f"Weights: {weights}.",
        sections=[
            Section("Curves and examples", "" if pictures else "The training left no pictures.", pictures=pictures)
        ],
        from_metadata=True,
    )
