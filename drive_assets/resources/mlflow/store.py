"""The MLflow store: created whole or not at all, and its failures in one sentence each."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock

from drive_assets.resources.mlflow.address import SQLITE, scrubbed, tracking_uri
from model.common.errors import DataError, PassingError
from model.common.files import atomic_path

BACKUP = "Put a backup in its place, or move the file away: a new store is then created."
_DAMAGED = {
    "out-of-date database schema": "Copy the file, then run `mlflow db upgrade {uri}`.",
    "Can't locate revision": "A newer MLflow wrote it: install that version.",
    "is not a database": BACKUP,
    "is malformed": BACKUP,
    "_alembic_tmp": f"Its creation or upgrade was interrupted. {BACKUP}",
}
"""Advice by a part of the message, for local stores that do not work again by themselves."""
_PASSING = {
    "database is locked": "Another process writes to it; run it again: finished training is kept.",
    "Invalid Host header": "Start the server with its name in MLFLOW_SERVER_ALLOWED_HOSTS.",
}
"""Advice by a part of the message, for stores that may work the next time."""


@contextmanager
def store_errors() -> Iterator[None]:
    """Turn any error of the store or its server into one sentence without its address, which may hold a password.

    Raises:
        DataError: a local store is damaged, or needs an upgrade.
        PassingError: the store failed; the same may succeed later.
    """
    local = tracking_uri().startswith(SQLITE)
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # of mlflow, sqlalchemy, requests, sqlite3 and boto
        text = str(error).strip() or type(error).__name__
        for part, advice in _DAMAGED.items() if local else ():
            if part in text:
                path, uri = tracking_uri().removeprefix(SQLITE), tracking_uri()
                raise DataError(f"{path} cannot be opened ({_first(text)}). {advice.format(uri=uri)}") from None
        advice = "Set MLFLOW_TRACKING_URI to a running server or to sqlite:///FILE."
        advice = next((known for part, known in _PASSING.items() if part in text), advice)
        kind = urlsplit(tracking_uri()).scheme
        raise PassingError(
            f"The MLflow store ({kind}) failed: {type(error).__name__}: {_first(text)}. {advice}"
        ) from None


def store_exists() -> bool:
    """Whether the store is a server or a file that exists."""
    uri = tracking_uri()
    return not uri.startswith(SQLITE) or Path(uri.removeprefix(SQLITE)).is_file()


def create_local_store() -> None:
    """Create a missing local store in a temporary file and rename it: if this process is killed, none is half made."""
    if store_exists():
        return
    from mlflow import MlflowClient

    path = Path(tracking_uri().removeprefix(SQLITE))
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        if not path.is_file():
            with atomic_path(path) as temporary:
                MlflowClient(f"{SQLITE}{temporary}").search_experiments(max_results=1)


def _first(text: str) -> str:
    return scrubbed(text.splitlines()[0])[:300]
