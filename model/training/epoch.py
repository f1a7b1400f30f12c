"""One pass over the windows of a split: to train a network, or to score it."""

import torch
from torch import Tensor, nn

from model.dataset.window_data import WindowData
from model.evaluation.measures import average_precision, roc_auc
from model.training.loss import UnifiedFocalLoss
from model.training.precision import autocast
from model.training.recipes import TrainingConfig
from model.training.schedule import Metrics
from model.training.step import Step

CHECK_EVERY = 200
"""Steps between looks for bad ones, each of which waits for the GPU."""


def train_one_epoch(step: Step, order: Tensor, most_bad_steps: int) -> Metrics:
    """One pass over windows in `order` -> {"train_loss": mean over windows, "bad_steps": steps left out}.

    Raises:
        FloatingPointError: more than `most_bad_steps` steps had a loss or gradient that is not finite.
    """
    step.model.train()
    batches = torch.split(order, step.config.batch_size)
    results: list[tuple[Tensor, Tensor]] = []
    for start in range(0, len(batches), CHECK_EVERY):
        results += map(step, batches[start : start + CHECK_EVERY])
        losses, bad = map(torch.stack, zip(*results, strict=True))
        bad_steps = bad.nonzero()[:, 0].tolist()
        if len(bad_steps) > most_bad_steps:
            first = bad_steps[0]
            raise FloatingPointError(
                f"Training loss is {losses[first].item()} or its gradient not finite at step {first} "
                f"({step.data.path}), and at {len(bad_steps)} of {len(results)} steps; the training may leave out "
                f"{most_bad_steps}: lower learning_rate or use precision fp32, and look for wrong values in the split."
            )
    weights = torch.tensor([len(windows) for windows in batches], dtype=torch.float64, device=bad.device)[~bad]
    losses = losses[~bad].double()
    mean = float((losses @ weights / weights.sum()).item()) if len(losses) else None
    return {"train_loss": mean, "bad_steps": len(bad_steps)}


@torch.no_grad()
def evaluate(model: nn.Module, data: WindowData, loss: UnifiedFocalLoss, config: TrainingConfig) -> Metrics:
    """Loss, and each task's PR-AUC (None without a positive) and ROC-AUC (None without both classes), on a split.

    Returns:
        {"val_loss", "val_pr_auc_mean", "val_pr_auc_{task}", "val_roc_auc_{task}"}; the loss is that of all windows as
        one batch.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    model.eval()
    outputs: list[Tensor] = []
    for batch in data.batches(config.batch_size):
        with autocast(config.precision, data.telemetry.device):
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
