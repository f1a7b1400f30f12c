"""The worker as a process: one network for many recordings, and what remains when it dies."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from drive_assets.annotation.assets import annotations
from drive_assets.partitions import RECORDINGS, register_recordings
from drive_assets.resources import compute
from drive_assets.resources.compute import LocalCompute
from drive_assets.resources.storage import Storage
from drive_assets_tests.drives import write_drive
from drive_assets_tests.startup import counting, loads
from drive_assets_tests.waiting import until
from model.detection.detector import BUNDLED

NAMES = ["2024-05-01_10-00-00", "2024-05-02_10-00-00", "2024-05-03_10-00-00"]
FAULTS = """
import time
annotate = model.annotation.pipeline.Annotator.annotate
def faulty(self, recording, *arguments):
    if recording.name == os.environ.get("DIE_AT"):
        os.kill(os.getpid(), 9)
    if recording.name == os.environ.get("END_AT"):
        os.kill(os.getppid(), 2)
        time.sleep(120)
    return annotate(self, recording, *arguments)
model.annotation.pipeline.Annotator.annotate = faulty
"""
"""Kills the worker, or ends the run, at a recording."""
DEAF = """
import signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
open(sys.argv[1] + "/child", "w").write(str(child.pid))
child.wait()
"""
"""A worker that ignores SIGTERM, with a child in a session of its own."""


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """With three recordings in tmp_path / "data", and workers that count their loads and obey FAULTS."""
    for name in NAMES:
        write_drive(tmp_path / "data" / "recordings" / name, rows=3)
    for name, value in counting(tmp_path, FAULTS).items():
        monkeypatch.setenv(name, value)
    with dg.instance_for_test() as ours:
        register_recordings(ours, NAMES)
        yield ours


def run(root: Path, instance: dg.DagsterInstance, processes: int = 1) -> tuple[str, set[str]]:
    """Annotate the recordings. Returns the failure's description ("" if the run succeeds) and what is materialised."""
    config = {"weights": str(BUNDLED), "image_size": 160, "backend": "torch"}
    definitions = dg.Definitions(
        assets=[annotations],
        resources={
            "storage": Storage(data_root=str(root), inbox_root=str(root / "inbox")),
            "compute": LocalCompute(threads=1, processes=processes),
        },
    )
    result = definitions.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance,
        tags={"dagster/asset_partition_range_start": NAMES[0], "dagster/asset_partition_range_end": NAMES[-1]},
        run_config={"ops": {"annotations": {"config": config}}},
        raise_on_error=False,
    )
    failures = [event.step_failure_data.user_failure_data for event in result.all_events if event.is_step_failure]
    text = "" if result.success else str(failures[0].description)  # type: ignore[union-attr]
    return text, instance.get_materialized_partitions(annotations.key)


def test_many_recordings_load_the_network_once_and_finished_ones_survive_a_dead_worker(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIE_AT", NAMES[1])
    assert RECORDINGS.get_partition_keys(dynamic_partitions_store=instance) == NAMES
    failure, materialized = run(tmp_path / "data", instance)
    assert materialized == {NAMES[0]}
    assert failure.startswith("2 of 3 failed.")
    assert all(f"{name}: The worker for annotate died" in failure for name in NAMES[1:])
    assert len(loads(tmp_path)) == 2  # with the asset's retry: a death may not repeat, and here it does
    monkeypatch.delenv("DIE_AT")
    (tmp_path / "loads").unlink()
    assert run(tmp_path / "data", instance) == ("", set(NAMES))
    assert len(loads(tmp_path)) == 1


def test_workers_share_the_recordings_and_one_that_dies_loses_only_its_own(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIE_AT", NAMES[1])
    assert run(tmp_path / "data", instance, processes=2)[1] == {NAMES[0]}
    monkeypatch.delenv("DIE_AT")
    (tmp_path / "loads").unlink()
    assert run(tmp_path / "data", instance, processes=2) == ("", set(NAMES))
    assert len(loads(tmp_path)) == 2
    assert compute._deal(6, 2) == [[0, 3, 4], [1, 2, 5]] and compute._deal(1, 4) == [[0]]


def test_a_finished_recording_is_recorded_even_if_the_run_is_terminated(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("END_AT", NAMES[1])
    failure, materialized = run(tmp_path / "data", instance)
    assert "The run was terminated" in failure
    assert materialized == {NAMES[0]}


def test_what_the_worker_started_ends_with_it() -> None:
    """As torch's launcher of several GPUs does, the child has a session of its own."""
    code = (
        "import signal, subprocess, sys, time; from drive_assets import worker\n"
        "signal.signal(signal.SIGTERM, worker._end_with_children)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True)\n"
        "print(child.pid, flush=True); child.wait()"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        child = int(worker.stdout.readline())
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(10) == 128 + signal.SIGTERM
    until(lambda: not _runs(child), "the child ends", 5)


def test_a_signal_ends_the_worker_whatever_it_is_doing() -> None:
    """A signal may arrive during an import whose failure is caught."""
    code = (
        "import psutil, signal, time; from drive_assets import worker\n"
        "signal.signal(signal.SIGTERM, worker._end_with_children)\n"
        "def broken(*_, **__): raise AttributeError('half imported')\n"
        "psutil.Process.children = broken\n"
        "while True:\n"
        "    try: signal.raise_signal(signal.SIGTERM); time.sleep(60)\n"
        "    except Exception: pass\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, timeout=30)
    assert ended.returncode == 128 + signal.SIGTERM


def test_a_worker_imports_nothing_from_its_working_folder(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("open('imported', 'w')")
    subprocess.run(compute.COMMAND, cwd=tmp_path, stderr=subprocess.DEVNULL, timeout=120)
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize("killed", [False, True])
def test_children_of_a_worker_end_with_it_whether_it_is_killed_or_ignores_signals(
    killed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compute, "GRACE_S", 0.5)
    file = tmp_path / "child"
    with (
        contextlib.suppress(KeyboardInterrupt),
        compute._worker([sys.executable, "-c", DEAF, str(tmp_path)], os.environ) as worker,
    ):
        until(lambda: file.is_file() and file.read_text(), "the worker starts its child", 20)
        assert _runs(int(file.read_text()))
        if not killed:
            raise KeyboardInterrupt
        worker.kill()
        worker.wait()
    assert worker.returncode == -signal.SIGKILL
    until(lambda: not _runs(int(file.read_text())), "the child ends", 5)


def _runs(process: int) -> bool:
    """Whether a process exists and is not a zombie that waits for its new parent."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
