"""MLflow's local database: made whole or not at all, and at home wherever the data root has been moved."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from filelock import FileLock

from drive_assets.resources.mlflow.address import SQLITE
from model.common.errors import DataError
from model.common.files import atomic_path, temporary_sibling

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
            with _named(path):
                _move_addresses(path, artifacts)


def mend(uri: str) -> None:
    """Make a local store anew that cannot be opened and holds nothing; leave any other.

    One that was half made when its maker was killed is such a store. Its content is replaced within the file, in one
    transaction: MLflow keeps connections to it.

    Raises:
        DataError: it cannot be opened, yet holds experiments, or is no database.
    """
    path = Path(uri.removeprefix(SQLITE))
    if not uri.startswith(SQLITE) or not path.is_file():
        return
    with FileLock(path.with_name(f".{path.name}.lock")):
        with _named(path):
            reason, held = _tried(path)
        if reason and held:
            raise DataError(
                f"{path} cannot be opened ({reason}). It holds {held}, and is left as it is: put back a backup, or "
                f"copy it and run `mlflow db upgrade {SQLITE}{path}`."
            )
        if reason:
            new = temporary_sibling(path)
            try:
                _open(new)
                _copy(new, path)
            finally:
                new.unlink(missing_ok=True)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Raises DataError if what is read in the block is no database, or a damaged one."""
    try:
        yield
    except sqlite3.OperationalError:  # locked, say
        raise
    except sqlite3.DatabaseError as error:
        raise DataError(f"{path} is no database ({error}): move it away; a new one is made.") from error


def _make(path: Path) -> None:
    with atomic_path(path) as temporary:
        _open(temporary)


def _open(path: Path) -> None:
    from mlflow import MlflowClient

    MlflowClient(f"{SQLITE}{path}").search_experiments(max_results=1)


def _copy(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as given, closing(sqlite3.connect(target)) as taken:
        given.backup(taken)


def _tried(path: Path) -> tuple[str, str]:
    """Why a copy of a store cannot be opened, empty if it can, and what of a user's it holds, empty if nothing."""
    copy, held = temporary_sibling(path), []
    try:
        _copy(path, copy)
        with closing(sqlite3.connect(copy)) as other:
            tables = {name for (name,) in other.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            for table, those in (("experiments", "name != 'Default'"), ("runs", "1"), ("registered_models", "1")):
                query = f"SELECT count(*) FROM {table} WHERE {those}"
                count = other.execute(query).fetchone()[0] if table in tables else 0
                held += [f"{count} {table.replace('_', ' ')}"] if count else []
        try:
            _open(copy)
        except Exception as error:  # of mlflow, sqlalchemy and alembic
            return str(error).strip().splitlines()[0], ", ".join(held)
        return "", ", ".join(held)
    finally:
        copy.unlink(missing_ok=True)


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
