"""Simulated drives and Boxy-like frames: traffic from SUMO, frames and true boxes from our own renderer."""

from drive_assets.recordings.simulation.boxy import simulate_boxy
from drive_assets.recordings.simulation.config import SimulationConfig

__all__ = ["SimulationConfig", "simulate_boxy"]
