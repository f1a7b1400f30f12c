"""How assets are partitioned: by recording, by split, by architecture."""

import dagster as dg

from model.common.errors import DataError, did_you_mean
from model.dataset import assignment
from model.network.architectures import ARCHITECTURES
from model.recording.folder import parse_recording_name

RECORDINGS = dg.DynamicPartitionsDefinition(name="recordings")
SPLITS = dg.StaticPartitionsDefinition(assignment.SPLITS)
ARCHITECTURE_PARTITIONS = dg.StaticPartitionsDefinition(ARCHITECTURES)

KEYS_PER_CALL = 1000
"""Most partition keys that one call adds."""
NO_NAME = "not a recording name (YYYY-MM-DD_HH-MM-SS)"


def register_recordings(instance: dg.DagsterInstance, names: list[str]) -> list[str]:
    """Add recording names as partition keys unless they exist; return the new ones, sorted.

    Dagster does not check names: one that is not `YYYY-MM-DD_HH-MM-SS` is a DataError, and none is added.
    """
    for name in names:
        parse_recording_name(name)
    new = sorted(set(names) - set(instance.get_dynamic_partitions(str(RECORDINGS.name))))
    for start in range(0, len(new), KEYS_PER_CALL):
        instance.add_dynamic_partitions(str(RECORDINGS.name), new[start : start + KEYS_PER_CALL])
    return new


def recording_keys(instance: dg.DagsterInstance) -> list[str]:
    """The recordings that are partition keys, sorted. In the UI anybody can add others, which are ignored."""
    return sorted(filter(is_recording_name, instance.get_dynamic_partitions(str(RECORDINGS.name))))


def is_recording_name(name: str) -> bool:
    try:
        parse_recording_name(name)
    except DataError:
        return False
    return True


def check_known(keys: list[str], known: list[str], what: str) -> None:
    """Raises DataError if some of `keys` are not among the `known` ones; it names both."""
    if unknown := sorted(set(keys) - set(known)):
        shown = ", ".join(known[:20]) + (f" and {len(known) - 20} more" if len(known) > 20 else "") or "none yet"
        raise DataError(f"Unknown {what}: {', '.join(unknown)}.{did_you_mean(unknown[0], known)} Known: {shown}.")
