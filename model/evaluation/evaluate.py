"""Evaluates one checkpoint: thresholds chosen on val, figures with intervals on test, and the report."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py

from model.common.errors import DataError
from model.common.files import sha256, temporary_folder
from model.dataset.split_file import Split, read_split
from model.evaluation.config import EvaluationConfig
from model.evaluation.importance import WITHOUT_DETECTIONS, camera_verdict, importances, predict
from model.evaluation.paired import Areas
from model.evaluation.predictions import Predictions
from model.evaluation.report import write_report
from model.evaluation.results import CALIBRATION, Evaluation, Importance
from model.evaluation.scoring import evaluate_predictions
from model.training.checkpoint import load_checkpoint
from model.training.data import load_split
from model.training.loop import train
from model.training.precision import choose_device
from model.training.recipes import TrainingConfig, described


def evaluate_checkpoint(
    checkpoint: Path,
    splits: Path,
    output: Path,
    config: EvaluationConfig,
    architecture: str | None = None,
    data_version: str = "",
    other_data: bool = False,
    recordings: Path | None = None,
) -> Evaluation:
    """Score a checkpoint on val and test; write metrics.json, predictions_{val,test}.npz and the report into `output`.

    The calibrator fitted on val is written beside the checkpoint and applied to every probability.

    Args:
        data_version: that the splits must have; by default the one that the checkpoint was trained on.
        other_data: also accept a `data_version` that the checkpoint was not trained on.
        recordings: folder of the recordings, for the frames in the report.

    Raises:
        DataError: the file is not a checkpoint or not of `architecture`, or splits are missing or not those that it was
            trained on: recordings of today's test split may have been in train.
    """
    digest = sha256(checkpoint)  # before it is loaded: if it is replaced, its calibration is refused
    model, content = load_checkpoint(checkpoint, architecture)
    device = choose_device(config.device)
    model.to(device)
    trained_on = content["data_version"]
    version = data_version or trained_on
    if version != trained_on and not other_data:
        raise DataError(
            f"{checkpoint} was trained on data version {trained_on}, but {version} is to be evaluated: train again."
        )
    training = TrainingConfig(**content["training_config"])
    split, data, raw = {}, {}, {}
    for name in ("val", "test"):
        path = splits / f"{name}.h5"
        split[name] = _read(path, checkpoint, {**content, "data_version": version})
        data[name] = load_split(path, training, device, split[name].fingerprint)
        raw[name] = Predictions.of(split[name], tuple(training.tasks), predict(model, data[name], config.batch_size))
    measured = importances(model, data["test"], raw["test"], config.batch_size) if config.importances else []
    if config.train_without_detections:
        measured.append(_trained_without_detections(content, splits, output, raw["test"], config))
    evaluation, calibrator = evaluate_predictions(
        raw["val"],
        raw["test"],
        config,
        output,
        digest,
        architecture=content["architecture"],
        data_version=version,
        epoch=content["epoch"],
        recipe=described(training),
        importances=measured,
        camera=camera_verdict(measured),
    )
    calibrator.write(checkpoint.with_name(CALIBRATION))
    write_report(evaluation, calibrator.apply(raw["test"]), split["test"], output, recordings)
    return evaluation


def _trained_without_detections(
    content: Mapping[str, Any], splits: Path, output: Path, test: Predictions, config: EvaluationConfig
) -> Importance:
    """What the network loses on test when the same recipe trains it on splits without detections."""
    training, device = TrainingConfig(**content["training_config"]), choose_device(config.device)
    with temporary_folder(output / "without_detections") as blind:
        for name in ("train", "val", "test"):
            shutil.copyfile(splits / f"{name}.h5", blind / f"{name}.h5")
            with h5py.File(blind / f"{name}.h5", "a") as file:
                file["detection_mask"][...] = False
                file["detections"][...] = 0
        trained = train(content["architecture"], blind, blind / "model", training, content["data_version"])
        model, _ = load_checkpoint(trained.best_model)
        data = load_split(blind / "test.h5", training, device, content["data_version"])
        after = test.replace(predict(model.to(device), data, config.batch_size))
    return Importance(input=WITHOUT_DETECTIONS, loss=Areas.of(test).minus(Areas.of(after)))


def _read(path: Path, checkpoint: Path, content: Mapping[str, Any]) -> Split:
    """Raises DataError if the split has another data version, other classes or other channels than `content`."""
    split = read_split(path)
    for what, trained, held in (
        ("data version", [content["data_version"]], (split.fingerprint or content["data_version"],)),
        ("classes", content["class_names"], split.class_names),
        ("channels", content["inputs"], split.feature_names),
    ):
        if tuple(trained) != held:
            raise DataError(
                f"{checkpoint} was trained on {what} {', '.join(trained)}, but {path} has {', '.join(held)}: train "
                "again."
            )
    return split
