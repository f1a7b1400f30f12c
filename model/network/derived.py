"""Inputs that a network derives from its window: changes of telemetry, and the motion of the lead vehicle.

Nothing here is learnt. Cameras are mounted differently, and boxes of detectors jitter differently: `Camera` estimates
both from the boxes of train.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.dataset.lead import LAGS, OWN_LANE, in_own_lane
from model.network.config import ModelConfig
from model.recording.schema import BOX_FEATURES, CHANNELS, PEDAL, PRESSED, STEP_MS

FRAME_S = STEP_MS / 1000
SPANS = (3, 6, 10)
"""Frames over which rates of change are estimated."""
STEADY = (1.5, 0.6)
MOTIONS = ((0.2, 10.0), (0.35, 3.0), (0.7, 1.5), STEADY, (4.0, 0.6))
"""Estimates of a vehicle's motion: decay time of the weight of earlier frames (s), and expected spread of accelerations
(m/s2). Short times, of which the first hardly reaches beyond three frames, suit boxes without jitter. The vehicle's
distance is that of STEADY."""
SPEED_PRIOR = 2.5
"""Spread of the speeds of lead vehicles relative to the own car (m/s)."""
LEAST_NOISE = 0.0003
"""Smallest spread of log sizes, of boxes with hardly any jitter."""
TYPICAL_LEAD_M = 30.0
OVERLOOKED = 3
"""Frames at the end of the window in which the lead may be undetected and is still followed."""
MOST_CHANGE = 0.6
CHANGE_WEIGHTS = (0.3, 1.0, 3.0)
"""Two boxes of consecutive frames show the same vehicle if the weighted changes of middle and bottom, relative to the
box's size, and of log size add up to less than MOST_CHANGE. Size is strict, so that an undetected vehicle is not taken
for the one ahead of it; the middle is lenient, since the car turns."""
FARTHEST_M = 250.0
PULL = ("SPEED", "RPM", "ENGINE_LOAD")
SLOWEST_MPS = 2.0


class Camera(NamedTuple):
    """Properties of the camera and of the detector, estimated from boxes."""

    horizon: float = 0.29
    """Row of the horizon, as a share of the height of the region of interest."""
    distance: float = 3.2
    """Distance (about metres) x depth below the horizon, as that share: leads are typically TYPICAL_LEAD_M away."""
    noise: float = 0.001
    """Spread of a box's log size from frame to frame x its size, the root of its share of the region's area."""

    @classmethod
    def measure(cls, detections: Tensor, mask: Tensor) -> "Camera":
        """From the boxes (F,N,D), real where mask (F,N), of a split's frames; the default if they are too few.

        On a plane road the bottom edge of a vehicle is a linear function of its size, which starts at the horizon.
        """
        x1, y1, x2, y2 = detections[mask][:, 1:5].double().unbind(-1)
        whole = (y2 < 0.98) & (x1 > 0.01) & (x2 < 0.99) & (x2 > x1) & (y2 > y1)
        x1, y1, x2, y2 = (values[whole] for values in (x1, y1, x2, y2))
        if len(x1) < 200:
            return cls()
        size = ((x2 - x1) * (y2 - y1)).sqrt()
        groups = size.argsort()[: int(0.8 * len(size))].tensor_split(16)
        sizes, bottoms = (torch.stack([values[group].median() for group in groups]) for values in (size, y2))
        slope = torch.cov(torch.stack((sizes, bottoms)))[0, 1] / sizes.var().clamp(min=1e-12)
        horizon = float(bottoms.mean() - slope * sizes.mean())
        if not (slope > 0 and 0 <= horizon < 0.9):
            return cls()
        depth = (y2 - horizon).clamp(min=0.01)
        ahead = (x1 < 0.5 + OWN_LANE) & (x2 > 0.5 - OWN_LANE)
        typical = float(depth[ahead].median()) if ahead.any() else float(depth.median())
        noise = _box_jitter(detections, mask)
        return cls(horizon, TYPICAL_LEAD_M * typical, cls().noise if noise is None else noise)


def _box_jitter(detections: Tensor, mask: Tensor, frames: int = 5000) -> float | None:
    """Spread of log sizes x size, from vehicles seen in three consecutive frames; None if there are too few."""
    every = max(len(detections) // frames, 1)
    boxes = _boxes(detections)
    before, here, after = (boxes[place : len(boxes) - 2 + place : every] for place in range(3))
    seen = [mask[place : len(mask) - 2 + place : every] for place in range(3)]
    matches = []
    for other, valid in ((before, seen[0]), (after, seen[2])):
        least, index = _change(other[:, None], here[:, :, None], valid[:, None]).min(-1)
        matches.append((least < MOST_CHANGE, other.gather(1, index[..., None].expand(-1, -1, other.shape[-1]))))
    (seen_before, earlier), (seen_after, later) = matches
    steady = seen[1] & seen_before & seen_after
    bend = (earlier[..., 2] - 2 * here[..., 2] + later[..., 2])[steady] * torch.exp(here[..., 2][steady])
    if len(bend) < 100:
        return None
    return float(bend.abs().median()) / 0.6745 / 6**0.5  # of a normal spread, of three independent errors


class DerivedInputs(nn.Module):
    """The inputs that `config` derives from a window, as features of its end."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.channels = _continuous(config)
        self.register_buffer("camera", torch.tensor(Camera()))
        self.camera: Tensor

    @property
    def dim(self) -> int:
        """The number of features."""
        boxes = torch.zeros(1, 1, 1, self.config.detection_input_dim_per_box)
        return self(torch.zeros(1, 1, self.config.telemetry_input_dim), boxes, torch.zeros(1, 1, 1).bool()).shape[-1]

    def measure(self, detections: Tensor, mask: Tensor) -> None:
        """Estimate the camera from the frames of train: detections (F,N,D), real where mask (F,N)."""
        self.camera.copy_(torch.tensor(Camera.measure(detections, self._vehicles(detections, mask))))

    def _vehicles(self, detections: Tensor, mask: Tensor) -> Tensor:
        """Which detections are vehicles: only those can be the lead."""
        return mask & (detections[..., len(BOX_FEATURES)] > 0.5) if self.config.vehicle_flag else mask

    @torch.no_grad()
    def forward(self, telemetry: Tensor, detections: Tensor, mask: Tensor) -> Tensor:
        """telemetry (B,T,F), detections (B,T,N,D), mask (B,T,N) -> (B,dim)."""
        features = []
        with torch.autocast(telemetry.device.type, enabled=False):
            if self.config.telemetry_changes:
                features.append(telemetry_changes(telemetry, self.channels, self.config.coast_threshold))
            if self.config.lead_tracks:
                speed = unscaled(telemetry, self.channels, "SPEED") / 3.6
                features.append(lead_track(detections, self._vehicles(detections, mask), speed, self.camera.unbind()))
        return torch.cat(features, dim=-1)


