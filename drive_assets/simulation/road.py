"""The motorway as SUMO's network files: three lanes, interchanges with a fourth, and zones where others slow down.

The road is straight in SUMO: x runs along it, y is 0 at the left edge of the left lane and decreases to the right. The
renderer adds bends and hills.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np

LANE_WIDTH_M = 3.75
LANES = 3
SPEED_LIMIT = 36.1
BLOCK = {"a": 400.0, "b": 400.0, "zone": 300.0, "c": 400.0, "d": 400.0, "weave": 600.0}
"""The edges of one block of road in driving order: name and length in metres."""
BLOCK_M = sum(BLOCK.values())


@dataclass(frozen=True)
class Road:
    """In metres of x: the stretches with a fourth lane, for joining and leaving, and the start of each edge."""

    weaves: tuple[tuple[float, float], ...]
    starts: dict[str, float]


def xml(tag: str, attributes: Mapping[str, object], content: str = "") -> str:
    """An XML element."""
    return (
        f"<{tag}{''.join(f' {name}={quoteattr(str(value))}' for name, value in attributes.items())}>{content}</{tag}>"
    )


def write_network(folder: Path, length: float) -> Road:
    """Write nodes, edges and connections: blocks of plain road, jam zone, plain road and interchange."""
    nodes, edges, links = [_node("n0", 0, 0)], [], []
    weaves, starts, x, previous = [], {}, 0.0, ""
    for block in range(int(np.ceil(length / BLOCK_M))):
        for part, extent in BLOCK.items():
            start, end, edge = x, x + extent, f"{part}{block}"
            starts[edge] = start
            nodes.append(_node(f"n{end:.0f}", end, 0))
            lanes = LANES + (part == "weave")
            # Without a length an edge would be as short as SUMO draws it, cut off at its junctions.
            edges.append(_edge(edge, f"n{start:.0f}", f"n{end:.0f}", lanes, SPEED_LIMIT, length=extent))
            shift_in, shift_out = part == "weave", previous.startswith("weave")
            if previous:
                links += [_link(previous, edge, lane + shift_out, lane + shift_in) for lane in range(LANES)]
            if part == "weave":
                weaves.append((start, end))
                nodes += [_node(f"in{block}", start - 220, -44), _node(f"out{block}", end + 220, -44)]
                edges += [
                    _edge(f"on{block}", f"in{block}", f"n{start:.0f}", 1, 24, shape=f"{start - 60},-11.25"),
                    _edge(f"off{block}", f"n{end:.0f}", f"out{block}", 1, 22, shape=f"{end + 60},-11.25"),
                ]
                links += [_link(f"on{block}", edge, 0, 0), _link(edge, f"off{block}", 0, 0)]
            previous, x = edge, end
    for name, tag, elements in (("n", "nodes", nodes), ("e", "edges", edges), ("c", "connections", links)):
        (folder / f"{name}.xml").write_text(xml(tag, {}, "".join(elements)))
    return Road(tuple(weaves), starts)


def _node(name: str, x: float, y: float) -> str:
    return xml("node", {"id": name, "x": x, "y": y, "type": "priority"})


def _edge(name: str, start: str, end: str, lanes: int, speed: float, **more: object) -> str:
    ends = {"id": name, "from": start, "to": end}
    priority = 2 if lanes >= LANES else 1
    return xml("edge", ends | {"numLanes": lanes, "speed": speed, "width": LANE_WIDTH_M, "priority": priority} | more)


def _link(start: str, end: str, start_lane: int, end_lane: int) -> str:
    return xml("connection", {"from": start, "to": end, "fromLane": start_lane, "toLane": end_lane})


def jams(road: Road, duration_s: float, rng: np.random.Generator) -> str:
    """Speed limits over time that make other drivers slow down. The ego and many others ignore them, but react.

    Limits in zones last, so that a jam grows upstream; elsewhere they last seconds.
    """
    signs = []
    for block in range(len(road.weaves)):
        for part in BLOCK:
            if part == "weave":
                continue
            zone = part == "zone"
            steps, clock = [], float(rng.uniform(0, 30))
            while clock < duration_s + 60:
                held = rng.uniform(12, 35) if zone else rng.uniform(1.5, 3.5)
                slow = rng.uniform(4, 13) if zone and rng.random() < 0.4 else rng.uniform(15, 25)
                steps.append(xml("step", {"time": f"{clock:.1f}", "speed": f"{slow:.2f}"}))
                steps.append(xml("step", {"time": f"{clock + held:.1f}", "speed": SPEED_LIMIT}))
                clock += held + float(rng.uniform(35, 110) if zone else rng.uniform(3, 10))
            lanes = " ".join(f"{part}{block}_{lane}" for lane in range(LANES))
            signs.append(xml("variableSpeedSign", {"id": f"{part}{block}", "lanes": lanes}, "".join(steps)))
    return xml("additional", {}, "".join(signs))
