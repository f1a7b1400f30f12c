"""Inputs that the network derives from its window by itself: how telemetry changes, and how the vehicles ahead do.

Nothing here is learnt. Vehicles are told apart by where they are on the road, as a camera sees it that looks straight
ahead: a box's bottom edge tells how far it is, and with that its middle tells how far to the left or right.
"""

import torch
from torch import Tensor, nn

from model.network.attention import mlp
from model.network.config import ModelConfig, NetworkConfig
from model.recording.schema import CHANNELS as TABLE

HORIZON = 0.29
"""Row of the horizon, as a share of the region of interest's height."""
METRES = 4.34
"""Metres to the side = METRES x (middle - 0.5) / (bottom - HORIZON), for a camera 1.3 m above the road."""
DISTANCE_M = 3.21
"""Metres ahead = DISTANCE_M / (bottom - HORIZON), for that camera."""
SPEED_MPS = (TABLE["SPEED"].scaling or (0.0, 150.0))[1] / 3.6
FRAME_S = 0.5
SIZE_NOISE = 0.025
"""Spread of a detector's log size from frame to frame."""
MEMORIES_S = (1.5, 3.0)
"""Time over which what is known of the vehicle ahead fades when its motion is estimated."""
MOTION_PRIOR = (2.0, 0.3)
"""Spread of speeds (m/s) relative to the own one and of accelerations (m/s2) of vehicles ahead."""
LANES_M = ((-1.5, 1.5), (-5.5, -1.5), (1.5, 5.5))
"""Where the nearest vehicle is followed: the own lane, the left one, the right one."""
SPANS = (3, 6, 10)
"""Frames over which the rate of a change is taken."""
CHANNELS = 4
"""Continuous telemetry channels, the first of a frame's features: speed, engine speed, pedal, load."""
PEDAL = 2
PEDAL_OFF = 0.075
MOST_CHANGE = 0.8
"""A box goes on as another of the frame before if middle, bottom and width changed by less, relative to its size."""

TELEMETRY_FRAME = CHANNELS
TRACK_FRAME = 4
TELEMETRY_LAST = CHANNELS * (1 + len(SPANS)) + CHANNELS * 2 + 3
TRACK_LAST = 6 + 4 * len(SPANS) + 4 * len(MEMORIES_S)
TRACKS = len(LANES_M)


def frame_dim(config: NetworkConfig) -> int:
    """Derived features a frame."""
    return config.telemetry_changes * TELEMETRY_FRAME + config.lead_tracks * TRACKS * TRACK_FRAME


def end_dim(config: NetworkConfig) -> int:
    """Derived features of a window's end."""
    return config.telemetry_changes * TELEMETRY_LAST + config.lead_tracks * (TRACKS * TRACK_LAST + 1)


class DerivedInputs(nn.Module):
    """What `config` derives: features that join each frame's telemetry, and a summary of the window's end.

    The end goes past encoder and decoder straight to the heads, as a tree would read it off the last frame.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.norm = nn.BatchNorm1d(end_dim(config))
        self.end = mlp(end_dim(config), 2 * config.hidden_dim, config.hidden_dim, config.dropout_prob)

    def forward(self, telemetry: Tensor, detections: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """telemetry (B,T,F), detections (B,T,N,D), mask (B,T,N) -> (B,T,F+frame_dim), (B,hidden_dim)."""
        with torch.no_grad(), torch.autocast(telemetry.device.type, enabled=False):
            frames, end = [telemetry], []
            if self.config.telemetry_changes:
                change, last = telemetry_changes(telemetry)
                frames.append(change)
                end.append(last)
            if self.config.lead_tracks:
                tracks, last = lead_tracks(detections, mask, telemetry[..., 0])
                frames.append(tracks)
                end += [last, mask[:, -1].sum(-1, keepdim=True) / 12]
        return torch.cat(frames, dim=-1), torch.relu(self.end(self.norm(torch.cat(end, dim=-1))))


def slopes(values: Tensor, valid: Tensor) -> Tensor:
    """Least-squares rates (...,len(SPANS)) of change a second at the end of series (...,T), where valid (...,T).

    A small ridge draws the rate of few frames towards zero, which is what it is with less than two.
    """
    time = torch.arange(values.shape[-1], device=values.device, dtype=values.dtype) - (values.shape[-1] - 1)
    found = []
    for span in SPANS:
        weight = valid[..., -span:].to(values.dtype)
        t, x = time[-span:] * FRAME_S, values[..., -span:]
        count = weight.sum(-1, keepdim=True).clamp(min=1)
        t = t - (weight * t).sum(-1, keepdim=True) / count
        x = x - (weight * x).sum(-1, keepdim=True) / count
        found.append((weight * t * x).sum(-1) / ((weight * t * t).sum(-1) + 0.05))
    return torch.stack(found, dim=-1)


def telemetry_changes(telemetry: Tensor) -> tuple[Tensor, Tensor]:
    """telemetry (B,T,F) -> each frame's change from the one before (B,T,4), and features of the end (B,TELEMETRY_LAST).

    The end: the continuous channels, their rates, their changes over one and four frames, and for the pedal whether
    it is released, for how much of the window, and for how much of its last two seconds.
    """
    channels = telemetry[..., :CHANNELS]
    change = torch.diff(channels, dim=1, prepend=channels[:, :1])
    last = channels[:, -1]
    series = channels.transpose(1, 2)
    rates = slopes(series, torch.ones_like(series)).flatten(1)
    earlier = channels[:, -min(5, channels.shape[1])]
    off = (channels[..., PEDAL] < PEDAL_OFF).to(last.dtype)
    pedal = torch.stack((off[:, -1], off.mean(1), off[:, -4:].mean(1)), dim=-1)
    return change * 10, torch.cat((last, rates * 10, change[:, -1] * 20, (last - earlier) * 10, pedal), dim=-1)


def lead_tracks(detections: Tensor, mask: Tensor, speed: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest vehicle in each of LANES_M at the window's end, followed back through the window.

    Args:
        detections: (B,T,N,D); features 1 to 4 are the corners as shares of the region.
        mask: (B,T,N).
        speed: (B,T) scaled speed.

    Returns:
        (B,T,3*TRACK_FRAME): seen or not, log size, bottom edge, metres to the side; zero where not seen.
        (B,3*TRACK_LAST): these at the end, distance and headway; the rates of growth (1 / time to contact) and of
        moving sideways; relative speed, acceleration and the deceleration that they call for.
    """
    x1, y1, x2, y2 = detections[..., 1:5].unbind(-1)
    width, height = (x2 - x1).clamp(min=1e-3), (y2 - y1).clamp(min=1e-3)
    size = 0.5 * torch.log(width * height)
    side = METRES * ((x1 + x2) / 2 - 0.5) / (y2 - HORIZON).clamp(min=0.02)
    boxes = torch.stack(((x1 + x2) / 2, y2, torch.log(width), size, side.clamp(-12, 12), width, height), dim=-1)
    low, high = side.new_tensor(LANES_M).T[..., None]
    here = side[:, -1, None]
    candidate = mask[:, -1, None] & (here >= low) & (here < high)
    nearest = torch.where(candidate, y2[:, -1, None], -1.0)
    value, index = nearest.max(-1)
    seen = value >= 0
    rows = torch.arange(len(boxes), device=boxes.device)[:, None]
    current = boxes[rows, -1, index]
    found, track = [seen], [current]
    for step in range(boxes.shape[1] - 2, -1, -1):
        others = boxes[:, step, None]
        mine = current[:, :, None]
        change = (
            (others[..., 0] - mine[..., 0]).abs() / mine[..., 5]
            + (others[..., 1] - mine[..., 1]).abs() / mine[..., 6]
            + (others[..., 2] - mine[..., 2]).abs()
        )
        change = torch.where(mask[:, step, None], change, 1e3)
        least, index = change.min(-1)
        same = seen & (least < MOST_CHANGE)
        current = torch.where(same[..., None], boxes[rows, step, index], current)
        found.append(same)
        track.append(current)
    valid = torch.stack(found[::-1], dim=-1).to(boxes.dtype)  # (B,3,T)
    series = torch.stack(track[::-1], dim=-2)[..., :5]  # (B,3,T,5)
    size, bottom, side = series[..., 3], series[..., 1], series[..., 4]
    frames = torch.stack((valid, (size + 2.5) * valid, bottom * valid, side / 4 * valid), dim=-1)
    end = _end(size, bottom, side, valid, speed[:, None] * SPEED_MPS)
    return frames.permute(0, 2, 1, 3).flatten(2), end.flatten(1)


