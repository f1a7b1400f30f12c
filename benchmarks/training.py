"""Time training steps of the twelve networks against a straightforward loop, in one run.

    python -m benchmarks.training --architectures simple_concat_lstm --steps 20

The straightforward loop stacks batches of single windows in a DataLoader, computes every slot, attends frame by frame,
uses dropout of torch, and reads the loss after each step. Both train the same network from the same weights with one
optimiser, in turns; the best round of each counts. The output is windows/s of both, their ratio, and the share of the
device's matrix throughput in the same rounds, with the operations of a window counted in the straightforward
formulation.

--precision applies to our steps; the straightforward ones have the recipe's, which on a CPU is fp32. On a busy machine,
--threads 1 --cpu-time measures the processor time of the process.
"""

import argparse
import copy
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.plain_networks import PlainModel
from model.dataset.window_data import WindowData
from model.factory import MultimodalModel, architecture_of, create_model_variant
from model.network.architectures import ARCHITECTURES
from model.network.attention import Dropout
from model.recording.schema import BOX_FEATURES, FEATURES, TELEMETRY_DIM
from model.training.loss import training_loss
from model.training.precision import autocast, choose_device, choose_precision
from model.training.recipes import RECIPES, TrainingConfig
from model.training.step import WARM_UP, Step

LENGTH, SLOTS, REAL = 20, 12, 4
MOST_DIFFERENCE = 0.01
"""Between captured and eager losses, relative; steps are in bf16."""
Clock = Callable[[], float]
Epoch = Callable[[Tensor], None]
"""Trains on windows by their numbers, in the given order."""


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
    parser.add_argument(
        "--recipe", choices=[name for name, recipe in RECIPES.items() if not recipe.derives], default="reference"
    )
    parser.add_argument("--precision", choices=["fp32", "bf16"], help="of our steps; default the recipe's")
    parser.add_argument("--compiled", action="store_true", help="compile the networks (CUDA)")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--cpu-time", action="store_true", help="count the process's CPU time")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    clock = time.process_time if options.cpu_time else time.perf_counter
    config, device = RECIPES[options.recipe].replace(compiled=options.compiled), choose_device(options.device)
    ours_config = config.replace(precision=options.precision or config.precision)
    data = random_windows(options.steps * config.batch_size, config.trained_tasks)
    ours_in, plain_in = (choose_precision(each.precision, device) for each in (ours_config, config))
    print(
        f"{device}, {torch.get_num_threads()} threads, {len(data)} windows a round, ours in {ours_in}, "
        f"straightforward in {plain_in}",
        flush=True,
    )
    for architecture in options.architectures:
        if device.type == "cuda":
            check_captured(architecture, ours_config, data, device)
        network = create(architecture, config)
        flops = training_flops(network, data) * len(data)
        ours, plain, matrix = float("inf"), float("inf"), 0.0
        for _ in range(options.rounds):
            matrix = max(matrix, matrix_gflops(device, clock))
            ours = min(ours, timed(our_epoch, network, ours_config, data, device, clock))
            plain = min(plain, timed(plain_epoch, network, config, data, device, clock))
        print(
            f"{architecture}: {len(data) / ours:.0f} windows/s, straightforward {len(data) / plain:.0f}, "
            f"ratio {plain / ours:.2f}; {flops / ours / 1e9:.0f} of {matrix:.0f} GFLOP/s, "
            f"{100 * flops / ours / 1e9 / matrix:.0f} %",
            flush=True,
        )


def create(architecture: str, config: TrainingConfig) -> MultimodalModel:
    torch.manual_seed(0)
    return create_model_variant(
        {**architecture_of(architecture), "prediction_tasks": config.trained_tasks, **config.network}
    )


def training_flops(network: MultimodalModel, data: WindowData) -> float:
    """Floating-point operations of one window in training, in the straightforward formulation."""
    batch = data.gather(torch.arange(8))
    if network.derived is None:
        ours, plain = (model.eval()(*batch[:3]) for model in (network, PlainModel(network)))
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)
        network.train()
    with FlopCounterMode(display=False) as counter, torch.backends.mkldnn.flags(enabled=False):
        sum(logits.sum() for logits in PlainModel(network)(*batch[:3]).values()).backward()  # type: ignore[union-attr]
    return counter.get_total_flops() / 8


