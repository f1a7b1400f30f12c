"""Options of the simulated drives and data sets."""

from pydantic import Field

from model.common.config import Config

SAMPLE_INTERVAL_S = 0.5
"""The recorder's nominal interval."""
STEP_S = 0.1
"""Step of the traffic simulation; rows are recorded at multiples of it."""
DENSITY = (22.0, 52.0)
"""Lowest and highest density of the traffic: vehicles per kilometre of all three lanes."""


class SimulationConfig(Config):
    """Options of all simulated data. Equal configs give byte-identical telemetry and boxes."""

    recordings: int = Field(8, ge=1, le=10_000, description="Number of drives")
    duration_s: float = Field(300.0, ge=5, le=7_200, description="Length of a drive in seconds (two frames per second)")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of traffic, light, weather and faults")
    fault_rate: float = Field(
        0.01,
        ge=0,
        le=0.5,
        description="Share of rows with a fault of the recorder (No Frame, gaps, repeats, missing frames)",
    )
    workers: int = Field(2, ge=1, le=256, description="Parallel processes; does not change the result")
    boxy_sequences: int = Field(
        8, ge=1, le=1_000, description="Sequences of the Boxy-like set; train and validation are split by sequence"
    )
    boxy_frames: int = Field(40, ge=1, le=10_000, description="Frames in a sequence of the Boxy-like set")
    boxy_interval_s: float = Field(
        2.0, ge=STEP_S, le=60, description="Seconds between two frames of a Boxy-like sequence"
    )
