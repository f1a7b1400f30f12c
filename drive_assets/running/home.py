"""DAGSTER_HOME and its dagster.yaml, which follows this version until somebody edits it."""

import hashlib
import os
from pathlib import Path

from drive_assets.resources.storage import data_root
from model.common.errors import DataError
from model.common.files import write_text

POSTGRES = "DRIVE_ASSETS_POSTGRES"
"""Environment variable with the address of Dagster's PostgreSQL database, which may hold a password."""
SETTINGS = "dagster.yaml"
TEMPLATE = Path(__file__).with_name(SETTINGS)
STAMP = "# Unedited: "
"""Begins the first line of dagster.yaml; the hash of the rest follows. A file whose hash differs was edited."""
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
    """Create DAGSTER_HOME, by default `<data root>/dagster`, with our dagster.yaml; set both for child processes."""
    root = data_root()
    home = Path(os.environ.get("DAGSTER_HOME") or root / "dagster").expanduser().resolve()
    # `telemetry: enabled: false` still lets Dagster upload the folder `logs` in DAGSTER_HOME every hour.
    os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "1")
    os.environ["DAGSTER_HOME"] = str(home)
    os.environ["DRIVE_ASSETS_DATA"] = str(root)
    try:
        _write_settings(home / SETTINGS)
    except OSError as error:
        raise DataError(
            f"{home} cannot be written ({error.strerror}): choose another data root with DRIVE_ASSETS_DATA."
        ) from error
    return home


def _write_settings(path: Path) -> None:
    """Write this version's settings, unless somebody edited them."""
    before, on_postgres = path.read_text(encoding="utf-8") if path.is_file() else "", bool(os.environ.get(POSTGRES))
    if before and on_postgres and POSTGRES not in before:
        raise DataError(
            f"{POSTGRES} is set, but {path} does not use PostgreSQL: choose another DAGSTER_HOME, or replace "
            f"`event_log_storage` in the file by:\n{_POSTGRES}"
        )
    is_postgres = POSTGRES in before if before else on_postgres
    text = _stamped(TEMPLATE.read_text(encoding="utf-8") + (_POSTGRES if is_postgres else _SQLITE))
    if before != text and before in ("", _stamped(before.partition("\n")[2])):
        write_text(path, text)


def _stamped(settings: str) -> str:
    return f"{STAMP}{hashlib.sha256(settings.encode()).hexdigest()[:16]}\n{settings}"
