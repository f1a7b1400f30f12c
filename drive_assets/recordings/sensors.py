"""Recordings that arrive by themselves: folders and zips dropped into the inbox."""

import json
import time
from pathlib import Path

import dagster as dg

from drive_assets.partitions import KEYS_PER_CALL, RECORDINGS
from drive_assets.recordings.sources import Source, find_recordings, register
from drive_assets.resources.storage import Storage
from model.config import fingerprint
from model.errors import DataError

SETTLING_S = 600
"""A recording is taken once nothing in it changed for this long, so that half-copied drives are not."""
MOST_A_TICK = 200


@dg.sensor(
    target=dg.AssetSelection.assets("recording"),
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Takes recordings from the inbox folder once they are complete and settled.",
)
def inbox_sensor(context: dg.SensorEvaluationContext, storage: Storage) -> dg.SensorResult | dg.SkipReason:
    """One run request for each complete, settled recording whose content was not requested yet."""
    known: dict[str, str] = json.loads(context.cursor or "{}")
    if not storage.inbox.is_dir():
        return dg.SkipReason(f"{storage.inbox} does not exist; make it and drop recordings there.")
    ready: dict[str, tuple[Source, str]] = {}
    for entry in sorted(p for p in storage.inbox.iterdir() if not p.name.startswith(".")):
        try:
            version, age = _state(entry)
            if age < SETTLING_S:
                context.log.info(
                    f"{entry.name} is not settled: it changed {age:.0f} s ago, {SETTLING_S} s are waited for."
                )
                continue
            for source in find_recordings(entry):
                if known.get(source.name) != version:
                    ready[source.name] = (source, version)
        except DataError as error:
            context.log.warning(f"{entry.name} is not requested: {error}")
    names = sorted(ready)[:MOST_A_TICK]
    if not names:
        return dg.SkipReason(f"Nothing new in {storage.inbox}.")
    register(storage, [ready[name][0] for name in names])
    known |= {name: ready[name][1] for name in names}
    adds = [RECORDINGS.build_add_request(names[i : i + KEYS_PER_CALL]) for i in range(0, len(names), KEYS_PER_CALL)]
    requests = [dg.RunRequest(run_key=f"{name}:{ready[name][1]}", partition_key=name) for name in names]
    return dg.SensorResult(run_requests=requests, dynamic_partitions_requests=adds, cursor=json.dumps(known))


def _state(entry: Path) -> tuple[str, float]:
    """Identity of an entry's content (names, sizes, times), and seconds since its last change."""
    files = [entry] if entry.is_file() else sorted(path for path in entry.rglob("*") if path.is_file())
    stats = [(str(path.relative_to(entry.parent)), path.stat()) for path in files]
    newest = max((s.st_mtime for _, s in stats), default=entry.stat().st_mtime)
    return fingerprint([(name, s.st_size, s.st_mtime_ns) for name, s in stats]), time.time() - newest