def _end(size: Tensor, bottom: Tensor, side: Tensor, valid: Tensor, speed: Tensor) -> Tensor:
    """Series (B,3,T), and the own speed (B,1,T) in m/s, to the features of their ends (B,3,TRACK_LAST)."""
    seen = valid[..., -1:]
    # How large the vehicle is, is the same in all frames: their mean makes its size a good measure of distance.
    scale = torch.log(DISTANCE_M / (bottom - HORIZON).clamp(min=0.02)) + size
    scale = (valid * scale).sum(-1, keepdim=True) / valid.sum(-1, keepdim=True).clamp(min=1)
    gap = torch.exp(scale - size).clamp(1, 200)
    now, own = gap[..., -1:], speed[..., -1:]
    growth, sideways = slopes(size, valid), slopes(side, valid)
    headway = (now / own.clamp(min=3)).clamp(max=6)
    state = (seen, torch.log(now / 30), bottom[..., -1:], side[..., -1:] / 4, now / 50, headway / 2)
    motion = []
    for memory in MEMORIES_S:
        relative, acceleration = _motion(gap, valid, memory)
        needed = relative.clamp(max=0) ** 2 / (2 * now)
        motion += [relative / 2, acceleration, needed * 2, (relative / now * 10).clamp(-4, 4)]
    rates = (growth * 3, growth * headway * 2, growth * growth * now, sideways / 2)
    values = torch.cat((*state, *(rate.clamp(-4, 4) for rate in rates), *motion), dim=-1)
    return values * seen


def _motion(gap: Tensor, valid: Tensor, memory_s: float) -> tuple[Tensor, Tensor]:
    """Relative speed (B,3,1) and acceleration (B,3,1) of what is `gap` (B,3,T) ahead, at the end.

    A parabola is fitted to the distances, with weights that fade with age and with noise in proportion to distance,
    and a prior for both values. (Fitting the vehicle's own way, with the car's speed known, is worse: a driver who
    follows slows down with it, so that the distance changes more smoothly than either speed.)
    """
    time = (torch.arange(gap.shape[-1], device=gap.device) - (gap.shape[-1] - 1)).to(gap.dtype) * FRAME_S
    place = gap - gap[..., -1:]
    weight = valid * torch.exp(time / memory_s) / (SIZE_NOISE * gap) ** 2
    powers = torch.stack((torch.ones_like(time), time, time**2 / 2))
    system = torch.einsum("blt,it,jt->blij", weight, powers, powers)
    prior = torch.tensor([1e-6, *(spread**-2 for spread in MOTION_PRIOR)], device=gap.device, dtype=gap.dtype)
    found = torch.linalg.solve(system + torch.diag(prior), torch.einsum("blt,it,blt->bli", weight, powers, place))
    return found[..., 1:2].clamp(-20, 20), found[..., 2:3].clamp(-5, 5)
