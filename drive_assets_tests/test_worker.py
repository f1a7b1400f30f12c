"""The worker as a process: one network for many recordings, and what is left when it dies."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest

from drive_assets.annotation.assets import annotations
from drive_assets.partitions import RECORDINGS, register_recordings
from drive_assets.resources import compute
from drive_assets.resources.compute import LocalCompute
from drive_assets.resources.storage import Storage
from drive_assets_tests.drives import write_drive
from model.detection.detector import BUNDLED

NAMES = ["2024-05-01_10-00-00", "2024-05-02_10-00-00", "2024-05-03_10-00-00"]
FAULTS = """
import os, time
import model.annotation.pipeline, model.detection.detector
load, annotate = model.annotation.pipeline.load_detector, model.annotation.pipeline.Annotator.annotate
def counted(weights):
    with open(os.environ["LOADS"], "a") as stream:
        stream.write("load\\n")
    return load(weights)
def dying(self, recording, *arguments):
    if recording.name == os.environ.get("DIE_AT"):
        os.kill(os.getpid(), 9)
    if recording.name == os.environ.get("END_AT"):
        os.kill(os.getppid(), 2)
        time.sleep(120)
    return annotate(self, recording, *arguments)
model.annotation.pipeline.load_detector, model.annotation.pipeline.Annotator.annotate = counted, dying
"""
"""Read by the worker's interpreter at its start: counts loads, and kills the worker or ends the run at a recording."""
DEAF = """
import signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
open(sys.argv[1] + "/child", "w").write(str(child.pid))
child.wait()
"""
"""A worker that does not hear, with a child in a session of its own."""


def run(root: Path, instance: dg.DagsterInstance, processes: int = 1) -> tuple[dg.ExecuteInProcessResult, set[str]]:
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
    return result, instance.get_materialized_partitions(annotations.key)


def test_many_recordings_load_the_network_once_and_finished_ones_survive_a_dead_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, loads = tmp_path / "data", tmp_path / "loads"
    for name in NAMES:
        write_drive(root / "recordings" / name, rows=3)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(FAULTS)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'site'}:{Path(__file__).parents[1]}")
    monkeypatch.setenv("LOADS", str(loads))
    monkeypatch.setenv("DIE_AT", NAMES[1])
    with dg.instance_for_test() as instance:
        register_recordings(instance, NAMES)
        assert RECORDINGS.get_partition_keys(dynamic_partitions_store=instance) == NAMES
        result, made = run(root, instance)
        assert not result.success
        assert made == {NAMES[0]}
        (failure,) = [event for event in result.all_events if event.is_step_failure]
        text = failure.step_failure_data.user_failure_data.description
        assert text.startswith("2 of 3 failed.")
        assert all(f"{name}: The worker for annotate died" in text for name in NAMES[1:])
        assert loads.read_text() == "load\n" * 2  # the policy's retry: a death may pass, and here does not
        monkeypatch.delenv("DIE_AT")
        loads.unlink()
        result, made = run(root, instance)
        assert result.success
        assert made == set(NAMES)
        assert loads.read_text() == "load\n"


def test_workers_side_by_side_share_the_recordings_and_one_that_dies_takes_only_its_own_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES:
        write_drive(tmp_path / "data" / "recordings" / name, rows=3)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(FAULTS)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'site'}:{Path(__file__).parents[1]}")
    monkeypatch.setenv("LOADS", str(tmp_path / "loads"))
    monkeypatch.setenv("DIE_AT", NAMES[1])
    with dg.instance_for_test() as instance:
        register_recordings(instance, NAMES)
        assert run(tmp_path / "data", instance, processes=2)[1] == {NAMES[0]}
        monkeypatch.delenv("DIE_AT")
        (tmp_path / "loads").unlink()
        assert run(tmp_path / "data", instance, processes=2)[1] == set(NAMES)
    assert (tmp_path / "loads").read_text() == "load\n" * 2
    assert compute._deal(6, 2) == [[0, 3, 4], [1, 2, 5]] and compute._deal(1, 4) == [[0]]


def test_what_is_done_is_recorded_when_it_is_done_also_if_the_run_is_terminated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES:
        write_drive(tmp_path / "data" / "recordings" / name, rows=3)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(FAULTS)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'site'}:{Path(__file__).parents[1]}")
    monkeypatch.setenv("LOADS", str(tmp_path / "loads"))
    monkeypatch.setenv("END_AT", NAMES[1])
    with dg.instance_for_test() as instance:
        register_recordings(instance, NAMES)
        result, made = run(tmp_path / "data", instance)
    assert (result.success, made) == (False, {NAMES[0]})
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert "The run was terminated" in failure.step_failure_data.user_failure_data.description


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
    assert _ends(child)


def test_a_signal_ends_the_worker_whatever_it_is_doing() -> None:
    """Once it came in the midst of an import whose failure is caught, and the training went on."""
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


def test_a_worker_that_does_not_hear_is_killed_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compute, "GRACE_S", 0.5)
    with (
        pytest.raises(KeyboardInterrupt),
        compute._worker([sys.executable, "-c", DEAF, str(tmp_path)], os.environ) as worker,
    ):
        child = _read(tmp_path / "child")
        raise KeyboardInterrupt
    assert worker.returncode == -signal.SIGKILL
    assert _ends(child)


def test_what_a_killed_worker_started_ends_too(tmp_path: Path) -> None:
    with compute._worker([sys.executable, "-c", DEAF, str(tmp_path)], os.environ) as worker:
        child = _read(tmp_path / "child")
        worker.kill()
        worker.wait()
        assert _runs(child)
    assert _ends(child)


def _read(file: Path) -> int:
    """The number in a file, once it is there."""
    until = time.monotonic() + 20
    while not (file.is_file() and file.read_text()):
        assert time.monotonic() < until
        time.sleep(0.05)
    return int(file.read_text())


def _ends(process: int) -> bool:
    """Whether a process ends within seconds."""
    until = time.monotonic() + 5
    while _runs(process) and time.monotonic() < until:
        time.sleep(0.05)
    return not _runs(process)


def _runs(process: int) -> bool:
    """Whether a process is there and no zombie that waits for its new parent."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
