"""Inputs that the network derives from its window by itself: how telemetry changes, and how the vehicle ahead does.

Nothing here is learnt. What a camera sees depends on how it is mounted, and a detector's boxes tremble: `Camera`
measures both from the boxes of train.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.dataset.lead import OWN_LANE, in_own_lane
from model.network.config import ModelConfig
from model.recording.schema import BOX_FEATURES, CHANNELS

FRAME_S = 0.5
SPANS = (3, 6, 10)
"""Frames over which the rate of a change is taken."""
LAGS = (1, 2, 4, 10)
"""Frames back to which the last one is compared."""
STEADY = (1.5, 0.6)
MOTIONS = ((0.2, 10.0), (0.35, 3.0), (0.7, 1.5), STEADY, (4.0, 0.6))
"""Time over which what is known of a vehicle fades when its motion is estimated (s), and spread of accelerations (m/s2)
that is expected: the shorter, of which the first hardly looks back beyond three frames, are for boxes that do not
tremble. STEADY says where the vehicle is."""
SPEED_PRIOR = 2.5
"""Spread of speeds (m/s) of vehicles ahead relative to the own one."""
LEAST_NOISE = 0.0003
"""Spread of log sizes that is left where boxes hardly tremble."""
TYPICAL_LEAD_M = 30.0
OVERLOOKED = 3
"""Frames at the window's end in which the vehicle may be missed and is still followed."""
MOST_CHANGE = 0.6
CHANGE_WEIGHTS = (0.3, 1.0, 3.0)
"""A box goes on as another of the frame before if middle and bottom, relative to its size, and log size changed by
less. Strict in size: where a vehicle is missed, the one before it must not take its place. Lenient to the side: the car
turns.
"""
FARTHEST_M = 250.0
PEDAL, PEDAL_OFF = "ACCELERATOR_POS_D", 0.075
PEDAL_FEATURES = 4
PULL = ("SPEED", "RPM", "ENGINE_LOAD")
SLOWEST_MPS = 2.0
LEAD_FEATURES = 10 + 5 * len(MOTIONS) + 2 * len(SPANS) + 1


class Camera(NamedTuple):
    """What is measured of the camera, and of the detector."""

    horizon: float = 0.29
    """Row of the horizon, as a share of the region of interest's height."""
    distance: float = 3.2
    """Distance in about metres x depth below the horizon, as that share: leads are typically TYPICAL_LEAD_M away."""
    noise: float = 0.001
    """Spread of a box's log size from frame to frame x its size, the root of its share of the region's area."""

    @classmethod
    def measure(cls, detections: Tensor, mask: Tensor) -> "Camera":
        """From the boxes (F,N,D), real where mask (F,N), of a split's frames; the default where they are too few.

        On a plane road the bottom edges of vehicles lie on a line over their sizes, which begins at the horizon.
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
        noise = _tremble(detections, mask)
        return cls(horizon, TYPICAL_LEAD_M * typical, cls().noise if noise is None else noise)


def _tremble(detections: Tensor, mask: Tensor, frames: int = 5000) -> float | None:
    """Spread of log sizes x size over three frames in a row that show a vehicle; None where hardly one does."""
    every = max(len(detections) // frames, 1)
    boxes = _boxes(detections)
    before, here, after = (boxes[place : len(boxes) - 2 + place : every] for place in range(3))
    seen = [mask[place : len(mask) - 2 + place : every] for place in range(3)]
    found = []
    for other, valid in ((before, seen[0]), (after, seen[2])):
        least, index = _change(other[:, None], here[:, :, None], valid[:, None]).min(-1)
        found.append((least < MOST_CHANGE, other.gather(1, index[..., None].expand(-1, -1, other.shape[-1]))))
    (same, earlier), (goes_on, later) = found
    steady = seen[1] & same & goes_on
    bend = (earlier[..., 2] - 2 * here[..., 2] + later[..., 2])[steady] * torch.exp(here[..., 2][steady])
    if len(bend) < 100:
        return None
    return float(bend.abs().median()) / 0.6745 / 6**0.5  # of a normal spread, of three independent errors


class DerivedInputs(nn.Module):
    """What `config` derives from a window, as features of its end."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.channels = _continuous(config)
        self.register_buffer("camera", torch.tensor(Camera()))
        self.camera: Tensor

    @property
    def dim(self) -> int:
        config = self.config
        lines = len(self.channels) + _pulls(self.channels)
        telemetry = config.telemetry_input_dim + lines * (len(LAGS) + len(SPANS)) + PEDAL_FEATURES
        return config.telemetry_changes * (telemetry + _pulls(self.channels)) + config.lead_tracks * LEAD_FEATURES

    def measure(self, detections: Tensor, mask: Tensor) -> None:
        """Find out about the camera from the frames of train: detections (F,N,D), real where mask (F,N)."""
        self.camera.copy_(torch.tensor(Camera.measure(detections, self._vehicles(detections, mask))))

    def _vehicles(self, detections: Tensor, mask: Tensor) -> Tensor:
        """Which detections are vehicles: only those can be the lead."""
        return mask & (detections[..., len(BOX_FEATURES)] > 0.5) if self.config.vehicle_flag else mask

    @torch.no_grad()
    def forward(self, telemetry: Tensor, detections: Tensor, mask: Tensor) -> Tensor:
        """telemetry (B,T,F), detections (B,T,N,D), mask (B,T,N) -> (B,dim)."""
        end = []
        with torch.autocast(telemetry.device.type, enabled=False):
            if self.config.telemetry_changes:
                end.append(telemetry_changes(telemetry, self.channels))
            if self.config.lead_tracks:
                speed = unscaled(telemetry, self.channels, "SPEED") / 3.6
                end.append(
                    lead_track(detections, self._vehicles(detections, mask), speed, Camera(*self.camera.tolist()))
                )
        return torch.cat(end, dim=-1)


