"""Bundles of the twelve networks on one core: python -m benchmarks.car [--folder FOLDER] [--architectures NAME...]

By recipe best, with the bundled detector at 704 px, on rendered frames of 1920x1080: the export's time, the largest
difference from torch on the golden drive, and medians of the processor's time for a window, beside torch's, and for a
frame. Then the size of a virtual environment with what a bundle needs, and of the bundle.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from drive_assets.reports.car import folder_bytes
from drive_assets.resources.storage import Storage
from drive_assets_tests.car.data import BUDGET, write_drives, write_network
from model.bundle.config import BundleConfig
from model.bundle.export import make_bundle
from model.dataset.split_file import read_split
from model.dataset.windows import WindowConfig
from model.detection.detector import BUNDLED
from model.evaluation.predictor import Predictor
from model.network.architectures import ARCHITECTURES

ROUNDS = 50
REQUIREMENTS = ("numpy", "onnxruntime", "pillow")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="keep the bundles here")
    parser.add_argument("--architectures", nargs="*", default=ARCHITECTURES)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        root = options.folder or Path(temporary)
        storage = Storage(data_root=str(root), inbox_root=str(root / "inbox"))
        if not storage.split("test").is_file():
            write_drives(storage, 80, 704, WindowConfig(stride=1))
        print("architecture                          export, CPU s   network / torch, ms   frame, ms   differs by")
        for name in options.architectures:
            measure(storage, name)
        installed(storage.bundle(options.architectures[0]), root / "environment")


def measure(storage: Storage, name: str) -> None:
    write_network(storage, name, epochs=1)
    started = time.process_time()
    checkpoint = storage.checkpoint(name) / "best_model.pt"
    made = make_bundle(
        checkpoint,
        storage.evaluation(name),
        storage.split("test"),
        storage.recordings,
        BUNDLED,
        storage.bundle(name),
        BundleConfig(false_alarms_per_hour=BUDGET),
        storage.cache,
    )
    export_s, parity = time.process_time() - started, made.parity
    both = f"{parity.network_ms:.2f} / {torch_ms(storage, checkpoint):.2f}"
    whole = parity.network_ms + parity.detector_ms
    print(
        f"{name:38}{export_s:13.0f}   {both:>19}   {whole:9.1f}   {max(parity.network, parity.whole):.1e}", flush=True
    )


def torch_ms(storage: Storage, checkpoint: Path) -> float:
    """The median time of one window in torch."""
    predictor, test = Predictor(checkpoint), read_split(storage.split("test"))
    window = {name: getattr(test, name)[: test.window.length][None] for name in ("telemetry", "detections")}
    window |= {"detection_mask": test.detection_mask[: test.window.length][None], "region": test.region[:1]}
    times = []
    for _ in range(ROUNDS):
        started = time.process_time()
        predictor.predict(window)
        times.append(time.process_time() - started)
    return float(np.median(times)) * 1000


def installed(bundle: Path, environment: Path) -> None:
    """The sizes of what is installed in a car."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    command = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-compile",
        *REQUIREMENTS,
    ]
    subprocess.run(command, check=True)
    size, of_bundle = (
        sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir()) for folder in (environment, bundle)
    )
    print(f"environment {size / 1e6:.0f} MB, bundle {of_bundle / 1e6:.0f} MB, of it "
          f"{folder_bytes(bundle / 'golden') / 1e6:.0f} MB the golden drive")  # fmt: skip
    subprocess.run([python, "-m", "drive_alarms", "check"], cwd=bundle, check=True)


if __name__ == "__main__":
    main()
