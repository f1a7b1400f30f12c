"""The files of a finished training: published by one rename, and taken over by whoever asks for the same again.

Free of torch.
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
    "model.dataset.features",
    "model.dataset.lead",
    *(
        f"model.network.{name}"
        for name in ("attention", "decoders", "derived", "encoders", "fusions", "hazard", "members")
    ),
    *(f"model.training.{name}" for name in ("loss", "recipes", "schedule")),
)
"""Modules that decide on what is learnt; not the loop, which changes for speed."""


def publish(work: Path, output: Path) -> None:
    """Let the files of a finished training in `work`, a folder in `output`/.work, replace those in `output`.

    The first rename decides: who is killed before it has published nothing, and what comes after it is done again.
    """
    work.replace(output / WORK / _PUBLISHING)
    fsync(output / WORK)
    complete_publishing(output)


def complete_publishing(output: Path) -> None:
    """Do what a process that was killed in `publish` left to do. Call it with the lock of `output`."""
    folder = output / WORK / _PUBLISHING
    if folder.is_dir():
        for path in [folder / name for name in PUBLISHED]:
            if path.is_file():
                path.replace(output / path.name)
        fsync(output)
        shutil.rmtree(folder)


def write_history(path: Path, content: dict[str, Any]) -> None:
    """Write a training's history, with a sum over it by which a changed letter is seen."""
    write_json(path, {**content, SUM: fingerprint(content)})


def read_history(output: Path) -> dict[str, Any]:
    """The content of a training's history. DataError if it is missing, cannot be read, or was changed."""
    path = output / HISTORY
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        expected = content.pop(SUM, None)
    except FileNotFoundError:
        raise DataError(f"{path} is not there: materialise checkpoint for {output.name}.") from None
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError(f"{path} is no JSON ({error}): materialise checkpoint for {output.name} again.") from error
    if expected != fingerprint(content):
        raise DataError(f"{path} was changed since it was written: materialise checkpoint for {output.name} again.")
    return content


def read_published(output: Path, identity: str) -> TrainingResult | None:
    """The training of fingerprint `identity` if it is what `output` holds, whole; None if not."""
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
            taken_over=True,
        )
    except (OSError, DataError, LookupError, TypeError):  # absent, cut, foreign, or of an older version
        return None
