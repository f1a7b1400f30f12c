"""Raw telemetry and detections to what the networks take: scaled to [0, 1], one-hot gear, flags. Formulas: DOMAIN."""

import torch
from torch import Tensor
from torch.nn import functional

from model.common.errors import DataError
from model.recording.schema import GEAR_CODINGS, GEARS, RANGES, TELEMETRY_DIM


def telemetry_features(raw: Tensor, gear: str = "onehot") -> Tensor:
    """Raw telemetry (...,5) in the order of `model.recording.telemetry.FEATURES` to features (...,10), or (...,5).

    The four of RANGES are min-max scaled and clamped to [0, 1]. The gear, 0 (neutral) to 5, is one-hot over 6, or with
    gear="continuous" one number, gear / 5.
    """
    if gear not in TELEMETRY_DIM:
        raise DataError(f"Gear coding {gear!r}: expected one of {', '.join(GEAR_CODINGS)}.")
    low, high = raw.new_tensor(list(RANGES.values())).T
    scaled = ((raw[..., : len(RANGES)] - low) / (high - low)).clamp(0, 1)
    gears = raw[..., len(RANGES)].round().clamp(0, GEARS - 1)
    if gear == "continuous":
        return torch.cat((scaled, gears[..., None] / (GEARS - 1)), dim=-1)
    return torch.cat((scaled, functional.one_hot(gears.long(), GEARS).to(raw.dtype)), dim=-1)


def detection_features(
    raw: Tensor, mask: Tensor, crop_width: float, crop_height: float, classes: int | None = None
) -> Tensor:
    """Raw detections (...,N,7) to features (...,N,6), with `classes` given (...,N,6+classes); zero where mask is False.

    Raw columns are class id, confidence, x1, y1, x2, y2 (pixels of the crop) and area (px2). Features are confidence,
    the corners as shares of the crop, the area as its share, all clamped to [0, 1], then the class one-hot.
    """
    scale = raw.new_tensor([1.0, crop_width, crop_height, crop_width, crop_height, crop_width * crop_height])
    features = (raw[..., 1:] / scale).clamp(0, 1)
    if classes is not None:
        known = raw[..., 0].masked_fill(~mask, 0).long()
        features = torch.cat((features, functional.one_hot(known, classes).to(raw.dtype)), dim=-1)
    return features.masked_fill(~mask[..., None], 0.0)
