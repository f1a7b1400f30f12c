"""Measures imports: a video against PyAV's own decode, a candump against python-can's own reading, estimated offsets.

    python -m benchmarks.imports [--minutes 60] [--megabytes 1000] [--drives 4]

Every measurement runs in a process of its own; the pictures are the simulator's.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import av
import can
import numpy as np
import yaml

from drive_assets.simulation.camera import RECORDER, Camera
from drive_assets.simulation.config import DENSITY, STEP_S
from drive_assets.simulation.render import Renderer
from drive_assets.simulation.traffic import Traffic, simulate_traffic
from model.common.errors import DataError
from model.imports.logs.reading import read_channels
from model.imports.mapping import ChannelMapping, ImportMapping, LogMapping
from model.imports.offset import estimate_offset
from model.imports.pictures import probe
from model.imports.signals import Signal
from model.imports.video_with_logs import IMPORTER

START = 1_717_143_300.0
LOOP_S, RATE = 20, 30
"""Seconds that the long video repeats, and its frames a second."""
SMALL = Camera(640, 360, focal=473.6, horizon=162.72, bonnet=324.0)
FARTHEST_S, MOST_WRONG_S = 30.0, 0.25
DBC = """\
VERSION ""
BU_: car
BO_ 180 SPEED: 8 car
 SG_ SPEED : 47|16@0+ (0.01,0) [0|250] "km/h" car
BO_ 705 PEDAL: 8 car
 SG_ POSITION : 8|8@1+ (0.5,0) [0|100] "%" car
