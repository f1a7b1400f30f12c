"""Motorway traffic around one car, simulated by the program `sumo` (https://sumo.dlr.de)."""

import csv
import importlib.util
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
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
    homes = [Path(where) for where in (package.submodule_search_locations or [])] if package else []
    if "SUMO_HOME" in os.environ:
        homes.append(Path(os.environ["SUMO_HOME"]))
    for home in homes:
        if os.access(home / "bin" / name, os.X_OK):
            return str(home / "bin" / name)
    found = shutil.which(name)
    if found is None:
        raise DataError(
            f"The program '{name}' of the traffic simulation SUMO was not found. "
            "Install the simulation extra: pip install 'drive-assets[simulation]'"
        )
    return found


def _run(folder: Path, program: str, *options: str) -> None:
    command = [program, *" ".join(options).split()]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise DataError(f"{Path(program).name} failed (exit {done.returncode}): {done.stderr.strip()[-800:]}")


def _read(path: Path, road: Road, steps: int) -> Traffic:
    """Read the floating-car data (one row per vehicle and step) into a `Traffic` of `steps` steps."""
    kinds = {kind.name: index for index, kind in enumerate(VEHICLE_TYPES)}
    moments: dict[str, list[dict[str, str]]] = {}
    with path.open(newline="") as stream:
        for row in csv.DictReader(stream, delimiter=";"):
            moments.setdefault(row["timestep_time"], []).append(row)
    ego, around = [], []
    lit: dict[str, bool] = {}
    for rows in list(moments.values())[:steps]:
        values = np.array(
            [[float(row[f"vehicle_{key}"]) for key in ("x", "y", "speed", "acceleration", "pos")] for row in rows]
        )
        # SUMO draws edges shorter than they are: along the road, x is counted from the edge's start instead.
        starts = [road.starts.get(row["vehicle_lane"].rsplit("_", 1)[0], np.nan) for row in rows]
        values[:, 0] = np.where(np.isnan(starts), values[:, 0], np.array(starts) + values[:, 4])
        lit = {
            row["vehicle_id"]: _brake_light(lit.get(row["vehicle_id"], False), *line[2:4])
            for row, line in zip(rows, values.tolist(), strict=True)
        }
        mine = [index for index, row in enumerate(rows) if row["vehicle_id"] == EGO]
        if not mine:
            break
        others = np.array([index for index, row in enumerate(rows) if row["vehicle_id"] != EGO], np.int64)
        ego.append(values[mine[0], :4])
        around.append(
            Snapshot(
                number=np.array([int(rows[index]["vehicle_id"]) for index in others], np.int64),
                kind=np.array([kinds[rows[index]["vehicle_type"].split("-")[0]] for index in others], np.int64),
                x=values[others, 0],
                y=values[others, 1],
                braking=np.array([lit[rows[index]["vehicle_id"]] for index in others], np.bool_),
                speed=values[others, 2],
            )
        )
    if len(ego) < steps:
        raise DataError(f"SUMO simulated {len(ego)} of {steps} steps of the drive: the ego car left the road early")
    x, y, speed, acceleration = np.array(ego).T
    return Traffic(x, y, speed, acceleration, tuple(around), road)


def _brake_light(lit: bool, speed: float, acceleration: float) -> bool:
    """Whether a driver brakes: harder than engine and air, with hysteresis, or at rest."""
    return acceleration < (-0.35 if lit else -0.95) or speed < 0.3
