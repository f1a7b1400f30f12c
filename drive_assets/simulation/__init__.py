"""Simulated drives, and frames like Boxy's and nuImages': traffic from SUMO, frames and boxes from our renderer."""

from drive_assets.simulation.boxy import simulate_boxy
from drive_assets.simulation.config import SimulationConfig
from drive_assets.simulation.drives import simulate_drives
from drive_assets.simulation.nuimages import simulate_nuimages

__all__ = ["SimulationConfig", "simulate_boxy", "simulate_drives", "simulate_nuimages"]
