"""What Dagster's and MLflow's servers need, created before several processes would create it at the same time."""

from pathlib import Path

from drive_assets.resources.backends import compute_from_environment
from drive_assets.resources.mlflow.address import DATABASES, SQLITE, tracking_uri
from drive_assets.resources.mlflow.client import Mlflow
from drive_assets.running.home import prepare_home
from drive_assets.running.instance import open_instance
from drive_assets.running.pools import set_default_limit


def prepare_services() -> Path:
    """Create DAGSTER_HOME, MLflow's store and the limit of the GPU pool. Returns DAGSTER_HOME."""
    home = prepare_home()
    if tracking_uri().startswith((SQLITE, *DATABASES)):
        Mlflow.from_environment().prepared()
    with open_instance() as instance:
        set_default_limit(instance, compute_from_environment())
    return home
