"""What predictions cost: python -m benchmarks.predict [--rows 3592]

A drive with frames of 1920x1080 that is predicted by its path: from annotations, against real time; and from frames,
against annotating it alone. Then its Rerun file, against the size of its frames.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NAME, ARCHITECTURE = "2024-06-01_10-00-00", "simple_concat_lstm"
ANNOTATED = ("annotations.csv", "annotations.json")
SETUP = """
import sys; from pathlib import Path; from drive_assets_tests import drives, networks
from model.detection.detector import BUNDLED
root, drive, rows = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
drives.write_drive(drive, rows), networks.write_network(root, rows=160), (root / "detector.pt").symlink_to(BUNDLED)
"""
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
        os.environ.update(DRIVE_ASSETS_DATA=str(root), DRIVE_ASSETS_WEIGHTS=str(root / "detector.pt"))
        timed("-c", SETUP, str(root), str(root.with_name(NAME)), str(options.rows))
        measure(root, root.with_name(NAME), options.rows / 2)


def measure(root: Path, drive: Path, seconds: float) -> None:
    alone, alone_cpu, _ = timed("-c", ANNOTATE, str(drive), str(root / "detector.pt"), str(root / "cache"))
    for name in ANNOTATED:
        shutil.move(drive / name, root / name)
    from_frames, cpu, _ = timed(*PREDICT, str(drive), "--architecture", ARCHITECTURE)
    print(f"from frames {from_frames:.1f} s, {from_frames / alone:.3f} of annotation alone, CPU {cpu / alone_cpu:.3f}")
    shutil.rmtree(root / "predictions")
    for name in ANNOTATED:
        shutil.move(root / name, drive / name)
    annotated, cpu, memory = timed(*PREDICT, str(drive), "--architecture", ARCHITECTURE)
    speed = f"{seconds / annotated:.0f} times real time"
    print(f"from annotations {annotated:.1f} s, {speed}, CPU {cpu:.1f} s, {memory:.0f} MB")
    viewed, cpu, memory = timed(*VIEW)
    size = (root / "videos" / f"{NAME}.rrd").stat().st_size / sum(each.stat().st_size for each in drive.glob("*.jpg"))
    print(f"Rerun file {viewed:.1f} s, CPU {cpu:.1f} s, {memory:.0f} MB, {size:.4f} of its frames")


def timed(*command: str) -> tuple[float, float, float]:
    """Seconds of a Python process, its CPU seconds, and its highest memory, MB.

    The kernel counts the memory of this process too, as it starts the other: so it imports nothing large.
    """
    started = time.perf_counter()
    with subprocess.Popen([sys.executable, "-W", "ignore", *command], stdout=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return time.perf_counter() - started, used.ru_utime + used.ru_stime, used.ru_maxrss / 1000


if __name__ == "__main__":
    main()
