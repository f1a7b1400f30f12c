"""Evaluating one checkpoint: thresholds chosen on val, figures with intervals on test, and the plots."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py

from model.common.errors import DataError
from model.common.files import sha256, temporary_folder
from model.dataset.split_file import Split, read_fingerprint, read_split
from model.evaluation.config import EvaluationConfig
from model.evaluation.importance import WITHOUT_DETECTIONS, camera_verdict, importances, predict
from model.evaluation.paired import Areas
from model.evaluation.predictions import Predictions
from model.evaluation.report import write_report
from model.evaluation.results import CALIBRATION, Evaluation, Importance
from model.evaluation.scoring import evaluate_predictions
from model.training.checkpoint import load_checkpoint
from model.training.loop import load_split, train
from model.training.precision import choose_device
from model.training.recipes import TrainingConfig, described

SCORED = ("val", "test")


def evaluate_checkpoint(
    checkpoint: Path,
    splits: Path,
    output: Path,
    config: EvaluationConfig,
    architecture: str | None = None,
    other_data: bool = False,
    recordings: Path | None = None,
) -> Evaluation:
    """Score a checkpoint on val and test; write metrics.json, predictions_{val,test}.npz and plots into `output`.

    The calibrator that val gives is written beside the checkpoint; every probability is calibrated by it.

    Args:
        other_data: score it on splits that it was not trained on too; the evaluation then bears their data version.
        recordings: folder of the recordings, for the frames that the report shows.

    Raises:
        DataError: no checkpoint of ours or not of `architecture`, splits missing, or others than it was trained on:
            what is in test now may have been in train then.
    """
    model, content = load_checkpoint(checkpoint, architecture)
    model.to(choose_device(config.device))
    if other_data:
        content["data_version"] = read_fingerprint(splits / "test.h5") or content["data_version"]
    splits_read = {name: _read(splits / f"{name}.h5", checkpoint, content) for name in SCORED}
    training = TrainingConfig(**content["training_config"])
    data = {name: load_split(splits / f"{name}.h5", training, choose_device(config.device)) for name in SCORED}
    raw = {
        name: Predictions.of(split, tuple(training.tasks), predict(model, data[name], config.batch_size))
        for name, split in splits_read.items()
    }
    found = importances(model, data["test"], raw["test"], config.batch_size) if config.importances else []
    if config.train_without_detections:
        found.append(_trained_without_detections(content, splits, output, raw["test"], config))
    evaluation, calibrator = evaluate_predictions(
        content["architecture"],
        content["data_version"],
        content["epoch"],
        raw["val"],
        raw["test"],
        config,
        output,
        sha256(checkpoint),
        found,
        camera_verdict(found),
        described(training),
    )
    calibrator.write(checkpoint.with_name(CALIBRATION))
    write_report(evaluation, calibrator.apply(raw["test"]), splits_read["test"], output, recordings)
    return evaluation


def _trained_without_detections(
    content: Mapping[str, Any], splits: Path, output: Path, test: Predictions, config: EvaluationConfig
) -> Importance:
    """What the network loses on test when it is trained anew, by the same recipe, on splits whose boxes are gone."""
    training = TrainingConfig(**content["training_config"])
    with temporary_folder(output / "without_detections") as blind:
        for name in ("train", *SCORED):
            shutil.copyfile(splits / f"{name}.h5", blind / f"{name}.h5")
            with h5py.File(blind / f"{name}.h5", "a") as file:
                file["detection_mask"][...] = False
                file["detections"][...] = 0
        made = train(content["architecture"], blind, blind / "model", training, content["data_version"])
        model, _ = load_checkpoint(made.best_model)
        device = choose_device(config.device)
        data = load_split(blind / "test.h5", training, device)
        after = test.replace(predict(model.to(device), data, config.batch_size))
    return Importance(input=WITHOUT_DETECTIONS, loss=Areas.of(test).minus(Areas.of(after)))


def _read(path: Path, checkpoint: Path, content: Mapping[str, Any]) -> Split:
    split = read_split(path)
    _check_split(split, path, checkpoint, content)
    return split


def _check_split(split: Split, path: Path, checkpoint: Path, content: Mapping[str, Any]) -> None:
    """Raises DataError unless a checkpoint was trained on the data, classes and channels that a split holds."""
    if split.fingerprint and split.fingerprint != content["data_version"]:
        raise DataError(
            f"{checkpoint} was trained on data version {content['data_version']}, {path} is {split.fingerprint}: train "
            "again on these splits."
        )
    for what, ours, theirs in (
        ("classes", content["class_names"], split.class_names),
        ("channels", content["inputs"], split.feature_names),
    ):
        if tuple(ours) != theirs:
            raise DataError(
                f"{checkpoint} was trained on {what} {', '.join(ours)}, {path} holds {', '.join(theirs)}: train again."
            )
