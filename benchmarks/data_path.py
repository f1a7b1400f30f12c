"""Times the data path on 12 recordings of 3,592 rows against a plain row-by-row reference, in one run.

    python benchmarks/data_path.py

The reference does what scripts of this kind do: csv rows, Python loops, and a copy of every frame in each window.
"""

import csv
import json
import resource
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from model.dataset.split_file import read_split, write_split
from model.dataset.windows import WindowConfig
from model.recording.annotations import Annotations, write_annotations
from model.recording.labels import future_labels, read_future_labels, write_future_labels
from model.recording.schema import FEATURES, HORIZONS_S
from model.recording.telemetry import read_telemetry

RECORDINGS, ROWS, DETECTIONS = 12, 3592, 6
STRIDE_1 = WindowConfig(stride=1)


def generate(folder: Path, seed: int) -> None:
    """A drive of 30 minutes with fault rows, and its annotations."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    header = "Time,SPEED,RPM,ACCELERATOR_POS_D,ENGINE_LOAD,BRAKE_SIGNAL,GEAR,BRAKE_FORCE,PRE_BRAKING,WHILE_BRAKING"
    lines, times = [header], []
    brake = np.convolve(rng.random(ROWS) < 0.004, np.ones(6), "same") > 0
    for row in range(ROWS):
        second = row // 2
        time_ = f"{folder.name[:10]} 10-{second // 60:02}-{second % 60:02}-{5 * (row % 2)}"
        if rng.random() < 0.003:
            lines.append(",".join(["No Frame", *["No Data"] * 9]))
            continue
        times.append(time_)
        speed, pedal = rng.integers(80, 130), round(float(rng.uniform(0, 60)), 2)
        lines.append(f"{time_},{speed},{speed * 19},{pedal},40.5,{bool(brake[row])},5,{0.2 * brake[row]:.4f},[],[]")
    (folder / "telemetry.csv").write_text("\n".join(lines) + "\n")
    found = []
    for _ in times:
        number = int(rng.poisson(DETECTIONS))
        corner, size = rng.uniform(0, (1700, 400), (number, 2)), rng.uniform(10, 170, (number, 2))
        values = (corner, corner + size, rng.uniform(0.25, 1, (number, 1)), np.zeros((number, 1)))
        found.append(np.hstack(values).astype(np.float32))
    write_annotations(folder / "annotations.csv", Annotations.from_frames(times, [f"{t}.jpg" for t in times], found))


def ours_labels(folders: list[Path]) -> None:
    for folder in folders:
        table, _ = read_telemetry(folder / "telemetry.csv")
        write_future_labels(folder / "future_labels.csv", future_labels(table))


def ours_h5(folders: list[Path]) -> None:
    write_split(folders[0].parent / "all.h5", folders, STRIDE_1)


def _rows(folder: Path) -> list[dict[str, Any]]:
    rows = []
    with (folder / "telemetry.csv").open() as stream:
        for row in csv.DictReader(stream):
            if row["SPEED"] == "No Data":
                continue
            clock, tenth = row["Time"].split(" ")[1].rsplit("-", 1)
            hours, minutes, seconds = (int(part) for part in clock.split("-"))
            rows.append({**row, "t": ((hours * 60 + minutes) * 60 + seconds) * 1000 + int(tenth) * 100})
    return rows


def reference_labels(folders: list[Path]) -> None:
    for folder in folders:
        rows = _rows(folder)
        with (folder / "reference_labels.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            for index, row in enumerate(rows):
                cells: list[Any] = [row["Time"]]
                for h in HORIZONS_S:
                    near = rows[index : index + 2 * h + 4]  # rows are half a second apart or more
                    nearest = min(near, key=lambda other: abs(other["t"] - row["t"] - h * 1000))
                    if abs(nearest["t"] - row["t"] - h * 1000) > 300:
                        cells += ["", ""]
                    else:
                        cells += [nearest["BRAKE_SIGNAL"], float(nearest["ACCELERATOR_POS_D"]) < 7.5]
                writer.writerow(cells)


def reference_h5(folders: list[Path]) -> None:
    telemetry, detections, labels = [], [], []
    for folder in folders:
        rows = _rows(folder)
        with (folder / "annotations.csv").open() as stream:
            found = {row["Time"]: row for row in csv.DictReader(stream)}
        with (folder / "reference_labels.csv").open() as stream:
            future = {row[0]: row[1:] for row in csv.reader(stream)}
        frames = []
        for row in rows:
            seen = found[row["Time"]]
            boxes = np.zeros((12, 7), np.float32)
            columns = (json.loads(seen[name]) for name in ("class_ids", "confidences", "bboxes", "areas"))
            for slot, (class_id, confidence, box, area) in enumerate(list(zip(*columns, strict=True))[:12]):
                boxes[slot] = [class_id, confidence, *box, area]
            frames.append((row["t"], [float(row[name]) for name in FEATURES], boxes, future[row["Time"]]))
        for start in range(len(frames) - 19):
            window = frames[start : start + 20]
            if any(b[0] - a[0] > 601 for a, b in pairwise(window)) or "" in window[-1][3]:
                continue
            telemetry.append(np.array([frame[1] for frame in window], np.float32))
            detections.append(np.stack([frame[2] for frame in window]))
            labels.append([cell == "True" for cell in window[-1][3]])
    with h5py.File(folders[0].parent / "reference.h5", "w") as file:
        for name, values in (("telemetry", telemetry), ("detections", detections), ("labels", labels)):
            file.create_dataset(name, data=np.array(values), compression="gzip")


def _child(work: Callable[[list[Path]], None], folders: list[Path], queue: Any) -> None:
    started = time.perf_counter()
    work(folders)
    queue.put((time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def measure(work: Callable[[list[Path]], None], folders: list[Path]) -> tuple[float, float]:
    """Seconds and peak MiB of `work` in a process of its own."""
    context = get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_child, args=(work, folders, queue))
    process.start()
    result: tuple[float, float] = queue.get()
    process.join()
    return result


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        folders = [root / f"2024-05-{day:02}_10-00-00" for day in range(1, RECORDINGS + 1)]
        for seed, folder in enumerate(folders):
            generate(folder, seed)
        for what, ours, reference in (
            ("labels", ours_labels, reference_labels),
            ("annotations + labels to H5", ours_h5, reference_h5),
        ):
            seconds, memory = measure(ours, folders)
            plain, plain_memory = measure(reference, folders)
            print(f"{what}: {plain / seconds:.1f} times faster; {seconds:.2f} s and {memory:.0f} MiB against "
                  f"{plain:.2f} s and {plain_memory:.0f} MiB", flush=True)  # fmt: skip
        size, plain_size = ((root / file).stat().st_size / 1e6 for file in ("all.h5", "reference.h5"))
        split = read_split(root / "all.h5")
        print(f"H5: {plain_size / size:.1f} times smaller; {size:.1f} MB against {plain_size:.1f} MB, "
              f"{len(split.window_start):,} windows")  # fmt: skip
        _check_equal(root, folders, split)


def _check_equal(root: Path, folders: list[Path], split: Any) -> None:
    for folder in folders:
        ours = read_future_labels(folder / "future_labels.csv")
        with (folder / "reference_labels.csv").open() as stream:
            plain = [row[1::2] for row in csv.reader(stream)]
        brake = ours[[f"brake_{h}s" for h in HORIZONS_S]].astype(object).fillna("").astype(str)
        assert brake.values.tolist() == plain, folder
    with h5py.File(root / "reference.h5") as file:
        rows = split.window_start[:, None] + np.arange(20)
        assert np.array_equal(split.telemetry[rows], file["telemetry"][()])
        assert np.allclose(split.detections[rows], file["detections"][()])
    print("Labels and windows equal the reference's.")


if __name__ == "__main__":
    main()