def _continuous(config: ModelConfig) -> dict[str, int]:
    """Column of each continuous channel among the telemetry features."""
    gear = config.telemetry_input_dim - len(config.telemetry_inputs) + 1
    widths = [gear if CHANNELS[name].kind == "gear" else 1 for name in config.telemetry_inputs]
    columns = [sum(widths[:index]) for index in range(len(widths))]
    named = zip(config.telemetry_inputs, columns, strict=True)
    return {name: column for name, column in named if CHANNELS[name].kind != "gear"}


def unscaled(telemetry: Tensor, channels: Mapping[str, int], name: str) -> Tensor:
    """A channel (B,T) in its unit; zero if the recordings do not have it."""
    if name not in channels:
        return telemetry.new_zeros(telemetry.shape[:2])
    low, high = CHANNELS[name].scaling or (0.0, 1.0)
    return low + (high - low) * telemetry[..., channels[name]]


def slopes(values: Tensor, valid: Tensor) -> Tensor:
    """Least-squares rates of change a second (...,len(SPANS)) at the end of series (...,T), where valid (...,T).

    A small ridge shrinks the rate of few frames towards zero; with fewer than two it is zero.
    """
    time = torch.arange(values.shape[-1], device=values.device, dtype=values.dtype) - (values.shape[-1] - 1)
    rates = []
    for span in SPANS:
        weight = valid[..., -span:].to(values.dtype)
        t, x = time[-span:] * FRAME_S, values[..., -span:]
        count = weight.sum(-1, keepdim=True).clamp(min=1)
        t = t - (weight * t).sum(-1, keepdim=True) / count
        x = x - (weight * x).sum(-1, keepdim=True) / count
        rates.append((weight * t * x).sum(-1) / ((weight * t * t).sum(-1) + 0.05))
    return torch.stack(rates, dim=-1)


