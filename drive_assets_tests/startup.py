"""Code that Python processes run when they start, such as faults and counters in workers."""

from pathlib import Path

LOADS = "DRIVE_ASSETS_LOADS"
COUNT_LOADS = f"""
import os
import model.annotation.pipeline
load = model.annotation.pipeline.load_detector
def counted(weights):
    with open(os.environ["{LOADS}"], "a") as stream:
        stream.write(f"{{os.getpid()}}\\n")
    return load(weights)
model.annotation.pipeline.load_detector = counted
"""
"""Counts how often workers load the detector."""


def at_start(folder: Path, code: str) -> dict[str, str]:
    """Environment in which every Python process runs `code` when it starts; `folder` is a new one."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": f"{folder}:{Path(__file__).resolve().parents[1]}"}


def counting(folder: Path, code: str = "") -> dict[str, str]:
    """Environment in which workers record each load of the detector in `folder / "loads"`, and run `code`."""
    return {**at_start(folder / "site", COUNT_LOADS + code), LOADS: str(folder / "loads")}


def loads(folder: Path) -> list[str]:
    """The process of each load."""
    return (folder / "loads").read_text().split()
