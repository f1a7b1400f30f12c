"""Raw data sets of simulated frames for detectors: what the Boxy-like and the nuImages-like set have in common."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Generic, TypeVar

from drive_assets.simulation.camera import Camera
from drive_assets.simulation.config import STEP_S, SimulationConfig
from drive_assets.simulation.output import exists, new_folder, side_by_side
from drive_assets.simulation.paint import Image
from drive_assets.simulation.render import Renderer
from drive_assets.simulation.traffic import simulate_traffic
from drive_assets.simulation.vehicles import Seen
from model.common.progress import Log

OPTIONS = ("seed", "density_min", "density_max", "min_box_px", "min_visible", "boxy_sequences", "boxy_frames",
           "boxy_interval_s")  # fmt: skip
"""Fields of the config that both sets depend on."""
T = TypeVar("T")


@dataclass(frozen=True)
class Clip(Generic[T]):
    """What was written of one clip: counts for the log, and its labels."""

    frames: int
    vehicles: int
    labels: T


def write_clips(
    output: Path,
    config: SimulationConfig,
    name: str,
    option: str,
    write_clip: Callable[[Path, SimulationConfig, int], Clip[T]],
    write_labels: Callable[[Path, Sequence[T]], None],
    tell: Log,
) -> Path:
    """Write `boxy_sequences` clips and their labels to folder `output`, unless it has them from equal options.

    Args:
        name: the data set's, for the log and the folder's marker.
        option: a further field of the config that the set depends on.

    Raises:
        DataError: `output` holds something else or cannot be written, or SUMO is missing or fails.
    """
    options = config.model_dump()
    made_from = {name.lower(): {field: options[field] for field in (*OPTIONS, option)}}
    if exists(output, made_from):
        tell(f"{output}: already simulated with these options")
        return output
    start, count = monotonic(), config.boxy_sequences

    def done(index: int, clip: Clip[T]) -> None:
        tell(
            f"{name} clip {index + 1}/{count}: {clip.frames} frames, {clip.vehicles} vehicles, "
            f"{monotonic() - start:.0f} s since the start"
        )

    with new_folder(output, made_from) as folder:
        clips = side_by_side(write_clip, [(folder, config, index) for index in range(count)], config.workers, done)
        write_labels(folder, [clip.labels for clip in clips])
    return output


def clip_frames(
    config: SimulationConfig, seed: int, camera: Camera, noise: float = 1.0
) -> Iterator[tuple[float, Image, list[Seen]]]:
    """Frames of one clip: seconds since its start, the picture, and the vehicles in it."""
    interval, frames = round(config.boxy_interval_s / STEP_S), config.boxy_frames
    density = (config.density_min, config.density_max)
    traffic = simulate_traffic(frames * config.boxy_interval_s, density, seed)
    renderer = Renderer(camera, traffic.road, seed, noise)
    for step in range(0, frames * interval, interval):
        yield step * STEP_S, *renderer.frame(traffic.x[step], traffic.y[step], traffic.around[step], (seed, step))


def is_labelled(seen: Seen, config: SimulationConfig, camera: Camera) -> bool:
    """Whether enough of a vehicle is visible, and its box is large enough, for a label."""
    x1, y1, x2, y2 = seen.whole
    smallest = config.min_box_px * camera.width / 1920
    return seen.visible >= config.min_visible and min(x2 - x1, y2 - y1) >= smallest
