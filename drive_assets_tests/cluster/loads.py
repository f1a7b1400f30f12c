"""How often workers load the detector, counted in their own processes."""

from pathlib import Path

VARIABLE = "DRIVE_ASSETS_LOADS"
_SITE = f"""
import os
import model.annotation.pipeline
load = model.annotation.pipeline.load_detector
def counted(weights):
    with open(os.environ["{VARIABLE}"], "a") as stream:
        stream.write(f"{{os.getpid()}}\\n")
    return load(weights)
model.annotation.pipeline.load_detector = counted
"""


def counting(folder: Path) -> dict[str, str]:
    """Environment that has every Python process with it note its loads in `folder / "loads"`."""
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(_SITE)
    return {
        "PYTHONPATH": f"{folder / 'site'}:{Path(__file__).resolve().parents[2]}",
        VARIABLE: str(folder / "loads"),
    }


def loads(folder: Path) -> list[str]:
    """The process of each load."""
    return (folder / "loads").read_text().split()
