"""What predictions cost: python -m benchmarks.predict [--rows 3592]

A drive with frames of 1920x1080 that is predicted by its path: from annotations, against real time; and from frames,
against annotating it alone. Then its Rerun file, against the size of its frames.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from drive_assets_tests.drives import write_drive
from drive_assets_tests.networks import ARCHITECTURE, write_network
from model.detection.detector import BUNDLED
from model.recording.folder import ANNOTATIONS, DETAILS

NAME = "2024-06-01_10-00-00"
ANNOTATE = """
import sys; from pathlib import Path; from drive_assets.tasks import AnnotateJob, annotate
from model.annotation.config import AnnotationConfig
annotate(AnnotateJob(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), AnnotationConfig()), print)
"""
PREDICT = ("-m", "drive_assets.cli", "predict")
VIEW = ("-m", "drive_assets.cli", "view", NAME, "--no-open")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=3592)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "data"
        os.environ.update(DRIVE_ASSETS_DATA=str(root), DRIVE_ASSETS_WEIGHTS=str(BUNDLED))
        measure(root, write_drive(Path(folder) / NAME, options.rows), options.rows / 2)


def measure(root: Path, drive: Path, seconds: float) -> None:
    write_network(root, rows=160)
    alone, _ = timed("-c", ANNOTATE, str(drive), str(BUNDLED), str(root / "cache"))
    for name in (ANNOTATIONS, DETAILS):
        shutil.move(drive / name, root / name)
    from_frames, _ = timed(*PREDICT, str(drive), "--architecture", ARCHITECTURE)
    shutil.rmtree(root / "predictions")
    for name in (ANNOTATIONS, DETAILS):
        shutil.move(root / name, drive / name)
    annotated, memory = timed(*PREDICT, str(drive), "--architecture", ARCHITECTURE)
    rate = len(json.loads((drive / DETAILS).read_text())["frame_hashes"]) / alone
    print(f"from annotations {annotated:.1f} s, {seconds / annotated:.0f} times real time, {memory:.0f} MB")
    print(f"from frames {from_frames:.1f} s, {from_frames / alone:.3f} of annotation alone ({rate:.0f} frames/s)")
    viewed, memory = timed(*VIEW)
    size = (root / "videos" / f"{NAME}.rrd").stat().st_size / sum(each.stat().st_size for each in drive.glob("*.jpg"))
    print(f"Rerun file {viewed:.1f} s, {memory:.0f} MB, {size:.4f} of its frames")


def timed(*command: str) -> tuple[float, float]:
    """Seconds of a Python process, and its highest memory so far, MB."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-W", "ignore", *command], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000


if __name__ == "__main__":
    main()
