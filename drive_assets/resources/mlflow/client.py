"""Experiment tracking: one MLflow run per training, found again by what was trained on what."""

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from drive_assets.resources.cluster.job_folder import is_worker_alive
from drive_assets.resources.compute import JobsContinue
from drive_assets.resources.mlflow.address import DATABASES, SQLITE, table_of_trainings, tracking_uri, ui_address
from drive_assets.resources.mlflow.store import create_local_store, store_errors, store_exists
from drive_assets.resources.mlflow.tracking import (
    DAGSTER_RUN,
    DECIDING,
    GROUP,
    LOCK_TAG,
    Epoch,
    TrackedRun,
    close_run,
    find_run,
    log_metrics,
    logged_epochs,
    open_run,
)
from drive_assets.resources.storage import data_root
from drive_assets.running.interrupts import INTERRUPTIONS
from model.common.errors import DataError

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from drive_assets.resources.mlflow.registry import Example
    from model.evaluation.best import Best

# Otherwise MLflow reports usage to its makers, from here, from workers and from its server, which inherit this.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# Otherwise it prints the address of a run, with the password that the server's address may hold.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
# The default of seven retries of two minutes each would block a run for too long.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
EXPERIMENT_KIND = {"mlflow.experimentKind": "custom_model_development"}
"""With this tag MLflow's UI opens an experiment on its trainings, not on features for language models."""