def random_windows(number: int, tasks: list[str]) -> WindowData:
    """Windows at stride 1 with a third of the detection slots real, as in drives."""
    generator = torch.Generator().manual_seed(0)
    frames = number + LENGTH - 1
    mask = torch.arange(SLOTS) < torch.randint(0, 2 * REAL + 1, (frames, 1), generator=generator)
    return WindowData(
        path=Path("random"),
        tasks=tuple(tasks),
        class_names=("vehicle",),
        inputs=FEATURES,
        coast_threshold=7.5,
        length=LENGTH,
        telemetry=torch.rand(frames, TELEMETRY_DIM["onehot"], generator=generator),
        detections=torch.rand(frames, SLOTS, len(BOX_FEATURES), generator=generator) * mask[..., None],
        detection_mask=mask,
        first_row=torch.arange(number),
        labels=(torch.rand(number, len(tasks), generator=generator) < 0.1).float(),
        label_mask=torch.ones(number, len(tasks), dtype=torch.bool),
        going_on=torch.zeros(number, len(tasks), dtype=torch.bool),
    )


def timed(
    make: Callable[..., Epoch],
    network: MultimodalModel,
    config: TrainingConfig,
    data: WindowData,
    device: torch.device,
    clock: Clock,
) -> float:
    """Seconds of an epoch, after warm-up steps."""
    epoch = make(copy.deepcopy(network).to(device), config, data, device)
    epoch(torch.arange((WARM_UP + 1 if device.type == "cuda" else 1) * config.batch_size) % len(data))
    _wait(device)
    start = clock()
    epoch(data.order(torch.Generator().manual_seed(0)))
    _wait(device)
    return float(clock() - start)


def our_step(
    network: MultimodalModel, config: TrainingConfig, data: WindowData, device: torch.device, capture: bool = True
) -> Step:
    loss = training_loss(config, config.trained_tasks).to(device)
    return Step(network, data.to(device), loss, config, capture=capture)


def our_epoch(network: MultimodalModel, config: TrainingConfig, data: WindowData, device: torch.device) -> Epoch:
    step = our_step(network.train(), config, data, device)

    def epoch(order: Tensor) -> None:
        losses = [step(windows)[0] for windows in torch.split(order.to(device), config.batch_size)]
        torch.stack(losses).mean().item()

    return epoch


def plain_epoch(network: MultimodalModel, config: TrainingConfig, data: WindowData, device: torch.device) -> Epoch:
    model = PlainModel(with_torchs_dropout(network)).train()
    loss = training_loss(config, config.trained_tasks).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate)

    def epoch(order: Tensor) -> None:
        for batch in DataLoader(Subset(Windows(data), order.tolist()), config.batch_size):
            telemetry, detections, mask, labels, known = (values.to(device) for values in batch)
            optimizer.zero_grad()
            with autocast(config.precision, device):
                logits = model(telemetry, detections, mask)
            value = loss(logits, labels, known)
            value.backward()
            nn.utils.clip_grad_norm_(model.parameters(), config.gradient_norm)
            optimizer.step()
            value.item()

    return epoch


def with_torchs_dropout(network: MultimodalModel) -> MultimodalModel:
    """The network, with torch's dropout in place of ours."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, Dropout):
                setattr(module, name, nn.Dropout(child.p))
    return network


def check_captured(architecture: str, config: TrainingConfig, data: WindowData, device: torch.device) -> None:
    """Exit unless steps captured as a CUDA graph have the losses of eager ones; without dropout, which differs."""
    losses = []
    for capture in (True, False):
        network = create(architecture, config.replace(dropout_prob=0.0)).to(device).train()
        step = our_step(network, config, data, device, capture)
        chosen = torch.split(torch.arange(len(data), device=device), config.batch_size)
        losses.append(torch.stack([step(windows)[0] for windows in chosen]))
        if capture and step.graph is None:
            print(f"{architecture}: not captured", flush=True)
    difference = ((losses[0] - losses[1]).abs() / losses[1]).max().item()
    print(f"{architecture}: captured and eager losses of {len(losses[0])} steps differ by {difference:.1e}", flush=True)
    if not difference < MOST_DIFFERENCE:
        raise SystemExit(f"{architecture}: expected less than {MOST_DIFFERENCE}")


def matrix_gflops(device: torch.device, clock: Clock, size: int = 1024, repeats: int = 10) -> float:
    matrix = torch.rand(size, size, device=device)
    for warm in (1, repeats):
        _wait(device)
        start = clock()
        for _ in range(warm):
            matrix @ matrix
        _wait(device)
    return 2 * size**3 * repeats / (clock() - start) / 1e9


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
