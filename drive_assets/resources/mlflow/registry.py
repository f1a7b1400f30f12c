"""MLflow's registry: models with a signature and an example; the alias `best` points to the one to use."""

import shutil
import tempfile
from collections.abc import Mapping
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from drive_assets import serving
from model.common.pages import number
from model.evaluation.results import CALIBRATION, EVALUATION, Evaluation

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import ModelSignature

    from model.evaluation.best import Best

REGISTRY = "drive-assets"
BEST_ALIAS = "best"
CHECKPOINT_TAG = "checkpoint"
Example = Mapping[str, npt.NDArray[Any]]
"""Raw windows as `Predictor.predict` takes them."""


def register(client: "MlflowClient", run_id: str, best: "Best", folder: Path, example: Example, reason: str) -> str:
    """Give the best model a version in the registry, unless it has one, and the alias; return the version.

    Args:
        run_id: the run that trained it.
        folder: of its checkpoint, calibration and evaluation.
        reason: why it is the best.
    """
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(
            REGISTRY, description="Anticipates braking and coasting; use the version with the alias `best`."
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    versions = client.search_model_versions(f"name = '{REGISTRY}'")
    same = [each for each in versions if each.tags.get(CHECKPOINT_TAG) == best.checkpoint and each.run_id == run_id]
    version = same[0] if same else _create_version(client, run_id, best, folder, example, reason)
    client.set_registered_model_alias(REGISTRY, BEST_ALIAS, version.version)
    return str(version.version)


def _create_version(
    client: "MlflowClient", run_id: str, best: "Best", folder: Path, example: Example, reason: str
) -> "ModelVersion":
    """Log the model to the run that trained it, and register it."""
    from mlflow.models import Model
    from mlflow.pyfunc import save_model

    run, evaluation = client.get_run(run_id), Evaluation.read(folder / EVALUATION)
    mean = evaluation.test.mean_pr_auc
    figures = {"test_mean_pr_auc": mean, "test_mean_onset_pr_auc": evaluation.test.mean_onset_pr_auc}
    tags = {
        "architecture": best.architecture,
        "data_version": best.data_version,
        "recipe": run.data.tags.get("recipe", "unknown"),
        CHECKPOINT_TAG: best.checkpoint,
        **{name: number(value, 4) for name, value in figures.items()},
    }
    with tempfile.TemporaryDirectory() as temporary:
        data, output = Path(temporary) / "data", Path(temporary) / "model"
        data.mkdir()
        for file in (serving.CHECKPOINT, CALIBRATION):
            shutil.copy(folder / file, data)
        save_model(
            str(output),
            loader_module=serving.__name__,
            data_path=str(data),
            mlflow_model=Model(run_id=run_id),
            signature=_signature(example, evaluation.tasks),
            input_example=dict(example),
            pip_requirements=[f"drive-assets=={installed_version('drive-assets')}"],
        )
        place = f"model/{best.checkpoint[:12]}"
        client.log_artifacts(run_id, str(output), place)
    trained = f"{best.architecture}, trained on data version {best.data_version}"
    description = f"{trained}: mean PR-AUC {number(mean)} on test. {reason}."
    return client.create_model_version(
        REGISTRY, f"{run.info.artifact_uri}/{place}", run_id, tags, description=description
    )


def _signature(example: Example, tasks: list[str]) -> "ModelSignature":
    """Batches of any size, with any number of detections per frame."""
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    inputs = []
    for name, array in example.items():
        free = (0, 2) if name.startswith("detection") else (0,)
        shape = tuple(-1 if axis in free else size for axis, size in enumerate(array.shape))
        inputs.append(TensorSpec(array.dtype, shape, name))
    return ModelSignature(Schema(inputs), Schema([TensorSpec(np.dtype("float64"), (-1,), task) for task in tasks]))
