"""How assets are partitioned: by recording, by split, by architecture."""

from collections.abc import Callable

import dagster as dg

from drive_assets.resources.storage import SPLIT_NAMES
from model.common.errors import DataError
from model.network.architectures import ARCHITECTURES
from model.recording.folder import parse_recording_name

RECORDINGS = dg.DynamicPartitionsDefinition(name="recordings")
SPLITS = dg.StaticPartitionsDefinition(SPLIT_NAMES)
ARCHITECTURE_PARTITIONS = dg.StaticPartitionsDefinition(ARCHITECTURES)

KEYS_PER_CALL = 1000
NO_NAME = "not a recording name (YYYY-MM-DD_HH-MM-SS)"
"""Why a partition key is rejected."""


def register_recordings(instance: dg.DagsterInstance, names: list[str]) -> list[str]:
    """Add recording names as partition keys unless they exist; return the new ones, sorted.

    Dagster does not validate partition keys, so nothing else adds them.

    Raises:
        DataError: a name is not `YYYY-MM-DD_HH-MM-SS`; then none is added.
    """
    for name in names:
        parse_recording_name(name)
    new = sorted(set(names) - set(instance.get_dynamic_partitions(str(RECORDINGS.name))))
    for start in range(0, len(new), KEYS_PER_CALL):
        instance.add_dynamic_partitions(str(RECORDINGS.name), new[start : start + KEYS_PER_CALL])
    return new


def recording_keys(instance: dg.DagsterInstance, tell: Callable[[str], None] = lambda line: None) -> list[str]:
    """The recordings that are partition keys, sorted. Keys that are not recording names are logged and skipped."""
    keys = instance.get_dynamic_partitions(str(RECORDINGS.name))
    if wrong := misnamed_recordings(instance):
        tell(f"Skipped, {NO_NAME}: {', '.join(map(repr, wrong))}")
    return sorted(set(keys) - set(wrong))


def misnamed_recordings(instance: dg.DagsterInstance) -> list[str]:
    """Partition keys that are not recording names, sorted: anybody can add keys in the UI."""
    return sorted(key for key in instance.get_dynamic_partitions(str(RECORDINGS.name)) if not is_recording_name(key))


def is_recording_name(name: str) -> bool:
    try:
        parse_recording_name(name)
    except DataError:
        return False
    return True


def check_known(keys: list[str], known: list[str], what: str) -> None:
    """Reject partition keys that do not exist.

    Raises:
        DataError: names the unknown keys and the known ones.
    """
    unknown = sorted(set(keys) - set(known))
    if unknown:
        shown = ", ".join(known[:20]) + (f" and {len(known) - 20} more" if len(known) > 20 else "") or "none yet"
        raise DataError(f"Unknown {what}: {', '.join(unknown)}. Known: {shown}.")
