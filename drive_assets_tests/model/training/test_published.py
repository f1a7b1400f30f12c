import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from model.training.published import (
    BEST,
    HISTORY,
    LATEST,
    PREVIOUS,
    PUBLISHED,
    WORK,
    decline,
    hold,
    publish,
    read_history,
    restore_previous,
    write_history,
)


def replace(output: Path, mean: float | None, version: str = "v1") -> None:
    """Publish a training whose best epoch has a mean PR-AUC on val."""
    work = output / WORK / "new"
    work.mkdir(parents=True)
    for name in (BEST, LATEST):
        (work / name).write_text(str(mean))
    config = {"tasks": ["brake_1s"]}
    content = {"data_version": version, "training_config": config, "best_epoch": 0}
    write_history(work / HISTORY, {**content, "epochs": [{"val_pr_auc_mean": mean}]})
    publish(work, output)


def killed_at(step: int, action: Callable[..., object], *arguments: Path) -> bool:
    """Do it in a process that is killed before it changes a file or folder for the `step`th time; whether it was."""
    child = os.fork()
    if child == 0:
        changes, names = iter(range(step)), ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.copyfile")

        def die(event: str, details: object) -> None:
            if event in names and next(changes, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(die)
        action(*arguments)
        os._exit(0)
    return os.waitpid(child, 0)[1] != 0


def test_a_worse_training_is_named_and_the_better_one_can_be_restored(tmp_path: Path) -> None:
    replace(tmp_path, 0.72)
    assert decline(tmp_path) is None
    replace(tmp_path, 0.7)
    assert str(decline(tmp_path)) == "mean PR-AUC on val fell from 0.720 to 0.700"
    restore_previous(tmp_path)
    assert [(folder / BEST).read_text() for folder in (tmp_path, tmp_path / PREVIOUS)] == ["0.72", "0.7"]
    assert read_history(tmp_path)["epochs"] == [{"val_pr_auc_mean": 0.72}]
    assert decline(tmp_path) is None and not (tmp_path / WORK / "restored").exists()


def test_a_kill_while_the_previous_training_is_restored_loses_and_mixes_nothing(tmp_path: Path) -> None:
    replace(tmp_path / "original", 0.72)
    replace(tmp_path / "original", 0.7)
    step, killed = 0, True
    while killed:
        output = tmp_path / str(step)
        shutil.copytree(tmp_path / "original", output)
        killed = killed_at(step, restore_previous, output)
        with hold(output):
            if decline(output):  # it was killed before it began to replace files
                restore_previous(output)
        for folder, mean in ((output, "0.72"), (output / PREVIOUS, "0.7")):
            assert [(folder / name).read_text() for name in (BEST, LATEST)] == [mean] * 2
            assert read_history(folder)["epochs"] == [{"val_pr_auc_mean": float(mean)}]
            assert {path.name for path in folder.iterdir()} - {WORK, PREVIOUS} == set(PUBLISHED)
        step += 1
    assert step > 15


def test_trainings_on_other_data_or_without_positives_are_not_compared(tmp_path: Path) -> None:
    replace(tmp_path, 0.72)
    replace(tmp_path, 0.6, "v2")
    assert decline(tmp_path) is None
    replace(tmp_path, None, "v2")
    assert decline(tmp_path) is None
    write_history(tmp_path / PREVIOUS / HISTORY, {"best_epoch": 0, "epochs": [{}]})  # of another version
    assert decline(tmp_path) is None
