"""Checkpoint files: checked when they are read, written atomically."""

import io
import zipfile
from pathlib import Path
from typing import Any

import torch

from model.common.errors import DataError
from model.common.files import atomic_path
from model.factory import MultimodalModel, create_model_variant
from model.recording.schema import check_schema

SCHEMA_VERSION = 3


def load_checkpoint(path: Path, architecture: str | None = None) -> tuple[MultimodalModel, dict[str, Any]]:
    """The network of a checkpoint, on the CPU and in evaluation mode, and the rest of the checkpoint.

    Raises:
        DataError: the file is missing, damaged, no checkpoint of this project, or not of `architecture`.
    """
    content = read_checkpoint(path)
    actual = content["architecture"]
    if architecture is not None and actual != architecture:
        raise DataError(
            f"{path} is a checkpoint of {actual}: expected {architecture}; train that one or name its file."
        )
    model = create_model_variant(content["model_config"])
    try:
        model.load_state_dict(content.pop("state_dict"))
    except RuntimeError as error:
        raise DataError(f"{path} does not fit its own model_config; train {actual} again ({error}).") from error
    return model.eval(), content


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Content of a checkpoint on the CPU, as plain types and tensors. DataError as `load_checkpoint`."""
    if not path.is_file():
        raise DataError(f"{path} is missing: expected a checkpoint; train the architecture first.")
    try:
        # torch does not compare the checksums of the zip's entries: a flipped bit would be another weight.
        if (damaged := zipfile.ZipFile(path).testzip()) is not None:
            raise zipfile.BadZipFile(f"its part {damaged} is damaged")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError as error:
        raise DataError(f"{path} cannot be read: its permissions do not allow it ({error}).") from error
    except Exception as error:  # torch.load raises many kinds for damaged files
        raise DataError(f"{path} cannot be read as a checkpoint; train the architecture again ({error}).") from error
    if not isinstance(content, dict) or content.get("schema_version") != SCHEMA_VERSION:
        raise DataError(f"{path} is no checkpoint of this version: expected schema {SCHEMA_VERSION}; train again.")
    check_schema(content["schema"], content["inputs"], str(path), "train again")
    return content


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write plain types and tensors to `path`, atomically."""
    stream = io.BytesIO()  # on a full disk, torch.save names neither the reason nor the file
    torch.save(content, stream)
    with atomic_path(path) as temporary:
        temporary.write_bytes(stream.getbuffer())