def _continuous(config: ModelConfig) -> dict[str, int]:
    """Column of each continuous channel among the telemetry features."""
    gear = config.telemetry_input_dim - len(config.telemetry_inputs) + 1
    widths = [gear if CHANNELS[name].kind == "gear" else 1 for name in config.telemetry_inputs]
    columns = [sum(widths[:index]) for index in range(len(widths))]
    found = zip(config.telemetry_inputs, columns, strict=True)
    return {name: column for name, column in found if CHANNELS[name].kind != "gear"}


def _pulls(channels: Mapping[str, int]) -> int:
    return (set(PULL) <= set(channels)) + ({PEDAL, "SPEED"} <= set(channels))


def unscaled(telemetry: Tensor, channels: Mapping[str, int], name: str) -> Tensor:
    """A channel (B,T) in its unit; zero where the recordings lack it."""
    if name not in channels:
        return telemetry.new_zeros(telemetry.shape[:2])
    low, high = CHANNELS[name].scaling or (0.0, 1.0)
    return low + (high - low) * telemetry[..., channels[name]]


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


def telemetry_changes(telemetry: Tensor, channels: Mapping[str, int]) -> Tensor:
    """telemetry (B,T,F) with `channels` as its continuous columns -> features of the end (B,.).

    The last frame; the pull of the engine at the wheels, as its load and as the pedal say it (both power / speed, up to
    a factor); of all these the differences to earlier frames and rates; and of the pedal whether it is released, for
    how much of the window, for how much of its last two seconds, and for how much of the window it has been so at last.
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
    end = [telemetry[:, -1], last[:, len(channels) :], *lags, slopes(values, torch.ones_like(values)).flatten(1)]
    off = telemetry.new_zeros(telemetry.shape[:2])
    if PEDAL in channels:
        off = (telemetry[..., channels[PEDAL]] < PEDAL_OFF).to(off.dtype)
    same = (off == off[:, -1:]).flip(1).to(off.dtype).cumprod(1).mean(1)
    return torch.cat((*end, torch.stack((off[:, -1], off.mean(1), off[:, -4:].mean(1), same), dim=-1)), dim=-1)


def lead_track(detections: Tensor, mask: Tensor, speed: Tensor, camera: Camera) -> Tensor:
    """The nearest vehicle in the own lane at the window's end, followed back through the window.

    Args:
        detections: (B,T,N,D); features 1 to 4 are the corners as shares of the region.
        mask: (B,T,N).
        speed: (B,T) in m/s.

    Returns:
        (B,LEAD_FEATURES). State: seen now, seen at all, for how much of the window, how long ago last, distance (log),
        headway, place to the side, bottom edge, the vehicle's own size, since when in the window. Motion, for each of
        MOTIONS: relative speed, its uncertainty, acceleration, deceleration needed, 1 / time to contact. Then rates
        of log size and of the place to the side, and the number of boxes.
    """
    track, valid = _follow(_boxes(detections), mask)
    bottom, size = track[..., 1], track[..., 2]
    side = ((track[..., 0] - 0.5) / track[..., 3]).clamp(-2, 2)
    seen, count = valid.amax(-1, keepdim=True), valid.sum(-1, keepdim=True)
    length = valid.shape[-1]
    time = (torch.arange(length, device=size.device, dtype=size.dtype) - (length - 1)) * FRAME_S
    latest = torch.where(valid > 0, time, -length * FRAME_S).amax(-1, keepdim=True)
    first = torch.where(valid > 0, time, 0.0).amin(-1, keepdim=True)
    # How large the vehicle is, is the same in all frames: their mean makes its size a good measure of distance.
    own_size = size - torch.log((bottom - camera.horizon).clamp(min=0.01))
    own_size = (valid * own_size).sum(-1, keepdim=True) / count.clamp(min=1)
    gap = (camera.distance * torch.exp(own_size - size)).clamp(1, FARTHEST_M)
    noise = torch.sqrt(LEAST_NOISE**2 + (camera.noise * torch.exp(-size)) ** 2)
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


def _change(boxes: Tensor, mine: Tensor, mask: Tensor) -> Tensor:
    """How much a box would have changed, relative to its size, if it were another: large where mask is False."""
    middle, bottom, size = ((boxes[..., place] - mine[..., place]).abs() for place in (0, 1, 2))
    change = torch.stack((middle / mine[..., 3], bottom / mine[..., 4], size), dim=-1)
    return torch.where(mask, change @ change.new_tensor(CHANGE_WEIGHTS), 1e3)


def _follow(boxes: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The lead's boxes (B,T,5), and in which frames it was seen (B,T), 0 or 1; followed from the end back."""
    batch, length = mask.shape[:2]
    rows = torch.arange(batch, device=boxes.device)
    low, lowest = torch.where(mask & in_own_lane(boxes[..., 0], boxes[..., 3]), boxes[..., 1], -1.0).max(-1)
    found = torch.zeros(batch, dtype=torch.bool, device=boxes.device)
    current = torch.ones_like(boxes[:, 0, 0])
    track: list[Tensor] = []
    valid: list[Tensor] = []
    for step in range(length - 1, -1, -1):
        least, index = _change(boxes[:, step], current[:, None], mask[:, step]).min(-1)
        same = found & (least < MOST_CHANGE)
        if length - step <= OVERLOOKED:
            new = ~found & (low[:, step] >= 0)
            index = torch.where(new, lowest[:, step], index)
            same, found = same | new, found | new
            sight = boxes[rows, step, index]
            track = [torch.where(new[:, None], sight, later) for later in track]
        current = torch.where(same[:, None], boxes[rows, step, index], current)
        track.append(current)
        valid.append(same)
    return torch.stack(track[::-1], dim=1), torch.stack(valid[::-1], dim=1).to(boxes.dtype)


