"""Motorway traffic around one car, simulated by the program `sumo` (https://sumo.dlr.de).

The road is straight in SUMO: x runs along it, y is 0 at the left edge of the left lane and falls to the right. Bends and
hills are the renderer's. Interchanges add a fourth lane on the right where vehicles join and leave; zones whose speed
limit drops for a while make jams.
"""

import csv
import importlib.util
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from drive_assets.recordings.simulation.config import STEP_S
from model.errors import DataError

LANE_WIDTH_M = 3.75
LANES = 3
WARM_UP_S = 60.0
VIEW_RADIUS_M = 280.0
BLOCK_M = 3000.0
SPEED_LIMIT = 36.1
EGO = "ego"

_BLOCK = {"main": 1200.0, "zone": 300.0, "calm": 800.0, "weave": 700.0}


@dataclass(frozen=True)
class VehicleType:
    """A kind of vehicle: size in metres, share of the traffic, SUMO's driver parameters."""

    name: str
    length: float
    width: float
    height: float
    share: float
    driver: dict[str, str]


_CAR_DRIVER = {
    "carFollowModel": "EIDM", "speedFactor": "normc(0.98,0.16,0.68,1.35)", "accel": "2.0", "decel": "3.2",
    "tau": "1.2", "minGap": "2.5", "lcStrategic": "1.2", "lcSpeedGain": "1.6", "lcKeepRight": "0.9", "lcAssertive": "1.3",
}  # fmt: skip
_TRUCK_DRIVER = {
    "carFollowModel": "EIDM", "speedFactor": "normc(0.98,0.03,0.9,1.06)", "maxSpeed": "24.5", "accel": "0.8",
    "decel": "2.6", "tau": "1.6", "minGap": "4", "lcSpeedGain": "0.6", "lcKeepRight": "1.5", "vClass": "truck",
}  # fmt: skip
_EGO_DRIVER = _CAR_DRIVER | {"speedFactor": "0.97", "tau": "1.25", "accel": "1.7", "lcSpeedGain": "1.0"}

VEHICLE_TYPES = (
    VehicleType("hatch", 4.1, 1.78, 1.47, 0.25, _CAR_DRIVER),
    VehicleType("sedan", 4.7, 1.84, 1.44, 0.20, _CAR_DRIVER),
    VehicleType("estate", 4.7, 1.84, 1.50, 0.15, _CAR_DRIVER),
    VehicleType("suv", 4.6, 1.92, 1.70, 0.14, _CAR_DRIVER),
    VehicleType("van", 5.6, 2.05, 2.45, 0.08, _CAR_DRIVER | {"maxSpeed": "36"}),
    VehicleType("truck", 16.5, 2.55, 3.95, 0.13, _TRUCK_DRIVER),
    VehicleType("lorry", 9.5, 2.50, 3.60, 0.03, _TRUCK_DRIVER),
    VehicleType("bus", 12.5, 2.55, 3.65, 0.02, _TRUCK_DRIVER | {"maxSpeed": "27.8", "vClass": "bus"}),
)


@dataclass(frozen=True)
class Road:
    """Where the road has its fourth (joining and leaving) lane: (start, end) in metres of x, and its end."""

    weaves: tuple[tuple[float, float], ...]
    length: float


@dataclass(frozen=True)
class Snapshot:
    """One step: the vehicles in view of the ego car. Arrays have one entry a vehicle; x is the front bumper's."""

    number: NDArray[np.int64]
    kind: NDArray[np.int64]
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    braking: NDArray[np.bool_]
    speed: NDArray[np.float64]


@dataclass(frozen=True)
class Traffic:
    """A drive every STEP_S seconds: the ego's x, y (m), speed (m/s), acceleration (m/s2), and who is around it."""

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
        road = _write_network(folder, (duration_s + WARM_UP_S + 30) * SPEED_LIMIT + 2000)
        _run([netconvert, "-n", "n.xml", "-e", "e.xml", "-x", "c.xml", "-o", "net.xml", "--no-internal-links",
              "--no-turnarounds", "--offset.disable-normalization"], folder)  # fmt: skip
        (folder / "jams.xml").write_text(_jams(road, duration_s + WARM_UP_S, rng))
        (folder / "routes.xml").write_text(_routes(road, duration_s + WARM_UP_S, density, rng))
        _run([sumo, "-n", "net.xml", "-r", "routes.xml", "-a", "jams.xml", "--step-length", str(STEP_S),
              "--end", str(WARM_UP_S + duration_s + 2), "--seed", str(seed % 2**31), "--no-step-log",
              "--no-warnings", "--lanechange.duration", "3.5", "--collision.action", "none", "--time-to-teleport", "-1",
              "--device.fcd.explicit", EGO, "--device.fcd.radius", str(VIEW_RADIUS_M), "--device.fcd.begin",
              str(WARM_UP_S), "--fcd-output", "fcd.csv", "--fcd-output.acceleration", "--fcd-output.attributes",
              "id,x,y,speed,acceleration,type", "--precision", "3"], folder)  # fmt: skip
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


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise DataError(f"{Path(command[0]).name} failed (exit {done.returncode}): {done.stderr.strip()[-800:]}")


