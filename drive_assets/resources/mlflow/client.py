"""Experiment tracking: one MLflow run a training, found again by what was trained on what."""

import contextlib
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import dagster as dg

from drive_assets.resources.cluster.job_folder import is_worker_alive
from drive_assets.resources.failures import JobsContinue
from drive_assets.resources.mlflow.address import (
    DATABASES,
    SQLITE,
    scrubbed,
    table_of_trainings,
    tracking_uri,
    ui_address,
)
from drive_assets.resources.mlflow.store import mend, prepare
from drive_assets.resources.mlflow.tracking import (
    DAGSTER_RUN,
    GROUP,
    LOCK_TAG,
    Epoch,
    TrackedRun,
    find_run,
    log_epoch,
    logged_epochs,
    take_run,
)
from drive_assets.resources.storage import data_root
from drive_assets.running.interrupts import INTERRUPTIONS, defer_interrupts
from model.common.errors import DataError, PassingError

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from drive_assets.resources.mlflow.registry import TrainedModel

# MLflow reports its use to its makers otherwise, from here, from workers and from its server, which inherit this.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# It would print the address of a run, with the password that the server's address may hold.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
# Seven retries of two minutes each, as by default, would hold a run long after everyone has left.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
EXPERIMENT_KIND = "mlflow.experimentKind"
"""By this tag MLflow's UI opens an experiment on its trainings, not on what is about language models."""


@contextmanager
def hurried() -> Iterator[None]:
    """In the block a server gets three seconds and one try: the run has ended, and nobody waits for more."""
    names = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "3"}
    before = {name: os.environ[name] for name in names}
    os.environ.update(names)
    try:
        yield
    finally:
        os.environ.update(before)


