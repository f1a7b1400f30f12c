"""Device and precision of a training."""

import torch

from model.common.errors import DataError


def choose_device(name: str) -> torch.device:
    """The device that a config names. DataError if this machine does not have it."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise DataError(f"device {name!r} cannot be used here ({error}): expected auto, cpu or cuda:N.") from error


def choose_precision(name: str, device: torch.device) -> str:
    """bf16 or fp32, as a config names it; auto is bf16 on CUDA from Ampere on, else fp32."""
    ampere = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    return ("bf16" if ampere else "fp32") if name == "auto" else name


def autocast(name: str, device: torch.device) -> torch.autocast:
    """The precision that a config names, for a block."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=choose_precision(name, device) == "bf16")
