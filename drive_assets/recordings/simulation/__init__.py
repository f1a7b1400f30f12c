"""Simulated drives and Boxy-like frames: traffic from SUMO, frames and true boxes from our own renderer."""

from drive_assets.recordings.simulation.boxy import simulate_boxy
from drive_assets.recordings.simulation.config import SimulationConfig
from drive_assets.recordings.simulation.drives import simulate_drives

__all__ = ["SimulationConfig", "simulate_boxy", "simulate_drives"]
