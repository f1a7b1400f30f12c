"""What tests of all rooms share: a data root of their own, and nothing from the user's environment."""

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("any machine", deadline=None)  # a busy one takes its time
settings.load_profile("any machine")

REAL = Path(__file__).resolve().parents[2] / "shared" / "real"
"""Real recordings and weights, where a checkout has them beside it."""


@pytest.fixture
def data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data root that the environment names; no MLflow store but its own."""
    root = tmp_path / "data"
    monkeypatch.setenv("DRIVE_ASSETS_DATA", str(root))
    for name in ("DRIVE_ASSETS_INBOX", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DAGSTER_HOME", str(root / "dagster"))
    return root


@pytest.fixture
def real() -> Path:
    if not REAL.is_dir():
        pytest.skip(f"{REAL} is not there: the real recording and weights are not part of the repository")
    return REAL