@contextmanager
def told() -> Iterator[None]:
    """Whatever the store or its server throws becomes one sentence without the address, which may hold a password.

    SIGINT and SIGTERM wait until a local store's file is let go of: in the midst of SQLAlchemy's tidying up they would
    leave it locked, for the worker too.

    Raises:
        PassingError: the store failed; the same may succeed later.
        KeyboardInterrupt: a signal arrived.
    """
    try:
        with defer_interrupts() if tracking_uri().startswith(SQLITE) else nullcontext():
            yield
    except DataError:
        raise
    except Exception as error:  # of mlflow, sqlalchemy, requests, sqlite and boto
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        kind = urlsplit(tracking_uri()).scheme
        advice = "Set MLFLOW_TRACKING_URI to a running server or to sqlite:///FILE."
        if "database is locked" in first:
            advice = "Another process writes to it; run it again: what is trained is kept."
        raise PassingError(
            f"The MLflow store ({kind}) failed: {type(error).__name__}: {scrubbed(first)[:300]}. {advice}"
        ) from None


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

            try:
                client = MlflowClient(tracking_uri())
                client.search_experiments(max_results=1)
            except Exception:
                mend(tracking_uri())
                client = MlflowClient(tracking_uri())
                client.search_experiments(max_results=1)
        return client

    def experiment_id(self, client: "MlflowClient") -> str:
        """The experiment's id; it is made where it lacks, and restored where someone deleted it."""
        from mlflow.exceptions import MlflowException

        found = client.get_experiment_by_name(self.experiment)
        if found is None:
            location = Path(self.artifacts).as_uri() if tracking_uri().startswith(("sqlite:", *DATABASES)) else None
            try:
                return client.create_experiment(
                    self.experiment, location, {EXPERIMENT_KIND: "custom_model_development"}
                )
            except MlflowException:  # another run made it in the meantime
                found = client.get_experiment_by_name(self.experiment)
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        return found.experiment_id

    @told()
    def prepared(self) -> str:
        """The id of the experiment, once the store is known to work."""
        return self.experiment_id(self.client())

    def page(self, experiment: str, run_id: str = "") -> str:
        """Address of the table of trainings, or of one training, in MLflow's UI."""
        training = f"/#/experiments/{experiment}/runs/{run_id}"
        return ui_address() + (training if run_id else table_of_trainings(experiment))

    @told()
    def find(self, training_key: str) -> str | None:
        """The id of the newest run of a training, if there is one."""
        client = self.client()
        found = find_run(client, self.experiment_id(client), training_key)
        return found.info.run_id if found else None

    @told()
    def group(self, run: TrackedRun) -> str:
        """The id of the run below which MLflow shows the trainings of one recipe on one data version.

        It lasts from the start of the first training to the end of the last.
        """
        return str(take_run(self.client(), run, 0, time.time()).info.run_id)

    @told()
    def complete(self, run: TrackedRun, epochs: Sequence[Epoch], epochs_done: int, duration_s: float = 0.0) -> str:
        """Make up for what the worker could not log of a training that has ended well; return the run's id.

        Args:
            epochs_done: by earlier runs of the training.
            duration_s: how long this one took.
        """
        client = self.client()
        found = take_run(client, run, epochs_done, time.time() - duration_s).info
        logged = logged_epochs(client, found.run_id) if epochs else set()
        for epoch in epochs:
            if epoch["epoch"] not in logged:
                log_epoch(client, found.run_id, epoch)
        if found.status != "FINISHED":
            client.set_terminated(found.run_id, "FINISHED")
        if GROUP in run.tags:
            _extend(client, run.tags[GROUP], client.get_run(found.run_id).info.end_time)
        return str(found.run_id)

    def end(self, dagster_runs: Collection[str], status: str = "KILLED", living: bool = False) -> None:
        """End what seems to go on of Dagster runs that have ended; with `living` also what a cluster's job works on."""
        self._end(lambda run_id: run_id in dagster_runs, status, living)

    def end_killed(self, instance: dg.DagsterInstance) -> None:
        """End what seems to go on of those runs of this instance that have ended: their processes were killed."""

        def is_over(run_id: str) -> bool:
            run = instance.get_run_by_id(run_id)  # None: of another instance, which may share the store
            return run is not None and run.is_finished

        self._end(is_over, "KILLED")

    @told()
    def _end(self, is_over: Callable[[str], bool], status: str, living: bool = False) -> None:
        uri = tracking_uri()
        if uri.startswith(SQLITE) and not Path(uri.removeprefix(SQLITE)).is_file():
            return  # a store that is not made yet is not made for this
        client = self.client()
        for run in client.search_runs([self.experiment_id(client)], "attributes.status = 'RUNNING'"):
            tags = run.data.tags
            if is_over(tags.get(DAGSTER_RUN, "")) and (living or not is_worker_alive(tags.get(LOCK_TAG, ""))):
                client.set_terminated(run.info.run_id, status)

    @contextmanager
    def ended(self, dagster_run: str) -> Iterator[None]:
        """If the block raises, nothing of this Dagster run goes on but jobs of a cluster that nobody ended.

        What ended is KILLED if the run was terminated, else FAILED.
        """
        try:
            yield
        except JobsContinue:
            raise
        except BaseException as error:
            terminated = not isinstance(error, Exception) or isinstance(error.__cause__, INTERRUPTIONS)
            with contextlib.suppress(DataError), hurried():
                self.end({dagster_run}, "KILLED" if terminated else "FAILED", living=terminated)
            raise

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
    def log_page(self, run_id: str, page: str, name: str) -> None:
        """Log a page of HTML as an artifact."""
        self.client().log_text(run_id, page, name)

    @told()
    def register_best(self, registry: str, run_id: str, model: "TrainedModel") -> str:
        """Give a model a version in the registry, unless it has one, and the alias `best`; return the version."""
        from drive_assets.resources.mlflow.registry import register

        return register(self.client(), registry, run_id, model)


def _extend(client: "MlflowClient", group: str, end: int) -> None:
    """A group ends with the last of its trainings."""
    info = client.get_run(group).info
    if info.status != "FINISHED" or (info.end_time or 0) < end:
        client.set_terminated(group, "FINISHED", end)