def telemetry_changes(telemetry: Tensor, channels: Mapping[str, int], coast_threshold: float) -> Tensor:
    """telemetry (B,T,F) with `channels` as its continuous columns -> features of the end (B,.).

    The last frame; the pull of the engine at the wheels, from its load and from the pedal (both power / speed, up to a
    factor); the differences of all these to earlier frames, and their rates of change. Of the pedal: whether it is
    released, that is below `coast_threshold` (%); for which share of the window and of its last two seconds; and for
    which share of the window its present state has lasted.
    """
    lines = [telemetry[..., column] for column in channels.values()]
    speed = unscaled(telemetry, channels, "SPEED").clamp(min=SLOWEST_MPS * 3.6) / 3.6
    if set(PULL) <= set(channels):
        load, rpm = (unscaled(telemetry, channels, name) for name in ("ENGINE_LOAD", "RPM"))
        lines.append(load * rpm / speed / 10_000)
    if {PEDAL, "SPEED"} <= set(channels):
        lines.append(unscaled(telemetry, channels, PEDAL) / speed)
    values = torch.stack(lines, dim=1)
    last, length = values[..., -1], values.shape[-1]
    lags = [last - values[..., max(length - 1 - lag, 0)] for lag in LAGS]
    features = [telemetry[:, -1], last[:, len(channels) :], *lags, slopes(values, torch.ones_like(values)).flatten(1)]
    off = telemetry.new_zeros(telemetry.shape[:2])
    if PEDAL in channels:
        low, high = CHANNELS[PEDAL].scaling or (0.0, 1.0)
        off = (telemetry[..., channels[PEDAL]] < (coast_threshold - low) / (high - low)).to(off.dtype)
    elif PRESSED in channels:
        off = 1 - telemetry[..., channels[PRESSED]]
    same = ((off != off[:, -1:]).flip(1).to(off.dtype).cumsum(1) == 0).to(off.dtype).mean(1)
    return torch.cat((*features, torch.stack((off[:, -1], off.mean(1), off[:, -4:].mean(1), same), dim=-1)), dim=-1)


def lead_track(detections: Tensor, mask: Tensor, speed: Tensor, camera: Sequence[Tensor]) -> Tensor:
    """The nearest vehicle in the own lane at the end of the window, followed back through it.

    Args:
        detections: (B,T,N,D); features 1 to 4 are the corners as shares of the region.
        mask: (B,T,N).
        speed: (B,T) in m/s.

    Returns:
        (B,features). State: seen in the last frame, seen at all, share of frames in which it is seen, time it was
        seen last, distance (log), headway, lateral position, bottom edge, the vehicle's own size, time it was seen
        first. Motion, for each of MOTIONS: relative speed, its uncertainty, acceleration, required deceleration,
        1 / time to contact. Then rates of change of log size and of lateral position, and the number of vehicles.
    """
    horizon, distance, box_noise = camera
    track, valid = _follow(_boxes(detections), mask)
    bottom, size = track[..., 1], track[..., 2]
    side = ((track[..., 0] - 0.5) / track[..., 3]).clamp(-2, 2)
    seen, count = valid.amax(-1, keepdim=True), valid.sum(-1, keepdim=True)
    length = valid.shape[-1]
    time = (torch.arange(length, device=size.device, dtype=size.dtype) - (length - 1)) * FRAME_S
    latest = torch.where(valid > 0, time, -length * FRAME_S).amax(-1, keepdim=True)
    first = torch.where(valid > 0, time, 0.0).amin(-1, keepdim=True)
    # A vehicle's own size is constant: with its mean over the frames, the size of a box gives the distance.
    own_size = size - torch.log((bottom - horizon).clamp(min=0.01))
    own_size = (valid * own_size).sum(-1, keepdim=True) / count.clamp(min=1)
    gap = (distance * torch.exp(own_size - size)).clamp(1.0, FARTHEST_M)
    noise = torch.sqrt(LEAST_NOISE**2 + (box_noise * torch.exp(-size)) ** 2)
    motions = [_motion(gap, noise, valid, time, *motion) for motion in MOTIONS]
    motion = []
    for place, relative, acceleration, spread in motions:
        needed = relative.clamp(max=0) ** 2 / (2 * place)
        motion += [relative / 2, torch.log(spread), acceleration, needed * 2, (relative / place * 10).clamp(-4, 4)]
    now = motions[MOTIONS.index(STEADY)][0]
    headway = (now / speed[:, -1:].clamp(min=SLOWEST_MPS) / 2).clamp(max=4)
    state = (valid[:, -1:], seen, count / length, latest, torch.log(now / 30), headway, side[:, -1:])
    rates = (slopes(size, valid) * 3, slopes(side, valid))
    values = (*state, bottom[:, -1:], own_size, first, *motion, *(rate.clamp(-4, 4) for rate in rates))
    return torch.cat((torch.cat(values, dim=-1) * seen, mask[:, -1].sum(-1, keepdim=True) / 12), dim=-1)


