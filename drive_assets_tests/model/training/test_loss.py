"""The unified focal loss equals its formula, stays finite at the ends, and skips what is unknown."""

import numpy as np
import pytest
import torch

from model.training.loss import UnifiedFocalLoss, focal_loss, training_loss
from model.training.recipes import TrainingConfig

TASKS = ("brake_1s", "brake_2s", "coast_1s", "coast_2s", "coast_5s")
ALPHA = np.array([0.2, 0.2, 0.3, 0.3, 0.25])
GAMMA = np.array([3.0, 2.75, 2.0, 1.75, 2.0])
WEIGHTS = np.array([1.0, 0.95, 0.85, 0.8, 1.0])


def formula(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """FL = -alpha_t (1 - p_t)^gamma log p_t, as it is written."""
    p = 1 / (1 + np.exp(-logits))
    p_t = np.where(labels == 1, p, 1 - p)
    alpha_t = np.where(labels == 1, ALPHA, 1 - ALPHA)
    return -alpha_t * (1 - p_t) ** GAMMA * np.log(p_t)


def sample(windows: int = 64) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 3, (windows, 5))
    labels = (generator.random((windows, 5)) < 0.3).astype(float)
    return logits, labels, generator.random((windows, 5)) < 0.8


def as_dict(logits: torch.Tensor) -> dict[str, torch.Tensor]:
    return dict(zip(TASKS, logits.T, strict=True))


def test_elements_equal_the_formula() -> None:
    logits, labels, _ = sample()
    ours = focal_loss(torch.tensor(logits), torch.tensor(labels), torch.tensor(ALPHA), torch.tensor(GAMMA))
    np.testing.assert_allclose(ours.numpy(), formula(logits, labels), rtol=2e-5)


def test_the_sum_is_the_weighted_mean_over_known_labels() -> None:
    logits, labels, known = sample()
    expected = sum(WEIGHTS[task] * formula(logits, labels)[known[:, task], task].mean() for task in range(len(TASKS)))
    ours = UnifiedFocalLoss(TASKS)(as_dict(torch.tensor(logits)), torch.tensor(labels), torch.tensor(known))
    assert ours.item() == pytest.approx(expected, rel=1e-5)


def test_cross_entropy_weighs_auxiliary_tasks_and_onsets() -> None:
    config = TrainingConfig(loss="bce", tasks=["brake_1s"], auxiliary_weight=0.5)
    tasks = ["brake_1s", "coast_1s"]
    logits, labels = torch.tensor([[0.3, -1.0], [2.0, 0.5]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    each = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    weight, known = torch.tensor([[1.0, 3.0], [3.0, 1.0]]), torch.ones(2, 2, dtype=torch.bool)
    value = training_loss(config, tasks)(dict(zip(tasks, logits.T, strict=True)), labels, known, weight)
    expected = (each * weight).sum(0) / 4
    torch.testing.assert_close(value, expected[0] + 0.5 * expected[1])


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
def test_extreme_logits_keep_loss_and_gradient_finite(kind: torch.dtype) -> None:
    ends = torch.tensor([-6e4, -100.0, -20.0, 0.0, 20.0, 100.0, 6e4])
    logits = ends[:, None].expand(-1, 5).to(kind).requires_grad_()
    for label in (0.0, 1.0):
        logits.grad = None
        value = UnifiedFocalLoss(TASKS)(as_dict(logits), torch.full((7, 5), label), torch.ones(7, 5, dtype=torch.bool))
        value.backward()
        assert torch.isfinite(value) and value > 0
        assert logits.grad is not None and torch.isfinite(logits.grad).all()
        wrong = logits.grad[-1 if label == 0 else 0]
        assert (wrong.abs() > 0).all(), "a confident error must still push"


def test_unknown_labels_have_no_part() -> None:
    logits, labels, known = (torch.tensor(x) for x in sample())
    loss = UnifiedFocalLoss(TASKS)
    logits.requires_grad_()
    loss(as_dict(logits), labels, known).backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad != 0, known)
    flipped = torch.where(known, labels, 1 - labels)
    assert loss(as_dict(logits), flipped, known).item() == loss(as_dict(logits), labels, known).item()


def test_nothing_known_is_zero_with_zero_gradient() -> None:
    logits = torch.randn(8, 5, requires_grad=True)
    value = UnifiedFocalLoss(TASKS)(as_dict(logits), torch.zeros(8, 5), torch.zeros(8, 5, dtype=torch.bool))
    value.backward()
    assert value.item() == 0
    assert logits.grad is not None and not logits.grad.any()
