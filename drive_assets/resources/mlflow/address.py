"""Addresses: of the MLflow store, which may hold a password, and of MLflow's UI."""

import os
import re
from urllib.parse import unquote, urlsplit

from drive_assets.resources.storage import data_root

UI_ADDRESS = "DRIVE_ASSETS_MLFLOW_UI"
SQLITE = "sqlite:///"
DATABASES = ("postgresql", "mysql")
"""How addresses of database servers begin."""


def tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI`, else a SQLite file in the data root."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}{data_root() / 'mlflow.db'}"


def ui_address() -> str:
    """The address of MLflow's UI: the tracking server, or the server that `drive-assets ui` starts."""
    parts = urlsplit(tracking_uri())
    if parts.scheme in ("http", "https"):
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
    return os.environ.get(UI_ADDRESS, "http://127.0.0.1:5000")


def table_of_trainings(experiment: str) -> str:
    """The path of an experiment's runs in MLflow's UI; without the query it opens on features for language models."""
    return f"/#/experiments/{experiment}/runs?workflowType=machine_learning"


def scrubbed(text: str) -> str:
    """A text without the store's address, user and password."""
    uri = tracking_uri()
    parts = urlsplit(uri)
    secrets = {uri, parts.netloc if "@" in parts.netloc else "", parts.password or "", unquote(parts.password or "")}
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "***")
    return re.sub(r"//[^/\s@]+@", "//***@", text)
