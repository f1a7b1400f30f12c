"""Reads the split manifest, for the assets downstream of it, and compares it with the recordings."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from drive_assets.partitions import recording_keys
from drive_assets.resources.storage import Storage
from model.common.errors import DataError
from model.dataset.review import Review, read_tags, relevant
from model.dataset.split_file import read_fingerprint
from model.dataset.summary_cache import last_change
from model.recording.content import check_annotated
from model.recording.folder import Recording


def read_manifest(storage: Storage) -> dict[str, Any]:
    """The content of dataset_config.json. DataError if it is missing or broken."""
    try:
        content: dict[str, Any] = json.loads(storage.manifest.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{storage.manifest} is missing: materialise split_manifest first.") from None
    except ValueError as error:
        raise DataError(
            f"{storage.manifest} is not valid JSON ({error}): restore an older copy, or remove it and materialise "
            "split_manifest again, which may assign recordings to other splits."
        ) from error
    return content


def read_current_manifest(storage: Storage) -> dict[str, Any]:
    """The manifest. DataError as `read_manifest`, or if a split file is missing or was made from another one."""
    manifest = read_manifest(storage)
    for name in manifest["splits"]:
        if read_fingerprint(storage.split(name)) != manifest["fingerprint"]:
            raise DataError(f"{storage.split(name)} is older than split_manifest: materialise h5_split again.")
    return manifest


def current_version(storage: Storage) -> str:
    """The data version of the manifest; empty if there is none."""
    return str(read_manifest(storage)["fingerprint"]) if storage.manifest.is_file() else ""


def recorded_version(path: Path) -> str:
    """The data version that a JSON file of results records; empty if it cannot be read."""
    try:
        return str(json.loads(path.read_text(encoding="utf-8")).get("data_version", ""))
    except (OSError, ValueError, AttributeError):
        return ""


def outdated_manifest(instance: dg.DagsterInstance, storage: Storage) -> str:
    """Why the manifest does not match the recordings; empty if it does. Dagster ignores changes past 100 partitions."""
    changes = changed_recordings(storage, recording_keys(instance))
    if changes:
        return f"{len(changes)} recording{'s are' if len(changes) > 1 else ' is'} new, changed or gone"
    manifest = read_manifest(storage)
    recorded = Review.of(manifest)
    split_of = {name: split for split, part in manifest["splits"].items() for name in part["recordings"]}
    if relevant(read_tags(storage.tags), recorded.config, split_of) != sorted(recorded.tags):
        return f"tags in {storage.tags.name} changed"
    return ""


def changed_recordings(storage: Storage, known: list[str]) -> dict[str, str]:
    """Recordings whose files differ from those that the manifest was made from, each with what changed.

    Recordings whose files are all older than the manifest are not read: an overwritten frame may go unnoticed.

    Args:
        known: the partition keys. Labelled and annotated ones that the manifest does not list count as new, or as
            changed if they are younger than the manifest, which skipped them.
    """
    manifest = read_manifest(storage)
    written = storage.manifest.stat().st_mtime
    changes: dict[str, str] = {}
    for name, entry in manifest["recordings"].items():
        recording = Recording(storage.recording(name))
        if last_change(recording) < written:
            continue
        try:
            check_annotated(recording)
        except (DataError, FileNotFoundError) as error:
            changes[name] = str(error)
        if difference := _difference(recording, entry["content"]):
            changes[name] = difference
    for name in set(known) - set(manifest["recordings"]):
        files = (storage.annotations(name), storage.future_labels(name))
        if not all(path.is_file() for path in files):
            continue
        if name not in manifest["skipped"]:
            changes[name] = "new"
        elif last_change(Recording(storage.recording(name))) > written:
            changes[name] = "changed since it was skipped"
    return dict(sorted(changes.items()))


def check_unchanged(storage: Storage, manifest: Mapping[str, Any], split: str) -> None:
    """Raises DataError if files of a split's recordings differ from those that the manifest was made from."""
    for name in manifest["splits"][split]["recordings"]:
        if difference := _difference(Recording(storage.recording(name)), manifest["recordings"][name]["content"]):
            raise DataError(f"{name} changed since split_manifest ({difference}): materialise split_manifest again.")


def _difference(recording: Recording, content: Mapping[str, str]) -> str:
    """A file of a recording whose digest is not that of `content`; empty if there is none."""
    now = recording.digests()
    for file in sorted(content.keys() | now.keys()):
        if file not in now:
            return f"{file} is gone"
        if now[file] != content.get(file):
            return f"{file} changed"
    return ""
