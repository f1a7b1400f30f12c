"""The files of a complete training: published by one rename, and reused when the same training is requested again.

Imports no torch.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from model.common.config import fingerprint
from model.common.errors import DataError
from model.common.files import fsync, sha256, write_json
from model.training.result import TrainingResult

BEST, LATEST, HISTORY = PUBLISHED = ("best_model.pt", "latest_checkpoint.pt", "training_history.json")
WORK, _PUBLISHING = ".work", "publishing"
SUM = "sum"
LEARNT_BY = (
    "model.recording.schema",
    "model.detection.vehicles",
    "model.dataset.features",
    "model.dataset.lead",
    *(
        f"model.network.{name}"
        for name in ("attention", "decoders", "derived", "encoders", "fusions", "hazard", "members")
    ),
    *(f"model.training.{name}" for name in ("loss", "recipes", "schedule")),
)
"""Modules that determine what is learnt; not the loop, which changes for speed."""


def publish(work: Path, output: Path) -> None:
    """Replace the files in `output` by those of the complete training in `work`, a folder in `output`/.work.

    The first rename decides: a process killed before it has published nothing, one killed after it is completed later.
    """
    work.replace(output / WORK / _PUBLISHING)
    fsync(output / WORK)
    complete_publishing(output)


def complete_publishing(output: Path) -> None:
    """Complete the work of a process that was killed in `publish`. The caller holds the lock of `output`."""
    folder = output / WORK / _PUBLISHING
    if folder.is_dir():
        for path in [folder / name for name in PUBLISHED]:
            if path.is_file():
                path.replace(output / path.name)
        fsync(output)
        shutil.rmtree(folder)


def write_history(path: Path, content: dict[str, Any]) -> None:
    """Write the history of a training with its checksum."""
    write_json(path, {**content, SUM: fingerprint(content)})


def read_history(output: Path) -> dict[str, Any]:
    """The history of a training. DataError if it is missing, damaged or modified."""
    path = output / HISTORY
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        expected = content.pop(SUM, None)
    except FileNotFoundError:
        raise DataError(f"{path} is missing: materialise checkpoint for {output.name}.") from None
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError(
            f"{path} is not valid JSON ({error}): materialise checkpoint for {output.name} again."
        ) from error
    if expected != fingerprint(content):
        raise DataError(f"{path} was modified since it was written: materialise checkpoint for {output.name} again.")
    return content


def read_published(output: Path, identity: str) -> TrainingResult | None:
    """The training with fingerprint `identity` if `output` holds it undamaged, else None."""
    try:
        history = read_history(output)
        made, epochs, best = history["made"], history["epochs"], history["best_epoch"]
        if history["fingerprint"] != identity or made["weights"] != sha256(output / BEST):
            return None
        return TrainingResult(
            architecture=history["architecture"],
            fingerprint=identity,
            best_epoch=best,
            best_metrics=epochs[best],
            history=epochs,
            resumed_from=len(epochs),
            best_model=output / BEST,
            latest_checkpoint=output / LATEST,
            training_history=output / HISTORY,
            parameters=made["parameters"],
            duration_s=0.0,
            windows_per_s=made["windows_per_s"],
            device=made["device"],
            precision=made["precision"],
            reused=True,
        )
    except (OSError, DataError, LookupError, TypeError):  # missing, damaged, or of another version
        return None
