"""The split manifest as the assets downstream of it read it."""

import json
from typing import Any

from drive_assets.resources.storage import Storage
from model.common.errors import DataError
from model.common.files import sha256
from model.dataset.split_file import read_fingerprint
from model.dataset.summary_cache import last_change
from model.recording.content import check_annotated
from model.recording.folder import Recording


def read_manifest(storage: Storage) -> dict[str, Any]:
    """The content of dataset_config.json.

    Raises:
        DataError: it is missing or broken.
    """
    try:
        content: dict[str, Any] = json.loads(storage.manifest.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{storage.manifest} is missing: materialise split_manifest first.") from None
    except ValueError as error:
        raise DataError(
            f"{storage.manifest} is no JSON ({error}): put back an older copy, or remove it and materialise "
            "split_manifest again; recordings may then come into other splits."
        ) from error
    return content


def read_current_manifest(storage: Storage) -> dict[str, Any]:
    """The manifest, once the split files are known to be made from it.

    Raises:
        DataError: as `read_manifest`, or a split file is missing or older.
    """
    manifest = read_manifest(storage)
    for name in manifest["splits"]:
        if read_fingerprint(storage.split(name)) != manifest["fingerprint"]:
            raise DataError(f"{storage.split(name)} is not of the current split_manifest: materialise h5_split again.")
    return manifest


def _not_as_annotated(storage: Storage, name: str) -> dict[str, str]:
    """What `check_annotated` says of a recording."""
    try:
        check_annotated(Recording(storage.recording(name)))
    except (DataError, FileNotFoundError) as error:
        return {name: str(error)}
    return {}


def changed_recordings(storage: Storage, known: list[str], trust_times: bool = False) -> dict[str, str]:
    """Recordings whose files are not what the manifest was made from, each with what changed.

    Args:
        known: the partition keys; those with labels and annotations that the manifest does not hold count as new, or as
            changed if they are younger than the manifest, which skipped them.
        trust_times: take recordings of which nothing changed after the manifest was made for what they were, without
            reading them; that a frame was written anew in its place is not seen.
    """
    manifest = read_manifest(storage)
    made = storage.manifest.stat().st_mtime
    changes: dict[str, str] = {}
    for name, entry in manifest["recordings"].items():
        if trust_times and last_change(Recording(storage.recording(name))) < made:
            continue
        for file, digest in entry["content"].items():
            path = storage.recording(name) / file
            if not path.is_file():
                changes[name] = f"{file} is gone"
            elif sha256(path) != digest:
                changes[name] = f"{file} changed"
        changes = _not_as_annotated(storage, name) | changes
    for name in set(known) - set(manifest["recordings"]):
        files = (storage.annotations(name), storage.future_labels(name))
        if not all(path.is_file() for path in files):
            continue
        if name not in manifest["skipped"]:
            changes[name] = "new"
        elif max(path.stat().st_ctime for path in files) > made:
            changes[name] = "changed since it was skipped"
    return dict(sorted(changes.items()))
