"""Report pages of bundles for the car."""

import json
from pathlib import Path

from drive_assets.reports.links import file_link
from drive_assets.reports.page import Link, Page, Section, Table
from drive_assets.resources.storage import Storage
from model.bundle.config import DESCRIPTION, LIMITS, MEASURED, PACKAGE

INSTALL = (
    "Copy the folder to the car's computer (Python 3.11 or newer). There: python3 -m venv venv; venv/bin/pip install "
    f"--no-compile -r requirements.txt; venv/bin/python -m {PACKAGE} check. Then venv/bin/python -m {PACKAGE} watch "
    "FOLDER, with the folder that the recorder writes to. The documentation's page In the car has the rest. It is no "
    "safety system."
)


def bundle_page(storage: Storage, architecture: str) -> Page:
    """What is inside, how it differs from torch, how fast it is, when it alarms, and how it is installed."""
    folder = storage.bundle(architecture)
    content, measured = (json.loads((folder / name).read_bytes()) for name in (DESCRIPTION, MEASURED))
    detector, files = content["detector"], content["files"]
    sizes = {name: (folder / name).stat().st_size if (folder / name).is_file() else None for name in files}
    golden = [name for name in files if name.startswith("golden/") and name.endswith(".jpg")]
    return Page(
        f"Bundle of {architecture} for the car",
        f"Of data version {content['data_version']}, made by drive-assets {content['version']}; thresholds for "
        f"{content['false_alarms_per_hour']:g} false alarms an hour and task.",
        facts={
            "network, ms on one core": measured["network_ms"],
            "detector with reading, ms on one core": measured["detector_ms"],
            "golden windows": measured["windows"],
            "largest difference from torch": measured["network"],
            "MB": round(folder_bytes(folder) / 1e6, 1),
        },
        sections=[
            Section("Install", INSTALL),
            Section(
                "Alarms",
                "A task without a threshold never alarms: none keeps the budget on val.",
                Table(
                    ("task", "begins at", "ends below"),
                    [(task["name"], task["on"], task["off"]) for task in content["tasks"]],
                ),
            ),
            Section(
                "Inputs",
                table=Table.of(
                    {
                        "telemetry": content["inputs"],
                        "frames, px": detector["frame"],
                        "region of interest, px (x, y, width, height)": detector["region"],
                        "classes": detector["class_names"],
                        "frames of a window": content["length"],
                        "schema": content["schema"],
                    }
                ),
            ),
            Section(
                "Differences from torch on the golden drive",
                table=Table(
                    ("of", "largest", "limit"), [(name, measured[name], limit) for name, limit in LIMITS.items()]
                ),
            ),
            Section(
                "Files",
                f"And {len(golden)} frames of the golden drive.",
                Table(
                    ("file", "bytes", "SHA-256"),
                    [(name, sizes[name], digest) for name, digest in files.items() if name not in golden],
                ),
                links=[Link(DESCRIPTION, file_link(storage, folder / DESCRIPTION))],
            ),
        ],
    )


def folder_bytes(folder: Path) -> int:
    """Size of a folder's files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
