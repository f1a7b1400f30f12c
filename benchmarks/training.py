"""Times training steps of the twelve networks against a DataLoader loop over single windows, in one run.

    python benchmarks/training.py --architectures simple_concat_lstm --steps 20

Both train the same network from the same weights with the same optimiser; the DataLoader's loop stacks a batch from
single windows, moves it, and reads the loss after each step. Prints windows/s of both, their ratio, and the matrix
throughput that the device reaches in the same run.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from model.dataset.window_data import WindowData
from model.factory import architecture_of, create_model_variant
from model.network.architectures import ARCHITECTURES
from model.recording.schema import BOX_FEATURES, FEATURES, TELEMETRY_DIM
from model.training.loop import choose_device, choose_precision, train_one_epoch, training_loss
from model.training.recipes import RECIPES

LENGTH, SLOTS, REAL = 20, 12, 4


class Windows(Dataset[tuple[Tensor, ...]]):
    """One window at a time, as copies."""

    def __init__(self, data: WindowData) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        data, first = self.data, int(self.data.first_row[index])
        rows = slice(first, first + data.length)
        frames = (data.telemetry[rows], data.detections[rows], data.detection_mask[rows])
        return (*(values.clone() for values in frames), data.labels[index], data.label_mask[index])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architectures", nargs="*", choices=ARCHITECTURES, default=list(ARCHITECTURES))
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="reference")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    config, device = RECIPES[options.recipe], choose_device(options.device)
    data = random_windows(options.steps * config.batch_size, config.trained_tasks)
    print(f"{device}, {torch.get_num_threads()} threads, {matrix_gflops(device):.0f} GFLOP/s in fp32 matrix products")
    for architecture in options.architectures:
        ours = measure(ours_epoch, architecture, config, data, device)
        plain = measure(plain_epoch, architecture, config, data, device)
        print(
            f"{architecture}: {ours:.0f} windows/s, DataLoader loop {plain:.0f}, ratio {ours / plain:.2f}", flush=True
        )


def random_windows(number: int, tasks: list[str]) -> WindowData:
    """Windows at stride 1 of which a third of the detection slots are real, as in drives."""
    generator = torch.Generator().manual_seed(0)
    frames = number + LENGTH - 1
    mask = torch.arange(SLOTS) < torch.randint(0, 2 * REAL + 1, (frames, 1), generator=generator)
    return WindowData(
        path=Path("random"),
        tasks=tuple(tasks),
        class_names=("vehicle",),
        inputs=FEATURES,
        length=LENGTH,
        telemetry=torch.rand(frames, TELEMETRY_DIM["onehot"], generator=generator),
        detections=torch.rand(frames, SLOTS, len(BOX_FEATURES), generator=generator) * mask[..., None],
        detection_mask=mask,
        first_row=torch.arange(number),
        labels=(torch.rand(number, len(tasks), generator=generator) < 0.1).float(),
        label_mask=torch.ones(number, len(tasks), dtype=torch.bool),
        going_on=torch.zeros(number, len(tasks), dtype=torch.bool),
    )


def measure(epoch: Any, architecture: str, config: Any, data: WindowData, device: torch.device) -> float:
    """Windows/s of an epoch, after one that warms up."""
    torch.manual_seed(0)
    model = create_model_variant(
        {**architecture_of(architecture), "prediction_tasks": config.trained_tasks, **config.network}
    ).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, fused=device.type in ("cpu", "cuda"))
    seconds = 0.0
    for _ in range(2):
        _wait(device)
        start = time.perf_counter()
        epoch(model, config, data, optimizer, device)
        _wait(device)
        seconds = time.perf_counter() - start
    return len(data) / seconds


def ours_epoch(model: nn.Module, config: Any, data: WindowData, optimizer: Any, device: torch.device) -> None:
    tensors = {name: value.to(device) for name, value in vars(data).items() if isinstance(value, Tensor)}
    resident = replace(data, **tensors)
    loss = training_loss(config, config.trained_tasks).to(device)
    precision = choose_precision(config.precision, device)
    generator = torch.Generator().manual_seed(0)
    train_one_epoch(model, resident, loss, optimizer, precision, config, generator, lambda *bad: None)


def plain_epoch(model: nn.Module, config: Any, data: WindowData, optimizer: Any, device: torch.device) -> None:
    loss = training_loss(config, config.trained_tasks).to(device)
    precision = choose_precision(config.precision, device)
    model.train()
    for batch in DataLoader(Windows(data), config.batch_size, shuffle=True):
        telemetry, detections, mask, labels, known = (values.to(device) for values in batch)
        optimizer.zero_grad()
        with precision.autocast():
            logits = model(telemetry, detections, mask)
        value = loss(logits, labels, known)
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.gradient_norm)
        optimizer.step()
        value.item()


def matrix_gflops(device: torch.device, size: int = 1024, repeats: int = 10) -> float:
    matrix = torch.rand(size, size, device=device)
    for warm in (1, repeats):
        _wait(device)
        start = time.perf_counter()
        for _ in range(warm):
            matrix @ matrix
        _wait(device)
    return 2 * size**3 * repeats / (time.perf_counter() - start) / 1e9


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
