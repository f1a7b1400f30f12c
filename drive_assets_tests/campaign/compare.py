"""Compares two data roots: every file by its content, without times, ids and caches."""

import contextlib
import csv
import json
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import dagster as dg
import h5py
import numpy as np
import torch

from drive_assets.running.instance import UNFINISHED

VARYING = {"time", "epoch_seconds", "frames_per_s", "windows_per_s", "resumed", "weights", "sum"}
"""Keys of JSON and checkpoints, and columns, that hold durations or what was resumed, and hashes of such files."""
TIMES = ("seconds", "time", "per_s")
"""Parts of the names of MLflow's metrics that hold durations."""
APART = (
    "dagster/",
    "cache/",
    "recordings/.locks/",
    "mlflow.db",
    "/artifacts/training/args.yaml",
    "/artifacts/report.html",
    "yolo12n1/args.yaml",
)
"""Compared by what Dagster and MLflow say, or drawn from files that are compared; a detector's args.yaml shows what it
resumed from; a lock names who holds it."""
RESUMED_APPROXIMATELY = ("models/yolo/", "boxy_detector")
"""Parts of the names of a detector's files and of its MLflow run: a resumed detector is not equal bit for bit."""
RECORDS = (
    "SELECT 'run', name, status, lifecycle_stage FROM runs",
    "SELECT 'parameter', name, key, value FROM params JOIN runs USING (run_uuid)",
    "SELECT 'data set', name, digest FROM datasets",
    "SELECT 'version', name, version FROM model_versions",
    "SELECT 'alias', name, alias, version FROM registered_model_aliases",
)
"""What is equal in two MLflow databases, besides metrics."""


def differences(expected: Path, found: Path) -> Iterator[str]:
    """Differences between two data roots, one line each."""
    wanted, got = _files(expected), _files(found)
    yield from (f"{name} is missing" for name in sorted(wanted.keys() - got.keys()))
    yield from (f"{name} is left over" for name in sorted(got.keys() - wanted.keys()))
    for name in sorted(wanted.keys() & got.keys()):
        if not any(part in name for part in RESUMED_APPROXIMATELY) and not same(wanted[name], got[name]):
            yield f"{name} has other content"
    if (expected / "mlflow.db").is_file() and (found / "mlflow.db").is_file():
        yield from _listed("MLflow", _mlflow_records(expected), _mlflow_records(found))
    yield from _listed("Dagster", _materialized(expected), _materialized(found))


def unfinished(root: Path) -> Iterator[str]:
    """Runs and pools that seem active, though no process is."""
    if (root / "dagster" / "dagster.yaml").is_file():
        with _instance(root) as instance:
            for run in instance.get_runs(dg.RunsFilter(statuses=UNFINISHED)):
                yield f"Dagster run {run.run_id} is {run.status.value}"
            for pool in instance.event_log_storage.get_concurrency_keys():
                info = instance.event_log_storage.get_concurrency_info(pool)
                if info.active_slot_count or info.pending_step_count:
                    yield f"pool {pool} is held by {info.active_run_ids | info.pending_run_ids}"
    if (root / "mlflow.db").is_file():
        names = _query(root, "SELECT name FROM runs WHERE status NOT IN ('FINISHED', 'FAILED', 'KILLED')")
        yield from (f"MLflow run {name} is not finished" for (name,) in names)


def _listed(what: str, expected: set[Any], found: set[Any]) -> Iterator[str]:
    yield from (f"{what} has no {record}" for record in sorted(expected - found, key=str)[:5])
    yield from (f"{what} also has {record}" for record in sorted(found - expected, key=str)[:5])


def _files(root: Path) -> dict[str, Path]:
    """Files by their path, in which the ids of MLflow's runs are replaced by their names."""
    names: dict[str, str] = {}
    if (root / "mlflow.db").is_file():
        names = dict(_query(root, "SELECT run_uuid, name FROM runs"))
    found = {}
    for path in root.rglob("*"):
        name = path.relative_to(root).as_posix()
        if not path.is_dir() and (path.name.startswith(".") or not any(part in name for part in APART)):
            found["/".join(names.get(part, part) for part in name.split("/"))] = path
    return found


def _materialized(root: Path) -> set[tuple[str, str]]:
    """(asset, partition) of all that Dagster considers materialised."""
    if not (root / "dagster" / "dagster.yaml").is_file():
        return set()
    with _instance(root) as instance:
        keys = instance.all_asset_keys()
        partitions = {(key, name) for key in keys for name in ("", *instance.get_materialized_partitions(key))}
    return {(key.to_user_string(), name) for key, name in partitions}


@contextlib.contextmanager
def _instance(root: Path) -> Iterator[dg.DagsterInstance]:
    """The instance of a data root, whose settings refer to the environment."""
    with mock.patch.dict(os.environ, DAGSTER_HOME=str(root / "dagster")), dg.DagsterInstance.get() as instance:
        yield instance


def _mlflow_records(root: Path) -> set[tuple[Any, ...]]:
    """Runs, parameters, metrics by step, inputs and registered versions, by the run's name."""
    metrics = _query(root, "SELECT name, key, step, value, is_nan FROM metrics JOIN runs USING (run_uuid)")
    return {record for query in RECORDS for record in _query(root, query)} | {
        ("metric", name, key, step, *(() if name in RESUMED_APPROXIMATELY else value))
        for name, key, step, *value in metrics
        if not any(part in key for part in TIMES)
    }


def _query(root: Path, query: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(f"file:{root / 'mlflow.db'}?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()


def _hdf5(path: Path) -> Any:
    found: dict[str, Any] = {}
    with h5py.File(path) as file:
        found["/"] = dict(file.attrs)
        file.visititems(
            lambda name, item: found.update(
                {name: [dict(item.attrs), item[()] if isinstance(item, h5py.Dataset) else None]}
            )
        )
    return found


READERS: dict[str, Callable[[Path], Any]] = {
    ".json": lambda path: json.loads(path.read_text()),
    ".csv": lambda path: list(csv.DictReader(path.read_text().splitlines(keepends=True))),
    ".html": lambda path: re.sub(r"Created \d{4}-\d\d-\d\d \d\d:\d\d", "", path.read_text()),
    ".pt": lambda path: torch.load(path, map_location="cpu", weights_only=True),
    ".h5": _hdf5,
    ".holder": lambda path: "who holds a lock",
    ".npz": lambda path: dict(np.load(path)),
}


def same(expected: Path, found: Path) -> bool:
    """Whether two files have equal content, without times. Unreadable files differ."""
    if expected.read_bytes() == found.read_bytes():
        return True
    reader = READERS.get(expected.suffix)
    try:
        return reader is not None and _equal(reader(expected), reader(found))
    except Exception:  # each reader has its own kinds
        return False


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        keys = one.keys() - VARYING
        return keys == other.keys() - VARYING and all(_equal(one[key], other[key]) for key in keys)
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, torch.Tensor):
        return bool(torch.equal(one, other))
    if isinstance(one, np.ndarray):
        both = isinstance(other, np.ndarray) and one.dtype == other.dtype
        return both and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
    return bool(one == other) or (one != one and other != other)
