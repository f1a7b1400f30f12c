"""Experiment tracking: one MLflow run a training, found again by what was trained on what."""

import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import dagster as dg

from drive_assets.resources.storage import data_root
from model.common.errors import DataError

if TYPE_CHECKING:
    from mlflow import MlflowClient

# MLflow reports its use to its makers otherwise, from here, from workers and from its server, which inherit this.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
TRAINING_KEY = "dagster.training_key"
PARAMETER_LIMIT = 500


def tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI`, else a SQLite file in the data root."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{data_root() / 'mlflow.db'}"


class Mlflow(dg.ConfigurableResource):
    """A thin client. It sets no global active run, so that several trainings can run in one process."""

    uri: str
    """May hold a password: it is handed to workers through their environment and stands in no metadata."""
    artifacts: str
    """Folder for artifacts where the store is a local database; a tracking server has its own."""
    experiment: str = "drive-assets"

    @classmethod
    def from_environment(cls) -> "Mlflow":
        return cls(uri=tracking_uri(), artifacts=str(data_root() / "mlflow_artifacts"))

    @property
    def env(self) -> dict[str, str]:
        """The environment that a worker needs to log to the same store."""
        return {"MLFLOW_TRACKING_URI": self.uri, "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}

    def client(self) -> "MlflowClient":
        """Raises DataError if the store cannot be reached."""
        os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        if self.uri.startswith("sqlite:///"):
            Path(self.uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        try:
            client = MlflowClient(self.uri)
            client.search_experiments(max_results=1)
        except (MlflowException, OSError) as error:
            kind = urlsplit(self.uri).scheme
            raise DataError(
                f"The MLflow store ({kind}) cannot be reached: {type(error).__name__}. "
                "Set MLFLOW_TRACKING_URI to a running server or to sqlite:///FILE."
            ) from None
        return client

    def experiment_id(self, client: "MlflowClient") -> str:
        from mlflow.exceptions import MlflowException

        found = client.get_experiment_by_name(self.experiment)
        if found is not None:
            return found.experiment_id
        location = Path(self.artifacts).as_uri() if self.uri.startswith("sqlite:") else None
        try:
            return client.create_experiment(self.experiment, artifact_location=location)
        except MlflowException:  # another run made it in the meantime
            made = client.get_experiment_by_name(self.experiment)
            if made is None:
                raise
            return made.experiment_id

    def find(self, training_key: str) -> str | None:
        """The id of the run of a training, if there is one."""
        client = self.client()
        query = f"tags.`{TRAINING_KEY}` = '{training_key}'"
        found = client.search_runs([self.experiment_id(client)], query, max_results=1)
        return found[0].info.run_id if found else None

    def open(self, training_key: str, name: str, parameters: Mapping[str, Any], tags: Mapping[str, str]) -> str:
        """Start the run of a training, or go on with the one that it has; return its id."""
        client = self.client()
        run_id = self.find(training_key)
        if run_id is None:
            every = {TRAINING_KEY: training_key, **tags}
            run_id = client.create_run(self.experiment_id(client), tags=every, run_name=name).info.run_id
            self._log_parameters(client, run_id, parameters)
        else:
            client.update_run(run_id, status="RUNNING")
        return run_id

    def _log_parameters(self, client: "MlflowClient", run_id: str, parameters: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        values = [Param(key, str(value)[:PARAMETER_LIMIT]) for key, value in parameters.items()]
        client.log_batch(run_id, params=values)

    def close(self, run_id: str, failed: bool) -> None:
        """End a run: FAILED or FINISHED."""
        self.client().set_terminated(run_id, "FAILED" if failed else "FINISHED")

    def log_dataset(self, run_id: str, name: str, digest: str, source: str, profile: Mapping[str, Any]) -> None:
        """Record the data set that a run used, as an MLflow input."""
        import json

        from mlflow.entities import Dataset, DatasetInput, InputTag

        content = json.dumps({"location": source})
        dataset = Dataset(name, digest[:36], "local", content, profile=json.dumps(dict(profile)))
        tag = InputTag("mlflow.data.context", "training")
        self.client().log_inputs(run_id, [DatasetInput(dataset, [tag])])

    def log_history(self, run_id: str, epochs: Iterable[Mapping[str, float | int | None]]) -> int:
        """Log the epochs that the worker could not; return their number."""
        from mlflow.entities import Metric

        client, now = self.client(), int(time.time() * 1000)
        logged = {metric.step for metric in client.get_metric_history(run_id, "epoch_seconds")}
        missing = [epoch for epoch in epochs if epoch["epoch"] not in logged]
        for epoch in missing:
            step = int(epoch["epoch"] or 0)
            values = {key: value for key, value in epoch.items() if value is not None and key != "epoch"}
            client.log_batch(run_id, metrics=[Metric(key, float(value), now, step) for key, value in values.items()])
        return len(missing)

    def log_figures(self, run_id: str, figures: Mapping[str, float | int | None]) -> None:
        """Log figures of the whole training, such as those of its evaluation."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        values = [Metric(key, float(value), now, 0) for key, value in figures.items() if value is not None]
        self.client().log_batch(run_id, metrics=values)

    def log_files(self, run_id: str, files: Iterable[Path], folder: str | None = None) -> None:
        """Log those of `files` that exist as artifacts."""
        client = self.client()
        for path in files:
            if path.is_file():
                client.log_artifact(run_id, str(path), folder)

    def register_best(self, name: str, run_id: str, checkpoint: Path, description: str) -> str:
        """Give the best training's checkpoint a version in the model registry and the alias `best`; return the version.

        A run that has a version already keeps it.
        """
        from mlflow.exceptions import MlflowException

        client = self.client()
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        versions = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
        if versions:
            version = versions[0].version
        else:
            artifacts = client.get_run(run_id).info.artifact_uri
            source = f"{artifacts}/checkpoint/{checkpoint.name}"
            version = client.create_model_version(name, source, run_id, description=description).version
        client.set_registered_model_alias(name, "best", version)
        return str(version)
