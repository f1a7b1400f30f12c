"""What happens to a command in the midst of its work. A function returns what undoes it after the command has ended."""

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable

import psutil

from drive_assets_tests.campaign.steps import OTHER_SPLITS, SPLITS, Step, Workshop

POLL_S, PAUSE_S = 0.05, 8.0
YEARS_S = 14 * 365 * 86_400
BAD_WRITES, BAD_READS = "pwrite64,fsync,fdatasync", "pread64"
Process = subprocess.Popen[bytes]
Method = Callable[[Process, Workshop, Step], Callable[[], object] | None]


def kill_worker(command: Process, workshop: Workshop, step: Step) -> None:
    """Kill the first child from now on. Python's resource tracker is not a worker."""
    while command.poll() is None:
        with contextlib.suppress(psutil.Error, StopIteration):
            children = psutil.Process(command.pid).children()
            next(child for child in children if "resource_tracker" not in " ".join(child.cmdline())).kill()
            return
        time.sleep(POLL_S)


def fill_disk(command: Process, workshop: Workshop, step: Step) -> Callable[[], object]:
    """Use all free space on the data root's disk, which is a small one."""
    path = workshop.data / "ballast"
    with path.open("wb", buffering=0) as ballast:
        for size in (1 << 20, 1 << 12):
            with contextlib.suppress(OSError):
                while ballast.write(bytes(size)):
                    pass
    return path.unlink


def pause(command: Process, workshop: Workshop, step: Step) -> None:
    """Stop all processes for a while, as a suspended machine does."""
    os.killpg(command.pid, signal.SIGSTOP)
    time.sleep(PAUSE_S)
    os.killpg(command.pid, signal.SIGCONT)


def rebuild_splits(command: Process, workshop: Workshop, step: Step) -> Callable[[], object]:
    """Stop all processes, build other splits, and continue them."""
    os.killpg(command.pid, signal.SIGSTOP)
    workshop.run(OTHER_SPLITS)
    os.killpg(command.pid, signal.SIGCONT)
    return lambda: workshop.run(SPLITS)


def swap_inputs(command: Process, workshop: Workshop, step: Step) -> Callable[[], object]:
    """Give two of the step's input files each other's content."""
    one, other = sorted(workshop.data.glob(step.inputs))[:2]

    def swap() -> None:
        between = workshop.folder / "between"
        for source, target in ((one, between), (other, one), (between, other)):
            shutil.move(source, target)

    swap()
    return swap


def limit(kind: int) -> Method:
    """Let the command and its processes have no more of what the kernel limits."""

    def method(command: Process, workshop: Workshop, step: Step) -> None:
        for process in family(command):
            with contextlib.suppress(psutil.Error):
                process.rlimit(kind, (0, 0))

    return method


def lock_databases(command: Process, workshop: Workshop, step: Step) -> None:
    """Hold all databases of the data root for a while, as a backup does."""
    with contextlib.ExitStack() as stack:
        for path in workshop.data.rglob("*.db"):
            connection = stack.enter_context(contextlib.closing(sqlite3.connect(path)))
            with contextlib.suppress(sqlite3.OperationalError):
                connection.execute("BEGIN EXCLUSIVE")
        time.sleep(PAUSE_S)


def hide_databases(command: Process, workshop: Workshop, step: Step) -> Callable[[], object]:
    """Move all databases out of the data root, and back over any new ones."""
    away = workshop.folder / "away"
    paths = [path.relative_to(workshop.data) for path in workshop.data.rglob("*.db*")]
    for path in paths:
        (away / path).parent.mkdir(parents=True, exist_ok=True)
        (workshop.data / path).rename(away / path)

    def restore() -> None:
        for path in workshop.data.rglob("*.db*"):
            path.unlink()
        for path in paths:
            (away / path).rename(workshop.data / path)

    return restore


def step_clock(seconds: int) -> Method:
    """Step the clock of all processes, until the command has ended."""

    def method(command: Process, workshop: Workshop, step: Step) -> Callable[[], object]:
        workshop.clock.symlink_to(str(seconds))
        return workshop.clock.unlink

    return method


def break_disk(calls: str) -> Method:
    """Let these system calls fail with EIO, as on a defective disk."""

    def method(command: Process, workshop: Workshop, step: Step) -> Callable[[], object]:
        processes = [f"--attach={process.pid}" for process in family(command)]
        options = ("--quiet=all", "--follow-forks", "--output=/dev/null", f"--trace={calls}")
        strace = ["strace", *options, f"--inject={calls}:error=EIO", *processes]
        return subprocess.Popen(strace, stderr=subprocess.DEVNULL).wait  # a process may have ended

    return method


def family(command: Process) -> list[psutil.Process]:
    """A process and all below it."""
    process = psutil.Process(command.pid)
    return [process, *process.children(recursive=True)]


def is_possible(method: str, step: Step) -> bool:
    """Whether a method applies to a step, on this machine."""
    needs = {
        "full disk": os.geteuid() == 0,
        "SIGKILL of the worker": step.has_workers,
        "splits rebuilt meanwhile": step.name in ("checkpoint", "evaluation", "comparison"),
        "inputs swapped": bool(step.inputs),
        "clock ahead": shutil.which("cc"),
        "clock back": shutil.which("cc"),
        "defective disk (writes)": shutil.which("strace"),
        "defective disk (reads)": shutil.which("strace"),
    }
    return bool(needs.get(method, True))


ENDED_BY_KILL: dict[str, Method] = {
    "SIGKILL": lambda command, workshop, step: command.kill(),
    "SIGKILL of all": lambda command, workshop, step: os.killpg(command.pid, signal.SIGKILL),
    "SIGTERM": lambda command, workshop, step: command.terminate(),
    "Ctrl-C": lambda command, workshop, step: os.killpg(command.pid, signal.SIGINT),  # all processes of the terminal
}
ENDS_BY_ITSELF: dict[str, Method] = {
    "SIGKILL of the worker": kill_worker,
    "full disk": fill_disk,
    "SIGSTOP and SIGCONT": pause,
    "splits rebuilt meanwhile": rebuild_splits,
    "inputs swapped": swap_inputs,
    "no more open files": limit(psutil.RLIMIT_NOFILE),
    "no more bytes in files": limit(psutil.RLIMIT_FSIZE),
    "no more memory": limit(psutil.RLIMIT_AS),
    "locked databases": lock_databases,
    "vanished databases": hide_databases,
    "clock ahead": step_clock(YEARS_S),
    "clock back": step_clock(-YEARS_S),
    "defective disk (writes)": break_disk(BAD_WRITES),
    "defective disk (reads)": break_disk(BAD_READS),
}
METHODS = ENDED_BY_KILL | ENDS_BY_ITSELF
