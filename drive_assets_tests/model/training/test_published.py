from pathlib import Path

from model.training.published import (
    BEST,
    HISTORY,
    PREVIOUS,
    WORK,
    decline,
    publish,
    read_history,
    restore_previous,
    write_history,
)


def replace(output: Path, mean: float | None, version: str = "v1") -> None:
    """Publish a training whose best epoch has a mean PR-AUC on val."""
    work = output / WORK / "new"
    work.mkdir(parents=True)
    (work / BEST).write_text(str(mean))
    config = {"tasks": ["brake_1s"]}
    content = {"data_version": version, "training_config": config, "best_epoch": 0}
    write_history(work / HISTORY, {**content, "epochs": [{"val_pr_auc_mean": mean}]})
    publish(work, output)


def test_a_worse_training_is_named_and_the_better_one_can_be_restored(tmp_path: Path) -> None:
    replace(tmp_path, 0.72)
    assert decline(tmp_path) is None
    replace(tmp_path, 0.7)
    assert str(decline(tmp_path)) == "mean PR-AUC on val fell from 0.720 to 0.700"
    restore_previous(tmp_path)
    assert [(folder / BEST).read_text() for folder in (tmp_path, tmp_path / PREVIOUS)] == ["0.72", "0.7"]
    assert read_history(tmp_path)["epochs"] == [{"val_pr_auc_mean": 0.72}]
    assert decline(tmp_path) is None and not (tmp_path / WORK / "restored").exists()


def test_trainings_on_other_data_or_without_positives_are_not_compared(tmp_path: Path) -> None:
    replace(tmp_path, 0.72)
    replace(tmp_path, 0.6, "v2")
    assert decline(tmp_path) is None
    replace(tmp_path, None, "v2")
    assert decline(tmp_path) is None
    write_history(tmp_path / PREVIOUS / HISTORY, {"best_epoch": 0, "epochs": [{}]})  # of another version
    assert decline(tmp_path) is None
