"""Labels of many small recordings in one batch: python -m benchmarks.backfill [--recordings 1000]

As `drive-assets run --select future_labels` makes them, on an instance and a data root of its own. The baseline is what
was done until pictures were drawn when they are looked at: the same, and for each a timeline drawn and encoded.
"""

import argparse
import os
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path

ROWS = 80
PICTURES = 50
"""Pictures that the baseline is measured with."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(DRIVE_ASSETS_DATA=folder, DAGSTER_HOME=f"{folder}/dagster")
        measure(options.recordings)


def measure(count: int) -> None:
    from drive_assets.definitions import defs
    from drive_assets.instance import open_instance
    from drive_assets.materialize import materialize
    from drive_assets.partitions import register_recordings
    from drive_assets.resources.storage import Storage

    storage = Storage.from_environment()
    names = [f"{datetime(2020, 1, 1) + timedelta(hours=hour):%Y-%m-%d_%H-%M-%S}" for hour in range(count)]
    for name in names:
        write_telemetry(storage.recording(name))
    with open_instance() as instance:
        register_recordings(instance, names)
        repository = defs.get_repository_def()
        materialize(repository, instance, "future_labels", names[:1])  # imports what is imported once
        wall, cpu = time.monotonic(), time.process_time()
        assert materialize(repository, instance, "future_labels", names)
        wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    picture = picture_cpu(storage.recording(names[0]))
    print(f"{count} labels: {wall:.1f} s, {count / wall:.1f} partitions/s; {cpu / count * 1000:.1f} ms of CPU each")
    print(f"with a picture each: {picture * 1000:.1f} ms of CPU more, {1 + picture * count / cpu:.1f} times as much")


def write_telemetry(folder: Path) -> None:
    """A drive without frames, which labels do not need."""
    from drive_assets_tests.drives import HEADER

    folder.mkdir(parents=True)
    date, clock = folder.name.split("_")
    start = datetime.strptime(f"{date} {clock}", "%Y-%m-%d %H-%M-%S")
    lines = [HEADER]
    for row in range(ROWS):
        moment, phase = start + timedelta(seconds=row // 2), row % 24
        brake, pedal = 18 <= phase < 22, 0.0 if 14 <= phase < 23 else 30.0
        lines.append(f"{moment:%Y-%m-%d %H-%M-%S}-{5 * (row % 2)},{90 + phase},2000,{pedal},40,{brake},5,-0.02,[],[]")
    (folder / "telemetry.csv").write_text("\n".join(lines) + "\n")


def picture_cpu(folder: Path) -> float:
    """Seconds of CPU for a timeline, drawn and encoded."""
    from model.common.figures import png_bytes
    from model.recording.folder import Recording
    from model.recording.plots import drive_timeline

    recording = Recording(folder)
    telemetry, labels = recording.telemetry()[0], recording.labels()
    png_bytes(drive_timeline(telemetry, labels, folder.name), 75_000)
    cpu = time.process_time()
    for _ in range(PICTURES):
        png_bytes(drive_timeline(telemetry, labels, folder.name), 75_000)
    return (time.process_time() - cpu) / PICTURES


if __name__ == "__main__":
    main()
