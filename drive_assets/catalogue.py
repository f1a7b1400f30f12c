"""What the UI tells of each asset: phase, what goes in and comes out, where it is stored, columns, owners, code."""

import inspect
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from model.common.errors import DataError
from model.recording.schema import CHANNELS, LABELS, TIME

OWNERS, CODE_URL = "DRIVE_ASSETS_OWNERS", "DRIVE_ASSETS_CODE_URL"
PHASES = ("1_recordings", "2_detection", "3_annotation", "4_labels", "5_splits", "6_training", "7_evaluation")
"""Groups. Dagster sorts them by name: the number keeps the order of the pipeline."""
Column = tuple[str, str, str]
"""Name, type, and what it holds"""


@dataclass(frozen=True)
class Entry:
    """What is told of an asset."""

    phase: str
    description: str
    stored: str
    """Below the data root"""
    example: str = ""
    columns: Sequence[Column] = ()


def _telemetry() -> list[Column]:
    found: list[Column] = [(TIME, "text", "YYYY-MM-DD HH-MM-SS-d, the name of the row's frame")]
    for channel in CHANNELS.values():
        kind = {"number": "float", "flag": "bool", "gear": "int"}[channel.kind]
        low, high = channel.plausible or (None, None)
        limits = "" if low is None else f"; rows outside {low:g} to {high:g} are dropped"
        found.append((channel.name, kind, f"{channel.unit or channel.kind}{limits}"))
    return found


def _labels() -> list[Column]:
    told = {
        "brake": "whether the driver brakes then; empty: unknown",
        "coast": "whether the accelerator is below the coasting threshold then; empty: unknown",
        "brake_force": "share of 9.81 m/s2 then, 0 and more; empty: unknown",
        "acc_pos": "accelerator position then, %; empty: unknown",
    }
    columns: list[Column] = [(TIME, "text", "of the row that looks ahead")]
    for label in LABELS:
        quantity = label.name.removesuffix(f"_{label.horizon_s}s")
        columns.append((label.name, "bool" if label.binary else "float", told[quantity]))
    return columns


ANNOTATION_COLUMNS: Sequence[Column] = (
    ("Time", "text", "of the frame"),
    ("filename", "text", "of the frame"),
    ("vehicle_count", "int", "0: looked, saw none"),
    ("class_ids", "JSON list", "of each vehicle, the surest first"),
    ("confidences", "JSON list", "0 to 1"),
    ("bboxes", "JSON list", "[x1, y1, x2, y2], px of the region of interest"),
    ("areas", "JSON list", "px2"),
)
HISTORY_COLUMNS: Sequence[Column] = (
    ("epoch", "int", "from 0"),
    ("train_loss", "float", "focal loss over the tasks"),
    ("val_loss", "float", "the same on val"),
    ("val_pr_auc_mean", "float", "what the best epoch is chosen by"),
    ("val_pr_auc_<task>", "float", "area under precision and recall on val"),
)
SPLIT_COLUMNS: Sequence[Column] = (
    ("telemetry", "float (F, channels)", "raw values of the channels that networks see"),
    ("detections", "float (F, 12, 7)", "class, confidence, x1, y1, x2, y2, area of the surest twelve"),
    ("detection_mask", "bool (F, 12)", "which of the twelve are there"),
    ("labels", "int (F, 10)", "1 yes, 0 no, -1 unknown"),
    ("window_start", "int (W,)", "first frame of each window"),
    ("recording", "int (F,)", "index of the frame's recording"),
)
ENTRIES = {
    "recording": Entry(
        PHASES[0],
        "A drive, checked. **In:** a folder or zip of a source (inbox, command line, library) with `telemetry.csv` and "
        "a JPEG or PNG a row, twice a second. **Out:** a copy in the data root; rows that the recorder failed on are "
        "counted, what cannot be used is refused by file and row. Sources are only read.",
        "recordings/<name>/telemetry.csv, *.jpg",
        "recordings/2024-05-31_08-15-00/2024-05-31 08-15-00-5.jpg",
        _telemetry(),
    ),
    "boxy_dataset": Entry(
        PHASES[1],
        "Boxy's highway frames in YOLO's layout. **In:** zips and label JSON in `raw/boxy`, fetched if an address is "
        "set; else the simulated set. **Out:** images, labels, `dataset.yaml`; whole sequences go to train or val.",
        "datasets/boxy_yolo/",
    ),
    "nuimages_dataset": Entry(
        PHASES[1],
        "nuImages in YOLO's layout: front and back cameras. **In:** tables and samples, or their archives, in "
        "`raw/nuimages`, fetched if an address is set. **Out:** images, labels, `dataset.yaml`; whole logs go to train "
        "or val.",
        "datasets/nuimages_yolo/",
    ),
    "boxy_detector": Entry(
        PHASES[1],
        "The detector that annotates: YOLO12n fine-tuned for vehicles on highways. **In:** `boxy_dataset`. **Out:** "
        "weights, and the curves of the training. Resumes where it was saved if it was stopped.",
        "models/yolo/yolo12n1.pt, models/yolo/yolo12n1/",
    ),
    "nuimages_detector": Entry(
        PHASES[1],
        "YOLO11n for people, kinds of vehicles and traffic cones. **In:** `nuimages_dataset`. **Out:** weights, and "
        "the curves of the training.",
        "models/yolo/yolo11n_nuimages.pt",
    ),
    "annotations": Entry(
        PHASES[2],
        "The vehicles in each frame. **In:** the recording's frames and the weights of `boxy_detector`, or those that "
        "the launchpad names. **Out:** a row a frame, also where there is none to see; how they were made stands in "
        "`annotations.json`. Stopped in the middle, it goes on there.",
        "recordings/<name>/annotations.csv, annotations.json",
        "2, [0, 0], [0.94, 0.71], [[812.4, 101.0, 930.8, 188.2], ...]",
        ANNOTATION_COLUMNS,
    ),
    "future_labels": Entry(
        PHASES[3],
        "What the driver does one to five seconds after each row. **In:** the recording's telemetry. **Out:** braking, "
        "coasting, force and pedal a horizon, looked up by time; past the end and in gaps unknown, an empty cell, "
        "never False.",
        "recordings/<name>/future_labels.csv",
        "2024-05-31 08-15-00-5, False, True, 0.0, 0.0, ...",
        _labels(),
    ),
    "split_manifest": Entry(
        PHASES[4],
        "Which recording is in which split, and why. **In:** all annotated and labelled recordings. **Out:** the "
        "shares, what each recording brings, what is left out for which reason, and the data version. No recording is "
        "in two splits; each keeps the split that it had.",
        "datasets/multimodal/dataset_config.json",
    ),
    "h5_split": Entry(
        PHASES[4],
        "The frames of a split's recordings, each once (F), and its windows as start rows (W). **In:** "
        "`split_manifest`, annotations and labels. **Out:** one HDF5 file a split.",
        "datasets/multimodal/{train,val,test}.h5",
        columns=SPLIT_COLUMNS,
    ),
    "checkpoint": Entry(
        PHASES[5],
        "One of twelve networks, trained. **In:** train and val. **Out:** the weights of the best epoch on val, the "
        "latest ones to resume from, and the history; the MLflow run has the same. **Takes a GPU** if there is one.",
        "models/multimodal/<architecture>/best_model.pt, latest_checkpoint.pt, training_history.json",
        columns=HISTORY_COLUMNS,
    ),
    "evaluation": Entry(
        PHASES[6],
        "What a network is worth on drives that it has not seen. **In:** its checkpoint, val and test. **Out:** "
        "figures on test at thresholds chosen on val, with intervals; onsets alone, alarms by budget, the worst "
        "misses with their frames.",
        "evaluation/<architecture>/metrics.json, report.html, events.csv",
    ),
    "model_comparison": Entry(
        PHASES[6],
        "All evaluated networks side by side, with baselines that need no network. **In:** the evaluations of the "
        "current data version. **Out:** a page, a table, and the alias `best` in MLflow's registry for the one chosen "
        "on val, if it is shown to be better than the baselines and the one before.",
        "evaluation/comparison.{html,csv,json,png}",
    ),
}


