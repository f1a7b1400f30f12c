"""The files of a complete training: published together, and reused when the same training is requested again.

Imports no torch.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from model.common.config import fingerprint
from model.common.errors import DataError
from model.common.files import fsync, fsync_folder, locked, sha256, write_json
from model.training.schedule import Metrics

BEST, LATEST, HISTORY = PUBLISHED = ("best_model.pt", "latest_checkpoint.pt", "training_history.json")
WORK, PREVIOUS = ".work", "previous"
"""Folders of trainings in progress, and of the files that the published training replaced."""
PUBLISHING = "publishing"
"""Folder in WORK of a complete training whose files are being moved to the output."""
LOCK_WAIT_S = 10.0
"""A killed process may still be exiting when its successor starts."""
SUM = "sum"
LEARNT_BY = (
    "model.factory",
    "model.recording.schema",
    "model.detection.vehicles",
    *(f"model.dataset.{name}" for name in ("features", "lead")),
    *(f"model.network.{name}" for name in ("attention", "config", "decoders", "derived", "encoders", "fusions")),
    *(f"model.network.{name}" for name in ("hazard", "members", "sets")),
    *(f"model.training.{name}" for name in ("loss", "recipes", "schedule")),
)
"""Modules that determine what is learnt; not the loop, which changes for speed."""


@dataclass(frozen=True)
class TrainingResult:
    """A published training. The worker sends the folder, not the history: a line of Pipes must be short."""

    output: Path
    resumed_from: int
    """Epochs that an earlier, interrupted process had completed."""
    duration_s: float = 0.0
    """Of this process, without the epochs of an earlier one."""
    reused: bool = False
    """Whether it was published already, so that nothing was trained."""
    identity: str = ""
    """Its fingerprint; empty for whichever training is published."""

    @property
    def best_model(self) -> Path:
        return self.output / BEST

    @cached_property
    def record(self) -> dict[str, Any]:
        """Content of the history file. DataError if another training was published since."""
        content = read_history(self.output)
        if self.identity not in ("", content["fingerprint"]):
            raise DataError(
                f"{self.output} holds another training, published since this one ended: run this one again."
            )
        return content

    @property
    def history(self) -> list[Metrics]:
        """Figures of each epoch."""
        return self.record["epochs"]

    @property
    def best_metrics(self) -> Metrics:
        return self.history[self.record["best_epoch"]]


@contextmanager
def hold(output: Path) -> Iterator[bool]:
    """Keep other processes out of `output`, and complete a publication that was killed -> whether there was one.

    Raises:
        DataError: another process trains into `output`.
    """
    in_use = f"{output} is in use: {{holder}} trains into it. Wait until that ends, or choose another output."
    with locked(output / WORK / "lock", LOCK_WAIT_S, in_use):
        yield _complete_publication(output)


def publish(work: Path, output: Path) -> None:
    """Replace the files in `output` by those of the complete training in `work`; `output`/previous keeps the former.

    Call it in `hold`. A process that is killed leaves the rest to the next one that holds `output`.
    """
    work.rename(output / WORK / PUBLISHING)
    _complete_publication(output)


def _complete_publication(output: Path) -> bool:
    new, former = output / WORK / PUBLISHING, output / WORK / "former"
    if not new.is_dir():
        return False
    published = [output / name for name in PUBLISHED]
    if (new / BEST).is_file() and all(path.is_file() for path in published):  # none is replaced yet
        shutil.rmtree(former, ignore_errors=True)
        former.mkdir()
        for path in published:
            shutil.copyfile(path, former / path.name)
        fsync_folder(former)
        shutil.rmtree(output / PREVIOUS, ignore_errors=True)
        former.rename(output / PREVIOUS)
    for path in published:
        if (new / path.name).is_file():
            (new / path.name).replace(path)
    fsync(output)
    shutil.rmtree(new)
    return True


def restore_previous(output: Path) -> None:
    """Publish the previous training again; the one that replaced it becomes the previous one. Call it in `hold`."""
    restored = output / WORK / "restored"
    shutil.rmtree(restored, ignore_errors=True)
    shutil.copytree(output / PREVIOUS, restored)
    fsync_folder(restored)
    publish(restored, output)


class Decline(NamedTuple):
    """Mean PR-AUC on val of two trainings of one architecture, of which the worse one replaced the better one."""

    before: float
    after: float

    def __str__(self) -> str:
        return f"mean PR-AUC on val fell from {self.before:.3f} to {self.after:.3f}"


def decline(output: Path) -> Decline | None:
    """How much worse the published training is than the previous one; None if it is not.

    Trainings on different data or of different tasks are not compared.
    """
    try:
        histories = read_history(output / PREVIOUS), read_history(output)
        before, after = (history["epochs"][history["best_epoch"]]["val_pr_auc_mean"] for history in histories)
        tasks = [(history["data_version"], history["training_config"]["tasks"]) for history in histories]
    except (DataError, LookupError, TypeError):  # there was none before, or it is of another version
        return None
    comparable = tasks[0] == tasks[1] and before is not None and after is not None
    return Decline(before, after) if comparable and after < before else None


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


def is_published(output: Path, identity: str) -> bool:
    """Whether `output` holds the training with fingerprint `identity`, undamaged."""
    try:
        history = read_history(output)
        return bool(history["fingerprint"] == identity and history["made"]["weights"] == sha256(output / BEST))
    except (OSError, DataError, LookupError, TypeError):  # missing, damaged, or of another version
        return False
