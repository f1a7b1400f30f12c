"""MLflow runs around a batch of trainings: opened before the worker starts, ended whatever becomes of it."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from drive_assets.resources.mlflow import DAGSTER_RUN, Mlflow
from model.common.errors import DataError


@dataclass(frozen=True)
class TrackedRuns:
    """MLflow runs, one a key."""

    mlflow: Mlflow
    ids: list[str]
    ended: set[str] = field(default_factory=set)

    def end(self, run_id: str, failed: bool = False) -> None:
        """End a run before the block does: FAILED or FINISHED."""
        self.mlflow.close(run_id, failed)
        self.ended.add(run_id)

    def end_all(self, failed: bool = False) -> None:
        for run_id in self.ids:
            if run_id not in self.ended:
                self.end(run_id, failed)


@contextmanager
def tracked(
    context: dg.AssetExecutionContext,
    mlflow: Mlflow,
    keys: Sequence[str],
    names: Sequence[str],
    parameters: Sequence[Mapping[str, Any]],
) -> Iterator[TrackedRuns]:
    """Open the MLflow run of each training key, and end those that the block leaves: FAILED if it raises."""
    tags = {DAGSTER_RUN: context.run_id}
    opened = [mlflow.open(key, name, values, tags) for key, name, values in zip(keys, names, parameters, strict=True)]
    runs = TrackedRuns(mlflow, opened)
    try:
        yield runs
    except BaseException:
        with contextlib.suppress(DataError):  # what happened counts, not that the store cannot be told
            runs.end_all(failed=True)
        raise
    runs.end_all()
