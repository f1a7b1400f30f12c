"""MLflow runs around a batch of trainings: opened before the worker starts, ended whatever becomes of it."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import dagster as dg

from drive_assets.resources.mlflow import DAGSTER_RUN, Mlflow
from model.common.errors import DataError


class TrackedRuns(NamedTuple):
    """Ids of the MLflow runs, one a key, and those of them that the block found to have failed."""

    ids: list[str]
    failed: set[str]


@contextmanager
def tracked(
    context: dg.AssetExecutionContext,
    mlflow: Mlflow,
    keys: Sequence[str],
    names: Sequence[str],
    parameters: Sequence[Mapping[str, Any]],
) -> Iterator[TrackedRuns]:
    """Open the MLflow run of each training key, and yield the ids.

    If the block raises, all end FAILED; else those that it added to `failed` do, and the others end FINISHED.
    """
    tags = {DAGSTER_RUN: context.run_id}
    runs = [mlflow.open(key, name, values, tags) for key, name, values in zip(keys, names, parameters, strict=True)]
    failed: set[str] = set()
    try:
        yield TrackedRuns(runs, failed)
    except BaseException:
        with contextlib.suppress(DataError):  # what happened counts, not that the store cannot be told
            for run_id in runs:
                mlflow.close(run_id, failed=True)
        raise
    for run_id in runs:
        mlflow.close(run_id, failed=run_id in failed)
