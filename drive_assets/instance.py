"""Dagster's instance: the one that the UI, the daemon and the command line share."""

import os
from pathlib import Path

import dagster as dg

from drive_assets.resources.storage import data_root
from model.errors import DataError
from model.files import write_text


def prepare_home() -> Path:
    """DAGSTER_HOME, by default `<data root>/dagster`, with our dagster.yaml unless it has one; set for child processes.

    Raises:
        DataError: it cannot be written.
    """
    home = Path(os.environ.get("DAGSTER_HOME") or data_root() / "dagster").expanduser().resolve()
    os.environ["DAGSTER_HOME"] = str(home)
    os.environ["DRIVE_ASSETS_DATA"] = str(data_root())
    try:
        if not (home / "dagster.yaml").is_file():
            template = Path(__file__).with_name("dagster.yaml").read_text(encoding="utf-8")
            write_text(home / "dagster.yaml", template)
    except OSError as error:
        raise DataError(
            f"{home} cannot be written ({error.strerror}): choose another data root with DRIVE_ASSETS_DATA."
        ) from error
    return home


def open_instance() -> dg.DagsterInstance:
    prepare_home()
    return dg.DagsterInstance.get()
