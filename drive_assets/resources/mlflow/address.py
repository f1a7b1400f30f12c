"""The address of the MLflow store and of MLflow's UI."""

import os
import re
from urllib.parse import unquote, urlsplit

from drive_assets.resources.storage import data_root

SQLITE = "sqlite:///"
UI_ADDRESS = "DRIVE_ASSETS_MLFLOW_UI"
DATABASES = ("postgresql", "mysql")
"""Beginnings of addresses of stores that are databases on a server."""


def tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI`, else a SQLite file in the data root."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{data_root() / 'mlflow.db'}"


def ui_address() -> str:
    """Where MLflow's UI is: the tracking server, or what `drive-assets ui` serves."""
    parts = urlsplit(tracking_uri())
    if parts.scheme in ("http", "https"):
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
    return os.environ.get(UI_ADDRESS, "http://127.0.0.1:5000")


def table_of_trainings(experiment: str) -> str:
    """The page of MLflow's UI; without the query it opens on what is about language models."""
    return f"/#/experiments/{experiment}/runs?workflowType=machine_learning"


def scrubbed(text: str) -> str:
    """A text without the store's address, its user and its password."""
    uri = tracking_uri()
    parts = urlsplit(uri)
    secrets = {uri, parts.netloc if "@" in parts.netloc else "", parts.password or "", unquote(parts.password or "")}
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "***")
    return re.sub(r"//[^/\s@]+@", "//***@", text)
