"""Motorway traffic around one car, simulated by the program `sumo` (https://sumo.dlr.de)."""

import importlib.util
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from drive_assets.simulation.config import STEP_S
from drive_assets.simulation.demand import EGO, VEHICLE_TYPES, routes
from drive_assets.simulation.road import SPEED_LIMIT, Road, jams, write_network
from model.common.errors import DataError

WARM_UP_S = 60.0
"""In which the traffic settles before the drive begins."""
VIEW_RADIUS_M = 280.0
NETWORK_OPTIONS = "--no-internal-links --no-turnarounds --offset.disable-normalization"
TRAFFIC_OPTIONS = (
    "--no-step-log --no-warnings --lanechange.duration 3.5 --collision.action none --max-depart-delay 10 "
    f"--time-to-teleport -1 --device.fcd.explicit {EGO} --device.fcd.radius {VIEW_RADIUS_M} "
    "--fcd-output.acceleration --fcd-output.attributes id,x,y,lane,pos,speed,acceleration,type --precision 3"
)


@dataclass(frozen=True)
class Snapshot:
    """One step: the vehicles in view of the ego car. Arrays have one entry per vehicle; x is the front bumper's."""

    number: NDArray[np.int64]
    kind: NDArray[np.int64]
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    braking: NDArray[np.bool_]
    speed: NDArray[np.float64]


@dataclass(frozen=True)
class Traffic:
    """A drive every STEP_S seconds: the ego car's x, y (m), speed (m/s), acceleration (m/s2) and surroundings."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    speed: NDArray[np.float64]
    acceleration: NDArray[np.float64]
    around: tuple[Snapshot, ...]
    road: Road


def simulate_traffic(duration_s: float, density: tuple[float, float], seed: int) -> Traffic:
    """Simulate `duration_s` seconds of a drive through traffic of `density` (vehicles/km, lowest and highest).

    Raises:
        DataError: SUMO is not installed, or it failed.
    """
    sumo, netconvert = _program("sumo"), _program("netconvert")
    rng = np.random.default_rng([seed, 1])
    with tempfile.TemporaryDirectory(prefix="drive-assets-sumo-") as name:
        folder = Path(name)
        road = write_network(folder, (duration_s + WARM_UP_S + 30) * SPEED_LIMIT + 2000)
        _run(folder, netconvert, "-n n.xml -e e.xml -x c.xml -o net.xml", NETWORK_OPTIONS)
        (folder / "jams.xml").write_text(jams(road, duration_s + WARM_UP_S, rng))
        (folder / "routes.xml").write_text(routes(road, duration_s + WARM_UP_S, density, rng))
        times = f"--step-length {STEP_S} --end {WARM_UP_S + duration_s + 2} --device.fcd.begin {WARM_UP_S}"
        files = "-n net.xml -r routes.xml -a jams.xml --fcd-output fcd.csv"
        _run(folder, sumo, files, times, f"--seed {seed % 2**31}", TRAFFIC_OPTIONS)
        return _read(folder / "fcd.csv", road, round(duration_s / STEP_S))


def _program(name: str) -> str:
    """Path of a SUMO program: of the installed Python package, of SUMO_HOME, or on the PATH."""
    package = importlib.util.find_spec("sumo")
    homes = [*(package.submodule_search_locations or [] if package else []), os.environ.get("SUMO_HOME", "")]
    folders = [*(f"{home}/bin" for home in homes), os.environ.get("PATH", "")]
    program = shutil.which(name, path=os.pathsep.join(folders))
    if program is None:
        raise DataError(
            f"The program '{name}' of the traffic simulation SUMO was not found. "
            "Install the simulation extra: pip install 'drive-assets[simulation]'"
        )
    return program


def _run(folder: Path, program: str, *options: str) -> None:
    command = [program, *" ".join(options).split()]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise DataError(f"{Path(program).name} failed (exit {done.returncode}): {done.stderr.strip()[-800:]}")


def _read(path: Path, road: Road, steps: int) -> Traffic:
    """Read the floating-car data (one row per vehicle and step) into a `Traffic` of `steps` steps."""
    rows = pd.read_csv(path, sep=";", dtype={"vehicle_id": str}, float_precision="round_trip")
    rows = rows.rename(columns=lambda name: name.removeprefix("vehicle_")).dropna(subset="id")
    # SUMO draws edges shorter than they are: along the road, x is counted from the edge's start instead.
    start = rows["lane"].str.rsplit("_", n=1).str[0].map(road.starts)
    rows["x"] = (start + rows["pos"]).fillna(rows["x"])
    rows["braking"] = _brake_lights(rows)
    ego = rows[rows["id"] == EGO][:steps]
    if len(ego) < steps:
        raise DataError(f"SUMO simulated {len(ego)} of {steps} steps of the drive: the ego car left the road early")
    others = rows[rows["id"] != EGO]
    kinds = {kind.name: index for index, kind in enumerate(VEHICLE_TYPES)}
    kind = others["type"].str.split("-").str[0].map(kinds)
    others = others.assign(number=others["id"].astype(np.int64), kind=kind.astype(np.int64))
    columns = {field.name: others[field.name].to_numpy() for field in fields(Snapshot)}
    first, last = (np.searchsorted(others["timestep_time"], ego["timestep_time"], side) for side in ("left", "right"))
    around = [
        Snapshot(**{name: column[low:high] for name, column in columns.items()})
        for low, high in zip(first, last, strict=True)
    ]
    x, y, speed, acceleration = (ego[name].to_numpy() for name in ("x", "y", "speed", "acceleration"))
    return Traffic(x, y, speed, acceleration, tuple(around), road)


def _brake_lights(rows: pd.DataFrame) -> "pd.Series[bool]":
    """Whether each driver brakes: harder than engine and air, with hysteresis, or at rest."""
    acceleration = rows["acceleration"]
    switched = np.select([(acceleration < -0.95) | (rows["speed"] < 0.3), acceleration >= -0.35], [1.0, 0.0], np.nan)
    return pd.Series(switched, rows.index).groupby(rows["id"]).ffill().eq(1)
