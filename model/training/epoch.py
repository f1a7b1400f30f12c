"""One pass over the windows of a split: to train on them, or to score a network."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from model.dataset.window_data import Batch, WindowData
from model.evaluation.measures import average_precision, roc_auc
from model.training.loss import UnifiedFocalLoss
from model.training.precision import Precision
from model.training.result import Metrics
from model.training.step import Step

LOOK_EVERY = 50


@dataclass
class StepsDone:
    """What the steps of an epoch gave so far, on the device: their losses, and whether they were left out."""

    losses: list[Tensor] = field(default_factory=list)
    left_out: list[Tensor] = field(default_factory=list)


def train_one_epoch(
    step: Step,
    generator: torch.Generator,
    on_bad_step: Callable[[int, Batch, float], None],
    done: StepsDone | None = None,
    after_each: Callable[[], None] = lambda: None,
) -> Metrics:
    """One pass in random order, or as sampled -> {"train_loss": mean over windows, "bad_steps": steps left out}.

    What happened stays on the device and is looked at after each step on a CPU, and every LOOK_EVERY steps on a GPU, so
    that no step waits for one.

    Args:
        on_bad_step: called with the number, the batch and the loss of a step that was left out; what it raises ends
            the pass.
        done: steps that an earlier pass with the same generator has done, to go on after; those of this one are added.
        after_each: called after each step; what it raises ends the pass.
    """
    step.model.train()
    done, seen = done or StepsDone(), 0
    every = 1 if step.precision.device.type == "cpu" else LOOK_EVERY
    chosen = torch.split(_order(step, generator), step.config.batch_size)

    def look() -> None:
        nonlocal seen
        left_out, seen = torch.stack(done.left_out[seen:]).nonzero()[:, 0] + seen, len(done.left_out)
        for number in left_out.tolist():
            on_bad_step(number, step.data.gather(chosen[number]), done.losses[number].item())

    for windows in chosen[len(done.losses) :]:
        loss, left_out = step(windows)
        done.losses.append(loss)
        done.left_out.append(left_out)
        if len(done.losses) % every == 0:
            look()
        after_each()
    if seen < len(chosen):
        look()
    good = ~torch.stack(done.left_out)
    weights = torch.tensor([len(windows) for windows in chosen], dtype=torch.float64, device=good.device)[good]
    losses = torch.stack(done.losses)[good].double()
    mean = float((losses @ weights / weights.sum()).item()) if len(losses) else None
    return {"train_loss": mean, "bad_steps": len(chosen) - len(losses)}


def _order(step: Step, generator: torch.Generator) -> Tensor:
    """The windows of an epoch (W,): each once or, balanced, half of them from those with a positive label."""
    data, tasks = step.data, step.config.tasks
    # Of hazards, the onsets stand for the labels.
    columns = [column for column, name in enumerate(data.tasks) if name in tasks or "_onset_" in name]
    positive = (data.labels[:, columns] > 0.5).any(dim=1).cpu()
    share = positive.double().mean().item()
    if step.config.sampling == "all" or share in (0.0, 1.0):
        return data.order(generator)
    weights = torch.where(positive, 0.5 / share, 0.5 / (1 - share))
    return torch.multinomial(weights, len(data), True, generator=generator).to(data.first_row.device)


@torch.no_grad()
def evaluate(
    model: nn.Module,
    data: WindowData,
    loss: UnifiedFocalLoss,
    precision: Precision,
    batch_size: int,
    after_each: Callable[[], None] = lambda: None,
) -> Metrics:
    """Loss, and each task's PR-AUC (None without a positive) and ROC-AUC (None without both classes), on a split.

    Args:
        after_each: called after each batch; what it raises ends the scoring.

    Returns:
        {"val_loss", "val_pr_auc_mean", "val_pr_auc_{task}", "val_roc_auc_{task}"}; the loss is that of all windows as
        one batch.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    model.eval()
    outputs: list[Tensor] = []
    for batch in data.batches(batch_size):
        with precision.autocast():
            logits = model(*batch[:3], batch.derived)
        outputs.append(torch.stack([logits[task] for task in data.tasks], dim=1).float())
        after_each()
    stacked = torch.cat(outputs)
    labels, known = data.labels.to(stacked.device), data.label_mask.to(stacked.device)
    value = loss(dict(zip(data.tasks, stacked.T, strict=True)), labels, known).item()
    if not abs(value) < float("inf"):
        raise FloatingPointError(
            f"Validation loss is {value} ({data.path}): lower learning_rate or use precision fp32."
        )
    scores = stacked.sigmoid().double().cpu().numpy()
    actual, counted = labels.cpu().numpy() > 0.5, known.cpu().numpy()
    metrics: Metrics = {"val_loss": value, "val_pr_auc_mean": None}
    areas: list[float] = []
    for column, task in enumerate(data.tasks):
        y, p = actual[counted[:, column], column], scores[counted[:, column], column]
        area = average_precision(y, p)
        metrics |= {f"val_pr_auc_{task}": area, f"val_roc_auc_{task}": roc_auc(y, p)}
        areas += [] if area is None else [area]
    if areas:
        metrics["val_pr_auc_mean"] = sum(areas) / len(areas)
    return metrics
