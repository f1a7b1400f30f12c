"""One pass over the windows of a split: to train a network, or to score it."""

from pathlib import Path

import torch
from torch import Tensor, nn

from model.dataset.window_data import WindowData
from model.evaluation.measures import average_precision, roc_auc
from model.training.checkpoint import save_checkpoint
from model.training.loss import UnifiedFocalLoss
from model.training.precision import Precision
from model.training.result import Metrics
from model.training.step import Step

CHECK_EVERY = 50
"""Steps on a GPU between checks for bad ones: each check waits for the device."""


def train_one_epoch(step: Step, order: Tensor, most_bad_steps: int, bad_batch: Path) -> Metrics:
    """One pass over windows in `order` -> {"train_loss": mean over windows, "bad_steps": steps left out}.

    Raises:
        FloatingPointError: more than `most_bad_steps` steps had a loss or gradient that is not finite. The batch of
            the first one too many is in the file `bad_batch`.
    """
    step.model.train()
    every = 1 if step.precision.device.type == "cpu" else CHECK_EVERY
    batches, results = torch.split(order, step.config.batch_size), list[tuple[Tensor, Tensor]]()
    for number, windows in enumerate(batches, 1):
        results.append(step(windows))
        if number % every and number < len(batches):
            continue
        losses, bad = map(torch.stack, zip(*results, strict=True))
        if len(bad_steps := bad.nonzero()[:, 0].tolist()) > most_bad_steps:
            worst = bad_steps[max(most_bad_steps, 0)]
            save_checkpoint(bad_batch, {**step.data.gather(batches[worst])._asdict(), "step": worst})
            raise FloatingPointError(
                f"Training loss is {losses[worst].item()} or its gradient not finite at step {worst} "
                f"({step.data.path}), and the training may leave out {most_bad_steps} such steps: lower learning_rate "
                f"or use precision fp32, and look for wrong values in the split. The batch is in {bad_batch}."
            )
    weights = torch.tensor([len(windows) for windows in batches], dtype=torch.float64, device=bad.device)[~bad]
    losses = losses[~bad].double()
    mean = float((losses @ weights / weights.sum()).item()) if len(losses) else None
    return {"train_loss": mean, "bad_steps": len(bad_steps)}


@torch.no_grad()
def evaluate(
    model: nn.Module, data: WindowData, loss: UnifiedFocalLoss, precision: Precision, batch_size: int
) -> Metrics:
    """Loss, and each task's PR-AUC (None without a positive) and ROC-AUC (None without both classes), on a split.

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
    for column, task in enumerate(data.tasks):
        y, p = actual[counted[:, column], column], scores[counted[:, column], column]
        metrics |= {f"val_pr_auc_{task}": average_precision(y, p), f"val_roc_auc_{task}": roc_auc(y, p)}
    areas = [area for task in data.tasks if (area := metrics[f"val_pr_auc_{task}"]) is not None]
    if areas:
        metrics["val_pr_auc_mean"] = sum(areas) / len(areas)
    return metrics
