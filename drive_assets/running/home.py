"""DAGSTER_HOME and its dagster.yaml: made at the first start, brought up to date where nobody edited it."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from drive_assets.resources.storage import data_root
from model.common.errors import DataError
from model.common.files import write_text

POSTGRES = "DRIVE_ASSETS_POSTGRES"
"""Environment variable with the address of Dagster's PostgreSQL database. It may hold a password."""
SETTINGS = "dagster.yaml"
TEMPLATE = Path(__file__).with_name(SETTINGS)
FORMER = {
    "41b97b14a9f5",
    "0a62466bf95c",
    "da8b70520e1a",
    "bf93700d3047",
    "0181d1fc5893",
    "02c563c99a49",
    "6f2229a700f3",
    "27ecae0acbaf",
    "5e3d60a90f2e",
    "957eb39550ac",
}
"""Beginnings of the SHA-256 of what TEMPLATE was before: a file that equals one was not edited by anyone."""
_SQLITE = """# Dagster's own event log, with databases that stay open: half the work for each event.
event_log_storage:
  module: drive_assets.running.event_log
  class: KeptEventLog
  config:
    home: {env: DAGSTER_HOME}
"""
_POSTGRES = f"""# The address stands in the environment alone, since it may hold a password.
storage:
  postgres:
    postgres_url: {{env: {POSTGRES}}}
"""


def prepare_home() -> Path:
    """DAGSTER_HOME, by default `<data root>/dagster`, with our dagster.yaml unless it has one; set for child processes.

    Raises:
        DataError: it cannot be written, or Dagster cannot use such a path.
    """
    home = Path(os.environ.get("DAGSTER_HOME") or data_root() / "dagster").expanduser().resolve()
    for variable, path in (("DRIVE_ASSETS_DATA", data_root()), ("DAGSTER_HOME", home)):
        if "%" in str(path):
            raise DataError(
                f"{path} has a % in its path, which the databases of Dagster and MLflow cannot use: choose another "
                f"place with {variable}."
            )
    # What `telemetry: enabled: false` leaves on: an hourly upload of the folder `logs` in DAGSTER_HOME.
    os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "1000")  # of what a run announces: an event a partition
    os.environ["DAGSTER_HOME"] = str(home)
    os.environ["DRIVE_ASSETS_DATA"] = str(data_root())
    try:
        _settle(home / SETTINGS)
    except OSError as error:
        raise DataError(
            f"{home} cannot be written ({error.strerror}): choose another data root with DRIVE_ASSETS_DATA."
        ) from error
    return home


def lacking(home: Path) -> list[str]:
    """Settings of this version that an edited dagster.yaml lacks, as `key.key: value`."""
    settings = yaml.safe_load((home / SETTINGS).read_text(encoding="utf-8")) or {}
    given = dict(_leaves(settings))
    return [
        f"{name}: {value}"
        for name, value in _leaves(yaml.safe_load(_ours("storage" in settings)))
        if name not in given or (name.endswith((".module", ".class")) and given[name] != value)
    ]


def _settle(path: Path) -> None:
    """Write our settings where there are none, or former ones of ours."""
    on_postgres = bool(os.environ.get(POSTGRES))
    if not path.is_file():
        write_text(path, _ours(on_postgres))
        return
    text = path.read_text(encoding="utf-8")
    if on_postgres and POSTGRES not in text:
        raise DataError(
            f"{POSTGRES} is set, but {path} says nothing of PostgreSQL: choose another DAGSTER_HOME, or put this into "
            f"the file for `event_log_storage`:\n{_POSTGRES}"
        )
    former = text.removesuffix(_POSTGRES).removesuffix(_SQLITE)
    if hashlib.sha256(former.encode()).hexdigest()[:12] in FORMER:
        write_text(path, _ours(text.endswith(_POSTGRES)))


def _ours(on_postgres: bool) -> str:
    return TEMPLATE.read_text(encoding="utf-8") + (_POSTGRES if on_postgres else _SQLITE)


def _leaves(settings: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value