def _boxes(detections: Tensor) -> Tensor:
    """Middle, bottom, log size, width and height (...,5) of detections (...,D)."""
    x1, y1, x2, y2 = detections[..., 1:5].unbind(-1)
    width, height = (x2 - x1).clamp(min=1e-3), (y2 - y1).clamp(min=1e-3)
    return torch.stack(((x1 + x2) / 2, y2, 0.5 * torch.log(width * height), width, height), dim=-1)


def _change(boxes: Tensor, other: Tensor, mask: Tensor) -> Tensor:
    """Weighted changes from the box `other` to `boxes`, relative to the size of `other`; large where not mask."""
    middle, bottom, size = ((boxes[..., place] - other[..., place]).abs() for place in (0, 1, 2))
    change = torch.stack((middle / other[..., 3], bottom / other[..., 4], size), dim=-1)
    return torch.where(mask, change @ change.new_tensor(CHANGE_WEIGHTS), 1e3)


def _follow(boxes: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes of the lead (B,T,5), and whether it is seen in each frame (B,T), 0 or 1; followed back from the end."""
    batch, length = mask.shape[:2]
    rows = torch.arange(batch, device=boxes.device)
    low, lowest = torch.where(mask & in_own_lane(boxes[..., 0], boxes[..., 3]), boxes[..., 1], -1.0).max(-1)
    followed = torch.zeros(batch, dtype=torch.bool, device=boxes.device)
    current = torch.ones_like(boxes[:, 0, 0])
    track: list[Tensor] = []
    valid: list[Tensor] = []
    for step in range(length - 1, -1, -1):
        least, index = _change(boxes[:, step], current[:, None], mask[:, step]).min(-1)
        same = followed & (least < MOST_CHANGE)
        if length - step <= OVERLOOKED:
            new = ~followed & (low[:, step] >= 0)
            index = torch.where(new, lowest[:, step], index)
            same, followed = same | new, followed | new
            first = boxes[rows, step, index]
            track = [torch.where(new[:, None], first, later) for later in track]
        current = torch.where(same[:, None], boxes[rows, step, index], current)
        track.append(current)
        valid.append(same)
    return torch.stack(track[::-1], dim=1), torch.stack(valid[::-1], dim=1).to(boxes.dtype)


def _motion(
    gap: Tensor, noise: Tensor, valid: Tensor, time: Tensor, memory_s: float, accelerations: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Distance, relative speed, acceleration and the spread of the speed (B,1) at the end of distances `gap` (B,T).

    A parabola is fitted to the distances, with weights that decay with age and a `noise` in proportion to distance, and
    with a prior for speed and acceleration.
    """
    kind = gap.dtype  # boxes without jitter weigh so much that single precision cannot solve for their motion
    gap, noise, valid, time = gap.double(), noise.double(), valid.double(), time.double()
    last = gap[:, -1:]
    weight = valid * torch.exp(time / memory_s) / (noise * gap) ** 2
    powers = torch.stack((torch.ones_like(time), time, time**2 / 2))
    prior = torch.tensor([1e-4, SPEED_PRIOR**-2, accelerations**-2], device=gap.device, dtype=gap.dtype)
    system = torch.einsum("bt,it,jt->bij", weight, powers, powers) + torch.diag(prior)
    inverse = _inverse(system)
    solution = torch.einsum("bij,jt,bt->bi", inverse, powers, weight * (gap - last))
    place, relative, acceleration = solution[:, :1], solution[:, 1:2], solution[:, 2:]
    spread = inverse[:, 1, 1, None].clamp(min=1e-6).sqrt()
    place = (last + place).clamp(1.0, FARTHEST_M)
    relative, acceleration = relative.clamp(-20, 20), acceleration.clamp(-6, 6)
    return place.to(kind), relative.to(kind), acceleration.to(kind), spread.to(kind)


def _inverse(a: Tensor) -> Tensor:
    """Inverses of symmetric positive definite matrices (B,3,3), by their LDL decomposition."""
    d1 = a[:, 0, 0]
    l21, l31 = a[:, 1, 0] / d1, a[:, 2, 0] / d1
    d2 = a[:, 1, 1] - l21 * a[:, 1, 0]
    l32 = (a[:, 2, 1] - l31 * a[:, 1, 0]) / d2
    d3 = a[:, 2, 2] - l31 * a[:, 2, 0] - l32 * (a[:, 2, 1] - l31 * a[:, 1, 0])
    zero, one = torch.zeros_like(d1), torch.ones_like(d1)
    # the inverse of L, row by row
    rows = torch.unflatten(torch.stack((one, zero, zero, -l21, one, zero, l21 * l32 - l31, -l32, one), -1), -1, (3, 3))
    return rows.mT @ (rows / torch.stack((d1, d2, d3), -1)[..., None])
