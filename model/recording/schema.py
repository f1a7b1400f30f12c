"""What the networks take: names, ranges and widths. Free of torch: the manifest and the launchpad show them."""

RANGES = {
    "SPEED": (0.0, 150.0),
    "RPM": (650.0, 4500.0),
    "ACCELERATOR_POS_D": (0.0, 100.0),
    "ENGINE_LOAD": (0.0, 100.0),
}
"""Ranges that become [0, 1], in the order of the raw columns; GEAR follows them."""
GEARS = 6
GEAR_CODINGS = ("onehot", "continuous")
TELEMETRY_DIM = {"onehot": len(RANGES) + GEARS, "continuous": len(RANGES) + 1}
BOX_FEATURES = ("confidence", "x1", "y1", "x2", "y2", "area")
