"""Models in MLflow: with a signature and an example, and the registry that says which is the best."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from drive_assets import serving

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

CHECKPOINT_TAG = "checkpoint"
BEST_ALIAS = "best"


@dataclass(frozen=True)
class TrainedModel:
    """What MLflow is told of a model."""

    name: str
    checkpoint: str
    """SHA-256 of its weights."""
    files: Sequence[Path]
    """best_model.pt and what belongs to it."""
    example: Mapping[str, npt.NDArray[Any]]
    """Raw windows as `Predictor.predict` takes them."""
    tasks: Sequence[str]
    tags: Mapping[str, str]
    figures: Mapping[str, float | None]
    description: str


def register(client: "MlflowClient", registry: str, run_id: str, model: TrainedModel) -> str:
    """Give a model a version in the registry, unless it has one, and the alias `best`; return the version."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(registry, description="Foresees braking and coasting; `best` is the one to use.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    known = client.search_model_versions(f"name = '{registry}'")
    found = [version for version in known if version.tags.get(CHECKPOINT_TAG) == model.checkpoint]
    if found:
        version = found[0].version
    else:
        model_id, source = _log(client, run_id, model)
        recipe = client.get_run(run_id).data.tags.get("recipe", "unknown")
        tags = {**model.tags, "recipe": recipe, CHECKPOINT_TAG: model.checkpoint}
        version = client.create_model_version(
            registry, source, run_id, tags, description=model.description, model_id=model_id
        ).version
    client.set_registered_model_alias(registry, BEST_ALIAS, version)
    return str(version)


def _log(client: "MlflowClient", run_id: str, model: TrainedModel) -> tuple[str, str]:
    """Log a model to the run that trained it; its id and where its files are."""
    from mlflow.entities import LoggedModelOutput, Metric
    from mlflow.models import Model
    from mlflow.pyfunc import save_model

    run = client.get_run(run_id)
    made = client.create_logged_model(
        run.info.experiment_id, model.name, run_id, dict(model.tags), model_type="pytorch"
    )
    with tempfile.TemporaryDirectory() as temporary:
        data, folder = Path(temporary) / "data", Path(temporary) / "model"
        data.mkdir()
        for path in model.files:
            shutil.copy(path, data)
        save_model(
            str(folder),
            loader_module=serving.__name__,
            data_path=str(data),
            mlflow_model=Model(run_id=run_id, model_id=made.model_id),
            signature=_signature(model),
            input_example=dict(model.example),
            pip_requirements=[f"drive-assets=={installed('drive-assets')}"],
        )
        client.log_model_artifacts(made.model_id, str(folder))
    client.finalize_logged_model(made.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(made.model_id, step=0)])
    now = made.creation_timestamp
    figures = [Metric(name, value, now, 0, made.model_id) for name, value in model.figures.items() if value is not None]
    client.log_batch(run_id, metrics=figures)
    return made.model_id, made.artifact_location


def _signature(model: TrainedModel) -> "ModelSignature":
    """Batches of any size; as many detections a frame as there are."""
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    free = {"detections": (0, 2), "detection_mask": (0, 2)}
    inputs = [
        TensorSpec(
            array.dtype,
            tuple(-1 if axis in free.get(name, (0,)) else size for axis, size in enumerate(array.shape)),
            name,
        )
        for name, array in model.example.items()
    ]
    outputs = [TensorSpec(np.dtype("float64"), (-1,), task) for task in model.tasks]
    return ModelSignature(Schema(inputs), Schema(outputs))
