"""Dagster's instance: the one that the UI, the daemon and the command line share."""

import os
import socket
from pathlib import Path

import dagster as dg
import psutil

from drive_assets.resources.storage import data_root
from model.common.errors import DataError
from model.common.files import write_text

PROCESS_TAG = "drive_assets/process"


def prepare_home() -> Path:
    """DAGSTER_HOME, by default `<data root>/dagster`, with our dagster.yaml unless it has one; set for child processes.

    Raises:
        DataError: it cannot be written.
    """
    home = Path(os.environ.get("DAGSTER_HOME") or data_root() / "dagster").expanduser().resolve()
    os.environ["DAGSTER_HOME"] = str(home)
    os.environ["DRIVE_ASSETS_DATA"] = str(data_root())
    try:
        if not (home / "dagster.yaml").is_file():
            template = Path(__file__).with_name("dagster.yaml").read_text(encoding="utf-8")
            write_text(home / "dagster.yaml", template)
    except OSError as error:
        raise DataError(
            f"{home} cannot be written ({error.strerror}): choose another data root with DRIVE_ASSETS_DATA."
        ) from error
    return home


def open_instance() -> dg.DagsterInstance:
    """The instance, rid of runs that a killed command left."""
    prepare_home()
    instance = dg.DagsterInstance.get()
    _end_lost_runs(instance)
    return instance


def process_tag() -> dict[str, str]:
    """Tag of a run that this process executes itself: the daemon does not watch over such runs."""
    return {PROCESS_TAG: f"{socket.gethostname()}/{os.getpid()}/{psutil.Process().create_time():.0f}"}


def _end_lost_runs(instance: dg.DagsterInstance) -> None:
    """A run whose process was killed seems to go on, and its place in a pool stays taken: end it and free the place."""
    for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])):
        host, _, process = run.tags.get(PROCESS_TAG, "").partition("/")
        if process and host == socket.gethostname() and not _is_alive(process):
            instance.report_run_failed(run, "The command that executed this run was killed. Run it again.")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)


def _is_alive(process: str) -> bool:
    """Whether `pid/start` still is the process that it was."""
    pid, _, start = process.partition("/")
    try:
        return f"{psutil.Process(int(pid)).create_time():.0f}" == start
    except psutil.NoSuchProcess:
        return False
