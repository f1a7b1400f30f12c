"""Experiment tracking: one MLflow run a training, found again by what was trained on what."""

import os
import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import dagster as dg

from drive_assets.resources.mlflow_store import prepare
from drive_assets.resources.storage import data_root
from model.common.errors import DataError, PassingError

if TYPE_CHECKING:
    from mlflow import MlflowClient

# MLflow reports its use to its makers otherwise, from here, from workers and from its server, which inherit this.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# Seven retries of two minutes each, as by default, would hold a run long after everyone has left.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
TRAINING_KEY = "dagster.training_key"
DAGSTER_RUN = "dagster.run_id"
PARAMETER_LIMIT = 500


def tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI`, else a SQLite file in the data root."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{data_root() / 'mlflow.db'}"


@contextmanager
def told() -> Iterator[None]:
    """Whatever the store or its server throws becomes one sentence without the address, which may hold a password.

    Raises:
        PassingError: the store failed; the same may succeed later.
    """
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # of mlflow, sqlalchemy, requests, sqlite and boto
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        kind = urlsplit(tracking_uri()).scheme
        raise PassingError(
            f"The MLflow store ({kind}) failed: {type(error).__name__}: {scrubbed(first)[:300]}. Set "
            "MLFLOW_TRACKING_URI to a running server or to sqlite:///FILE."
        ) from None


def scrubbed(text: str) -> str:
    """A text without the store's address, its user and its password."""
    uri = tracking_uri()
    parts = urlsplit(uri)
    secrets = {uri, parts.netloc if "@" in parts.netloc else "", parts.password or "", unquote(parts.password or "")}
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "***")
    return re.sub(r"//[^/\s@]+@", "//***@", text)


class Mlflow(dg.ConfigurableResource):
    """A thin client. It sets no global active run, so that several trainings can run in one process.

    The store's address may hold a password: it is read from the environment where it is needed, and is no field here,
    since Dagster's UI shows the fields of resources.
    """

    artifacts: str
    """Folder for artifacts where the store is a local database; a tracking server has its own."""
    experiment: str = "drive-assets"

    @classmethod
    def from_environment(cls) -> "Mlflow":
        return cls(artifacts=str(data_root() / "mlflow_artifacts"))

    @property
    def env(self) -> dict[str, str]:
        """The environment that a worker needs to log to the same store."""
        return {"MLFLOW_TRACKING_URI": tracking_uri(), "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}

    def client(self) -> "MlflowClient":
        """Raises PassingError if the store cannot be reached."""
        os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
        with told():
            prepare(tracking_uri(), Path(self.artifacts))
            from mlflow import MlflowClient

            client = MlflowClient(tracking_uri())
            client.search_experiments(max_results=1)
        return client

    def experiment_id(self, client: "MlflowClient") -> str:
        """The experiment's id; it is made where it lacks, and restored where someone deleted it."""
        from mlflow.exceptions import MlflowException

        found = client.get_experiment_by_name(self.experiment)
        if found is None:
            location = Path(self.artifacts).as_uri() if tracking_uri().startswith("sqlite:") else None
            try:
                return client.create_experiment(self.experiment, artifact_location=location)
            except MlflowException:  # another run made it in the meantime
                found = client.get_experiment_by_name(self.experiment)
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        return found.experiment_id

    @told()
    def find(self, training_key: str) -> str | None:
        """The id of the run of a training, if there is one."""
        client = self.client()
        query = f"tags.`{TRAINING_KEY}` = '{training_key}'"
        found = client.search_runs([self.experiment_id(client)], query, max_results=1)
        return found[0].info.run_id if found else None

    @told()
    def open(self, training_key: str, name: str, parameters: Mapping[str, Any], tags: Mapping[str, str]) -> str:
        """Start the run of a training, or resume the one that it has; return its id."""
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

    @told()
    def close(self, run_id: str, failed: bool) -> None:
        """End a run: FAILED or FINISHED."""
        self.client().set_terminated(run_id, "FAILED" if failed else "FINISHED")

    @told()
    def end_lost(self, dagster_runs: Collection[str]) -> None:
        """End what seems to go on of Dagster runs that were killed."""
        client = self.client()
        chosen = [self.experiment_id(client)]
        for run in client.search_runs(chosen, "attributes.status = 'RUNNING'"):
            if run.data.tags.get(DAGSTER_RUN) in dagster_runs:
                client.set_terminated(run.info.run_id, "KILLED")

    @told()
    def log_dataset(self, run_id: str, name: str, digest: str, source: str, profile: Mapping[str, Any]) -> None:
        """Record the data set that a run used, as an MLflow input."""
        import json

        from mlflow.entities import Dataset, DatasetInput, InputTag

        content = json.dumps({"location": source})
        dataset = Dataset(name, digest[:36], "local", content, profile=json.dumps(dict(profile)))
        tag = InputTag("mlflow.data.context", "training")
        self.client().log_inputs(run_id, [DatasetInput(dataset, [tag])])

    @told()
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

    @told()
    def log_figures(self, run_id: str, figures: Mapping[str, float | int | None]) -> None:
        """Log figures of the whole training, such as those of its evaluation."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        values = [Metric(key, float(value), now, 0) for key, value in figures.items() if value is not None]
        self.client().log_batch(run_id, metrics=values)

    @told()
    def log_files(self, run_id: str, files: Iterable[Path], folder: str | None = None) -> None:
        """Log those of `files` that exist as artifacts."""
        client = self.client()
        for path in files:
            if path.is_file():
                client.log_artifact(run_id, str(path), folder)

    @told()
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