class Mlflow(dg.ConfigurableResource):
    """A thin client. It sets no global active run, so that several trainings can run in one process.

    The store's address may hold a password: it is read from the environment where it is needed, and is no field here,
    since Dagster's UI shows the fields of resources.
    """

    artifacts: str
    """Folder of artifacts if the store is a database; a tracking server has its own."""
    experiment: str = "drive-assets"

    @classmethod
    def from_environment(cls) -> "Mlflow":
        return cls(artifacts=str(data_root() / "mlflow_artifacts"))

    @property
    def env(self) -> dict[str, str]:
        """The environment that a worker needs to log to the same store."""
        return {"MLFLOW_TRACKING_URI": tracking_uri(), "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}

    def client(self) -> "MlflowClient":
        """Raises DataError or PassingError if the store does not work."""
        os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
        with store_errors():
            from mlflow import MlflowClient

            create_local_store()
            client = MlflowClient(tracking_uri())
            client.search_experiments(max_results=1)
        return client

    def experiment_id(self, client: "MlflowClient") -> str:
        """The experiment's id. A missing experiment is created, a deleted one restored.

        MLflow cannot move artifacts: in a data root that was moved or copied, the experiment is renamed and a new one
        created.
        """
        from mlflow.exceptions import MlflowException

        uri, artifacts = tracking_uri(), Path(self.artifacts)
        found = client.get_experiment_by_name(self.experiment)
        if found is not None and found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        is_beside = uri.startswith(SQLITE) and Path(uri.removeprefix(SQLITE)).parent == artifacts.parent
        if found is not None and is_beside and found.artifact_location != artifacts.as_uri():
            client.rename_experiment(found.experiment_id, f"{self.experiment} until {datetime.now():%Y-%m-%d %H:%M:%S}")
            found = None
        if found is None:
            location = artifacts.as_uri() if uri.startswith((SQLITE, *DATABASES)) else None
            try:
                return client.create_experiment(self.experiment, location, EXPERIMENT_KIND)
            except MlflowException:  # another run created it in the meantime
                found = client.get_experiment_by_name(self.experiment)
                if found is None:
                    raise
        return found.experiment_id

    @store_errors()
    def prepared(self) -> str:
        """The id of the experiment, once the store is known to work."""
        return self.experiment_id(self.client())

    def page(self, experiment: str, run_id: str = "") -> str:
        """The address of all trainings, or of one, in MLflow's UI."""
        training = f"/#/experiments/{experiment}/runs/{run_id}"
        return ui_address() + (training if run_id else table_of_trainings(experiment))

    @store_errors()
    def find(self, training_key: str) -> str | None:
        """The id of the newest run of a training, if there is one."""
        client = self.client()
        found = find_run(client, self.experiment_id(client), training_key)
        return found.info.run_id if found else None

    @store_errors()
    def group(self, run: TrackedRun) -> str:
        """The id of the run below which MLflow shows the trainings of one recipe on one data version."""
        return str(open_run(self.client(), run, 0, time.time()).info.run_id)

    @store_errors()
    def complete(self, run: TrackedRun, epochs: Sequence[Epoch], epochs_done: int, duration_s: float = 0.0) -> str:
        """Log what the worker of a finished training could not log; return the run's id.

        Args:
            epochs_done: by earlier runs of the training.
            duration_s: how long this one took.
        """
        client = self.client()
        found = open_run(client, run, epochs_done, time.time() - duration_s).info
        logged = logged_epochs(client, found.run_id) if epochs else set()
        for epoch in epochs:
            if epoch["epoch"] not in logged:
                log_metrics(client, found.run_id, epoch)
        if found.status != "FINISHED":
            close_run(client, run, found.run_id, "FINISHED")
        return str(found.run_id)

    @store_errors()
    def log_best(self, run: TrackedRun, run_id: str, metrics: Epoch) -> None:
        """Log the figures on val of the best epoch to its run, and to the run of its group if none there is better."""
        client, group = self.client(), run.tags[GROUP]
        best = {f"best_{name}": value for name, value in metrics.items() if name.startswith("val_")}
        log_metrics(client, run_id, best)
        deciding = f"best_{DECIDING}"
        if (best.get(deciding) or 0) >= client.get_run(group).data.metrics.get(deciding, 0):
            log_metrics(client, group, best)
            client.set_tag(group, "best_architecture", run.tags["architecture"])

    def end_killed(self, instance: dg.DagsterInstance) -> None:
        """End the MLflow runs of Dagster runs of this instance whose processes were killed."""

        def has_ended(run_id: str) -> bool:
            run = instance.get_run_by_id(run_id)  # None: of another instance that shares the store
            return run is not None and run.is_finished

        self.end(has_ended)

    @store_errors()
    def end(self, has_ended: Callable[[str], bool], status: str = "KILLED", with_jobs: bool = False) -> None:
        """End the MLflow runs of ended Dagster runs; `with_jobs`, also those that a cluster's job still works on."""
        if not store_exists():
            return
        client = self.client()
        for run in client.search_runs([self.experiment_id(client)], "attributes.status = 'RUNNING'"):
            tags = run.data.tags
            if has_ended(tags.get(DAGSTER_RUN, "")) and (with_jobs or not is_worker_alive(tags.get(LOCK_TAG, ""))):
                client.set_terminated(run.info.run_id, status)

    @contextmanager
    def ended(self, dagster_run: str) -> Iterator[None]:
        """If the block raises, end the MLflow runs of this Dagster run: KILLED if it was terminated, else FAILED.

        Jobs that continue on a cluster keep theirs.
        """
        try:
            yield
        except JobsContinue:
            raise
        except BaseException as error:
            terminated = not isinstance(error, Exception) or isinstance(error.__cause__, INTERRUPTIONS)
            status = "KILLED" if terminated else "FAILED"
            with contextlib.suppress(DataError):
                self.end(lambda run_id: run_id == dagster_run, status, with_jobs=terminated)
            raise

    @store_errors()
    def log_figures(self, run_id: str, figures: Mapping[str, float | int | None]) -> None:
        """Log figures of the whole training, such as those of its evaluation."""
        log_metrics(self.client(), run_id, figures)

    @store_errors()
    def log_files(self, run_id: str, files: Iterable[Path], folder: str | None = None) -> None:
        """Log those of `files` that exist as artifacts."""
        client = self.client()
        for path in files:
            if path.is_file():
                client.log_artifact(run_id, str(path), folder)

    @store_errors()
    def log_page(self, run_id: str, page: str, name: str) -> None:
        """Log an HTML page as an artifact."""
        self.client().log_text(run_id, page, name)

    @store_errors()
    def register_best(self, run_id: str, best: "Best", folder: Path, example: "Example", reason: str) -> str:
        """Register a model as `registry.register` does; return its version."""
        from drive_assets.resources.mlflow.registry import register

        return register(self.client(), run_id, best, folder, example, reason)