def _write_network(folder: Path, length: float) -> Road:
    """Write nodes, edges and connections: blocks of plain road, jam zone, plain road and interchange."""
    blocks = int(np.ceil(length / BLOCK_M))
    nodes, edges, links = [_node("n0", 0, 0)], [], []
    weaves, x, previous = [], 0.0, ""
    for block in range(blocks):
        for part, extent in _BLOCK.items():
            start, end, edge = x, x + extent, f"{part}{block}"
            nodes.append(_node(f"n{end:.0f}", end, 0))
            lanes = LANES + (part == "weave")
            edges.append(_edge(edge, f"n{start:.0f}", f"n{end:.0f}", lanes, SPEED_LIMIT))
            shift_in, shift_out = part == "weave", previous.startswith("weave")
            if previous:
                links += [_link(previous, edge, lane + shift_out, lane + shift_in) for lane in range(LANES)]
            if part == "weave":
                weaves.append((start, end))
                nodes += [_node(f"in{block}", start - 220, -44), _node(f"out{block}", end + 220, -44)]
                edges += [_edge(f"on{block}", f"in{block}", f"n{start:.0f}", 1, 24, bend=(start - 60, -11.25)),
                          _edge(f"off{block}", f"n{end:.0f}", f"out{block}", 1, 22, bend=(end + 60, -11.25))]  # fmt: skip
                links += [_link(f"on{block}", edge, 0, 0), _link(edge, f"off{block}", 0, 0)]
            previous, x = edge, end
    (folder / "n.xml").write_text(f"<nodes>{''.join(nodes)}</nodes>")
    (folder / "e.xml").write_text(f"<edges>{''.join(edges)}</edges>")
    (folder / "c.xml").write_text(f"<connections>{''.join(links)}</connections>")
    return Road(tuple(weaves), x)


def _node(name: str, x: float, y: float) -> str:
    return f'<node id="{name}" x="{x:.1f}" y="{y:.1f}" type="priority"/>'


def _edge(name: str, start: str, end: str, lanes: int, speed: float, bend: tuple[float, float] | None = None) -> str:
    shape = "" if bend is None else f' shape="{bend[0]},{bend[1]}"'
    return (
        f'<edge id="{name}" from="{start}" to="{end}" numLanes="{lanes}" speed="{speed}" width="{LANE_WIDTH_M}" '
        f'priority="{2 if lanes >= LANES else 1}"{shape}/>'
    )


def _link(start: str, end: str, start_lane: int, end_lane: int) -> str:
    return f'<connection from="{start}" to="{end}" fromLane="{start_lane}" toLane="{end_lane}"/>'


def _jams(road: Road, duration_s: float, rng: np.random.Generator) -> str:
    """Speed limits of the zones over time: free, then slow for a while, again and again."""
    signs = []
    for block in range(len(road.weaves)):
        clock, steps = float(rng.uniform(0, 60)), []
        while clock < duration_s + 60:
            slow_until = clock + rng.uniform(25, 70)
            steps.append(f'<step time="{clock:.1f}" speed="{rng.uniform(2.5, 15):.2f}"/>')
            steps.append(f'<step time="{slow_until:.1f}" speed="{SPEED_LIMIT}"/>')
            clock = slow_until + float(rng.uniform(40, 130))
        lanes = " ".join(f"zone{block}_{lane}" for lane in range(LANES))
        signs.append(f'<variableSpeedSign id="jam{block}" lanes="{lanes}">{"".join(steps)}</variableSpeedSign>')
    return f"<additional>{''.join(signs)}</additional>"


