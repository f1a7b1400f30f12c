"""Raw telemetry and detections to what the networks take: scaled to [0, 1], one-hot gear, flags."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from model.common.errors import DataError
from model.dataset.lead import are_vehicles
from model.recording.schema import CHANNELS, FEATURES, GEAR_CODINGS, GEARS


def telemetry_features(raw: Tensor, gear: str = "onehot", inputs: Sequence[str] = FEATURES) -> Tensor:
    """Raw telemetry (...,C), a column a channel of `inputs`, to features (...,`telemetry_dim`): 10 of the usual five.

    A channel's scaling range becomes [0, 1], clamped. The gear, 0 (neutral) to 5, is one-hot over 6, or with
    gear="continuous" one number, gear / 5.
    """
    if gear not in GEAR_CODINGS:
        raise DataError(f"Gear coding {gear!r}: expected one of {', '.join(GEAR_CODINGS)}.")
    features = []
    for column, name in enumerate(inputs):
        values, channel = raw[..., column], CHANNELS[name]
        low, high = channel.scaling or (0.0, 1.0)
        if channel.kind == "gear":
            values = values.round().clamp(low, high)
            if gear == "onehot":
                features.append(functional.one_hot(values.long(), GEARS).to(raw.dtype))
                continue
        features.append(((values - low) / (high - low)).clamp(0, 1)[..., None])
    return torch.cat(features, dim=-1)


def detection_features(
    raw: Tensor, mask: Tensor, region: Tensor, class_names: Sequence[str], one_hot: bool = False
) -> Tensor:
    """Raw detections (...,N,7) to features (...,N,6), or more for several classes; zero where mask (...,N) is False.

    Raw columns are class id, confidence, x1, y1, x2, y2 (pixels of the region of interest) and area (px2). Features are
    confidence, the corners as shares of the frame's own `region` (...,2), its width and height in px, and the area as
    its share, all clamped to [0, 1]. If `class_names` holds other classes than vehicles, whether a detection is a
    vehicle follows; with `one_hot` the class, one-hot.
    """
    width, height = region.to(raw.dtype).unbind(-1)
    scale = torch.stack([torch.ones_like(width), width, height, width, height, width * height], dim=-1)
    features = [(raw[..., 1:] / scale[..., None, :]).clamp(0, 1)]
    ids = raw[..., 0].masked_fill(~mask, 0).long()
    if not all(vehicles := are_vehicles(class_names)):
        features.append(raw.new_tensor(vehicles)[ids, None])
    if one_hot:
        features.append(functional.one_hot(ids, len(class_names)).to(raw.dtype))
    return torch.cat(features, dim=-1).masked_fill(~mask[..., None], 0.0)
