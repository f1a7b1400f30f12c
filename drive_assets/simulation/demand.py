"""The traffic's demand in SUMO's terms: vehicle types, drivers and trips."""

from dataclasses import dataclass

import numpy as np

from drive_assets.simulation.road import BLOCK, BLOCK_M, SPEED_LIMIT, Road, xml

EGO = "ego"
_EGO_START = ("a1", 100.0)
_FILL_AHEAD_M = 3500.0
"""Traffic further ahead at the start is left out: the ego never meets it."""
_INFLOW_S = 75.0
"""Vehicles that enter behind the ego later are left out: they never catch up."""
_SHARE_THAT_SLOWS = 0.5
"""Share of the drivers who obey the limits of `road.jams`. The others react to their braking."""


@dataclass(frozen=True)
class VehicleType:
    """A kind of vehicle: size in metres, share of the traffic, SUMO's driver parameters."""

    name: str
    length: float
    width: float
    height: float
    share: float
    driver: dict[str, str]


_Trip = tuple[float, str, str, str, tuple[str, str, str]]
"""Time (s), kind of vehicle, first and last edge, and position, lane and speed at the start in SUMO's words."""
_CAR_DRIVER = {
    "carFollowModel": "EIDM",
    "speedDev": "0",
    "accel": "2.0",
    "decel": "3.2",
    "tau": "1.2",
    "minGap": "2.5",
    "lcStrategic": "1.2",
    "lcSpeedGain": "1.6",
    "lcKeepRight": "0.9",
    "lcAssertive": "1.3",
}
_TRUCK_DRIVER = {
    "carFollowModel": "EIDM",
    "speedDev": "0",
    "accel": "0.8",
    "decel": "2.6",
    "tau": "1.6",
    "minGap": "4",
    "lcSpeedGain": "0.6",
    "lcKeepRight": "1.5",
    "vClass": "truck",
}
_UNLIMITED = "12"
"""A speed factor with which a driver ignores all limits except its own maximum speed and the other vehicles."""
_EGO_DRIVER = _CAR_DRIVER | {"speedFactor": _UNLIMITED, "maxSpeed": "35", "tau": "0.9", "lcSpeedGain": "0.4"}

VEHICLE_TYPES = (
    VehicleType("hatch", 4.1, 1.78, 1.47, 0.25, _CAR_DRIVER),
    VehicleType("sedan", 4.7, 1.84, 1.44, 0.20, _CAR_DRIVER),
    VehicleType("estate", 4.7, 1.84, 1.50, 0.15, _CAR_DRIVER),
    VehicleType("suv", 4.6, 1.92, 1.70, 0.14, _CAR_DRIVER),
    VehicleType("van", 5.6, 2.05, 2.45, 0.08, _CAR_DRIVER),
    VehicleType("truck", 16.5, 2.55, 3.95, 0.13, _TRUCK_DRIVER),
    VehicleType("lorry", 9.5, 2.50, 3.60, 0.03, _TRUCK_DRIVER),
    VehicleType("bus", 12.5, 2.55, 3.65, 0.02, _TRUCK_DRIVER | {"vClass": "bus"}),
)


def routes(road: Road, duration_s: float, density: tuple[float, float], rng: np.random.Generator) -> str:
    """SUMO's route file: the ego car, the vehicles on the road at the start, and those that enter later."""
    blocks = len(road.weaves)
    last = f"weave{blocks - 1}"
    edge, place = _EGO_START
    trips: list[_Trip] = []
    densities = rng.uniform(*density, size=blocks)
    ego_x = BLOCK_M + place
    for block, crowd in enumerate(densities):
        if block * BLOCK_M < ego_x + _FILL_AHEAD_M:
            for part, extent in BLOCK.items():
                for _ in range(rng.poisson(crowd * extent / 1000)):
                    where = ("random_free", "random", "max")
                    trips.append((0.0, _choose(rng), f"{part}{block}", _exit(block, blocks, rng, last), where))
        # Vehicles that join long before the ego arrives are gone by then.
        near = max(0.0, ((block + 1) * BLOCK_M - ego_x - _FILL_AHEAD_M) / SPEED_LIMIT)
        for clock in _arrivals(rng, near, duration_s, float(crowd * rng.uniform(5, 22))):
            trips.append((clock, _choose(rng), f"on{block}", _exit(block + 1, blocks, rng, last), ("0", "0", "max")))
    for clock in _arrivals(rng, 0.0, _INFLOW_S, float(densities[0]) * 100):
        trips.append((clock, _choose(rng), "a0", _exit(0, blocks, rng, last), ("0", "best", "max")))
    trips.sort(key=lambda trip: trip[0])
    lines = [_vehicle(EGO, (0.0, EGO, edge, last, (str(place), "1", "28")), rng)]
    lines += [_vehicle(str(number), trip, rng) for number, trip in enumerate(trips, 1)]
    return xml("routes", {}, "".join(lines))


def _vehicle(name: str, trip: _Trip, rng: np.random.Generator) -> str:
    """A vehicle's own type (its size, and its driver's parameters) and its trip."""
    clock, kind, start, end, (position, lane, speed) = trip
    departure = {"depart": f"{clock:.1f}", "departPos": position, "departLane": lane, "departSpeed": speed}
    described = xml("vType", {"id": f"{kind}-{name}", **_type(kind, rng)})
    return described + xml("trip", {"id": name, "type": f"{kind}-{name}", "from": start, "to": end, **departure})


def _type(kind: str, rng: np.random.Generator) -> dict[str, object]:
    if kind == EGO:
        return {"length": 4.0, "width": 1.74, **_EGO_DRIVER}
    shape = next(each for each in VEHICLE_TYPES if each.name == kind)
    heavy = shape.driver is not _CAR_DRIVER
    speed = np.clip(rng.normal(24.3, 0.7), 22.5, 26) if heavy else np.clip(rng.normal(33.5, 4.0), 26, 46)
    obeys_limits = rng.random() < _SHARE_THAT_SLOWS
    factor = f"{rng.uniform(0.85, 1.1):.2f}" if obeys_limits else _UNLIMITED
    own = {"maxSpeed": f"{speed:.2f}", "speedFactor": factor}
    return {"length": shape.length, "width": shape.width, **shape.driver, **own}


def _exit(block: int, blocks: int, rng: np.random.Generator, last: str) -> str:
    leave = block + int(rng.geometric(0.3)) - 1
    return f"off{leave}" if leave < blocks - 1 else last


def _choose(rng: np.random.Generator) -> str:
    return VEHICLE_TYPES[rng.choice(len(VEHICLE_TYPES), p=[kind.share for kind in VEHICLE_TYPES])].name


def _arrivals(rng: np.random.Generator, start_s: float, end_s: float, per_hour: float) -> list[float]:
    count = rng.poisson(per_hour * max(end_s - start_s, 0) / 3600)
    return sorted(rng.uniform(start_s, max(end_s, start_s), size=count).tolist())
