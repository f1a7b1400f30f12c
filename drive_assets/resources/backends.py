"""The compute resource that the environment chooses. Another backend is a module and a line in BACKENDS."""

import os
from pathlib import Path

import yaml
from pydantic import ValidationError

from drive_assets.resources.cluster.slurm import SlurmCompute
from drive_assets.resources.compute import Compute, LocalCompute
from model.common.config import problems
from model.common.errors import DataError

BACKENDS: dict[str, type[Compute]] = {"local": LocalCompute, "slurm": SlurmCompute}
CHOICE, SETTINGS = "DRIVE_ASSETS_COMPUTE", "DRIVE_ASSETS_COMPUTE_SETTINGS"


def compute_from_environment() -> Compute:
    """The backend named by DRIVE_ASSETS_COMPUTE (default: local), with the settings of the YAML file, if one is named.

    Raises:
        DataError: the backend does not exist, or a setting is unknown or has a wrong value.
    """
    name = os.environ.get(CHOICE, "").strip() or "local"
    if name not in BACKENDS:
        raise DataError(f"{CHOICE} is {name!r}: expected one of {', '.join(BACKENDS)}.")
    path = os.environ.get(SETTINGS, "").strip()
    try:
        content = (yaml.safe_load(Path(path).read_text(encoding="utf-8")) if path else None) or {}
    except (OSError, yaml.YAMLError) as error:
        raise DataError(f"{SETTINGS} names {path}, which cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected settings of the compute resource, one `name: value` per line.")
    try:
        return BACKENDS[name](**content)
    except ValidationError as error:
        raise DataError(f"{path}: {problems(error, BACKENDS[name])}") from None