def _motion(
    gap: Tensor, noise: Tensor, valid: Tensor, time: Tensor, memory_s: float, accelerations: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Distance, relative speed, acceleration and the speed's spread (B,1) at the end of what is `gap` (B,T) ahead.

    A parabola is fitted to the distances, with weights that fade with age and with `noise` in proportion to distance,
    and a prior for both values. (Fitting the vehicle's own way, with the car's speed known, is worse: a driver who
    follows slows down with it, so that the distance changes more smoothly than either speed.)
    """
    kind = gap.dtype  # boxes that hardly tremble weigh so much that single precision cannot solve for their motion
    gap, noise, valid, time = gap.double(), noise.double(), valid.double(), time.double()
    last = gap[:, -1:]
    weight = valid * torch.exp(time / memory_s) / (noise * gap) ** 2
    powers = torch.stack((torch.ones_like(time), time, time**2 / 2))
    prior = torch.tensor([1e-4, SPEED_PRIOR**-2, accelerations**-2], device=gap.device, dtype=gap.dtype)
    system = torch.einsum("bt,it,jt->bij", weight, powers, powers) + torch.diag(prior)
    inverse = torch.linalg.inv(system)
    found = torch.einsum("bij,jt,bt->bi", inverse, powers, weight * (gap - last))
    place, relative, acceleration = found[:, :1], found[:, 1:2], found[:, 2:]
    spread = inverse[:, 1, 1, None].clamp(min=1e-6).sqrt()
    place = (last + place).clamp(1, FARTHEST_M)
    relative, acceleration = relative.clamp(-20, 20), acceleration.clamp(-6, 6)
    return place.to(kind), relative.to(kind), acceleration.to(kind), spread.to(kind)
