"""The unified focal loss: one focal loss a task, weighted, over the labels that are known."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.training.recipes import (
    FOCAL_ALPHA,
    FOCAL_GAMMA,
    OTHER_ALPHA,
    OTHER_GAMMA,
    OTHER_WEIGHT,
    TASK_WEIGHTS,
    TrainingConfig,
)


def focal_loss(logits: Tensor, labels: Tensor, alpha: Tensor, gamma: Tensor) -> Tensor:
    """-alpha_t (1 - p_t)^gamma log(p_t), element by element (Lin et al. 2017, equation 5).

    p_t is the probability of the true class; alpha_t is alpha for positives, 1 - alpha for negatives. It is computed
    in float32 from the logit of the true class, so that neither the power nor the logarithm meets a rounded 0 or 1.

    Args:
        logits: (B,T) of any floating type.
        labels: (B,T), 0 or 1.
        alpha, gamma: (T,).
    """
    positive = labels > 0.5
    logits = logits.float()
    log_p_other = functional.logsigmoid(torch.where(positive, -logits, logits))
    log_p_true = functional.logsigmoid(torch.where(positive, logits, -logits))
    return -torch.where(positive, alpha, 1 - alpha) * torch.exp(gamma * log_p_other) * log_p_true


class UnifiedFocalLoss(nn.Module):
    """Sum over tasks of weight x mean focal loss over the task's known labels. With no known label it is zero."""

    def __init__(
        self,
        tasks: Sequence[str],
        alpha: Mapping[str, float] = FOCAL_ALPHA,
        gamma: Mapping[str, float] = FOCAL_GAMMA,
        weights: Mapping[str, float] = TASK_WEIGHTS,
    ) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        for name, table, other in (
            ("alpha", alpha, OTHER_ALPHA),
            ("gamma", gamma, OTHER_GAMMA),
            ("weights", weights, OTHER_WEIGHT),
        ):
            self.register_buffer(name, torch.tensor([table.get(task, other) for task in tasks], dtype=torch.float32))
        self.alpha: Tensor
        self.gamma: Tensor
        self.weights: Tensor

    def forward(
        self,
        logits: Mapping[str, Tensor],
        labels: Tensor,
        label_mask: Tensor,
        weight: Tensor | None = None,
    ) -> Tensor:
        """Logits {task: (B,)}, labels (B,T), label_mask (B,T) bool, True where known -> scalar float32.

        Logits (B,M) are those of M networks that learn side by side: the loss is the mean of theirs. `weight` (B,T)
        makes each task's mean a weighted one.
        """
        stacked = torch.stack([logits[task] for task in self.tasks], dim=-1)
        members = stacked if stacked.dim() == 3 else stacked[:, None]
        losses = focal_loss(members, labels[:, None].expand_as(members), self.alpha, self.gamma).mean(dim=1)
        losses = losses.masked_fill(~label_mask, 0.0)
        weight = torch.ones_like(losses) if weight is None else weight
        total = (weight * label_mask).sum(dim=0)
        return self.weights @ ((weight * losses).sum(dim=0) / total.clamp(min=1e-6))


def training_loss(config: TrainingConfig, tasks: Sequence[str], known: Tensor | None = None) -> UnifiedFocalLoss:
    """The loss of `tasks`, labels or hazards. Labels that `config` does not ask for have the auxiliary weight.

    With `known` (W,tasks), the known labels of train, the losses of hazards add up to the likelihood of what happens in
    a window: a hazard that is seldom known counts as seldom.
    """
    weights = config.weights
    if config.head == "hazard" and known is not None:
        shares = known.float().mean(dim=0).tolist()
        weights |= {task: weights[task] * share for task, share in zip(tasks, shares, strict=True)}
    if config.loss == "bce":  # a focal loss with equal weights is half the cross-entropy
        alpha, gamma = dict.fromkeys(tasks, 0.5), dict.fromkeys(tasks, 0.0)
        return UnifiedFocalLoss(tasks, alpha, gamma, {task: 2 * weights[task] for task in tasks})
    return UnifiedFocalLoss(tasks, config.focal_alpha, config.focal_gamma, weights)
