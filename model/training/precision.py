"""Device and precision of a training."""

from dataclasses import dataclass

import torch

from model.common.errors import DataError


@dataclass
class Precision:
    """Precision of a step: the type for autocast, and the scaler that fp16 needs."""

    device: torch.device
    name: str

    def __post_init__(self) -> None:
        if self.name == "fp16" and self.device.type != "cuda":
            raise DataError(f"precision fp16 on {self.device}: expected a CUDA device; use bf16 or fp32.")
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.name == "fp16")

    def autocast(self) -> torch.autocast:
        kind = torch.float16 if self.name == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype=kind, enabled=self.name != "fp32")


def choose_device(name: str) -> torch.device:
    """The device that a config names. DataError if this machine does not have it."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise DataError(f"device {name!r} cannot be used here ({error}): expected auto, cpu or cuda:N.") from error


def choose_precision(name: str, device: torch.device) -> Precision:
    """The precision that a config names; auto is bf16 on CUDA from Ampere on, fp16 on older CUDA, else fp32."""
    if name == "auto" and device.type == "cuda":
        name = "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    return Precision(device, "fp32" if name == "auto" else name)
