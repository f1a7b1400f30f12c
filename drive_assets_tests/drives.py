"""Small recordings for tests: real files, a few kB a frame, with events that recur."""

import re
from functools import cache
from pathlib import Path

import cv2
import numpy as np

HEADER = "Time,SPEED,RPM,ACCELERATOR_POS_D,ENGINE_LOAD,BRAKE_SIGNAL,GEAR,BRAKE_FORCE,PRE_BRAKING,WHILE_BRAKING"


PICTURES = 13
"""Different frames of a drive, one after the other; a prime, so that frames picked evenly differ."""


@cache
def _pictures(seed: int) -> list[bytes]:
    """Frames of noise as JPEG files."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 255, (PICTURES, 36, 64, 3), np.uint8)
    large = (cv2.resize(image, (1920, 1080), interpolation=cv2.INTER_NEAREST) for image in noise)
    return [cv2.imencode(".jpg", image)[1].tobytes() for image in large]


def write_drive(folder: Path, rows: int = 80, seed: int = 0) -> Path:
    """A recording of 2 Hz whose driver brakes, after coasting, every 12 seconds; its frames are noise.

    The speed has noise, by the folder's name and `seed`: equal drives under two names would be one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng([*folder.name.encode(), seed])
    date, clock = folder.name.split("_")
    hours, minutes, seconds = (int(part) for part in clock.split("-"))
    lines = [HEADER]
    for row in range(rows):
        moment = hours * 3600 + minutes * 60 + seconds + row // 2
        time = f"{date} {moment // 3600:02}-{moment // 60 % 60:02}-{moment % 60:02}-{5 * (row % 2)}"
        phase = (row + 5 * seed) % 24
        brake, pedal = 18 <= phase < 22, 0.0 if 14 <= phase < 23 else 30.0
        speed, force = 90 + phase + 2 * noise.random(), 0.3 if brake else -0.02
        lines.append(f"{time},{speed:.2f},2000,{pedal},40,{brake},5,{force:.4f},[],[]")
        (folder / f"{time}.jpg").write_bytes(_pictures(seed)[row % PICTURES])
    (folder / "telemetry.csv").write_text("\n".join(lines) + "\n")
    return folder


def respell(drive: Path, fractions: dict[str, str]) -> list[Path]:
    """Replace the fractions of a drive's times, in its telemetry and its frames' names. Returns the frames by time."""
    telemetry = drive / "telemetry.csv"
    telemetry.write_text(re.sub(r"-(\d),", lambda match: f"-{fractions[match[1]]},", telemetry.read_text()))
    paths = sorted(drive.glob("*.jpg"), reverse=True)
    return [path.rename(path.with_stem(path.stem[:-1] + fractions[path.stem[-1]])) for path in paths][::-1]
