"""Times the conversion of detector data sets to YOLO's layout against a plain row-by-row reference, in one run.

    python benchmarks/detector_datasets.py [share of the full size, default 1]

Boxy: labels of 40,000 frames. nuImages: tables of 93,000 images of six cameras, half a gigabyte and more each, with
masks. Images are links to a small file: it measures tables, labels and links, not the copying of images. The
reference loads whole files with `json.load`, loops over rows and links images without a look at them.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from model.detection.boxy import BoxyConfig, convert_boxy
from model.detection.nuimages import CATEGORIES, CLASSES, NuimagesConfig, convert_nuimages

CAMERAS = ("CAM_FRONT", "CAM_BACK", "CAM_FRONT_LEFT", "CAM_FRONT_RIGHT", "CAM_BACK_LEFT", "CAM_BACK_RIGHT")
MOST_LINKS = 15_000
"""Names in the raw folder for one file; the data sets add as many each, and ext4 allows 65,000."""
FRAMES, SEQUENCES, VEHICLES = 40_000, 40, 10
SAMPLES, SWEEPS, LOGS = {"v1.0-train": 74_400, "v1.0-val": 18_600}, 12, 250
ANNOTATIONS = 8.6
"""A sample: 800,000 in the published set."""


class Links:
    """Many names for a few copies of one image."""

    def __init__(self, folder: Path, kind: str, width: int, height: int) -> None:
        self.folder, self.kind, self.count = folder, kind, 0
        self.content = cv2.imencode(kind, np.zeros((height, width, 3), np.uint8))[1].tobytes()

    def __call__(self, target: Path) -> None:
        source = self.folder / f"{self.count // MOST_LINKS}{self.kind}"
        if self.count % MOST_LINKS == 0:
            source.write_bytes(self.content)
        os.link(source, target)
        self.count += 1


def generate_boxy(raw: Path, share: float) -> None:
    rng, link = np.random.default_rng(0), Links(raw.parent, ".png", 1232, 1028)
    labels = {}
    frames = round(FRAMES * share / SEQUENCES)
    for number in range(SEQUENCES):
        sequence = f"bluefox_2016-10-{number // 4 + 1:02}-{number % 4 + 10}-00-00_bag"
        (raw / sequence).mkdir(parents=True)
        for frame in range(frames):
            name = f"{1475274353 + frame}.721849"
            link(raw / sequence / f"{name}.png")
            corner, size = rng.uniform(0, (2300, 1800), (VEHICLES, 2)), rng.uniform(5, 300, (VEHICLES, 2))
            boxes = np.hstack([corner, corner + size]).tolist()
            labels[f"./{sequence}/{name}.png"] = {"flaws": ["no-issues"], "vehicles": [_vehicle(*box) for box in boxes]}
    (raw / "boxy_labels_train.json").write_text(json.dumps(labels))


def _vehicle(x1: float, y1: float, x2: float, y2: float) -> dict[str, Any]:
    whole = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
    corners = ((x1, y1), (x1 + 9, y1), (x1 + 9, y2), (x1, y2))
    side = {f"p{number}": {"x": x, "y": y} for number, (x, y) in enumerate(corners)}
    return {"AABB": whole, "rear": whole | {"x1": x1 + 9}, "side": side} if x2 - x1 > 20 else {
        "AABB": whole, "rear": None, "side": None}  # fmt: skip


def ours_boxy(raw: Path, output: Path) -> None:
    convert_boxy(raw, output, BoxyConfig())


def reference_boxy(raw: Path, output: Path) -> None:
    labels = json.load((raw / "boxy_labels_train.json").open())
    sequences = sorted({name.split("/")[1] for name in labels})
    _folders(output)
    for name, label in labels.items():
        _, sequence, frame = name.split("/")
        part = "val" if sequences.index(sequence) % 5 == 2 else "train"
        lines, degenerate = [], False
        for vehicle in label["vehicles"]:
            box = vehicle["rear"] or vehicle["AABB"]
            corners = np.array([box["x1"], box["y1"], box["x2"], box["y2"]])
            degenerate |= bool(corners[0] >= corners[2] or corners[1] >= corners[3])
            centre = (corners[:2] + corners[2:]) / 2 / [2464, 2056]
            if 0.35 <= centre[0] <= 0.65 and centre[1] > 0.9:
                continue
            lines.append(_line(0, corners, 2464, 2056))
        if not degenerate and "no-issues" in label["flaws"]:
            os.link(raw / sequence / frame, output / "images" / part / f"{sequence}__{frame}")
            (output / "labels" / part / f"{sequence}__{frame[:-4]}.txt").write_text("".join(lines))


def _folders(output: Path) -> None:
    for part in ("train", "val"):
        for kind in ("images", "labels"):
            (output / kind / part).mkdir(parents=True)


def _line(number: int, corners: np.ndarray, width: int, height: int) -> str:
    clipped = np.clip(corners, 0, [width, height, width, height]) / [width, height, width, height]
    (cx, cy), (w, h) = (clipped[:2] + clipped[2:]) / 2, clipped[2:] - clipped[:2]
    return f"{number} {cx:.6f} {cy:.6f} {w:.6f} {h:.6f}\n"


def generate_nuimages(raw: Path, share: float) -> None:
    rng, link = np.random.default_rng(1), Links(raw.parent, ".jpg", 1600, 900)
    masks = ["".join(rng.choice(list("MjFTbDAyTjFPYzV"), rng.integers(80, 700)).tolist()) for _ in range(300)]
    names = [*sorted(CATEGORIES), "animal", "human.pedestrian.child", "static_object.bicycle_rack"]
    for camera in CAMERAS:
        (raw / "samples" / camera).mkdir(parents=True)
    for part, count in SAMPLES.items():
        folder, samples = raw / part, round(count * share)
        folder.mkdir(parents=True)
        sensors = [{"token": _token(part, camera), "channel": camera, "modality": "camera"} for camera in CAMERAS]
        _table(folder / "sensor.json", sensors)
        calibrated = [{"token": _token(part, "c", row["channel"]), "sensor_token": row["token"]} for row in sensors]
        _table(folder / "calibrated_sensor.json", calibrated)
        _table(folder / "category.json", [{"token": _token(name), "name": name} for name in names])
        _table(folder / "log.json", [{"token": _token(part, log), "logfile": f"{part}-{log}"} for log in range(LOGS)])
        rows = ({"token": _token(part, "s", i), "timestamp": i, "log_token": _token(part, i % LOGS),
                 "key_camera_token": _token(part, i, 6)} for i in range(samples))  # fmt: skip
        _table(folder / "sample.json", rows)
        with (folder / "sample_data.json").open("w") as stream:
            for i in range(samples):
                camera = CAMERAS[i % len(CAMERAS)]
                key = f"samples/{camera}/n003-2018-01-03-12-03-23+0800__{camera}__{part[5:]}{i:016}.jpg"
                link(raw / key)
                for k in range(SWEEPS + 1):
                    file = key if k == 6 else f"sweeps/{camera}/n003-2018-01-03-12-03-23+0800__{camera}__{i:016}{k}.jpg"
                    stream.write(
                        f'{"," if i or k else "["}\n{{\n"token": "{_token(part, i, k)}",\n'
                        f'"sample_token": "{_token(part, "s", i)}",\n"ego_pose_token": "{_token("e", i, k)}",\n'
                        f'"calibrated_sensor_token": "{_token(part, "c", camera)}",\n"filename": "{file}",\n'
                        f'"fileformat": "jpg",\n"width": 1600,\n"height": 900,\n"timestamp": 1514952516{i:06},\n'
                        f'"is_key_frame": {"true" if k == 6 else "false"},\n"prev": "{_token("p", i, k)}",\n'
                        f'"next": "{_token("n", i, k)}"\n}}'
                    )
            stream.write("\n]")
        with (folder / "object_ann.json").open("w") as stream:
            start = "["
            for i in range(samples):
                for k in range(int(rng.poisson(ANNOTATIONS))):
                    x, y, w, h = rng.integers((0, 0, 8, 8), (1500, 800, 300, 300)).tolist()
                    stream.write(
                        f'{start}\n{{\n"token": "{_token("o", i, k)}",\n'
                        f'"category_token": "{_token(names[(i * 7 + k) % len(names)])}",\n'
                        f'"bbox": [\n{x},\n{y},\n{x + w},\n{y + h}\n],\n"mask": {{\n"size": [\n900,\n1600\n],\n'
                        f'"counts": "{masks[(i + k) % len(masks)]}"\n}},\n"attribute_tokens": [],\n'
                        f'"sample_data_token": "{_token(part, i, 6)}"\n}}'
                    )
                    start = ","
            stream.write("\n]")


def _token(*parts: object) -> str:
    return "-".join(str(part) for part in parts).ljust(32, "0")


def _table(path: Path, rows: Any) -> None:
    path.write_text("[\n" + ",\n".join(json.dumps(row, indent=0) for row in rows) + "\n]")


def ours_nuimages(raw: Path, output: Path) -> None:
    convert_nuimages(raw, output, NuimagesConfig())


def ours_nuimages_all(raw: Path, output: Path) -> None:
    convert_nuimages(raw, output, NuimagesConfig(cameras=list(CAMERAS)))


def reference_nuimages(raw: Path, output: Path) -> None:
    _folders(output)
    for name, part in (("v1.0-train", "train"), ("v1.0-val", "val")):
        tables = {path.stem: json.load(path.open()) for path in (raw / name).glob("*.json")}
        by_token = {table: {row["token"]: row for row in rows} for table, rows in tables.items()}
        boxes: dict[str, list[dict[str, Any]]] = {}
        for row in tables["object_ann"]:
            boxes.setdefault(row["sample_data_token"], []).append(row)
        for sample in tables["sample"]:
            image = by_token["sample_data"][sample["key_camera_token"]]
            sensor = by_token["calibrated_sensor"][image["calibrated_sensor_token"]]["sensor_token"]
            if by_token["sensor"][sensor]["channel"] not in ("CAM_FRONT", "CAM_BACK"):
                continue
            lines = []
            for row in boxes.get(image["token"], []):
                category = by_token["category"][row["category_token"]]["name"]
                if category in CATEGORIES:
                    number = CLASSES.index(CATEGORIES[category])
                    lines.append(_line(number, np.array(row["bbox"]), image["width"], image["height"]))
            file = Path(image["filename"])
            os.link(raw / file, output / "images" / part / file.name)
            (output / "labels" / part / f"{file.stem}.txt").write_text("".join(lines))


def _child(work: Callable[[Path, Path], None], raw: Path, output: Path, queue: Any) -> None:
    started = time.perf_counter()
    work(raw, output)
    seconds = time.perf_counter() - started
    # Not getrusage: its peak is inherited from the parent, which generated the data.
    status = Path("/proc/self/status").read_text()
    queue.put((seconds, int(status.split("VmHWM:")[1].split()[0]) / 1024))


def measure(work: Callable[[Path, Path], None], raw: Path, output: Path) -> tuple[float, float]:
    """Seconds and peak MiB of `work` in a separate process."""
    context = get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_child, args=(work, raw, output, queue))
    process.start()
    process.join()
    result: tuple[float, float] = queue.get(timeout=10)
    return result


def main() -> None:
    share = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    for what, generate, ours, reference in (
        ("Boxy", generate_boxy, ours_boxy, reference_boxy),
        ("nuImages, front and back cameras", generate_nuimages, ours_nuimages, reference_nuimages),
    ):
        with tempfile.TemporaryDirectory() as name:
            raw, output, plain_output = (Path(name) / folder for folder in ("raw", "ours", "reference"))
            generate(raw, share)
            size = sum(path.stat().st_size for path in raw.rglob("*.json")) / 1e6
            seconds, memory = measure(ours, raw, output)
            plain, plain_memory = measure(reference, raw, plain_output)
            print(f"{what}, {size:,.0f} MB of JSON: {plain / seconds:.1f} times faster, "
                  f"{plain_memory / memory:.1f} times less memory; {seconds:.1f} s and {memory:.0f} MiB against "
                  f"{plain:.1f} s and {plain_memory:.0f} MiB", flush=True)  # fmt: skip
            _check_equal(output, plain_output)
            if ours is ours_nuimages:
                seconds, memory = measure(ours_nuimages_all, raw, Path(name) / "all")
                print(f"nuImages, all six cameras: {seconds:.1f} s and {memory:.0f} MiB")


def _check_equal(ours: Path, reference: Path) -> None:
    """Every image has the same label lines; which part it is in may differ for Boxy."""
    texts = [
        {path.name: path.read_text() for path in (folder / "labels").rglob("*.txt")} for folder in (ours, reference)
    ]
    assert texts[0].keys() == texts[1].keys()
    different = sum(texts[0][name] != texts[1][name] for name in texts[0])
    print(f"{len(texts[0]):,} label files, {different} of them differ from the reference's.")
    assert not different


if __name__ == "__main__":
    main()
