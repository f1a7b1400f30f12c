"""DAGSTER_HOME and its dagster.yaml, which follows this version until somebody edits it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from drive_assets.resources.storage import data_root
from model.common.errors import DataError
from model.common.files import write_text

POSTGRES = "DRIVE_ASSETS_POSTGRES"
"""Environment variable with the address of Dagster's PostgreSQL database, which may hold a password."""
SETTINGS, UNEDITED = "dagster.yaml", ".dagster.yaml.unedited"
"""Dagster's settings, and a copy of them as they were written: a file that differs from it was edited."""
TEMPLATE = Path(__file__).with_name(SETTINGS)
MOVED = {
    "drive_assets.event_log": "drive_assets.running.event_log",
    "drive_assets.run_launcher": "drive_assets.running.run_launcher",
    "drive_assets.run_queue": "dagster",
    "CheckedRunQueue": "QueuedRunCoordinator",
}
"""Names in files of earlier versions."""
_SQLITE = """# Dagster's own event log, with databases that stay open: five times as many events per second.
event_log_storage:
  module: drive_assets.running.event_log
  class: KeptEventLog
  config:
    home: {env: DAGSTER_HOME}
"""
_POSTGRES = f"""# The address is only in the environment, because it may hold a password.
storage:
  postgres:
    postgres_url: {{env: {POSTGRES}}}
"""


def prepare_home() -> Path:
    """Create DAGSTER_HOME, by default `<data root>/dagster`, with our dagster.yaml; set both for child processes.

    Raises:
        DataError: it cannot be written, or Dagster cannot use such a path.
    """
    root = data_root()
    home = Path(os.environ.get("DAGSTER_HOME") or root / "dagster").expanduser().resolve()
    for variable, path in (("DRIVE_ASSETS_DATA", root), ("DAGSTER_HOME", home)):
        if "%" in str(path):
            raise DataError(
                f"{path} contains a %, which the databases of Dagster and MLflow cannot use: choose another path with "
                f"{variable}."
            )
    # `telemetry: enabled: false` still lets Dagster upload the folder `logs` in DAGSTER_HOME every hour.
    os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "1")
    os.environ["DAGSTER_HOME"] = str(home)
    os.environ["DRIVE_ASSETS_DATA"] = str(root)
    try:
        _write_settings(home)
    except OSError as error:
        raise DataError(
            f"{home} cannot be written ({error.strerror}): choose another data root with DRIVE_ASSETS_DATA."
        ) from error
    return home


def missing_settings(home: Path) -> list[str]:
    """Settings of this version that an edited dagster.yaml lacks, as `key.key: value`."""
    settings = yaml.safe_load((home / SETTINGS).read_text(encoding="utf-8")) or {}
    given = dict(_leaves(settings))
    return [
        f"{name}: {value}"
        for name, value in _leaves(yaml.safe_load(_current("storage" in settings)))
        if name not in given or (name.endswith((".module", ".class")) and given[name] != value)
    ]


def _write_settings(home: Path) -> None:
    """Write this version's settings, unless somebody edited them."""
    path, unedited, on_postgres = home / SETTINGS, home / UNEDITED, bool(os.environ.get(POSTGRES))
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    if before and on_postgres and POSTGRES not in before:
        raise DataError(
            f"{POSTGRES} is set, but {path} does not use PostgreSQL: choose another DAGSTER_HOME, or replace "
            f"`event_log_storage` in the file by:\n{_POSTGRES}"
        )
    text = _current(POSTGRES in before if before else on_postgres)
    written = unedited.read_text(encoding="utf-8") if unedited.is_file() else ""
    if before not in ("", text, written):
        moved = before
        for old, new in MOVED.items():
            moved = moved.replace(old, new)
        if written or not _is_equal(moved, text):
            if moved != before:
                write_text(path, moved)
            return
    # An earlier version wrote it, maybe without a copy. The copy comes last: after a kill in between, the settings
    # equal this version's.
    for file, content in ((path, before), (unedited, written)):
        if content != text:
            write_text(file, text)


def _is_equal(settings: str, others: str) -> bool:
    try:
        return bool(yaml.safe_load(settings) == yaml.safe_load(others))
    except yaml.YAMLError:  # which opening the instance reports
        return False


def _current(on_postgres: bool) -> str:
    return TEMPLATE.read_text(encoding="utf-8") + (_POSTGRES if on_postgres else _SQLITE)


def _leaves(settings: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value
