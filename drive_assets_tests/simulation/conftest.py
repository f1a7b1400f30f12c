"""One small faulty drive, shared by the tests of a process."""

from pathlib import Path

import pytest

from drive_assets.simulation.config import SimulationConfig
from drive_assets.simulation.drives import simulate_drives

SMALL = SimulationConfig(recordings=1, duration_s=40, seed=3, fault_rate=0.15, workers=1)


@pytest.fixture(scope="session")
def faulty_drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate_drives(tmp_path_factory.mktemp("drives"), SMALL, lambda line: None)[0]