def catalogued(defs: dg.Definitions) -> dg.Definitions:
    """The same definitions, with what is told of each asset.

    Raises:
        DataError: the environment names an owner that is none.
    """
    owners = _owners()
    code = {asset.key: _code(asset) for asset in defs.assets or () if isinstance(asset, dg.AssetsDefinition)}

    def told(spec: dg.AssetSpec) -> dg.AssetSpec:
        entry = ENTRIES[spec.key.to_user_string()]
        example = f" **Example:** `{entry.example}`." if entry.example else ""
        metadata: dict[str, Any] = {"stored": entry.stored, **code[spec.key]}
        if entry.columns:
            columns = [dg.TableColumn(name, kind, description=text) for name, kind, text in entry.columns]
            metadata["dagster/column_schema"] = dg.TableSchema(columns=columns)
        return spec.replace_attributes(
            group_name=entry.phase,
            description=f"{entry.description} **Stored:** `{entry.stored}` in the data root.{example}",
            owners=owners,
            metadata={**spec.metadata, **metadata},
            tags={**spec.tags, "phase": entry.phase[2:]},
        )

    return defs.map_asset_specs(func=told)


def _owners() -> list[str]:
    """`DRIVE_ASSETS_OWNERS`: mail addresses, or teams as team:name, with commas between."""
    owners = [owner.strip() for owner in os.environ.get(OWNERS, "").split(",") if owner.strip()]
    wrong = [owner for owner in owners if "@" not in owner and not owner.startswith("team:")]
    if wrong:
        raise DataError(f"{OWNERS} names {', '.join(wrong)}: expected mail addresses, or teams as team:name.")
    return owners


def _code(asset: dg.AssetsDefinition) -> dict[str, Any]:
    """Where the asset's code is: `DRIVE_ASSETS_CODE_URL` with its place in the repository, else the file here."""
    function = inspect.unwrap(asset.op.compute_fn.decorated_fn)  # type: ignore[union-attr]
    path, line = Path(inspect.getfile(function)), function.__code__.co_firstlineno
    place = path.relative_to(Path(__file__).parents[1])
    base = os.environ.get(CODE_URL, "").strip().rstrip("/")
    reference = (
        dg.UrlCodeReference(url=f"{base}/{place}#L{line}", label=str(place))
        if base
        else dg.LocalFileCodeReference(file_path=str(path), line_number=line, label=str(place))
    )
    return {"dagster/code_references": dg.CodeReferencesMetadataValue(code_references=[reference])}
