import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from drive_assets_tests.model.split_files import write_split_file
from model.common.errors import DataError
from model.dataset.split_file import read_split
from model.evaluation import calibration
from model.evaluation.baselines import BASELINES, evaluate_baselines
from model.evaluation.best import Verdict, incumbent, judge, promote
from model.evaluation.comparison import rank, write_comparison
from model.evaluation.config import EvaluationConfig
from model.evaluation.evaluate import evaluate_checkpoint
from model.evaluation.importance import camera_verdict, importances, predict
from model.evaluation.predictions import Predictions
from model.evaluation.results import Comparison, Evaluation
from model.recording.schema import BINARY_LABELS, DEFAULT_TASKS
from model.training.checkpoint import load_checkpoint
from model.training.data import load_split
from model.training.loop import train
from model.training.recipes import TrainingConfig

SMALL = TrainingConfig(
    epochs=1, batch_size=64, embedding_dim=16, hidden_dim=16, attention_num_heads=4, decoder_num_layers=1
)
CONFIG = EvaluationConfig(bootstrap_samples=20)
VERDICT = Verdict(promoted=False, headline="Deploy no network", reason="none is better", alias="It is not given.")


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with splits, two trained architectures and their evaluations."""
    root = tmp_path_factory.mktemp("evaluated")
    for seed, name in enumerate(("train", "val", "test")):
        write_split_file(root / f"{name}.h5", frames=200, seed=seed)
    for architecture in ("simple_concat_lstm", "attention_query_transformer"):
        result = train(architecture, root, root / "models" / architecture, SMALL, "v1")
        evaluate_checkpoint(result.best_model, root, root / "evaluation" / architecture, CONFIG)
    return root


def compare(
    evaluations: dict[str, Evaluation],
    folder: Path,
    baselines: Mapping[str, Evaluation] = MappingProxyType({}),
    missing: Mapping[str, str] = MappingProxyType({}),
) -> Comparison:
    content = rank(evaluations, baselines, missing, folder, {"simple_concat_lstm": 1.234})
    write_comparison(content, VERDICT, folder, ["A note"])
    return content


def metrics_of(root: Path) -> dict[str, Evaluation]:
    paths = (root / "evaluation").glob("*/metrics.json")
    return {path.parent.name: Evaluation.read(path) for path in paths}


def test_an_evaluation_contains_figures_intervals_and_plots(evaluated: Path) -> None:
    metrics = metrics_of(evaluated)["simple_concat_lstm"]
    task = metrics.test["brake_1s"]
    assert task.threshold == metrics.val["brake_1s"].threshold
    low, high = task.pr_auc_interval
    assert low <= task.pr_auc <= high
    assert task.random_pr_auc == pytest.approx(task.positives / task.windows)
    assert task.events.events > 0
    plots = ["alarm_curves", "confusion", "pr_curves", "reliability", "roc_curves", "score_distributions", "timeline"]
    assert sorted(path.stem for path in (evaluated / "evaluation" / "simple_concat_lstm").glob("*.png")) == plots


def test_the_report_needs_no_other_file_and_all_events_are_listed(evaluated: Path) -> None:
    folder = evaluated / "evaluation" / "simple_concat_lstm"
    metrics = metrics_of(evaluated)["simple_concat_lstm"]
    page = (folder / "report.html").read_text()
    assert page.count("<img") >= 7
    assert 'src="http' not in page and re.findall('href="(.*?)"', page) == ["events.csv", "metrics.json"]
    assert metrics.camera in page
    assert "nan" not in page.split("<h2>Plots</h2>")[0].lower()
    events = pd.read_csv(folder / "events.csv")
    assert set(events["kind"]) <= {"found", "missed", "false alarm"}
    for task in metrics.tasks:
        for alarm in metrics.test[task].alarms:
            rows = events[(events.task == task) & (events.false_alarms_per_hour == alarm.threshold.budget)]
            listed = [int((rows["kind"] == kind).sum()) for kind in ("false alarm", "found", "missed")]
            missed = 0 if alarm.threshold.on is None else alarm.events - alarm.foreseen
            assert listed == [alarm.false_alarms, alarm.foreseen, missed]


def test_an_input_that_a_network_ignores_has_no_importance(evaluated: Path) -> None:
    measured = metrics_of(evaluated)["simple_concat_lstm"].importances
    inputs = {"detections", "SPEED", "RPM", "ACCELERATOR_POS_D", "ENGINE_LOAD", "GEAR"}
    assert {importance.input for importance in measured} == inputs
    model, content = load_checkpoint(evaluated / "models" / "simple_concat_lstm" / "best_model.pt")
    config = TrainingConfig(**content["training_config"])
    data = load_split(evaluated / "test.h5", config, "cpu")
    split = read_split(evaluated / "test.h5")

    class Blind(torch.nn.Module):
        def forward(self, telemetry: torch.Tensor, detections: torch.Tensor, mask: torch.Tensor) -> dict:
            return model(telemetry, detections * 0, mask & False)

    predictions = Predictions.of(split, tuple(config.tasks), predict(Blind(), data, 64))
    of_blind = importances(Blind(), data, predictions, 64)
    losses = {importance.input: importance.loss for importance in of_blind}
    assert losses["detections"].mean == (0.0, 0.0)
    assert any(losses[name].mean != (0.0, 0.0) for name in ("SPEED", "RPM", "ACCELERATOR_POS_D"))
    assert camera_verdict(of_blind).startswith("It is not shown that the camera helps")


def test_training_without_detections_measures_their_importance(evaluated: Path, tmp_path: Path) -> None:
    best = shutil.copy(evaluated / "models" / "simple_concat_lstm" / "best_model.pt", tmp_path)
    config = CONFIG.replace(train_without_detections=True, importances=False)
    found = evaluate_checkpoint(Path(best), evaluated, tmp_path / "evaluation", config)
    assert [importance.input for importance in found.importances] == ["detections, trained without"]
    assert "when it is trained without detections" in found.camera
    assert not list((tmp_path / "evaluation").glob(".without_detections*"))


def test_the_calibration_beside_another_checkpoint_is_refused(evaluated: Path, tmp_path: Path) -> None:
    best = evaluated / "models" / "simple_concat_lstm" / "best_model.pt"
    calibrator = calibration.load(best)
    assert calibrator is not None
    assert calibrator.method == "platt"
    assert set(calibrator.curves) == set(metrics_of(evaluated)["simple_concat_lstm"].tasks)
    (tmp_path / "best_model.pt").write_bytes(best.read_bytes() + b" ")
    shutil.copy(best.with_name("calibration.json"), tmp_path)
    with pytest.raises(DataError, match=r"belongs to another checkpoint than best_model\.pt"):
        calibration.load(tmp_path / "best_model.pt")


def test_evaluating_again_gives_the_same(evaluated: Path, tmp_path: Path) -> None:
    best = evaluated / "models" / "simple_concat_lstm" / "best_model.pt"
    assert evaluate_checkpoint(best, evaluated, tmp_path, CONFIG) == metrics_of(evaluated)["simple_concat_lstm"]


def test_another_architecture_and_other_splits_are_refused(evaluated: Path, tmp_path: Path) -> None:
    best = evaluated / "models" / "simple_concat_lstm" / "best_model.pt"
    with pytest.raises(DataError, match="is a checkpoint of simple_concat_lstm: expected attention_query_lstm"):
        evaluate_checkpoint(best, evaluated, tmp_path, CONFIG, "attention_query_lstm")
    for name in ("val", "test"):
        write_split_file(tmp_path / f"{name}.h5", frames=200, version="v2")
    with pytest.raises(DataError, match=r"trained on data version v1, but .*val\.h5 has v2: train again"):
        evaluate_checkpoint(best, tmp_path, tmp_path / "evaluation", CONFIG)
    with pytest.raises(DataError, match=r"trained on data version v1, but v2 is to be evaluated: train again"):
        evaluate_checkpoint(best, evaluated, tmp_path / "evaluation", CONFIG, data_version="v2")
    with pytest.raises(DataError, match=r"val\.h5 holds data version v2, expected v1"):
        shutil.copy(evaluated / "train.h5", tmp_path)
        evaluate_baselines(tmp_path, tmp_path / "evaluation", metrics_of(evaluated)["simple_concat_lstm"])
    assert not (tmp_path / "evaluation").exists()


def test_the_comparison_is_ranked_by_val_and_written(evaluated: Path) -> None:
    evaluations = metrics_of(evaluated)
    content = compare(evaluations, evaluated / "evaluation")
    means = [row.val_mean_pr_auc for row in content.variants]
    assert means == sorted(means, reverse=True)
    assert content.best == content.variants[0].architecture
    low, high = content.variants[1].difference_to_best["brake_1s"]
    assert low <= high
    assert Comparison.read(evaluated / "evaluation" / "comparison.json") == content
    lines = (evaluated / "evaluation" / "comparison.csv").read_text().splitlines()
    assert len(lines) == 3
    page = (evaluated / "evaluation" / "comparison.html").read_text()
    assert page.count("<table>") == 4 + 2 * len(content.tasks)
    assert "<h1>Deploy no network</h1>\n<p><b>Why:</b> none is better. It is not given.</p>\n" in page
    assert '<p class="warn">A note.</p>' in page and "for the car: simple_concat_lstm 1.23 ms.</p>" in page
    events = content.variants[0].test["brake_1s"].events
    assert f"<td>{events.foreseen} of {events.events}</td>" in page
    options = "epochs 1, batch_size 64, embedding_dim 16, hidden_dim 16, attention_num_heads 4, decoder_num_layers 1"
    assert sorted(content.variants[0].recipe.split(", ")) == sorted(["reference", *options.split(", ")])
    assert f"All were\ntrained with the recipe {content.variants[0].recipe}." in page
    assert (evaluated / "evaluation" / "comparison.png").is_file()


def test_evaluations_of_different_data_are_not_compared(evaluated: Path, tmp_path: Path) -> None:
    evaluations = metrics_of(evaluated)
    other = evaluations["simple_concat_lstm"].model_copy(update={"data_version": "v2"})
    evaluations["simple_concat_lstm"] = other
    with pytest.raises(DataError, match=r"differ in data version.*simple_concat_lstm: v2"):
        compare(evaluations, tmp_path)
    with pytest.raises(DataError, match="No evaluation"):
        compare({}, tmp_path)


def test_baselines_are_rows_of_the_comparison(evaluated: Path, tmp_path: Path) -> None:
    folder = tmp_path / "evaluation"
    shutil.copytree(evaluated / "evaluation", folder)
    baselines = evaluate_baselines(evaluated, folder / "baselines", metrics_of(evaluated)["simple_concat_lstm"])
    assert set(baselines) == set(BASELINES)
    for task in DEFAULT_TASKS:  # the labels of these files are the state at the same frame
        assert baselines["last_state"].test[task].pr_auc == 1.0
        assert baselines["boosting_last_frame"].test["coast_1s"].pr_auc > baselines["random"].test["coast_1s"].pr_auc
        rate = baselines["random"].test[task]
        assert rate.pr_auc == pytest.approx(rate.random_pr_auc)
    missing = {"simple_query_lstm": "not evaluated."}
    content = compare(metrics_of(evaluated), folder, baselines, missing)
    assert content.baselines[0].val_mean_pr_auc == 1.0
    assert content.best_baseline == content.baselines[0].architecture
    assert [row.beats_baseline for row in content.variants] == [False, False]
    difference = content.variants[0].difference_to_baseline.mean
    assert difference[0] < difference[1] < 0
    page = (folder / "comparison.html").read_text()
    assert page.index("Not compared") < page.index("Networks are ranked by") < page.index("last_state (baseline)")
    assert f'href="{content.best}/report.html"' in page and "recordings in test" in page
    kept = (folder / "comparisons" / "v1" / "comparison.html").read_text()
    assert set(re.findall('href="(.)', kept)) == {"#"} and kept.count("<td") == page.count("<td")
    table = (folder / "comparison.csv").read_text()
    assert evaluate_baselines(evaluated, folder / "baselines", metrics_of(evaluated)["simple_concat_lstm"]) == baselines
    weights = evaluated / "models" / content.best / "best_model.pt"
    verdict = judge(content, folder, weights)
    assert not verdict.promoted
    assert verdict.headline == "Deploy no network" and "is not given" in verdict.alias
    assert f"no network is shown to beat {content.best_baseline} ({content.best}: -" in verdict.reason
    assert re.search(r"; test has \d+ events of \w+, 20 are needed$", verdict.reason)
    for mean, is_small in (((-0.02, 0.03), False), ((-0.05, 0.09), True)):  # a gain of 0.03 would show, or not
        undecided = content.variants[0].difference_to_baseline.model_copy(update={"mean": mean})
        row = content.variants[0].model_copy(update={"difference_to_baseline": undecided})
        reason = judge(content.model_copy(update={"variants": [row]}), folder, weights).reason
        assert ("and shows in about" in reason) == is_small
    assert len(table.splitlines()) == 1 + 2 + len(BASELINES)


def test_the_best_stays_until_a_better_one_comes(evaluated: Path, tmp_path: Path) -> None:
    """The predictions of two networks are replaced: one is always right, the other guesses."""
    folder = tmp_path / "evaluation"
    shutil.copytree(evaluated / "evaluation", folder)
    evaluations = metrics_of(evaluated)
    good, bad = sorted(evaluations)
    for name, right in ((good, True), (bad, False)):
        path = folder / name / "predictions_test.npz"
        predictions = Predictions.load(path)
        noise = np.random.default_rng(0).random(predictions.labels.shape)
        predictions.replace(predictions.labels.astype(float) if right else noise).save(path)

    def weights(name: str) -> Path:
        return evaluated / "models" / name / "best_model.pt"

    def verdict(name: str) -> Verdict:
        return judge(compare({name: evaluations[name]}, folder), folder, weights(name))

    assert verdict(bad).promoted
    kept = promote(evaluations[bad], folder, weights(bad), "bad/v1/x")
    assert incumbent(folder) == kept
    assert "no other network is better" in verdict(bad).reason
    better = verdict(good)
    assert better.promoted
    assert f"{good} beats {bad}, deployed so far (+" in better.reason
    kept = promote(evaluations[good], folder, weights(good), "good/v1/x")
    worse = verdict(bad)
    assert not worse.promoted
    assert worse.headline == f"Keep {good} of data version v1" and "is not shown to beat" in worse.reason
    best = kept.folder(folder) / "best_model.pt"
    assert best.read_bytes() == weights(good).read_bytes()
    assert calibration.load(best) is not None


def change(root: Path, names: str = "train val test", task: str = "", **values: int) -> None:
    """Fill arrays of splits with a value; of `labels` only those of a task, if one is given."""
    for name in names.split():
        with h5py.File(root / f"{name}.h5", "a") as file:
            for array, value in values.items():
                column = BINARY_LABELS.index(task) if task and array == "labels" else slice(None)
                file[array][:, column] = value


def no_positive_on_val_and_one_class_on_test(root: Path) -> None:
    change(root, "val", labels=0)
    change(root, "test", labels=1, state=1)


def an_unknown_task_and_an_action_without_end(root: Path) -> None:
    change(root, task="brake_1s", labels=-1, state=1)


def one_window_on_test_and_no_known_label(root: Path) -> None:
    write_split_file(root / "test.h5", frames=20, version="v1")
    change(root, "test", labels=-1, state=-1)


def no_vehicle_and_a_task_without_positives(root: Path) -> None:
    change(root, task="brake_1s", labels=0, detection_mask=0)


@pytest.mark.parametrize(
    "spoil",
    [
        no_positive_on_val_and_one_class_on_test,
        an_unknown_task_and_an_action_without_end,
        one_window_on_test_and_no_known_label,
        no_vehicle_and_a_task_without_positives,
    ],
)
def test_undefined_figures_are_none_and_no_file_contains_nan(
    spoil: Callable[[Path], None], evaluated: Path, tmp_path: Path
) -> None:
    for name in ("train", "val", "test"):
        shutil.copy(evaluated / f"{name}.h5", tmp_path)
    spoil(tmp_path)
    config = CONFIG.replace(importances=False)
    shutil.copytree(evaluated / "models" / "simple_concat_lstm", tmp_path / "model")
    folder = tmp_path / "evaluation"
    found = evaluate_checkpoint(tmp_path / "model" / "best_model.pt", tmp_path, folder / "simple_concat_lstm", config)
    baselines = evaluate_baselines(tmp_path, folder / "baselines", found)
    content = compare({"simple_concat_lstm": found}, folder, baselines)

    assert content.best == "simple_concat_lstm" and content.variants[0].beats_baseline in (None, False)
    for evaluation in (found, *baselines.values()):
        figures = evaluation.test["brake_1s"]
        assert (figures.onset.pr_auc, figures.onset.pr_auc_interval, figures.alarms[0].recall) == (None, None, None)
    written = [path for path in folder.rglob("*") if path.suffix in (".json", ".csv", ".html")]
    assert len(written) > 5
    for path in written:
        text = re.sub('src="data:[^"]*"', "", path.read_text())
        assert not re.search(r"\b(nan|NaN|inf|Infinity)\b", text), path


def test_damaged_predictions_are_named(tmp_path: Path) -> None:
    path = tmp_path / "predictions_test.npz"
    np.savez_compressed(path, labels=np.arange(900))
    content = path.read_bytes()
    for damaged in (b"", content[:-30], content[:60] + bytes(8) + content[68:]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"predictions_test\.npz cannot be read as predictions .*: evaluate again"):
            Predictions.load(path)
