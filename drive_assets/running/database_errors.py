"""Why Dagster's records cannot be used, and what to do: the reason decides the advice."""

import os
from pathlib import Path

import dagster as dg

from drive_assets.running.home import POSTGRES, SETTINGS

LITTLE = 50_000_000
"""Free bytes below which an I/O error of SQLite is taken for a full disk."""
DAMAGED = (
    "It is damaged: move the folder aside. Recordings, models and the rest of the data root stay. Only the history of "
    "runs is lost; `drive-assets ingest` and `run` rebuild the rest."
)
ADVICE = {
    "is full": "",
    "i/o error": "Either memory ran out (also a limit of memory, see `ulimit -v`): free some or raise the limit. "
    "Or the disk reports an error: look for it in the system's log, and check the disk.",
    "locked": "Another process uses it: wait for it or end it, then run the command again.",
    "readonly": "Allow this user to write to the folder and the files in it.",
    "unable to open": "Check that the folder exists and that this user may write to it.",
    "too many open files": "Raise the limit of open files (`ulimit -n`).",
    **dict.fromkeys(("malformed", "not a database", "no such table"), DAMAGED),
}
"""By words of SQLite's messages."""


def is_database_error(error: BaseException | None) -> bool:
    return type(error).__module__.startswith(("sqlalchemy", "sqlite3"))


def explain(error: Exception, home: Path) -> str:
    """One sentence or two for an error of Dagster's database or of its settings."""
    text = str(error)
    if isinstance(error, dg.DagsterInvalidConfigError):
        text = error.errors[0].message.split(". Expected: ")[0]
    reason = (text.strip() or type(error).__name__).splitlines()[0]
    if os.environ.get(POSTGRES):
        return (
            f"Dagster's PostgreSQL database cannot be used ({reason}): start it, or correct its address in {POSTGRES}."
        )
    if not (is_database_error(error) or isinstance(error, OSError)):
        file = home / SETTINGS
        return f"Dagster cannot use {file} ({reason}): correct the file, or delete it to get the defaults."
    key = next((key for key in ADVICE if key in reason.lower()), "")
    disk = os.statvfs(next(path for path in (home, *home.parents) if path.exists()))
    free = disk.f_bavail * disk.f_frsize
    if key == "is full" or (key == "i/o error" and (free < LITTLE or not disk.f_favail)):
        what = f"{free / 1e6:,.0f} MB" if disk.f_favail else "no inodes"
        advice = f"{what} are free: free some, and run the command again. It resumes there."
    else:
        advice = ADVICE.get(key, "Run the command again: it resumes there.")
    return f"Dagster's records in {home} cannot be used ({reason}). {advice}"
