"""Runs importers in tests."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import pandas as pd
import pytest

from model.imports.kinds import Importer

REAL = Path(os.environ.get("REAL_LOGS", Path(__file__).parents[4] / "shared" / "real" / "logs"))
"""Logs of real drives, which are not part of the repository."""


@dataclass
class Imported:
    """A recording that an importer wrote."""

    name: str
    rows: pd.DataFrame
    origin: dict[str, Any]
    region: dict[str, int]
    grey: list[float]
    """Mean of each frame"""
    log: list[str]

    @property
    def notes(self) -> str:
        return "\n".join(self.origin["notes"])


def imported(importer: Importer, path: Path, work: Path, **options: str) -> list[Imported]:
    """The recordings of all drives at `path`, each written into an own folder of `work`."""
    found = []
    for number, drive in enumerate(importer.find(path, options)):
        folder = work / f"{number}"
        folder.mkdir(parents=True)
        log: list[str] = []
        importer.write(drive, folder, log.append)
        rows = pd.read_csv(folder / "telemetry.csv")
        grey = [float(cv2.mean(cv2.imread(str(folder / f"{time}.jpg")))[0]) for time in rows["Time"]]
        origin, region = (json.loads((folder / name).read_text()) for name in ("origin.json", "roi.json"))
        found.append(Imported(drive.name, rows, origin, region, grey, log))
    return found


def real(*parts: str) -> Path:
    """A real file, or the test is skipped where it is not there."""
    path = REAL.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{path} is not there: it is not part of the repository")
    return path