def _routes(road: Road, duration_s: float, density: tuple[float, float], rng: np.random.Generator) -> str:
    """The ego car, the vehicles that are on the road at the start, and those that enter later."""
    types = [_type(kind.name, kind.length, kind.width, kind.driver) for kind in VEHICLE_TYPES]
    types.append(_type(EGO, 4.0, 1.74, _EGO_DRIVER))
    blocks = len(road.weaves)
    last = f"weave{blocks - 1}"
    trips = [(0.0, EGO, EGO, "calm0", last, 'departPos="400" departLane="1" departSpeed="28"')]
    densities = rng.uniform(*density, size=blocks)
    for block, crowd in enumerate(densities):
        for part, extent in _BLOCK.items():
            for _ in range(rng.poisson(crowd * extent / 1000)):
                leave = _exit(block, blocks, rng, last)
                place = 'departPos="random_free" departLane="random" departSpeed="22"'
                trips.append((0.0, "", _choose(rng), f"{part}{block}", leave, place))
        for clock in _arrivals(rng, duration_s, rng.uniform(150, 700)):
            place = 'departPos="0" departLane="0" departSpeed="20"'
            trips.append((clock, "", _choose(rng), f"on{block}", _exit(block + 1, blocks, rng, last), place))
    for clock in _arrivals(rng, duration_s, float(densities.mean()) * 95):
        place = 'departPos="0" departLane="best" departSpeed="max"'
        trips.append((clock, "", _choose(rng), "main0", _exit(0, blocks, rng, last), place))
    trips[1:] = sorted(trips[1:], key=lambda trip: trip[0])
    lines = [
        f'<trip id="{name or index}" type="{kind}" depart="{clock:.1f}" from="{start}" to="{end}" {place}/>'
        for index, (clock, name, kind, start, end, place) in enumerate(trips)
    ]
    return f"<routes>{''.join(types)}{''.join(lines)}</routes>"


def _type(name: str, length: float, width: float, driver: dict[str, str]) -> str:
    attributes = " ".join(f"{key}={quoteattr(value)}" for key, value in driver.items())
    return f'<vType id="{name}" length="{length}" width="{width}" {attributes}/>'


def _exit(block: int, blocks: int, rng: np.random.Generator, last: str) -> str:
    leave = block + int(rng.geometric(0.3)) - 1
    return f"off{leave}" if leave < blocks - 1 else last


def _choose(rng: np.random.Generator) -> str:
    return VEHICLE_TYPES[rng.choice(len(VEHICLE_TYPES), p=[kind.share for kind in VEHICLE_TYPES])].name


def _arrivals(rng: np.random.Generator, duration_s: float, per_hour: float) -> list[float]:
    return sorted(rng.uniform(0, duration_s, size=rng.poisson(per_hour * duration_s / 3600)).tolist())


def _read(path: Path, road: Road, steps: int) -> Traffic:
    """Read the floating-car data (one row a vehicle and step) into a `Traffic` of `steps` steps."""
    kinds = {kind.name: index for index, kind in enumerate(VEHICLE_TYPES)}
    moments: dict[str, list[dict[str, str]]] = {}
    with path.open(newline="") as stream:
        for row in csv.DictReader(stream, delimiter=";"):
            moments.setdefault(row["timestep_time"], []).append(row)
    ego, around, lit = [], [], {}
    for rows in list(moments.values())[:steps]:
        values = np.array(
            [[float(row[f"vehicle_{key}"]) for key in ("x", "y", "speed", "acceleration")] for row in rows]
        )
        lit = {row["vehicle_id"]: _brake_light(lit.get(row["vehicle_id"], False), *line[2:])
               for row, line in zip(rows, values.tolist(), strict=True)}  # fmt: skip
        mine = [index for index, row in enumerate(rows) if row["vehicle_id"] == EGO]
        if not mine:
            break
        others = np.array([index for index, row in enumerate(rows) if row["vehicle_id"] != EGO], np.int64)
        ego.append(values[mine[0]])
        around.append(
            Snapshot(
                number=np.array([int(rows[index]["vehicle_id"]) for index in others], np.int64),
                kind=np.array([kinds[rows[index]["vehicle_type"]] for index in others], np.int64),
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
    """Whether a driver is on the brake: beyond what engine and air slow a car by; on at rest; held until it is over."""
    return acceleration < (-0.35 if lit else -0.95) or speed < 0.3
