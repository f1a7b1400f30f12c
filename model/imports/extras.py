"""Libraries of single formats: extras of the package, imported where they are needed."""

import importlib
from types import ModuleType

from model.common.errors import DataError

EXTRAS = {
    "can": "can",
    "cantools": "can",
    "asammdf": "mdf",
    "mcap": "mcap",
    "mcap_protobuf": "mcap",
    "foxglove": "mcap",
    "rosbags": "ros",
    "capnp": "openpilot",
    "zstandard": "openpilot",
}
"""The extra of each module."""


def library(module: str, purpose: str) -> ModuleType:
    """The imported module. Raises DataError, with the command that installs it, if it is not installed."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        extra = EXTRAS[module.partition(".")[0]]
        raise DataError(
            f"{purpose} needs {error.name}, which is not installed: pip install 'drive-assets[{extra}]'."
        ) from error
