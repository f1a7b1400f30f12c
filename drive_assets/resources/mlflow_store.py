"""MLflow's local database: made whole or not at all, and at home wherever the data root has been moved."""

import sqlite3
from contextlib import closing
from pathlib import Path

from filelock import FileLock

from model.common.files import atomic_path

SQLITE = "sqlite:///"
_PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("logged_models", "artifact_location"),
)
"""Tables and their columns that hold absolute addresses of artifacts; older stores lack some."""


def prepare(uri: str, artifacts: Path) -> None:
    """Make a local store aside and rename it, so that none is half made, or mend the addresses of one that was moved.

    A store elsewhere than beside `artifacts`, or on a server, is left as it is.
    """
    path = Path(uri.removeprefix(SQLITE))
    if not uri.startswith(SQLITE):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        if not path.is_file():
            _make(path)
        elif path.parent == artifacts.parent:
            _move_addresses(path, artifacts)


def _make(path: Path) -> None:
    from mlflow import MlflowClient

    with atomic_path(path) as temporary:
        MlflowClient(f"{SQLITE}{temporary}").search_experiments(max_results=1)


def _move_addresses(path: Path, artifacts: Path) -> None:
    """Put `artifacts` where another folder of its name stands in the database: the data root was moved or copied."""
    here = artifacts.as_uri()
    with closing(sqlite3.connect(path, timeout=60)) as database, database:
        found = database.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall()
        former = {where for (where,) in found if where and where != here and where.endswith(f"/{artifacts.name}")}
        for old in former:
            for table, column in _PLACES:
                columns = {row[1] for row in database.execute(f"PRAGMA table_info({table})")}
                if column in columns:
                    database.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} = ? OR {column} LIKE ?",
                        (here, len(old) + 1, old, f"{old}/%"),
                    )