"""


def silent(line: str) -> None:
    """Log nothing."""


def encode(path: Path, camera: Camera, frames: Iterator[np.ndarray]) -> None:
    with av.open(str(path), "w") as container:
        container.metadata["creation_time"] = "2024-05-31T08:15:00Z"
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = camera.width, camera.height, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="bgr24")))
        container.mux(stream.encode())


def pictures(camera: Camera, traffic: Traffic, seed: int) -> Iterator[np.ndarray]:
    """RATE pictures a second: the car moves evenly within a step of the traffic, the others stand."""
    renderer = Renderer(camera, traffic.road, seed)
    steps = np.arange(0, len(traffic.x) - 1, 1 / (RATE * STEP_S))
    x, y = (np.interp(steps, np.arange(len(values)), values) for values in (traffic.x, traffic.y))
    for number, step in enumerate(steps):
        yield renderer.frame(x[number], y[number], traffic.around[int(step)], (seed, number))[0]


def repeat(source: Path, target: Path, seconds: int) -> None:
    """A video of the packets of `source`, again and again."""
    with av.open(str(source)) as once, av.open(str(target), "w") as container:
        container.metadata["creation_time"] = once.metadata["creation_time"]
        template = once.streams.video[0]
        stream = container.add_stream_from_template(template)
        for turn in range(round(seconds / LOOP_S)):
            once.seek(0)
            for packet in once.demux(template):
                if packet.dts is not None:
                    shift = round(turn * LOOP_S / packet.time_base)
                    packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                    container.mux(packet)


def decode(path: Path) -> None:
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for _ in container.decode(video=0):
            pass


def import_drive(folder: Path) -> None:
    target = folder / "recording"
    target.mkdir()
    (drive,) = IMPORTER.find(folder, {})
    IMPORTER.write(drive, target, silent)


def read_can(path: Path) -> None:
    with can.LogReader(str(path)) as reader:
        for _ in reader:
            pass


def import_can(folder: Path) -> None:
    sources = {"SPEED": "SPEED.SPEED", "ACCELERATOR_POS_D": "PEDAL.POSITION"}
    channels = {name: ChannelMapping(source=[source]) for name, source in sources.items()}
    read_channels(folder, ImportMapping(logs=[LogMapping(path="*.log", dbc=["car.dbc"])], channels=channels))


def _child(work: Callable[[Path], None], path: Path, queue: Any) -> None:
    started = time.perf_counter()
    work(path)
    used = resource.getrusage(resource.RUSAGE_SELF)
    queue.put((time.perf_counter() - started, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024))


def measure(work: Callable[[Path], None], path: Path) -> tuple[float, float, float]:
    """Seconds, seconds of processor time and peak MiB of `work`."""
    context = get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_child, args=(work, path, queue))
    process.start()
    result: tuple[float, float, float] = queue.get()
    process.join()
    return result


def compare(what: str, ours: tuple[float, float, float], plain: tuple[float, float, float]) -> None:
    ratios = f"{ours[0] / plain[0]:.2f} times the time, {ours[1] / plain[1]:.2f} of the processor's"
    each = (f"{seconds:.1f} s and {memory:.0f} MiB" for seconds, _, memory in (ours, plain))
    print(f"{what}: {ratios}; {' against '.join(each)}", flush=True)


def video(root: Path, minutes: float) -> None:
    loop = root / "loop.mp4"
    traffic = simulate_traffic(LOOP_S, DENSITY, 1)
    encode(loop, RECORDER, pictures(RECORDER, traffic, 1))
    for length in (minutes / 4, minutes):
        folder = root / f"{length} minutes"
        folder.mkdir()
        repeat(loop, folder / "video.mp4", round(length * 60))
        lines = (f"{START + t / 10:.1f},{50 + t % 100},{t % 50},{t % 7 == 0}\n" for t in range(round(length * 600)))
        (folder / "log.csv").write_text("Time,Speed,Pedal,Brake\n" + "".join(lines))
        channels = {"SPEED": "Speed", "ACCELERATOR_POS_D": "Pedal", "BRAKE_SIGNAL": "Brake"}
        content = {"logs": [{"path": "log.csv"}], "channels": {k: {"source": v} for k, v in channels.items()}}
        (folder / "mapping.yaml").write_text(yaml.safe_dump(content))
        plain = measure(decode, folder / "video.mp4")
        size = (folder / "video.mp4").stat().st_size / 1e6
        compare(f"video of {length:g} min, {size:.0f} MB", measure(import_drive, folder), plain)


def candump(root: Path, megabytes: float) -> None:
    folder = root / "can"
    folder.mkdir()
    (folder / "car.dbc").write_text(DBC)
    rng = np.random.default_rng(0)
    ids = [180, 705, *range(300, 350)]
    with (folder / "drive.log").open("w") as file:
        for n in count():
            data = rng.bytes(8 * len(ids)).hex()
            lines = [f"({START + n / 50:.6f}) can0 {i:03X}#{data[16 * k : 16 * k + 16]}\n" for k, i in enumerate(ids)]
            file.write("".join(lines))
            if n % 100 == 0 and file.tell() > megabytes * 1e6:
                break
    plain = measure(read_can, folder / "drive.log")
    compare(f"candump of {megabytes:g} MB", measure(import_can, folder), plain)


def offsets(root: Path, drives: int, seconds: float) -> None:
    """The clock offset of simulated drives, and of logs of other drives, which has to be refused."""
    signals, videos = [], []
    for seed in range(drives):
        traffic = simulate_traffic(seconds, DENSITY, seed)
        videos.append(root / f"offset{seed}.mp4")
        encode(videos[-1], SMALL, pictures(SMALL, traffic, seed))
        signals.append(Signal(START + np.arange(len(traffic.speed)) * STEP_S, traffic.speed * 3.6))
    errors, refused, accepted = [], 0, 0
    for seed in range(drives):
        offset = float(np.random.default_rng(seed).uniform(-FARTHEST_S, FARTHEST_S))
        starts = [(probe(videos[seed], "UTC"), START)]
        try:
            errors.append(abs(estimate_offset(starts, signals[seed].moved(-offset), silent).seconds - offset))
        except DataError:
            refused += 1
        try:
            estimate_offset(starts, signals[seed - 1].moved(-offset), silent)
            accepted += 1
        except DataError:
            pass
    within = sum(error <= MOST_WRONG_S for error in errors)
    print(f"Offsets of {drives} drives of {seconds:g} s: {within} within {MOST_WRONG_S} s (worst "
          f"{max(errors, default=np.nan):.2f} s), {len(errors) - within} wrong, {refused} refused; of logs of other "
          f"drives {accepted} accepted", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--megabytes", type=float, default=200)
    parser.add_argument("--drives", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        if options.megabytes:
            candump(root, options.megabytes)
        if options.drives:
            offsets(root, options.drives, 180.0)
        if options.minutes:
            video(root, options.minutes)


if __name__ == "__main__":
    main()
