"""Training one architecture: the recipe, the loop, checkpoints from which a killed run goes on exactly.

One figure decides what is best, when the rate falls and when to stop: the mean over tasks of the PR-AUC on val, since
that is what the comparison ranks by. Tasks without a positive on val have no PR-AUC and are left out of the mean; if
that is every task, val loss decides.

Each epoch draws its order and its dropout from (seed, epoch), so a run resumed after one needs no generator's state;
within an epoch that state is saved too (`model.training.run`). On a CPU a resumed run ends bit for bit where an
uninterrupted one ends. On a GPU, kernels that add in varying order leave last-digit noise.
"""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import torch

from model.common.code import code_version
from model.common.config import fingerprint
from model.common.errors import DataError
from model.common.files import locked, sha256
from model.common.progress import Tell
from model.factory import architecture_of
from model.training.checkpoint import load_checkpoint
from model.training.epoch import evaluate, train_one_epoch
from model.training.precision import choose_device
from model.training.published import LATEST, LEARNT_BY, WORK, complete_publishing, publish, read_published
from model.training.recipes import TrainingConfig
from model.training.result import TrainingResult
from model.training.run import Run
from model.training.schedule import Schedule
from model.training.setup import load_split, load_train, training_loss

__all__ = [
    "Schedule",
    "TrainingConfig",
    "TrainingResult",
    "evaluate",
    "load_checkpoint",
    "load_split",
    "load_train",
    "train",
    "train_one_epoch",
    "training_loss",
]

LOCK_WAIT_S = 10.0
"""A killed run may take a moment to die while its successor starts already."""


def train(
    architecture: str,
    splits: Path,
    output: Path,
    config: TrainingConfig,
    data_version: str = "",
    on_epoch: Callable[[dict[str, float | int]], None] = lambda metrics: None,
    anew: bool = False,
    tell: Tell = print,
    on_start: Callable[[int], None] = lambda epochs_done: None,
    on_saved: Callable[[], None] = lambda: None,
) -> TrainingResult:
    """Train one architecture on `splits`/train.h5, watch `splits`/val.h5, publish into folder `output`.

    Working files live in `output`/.work/<fingerprint of architecture, data version, config and code>; a run that was
    killed resumes from them. SIGTERM, SIGINT and SIGUSR1 do what they do elsewhere once the step that runs is done and
    saved; who is killed outright loses minutes. When training ends they replace best_model.pt, latest_checkpoint.pt and
    training_history.json.
    Where these are of the same fingerprint already, they are taken over: nothing is trained.

    Args:
        data_version: what the splits hold, so that a run on other data is never resumed; if empty, the files' hashes.
        on_epoch: called with each epoch's figures once its checkpoint is written; figures that a split without
            positives leaves undefined are absent.
        anew: train though the same is published; a run that was killed in that is resumed all the same.
        tell: told if a batch does not fit into the device's memory and is done in parts.
        on_start: called with the number of epochs that a killed run had done, unless there is nothing to train.
        on_saved: called before each epoch, and after each saving within one. What it raises ends the training there,
            which a later call resumes.

    Raises:
        DataError: unknown architecture, wrong config or splits, `output` in use by another process, out of GPU memory.
        FloatingPointError: a loss was not finite. Files published earlier stay.
    """
    architecture_of(architecture)
    files = [splits / "train.h5", splits / "val.h5"]
    for path in files:
        if not path.is_file():
            raise DataError(f"{path} is missing: expected a split; build the splits first.")
    data_version = data_version or fingerprint([sha256(path) for path in files])
    options = config.model_dump(mode="json")
    work = output / WORK / fingerprint(architecture, data_version, options, code_version(*LEARNT_BY))
    in_use = f"{output} is in use: {{holder}} trains into it. Wait until that ends, or choose another output."
    with locked(output / WORK / "lock", LOCK_WAIT_S, in_use):
        complete_publishing(output)
        resumes = (work / LATEST).is_file()
        if not anew and not resumes and (published := read_published(output, work.name)) is not None:
            return published
        return _train(architecture, splits, work, config, data_version, on_epoch, tell, on_start, on_saved)


def _train(
    architecture: str,
    splits: Path,
    work: Path,
    config: TrainingConfig,
    data_version: str,
    on_epoch: Callable[[dict[str, float | int]], None],
    tell: Tell,
    on_start: Callable[[int], None],
    on_saved: Callable[[], None],
) -> TrainingResult:
    """Train to the end, or as far as it comes, in folder `work`, and publish."""
    started, output = time.perf_counter(), work.parents[1]
    device = choose_device(config.device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        work.mkdir(exist_ok=True)
        try:
            run = Run(architecture, splits, work, config, data_version, device, tell)
            resumed_from = len(run.history)
            on_start(resumed_from)
            run.to_the_end(on_epoch, on_saved)
        except torch.OutOfMemoryError as error:
            raise DataError(
                f"{architecture} does not fit into the memory of {device} with batch_size {config.batch_size}, nor in "
                f"parts of it: use a smaller batch_size or network, or a device that nothing else uses ({error})."
            ) from error
    publish(work, output)
    result = read_published(output, work.name)
    if result is None:
        raise DataError(f"{output} was changed by someone else while the training was published: train again.")
    seconds = time.perf_counter() - started
    return dataclasses.replace(result, resumed_from=resumed_from, duration_s=seconds, taken_over=False)
