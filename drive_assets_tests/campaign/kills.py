"""Random kills: a step is killed at a random moment and run again. Then all must be as if it had not been killed."""

import contextlib
import itertools
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path

import psutil

from drive_assets_tests.campaign.compare import differences, unfinished
from drive_assets_tests.campaign.steps import STEPS, Step, Workshop, children_seconds
from drive_assets_tests.campaign.trial import Trial

ENDING_S = 60.0
"""Time in which a command must end after SIGTERM or Ctrl-C, and its other processes after any kill."""
STUCK_S = 600.0
"""A command that runs longer after its worker was killed, or on a full disk, is stuck."""
POLL_S, LOOK_S = 0.05, 0.2
PAUSE_S = 8.0
ACCEPTED = {0, 130, -signal.SIGTERM, -signal.SIGINT}
"""Exit statuses after SIGTERM and Ctrl-C: it had just ended, it was interrupted, or Python had no handler yet."""
BALLAST = "ballast"
Process = subprocess.Popen[bytes]


def kill_worker(command: Process, data: Path) -> None:
    """Kill the first child from now on. Python's resource tracker is not a worker."""
    while command.poll() is None:
        with contextlib.suppress(psutil.Error, StopIteration):
            children = psutil.Process(command.pid).children()
            next(child for child in children if "resource_tracker" not in " ".join(child.cmdline())).kill()
            return
        time.sleep(POLL_S)


def fill_disk(command: Process, data: Path) -> None:
    """Use all free space on the data root's disk, which is a small one."""
    with (data / BALLAST).open("wb", buffering=0) as ballast:
        for size in (1 << 20, 1 << 12):
            with contextlib.suppress(OSError):
                while ballast.write(bytes(size)):
                    pass


def pause(command: Process, data: Path) -> None:
    """Stop all processes for a while, as a suspended machine does."""
    os.killpg(command.pid, signal.SIGSTOP)
    time.sleep(PAUSE_S)
    os.killpg(command.pid, signal.SIGCONT)


def limit(kind: int) -> Callable[[Process, Path], None]:
    """Let the command and its processes have no more of what the kernel limits."""

    def method(command: Process, data: Path) -> None:
        process = psutil.Process(command.pid)
        for each in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                each.rlimit(kind, (0, 0))

    return method


def lock_databases(command: Process, data: Path) -> None:
    """Hold all databases of the data root for a while, as a backup does."""
    with contextlib.ExitStack() as stack:
        for path in data.rglob("*.db"):
            connection = stack.enter_context(contextlib.closing(sqlite3.connect(path)))
            with contextlib.suppress(sqlite3.OperationalError):
                connection.execute("BEGIN EXCLUSIVE")
        time.sleep(PAUSE_S)


METHODS: dict[str, Callable[[Process, Path], None]] = {
    "SIGKILL": lambda command, data: command.kill(),
    "SIGKILL of the worker": kill_worker,
    "SIGKILL of all": lambda command, data: os.killpg(command.pid, signal.SIGKILL),
    "SIGTERM": lambda command, data: command.terminate(),
    "Ctrl-C": lambda command, data: os.killpg(command.pid, signal.SIGINT),  # all processes of the terminal
    "full disk": fill_disk,
    "SIGSTOP and SIGCONT": pause,
    "no more open files": limit(psutil.RLIMIT_NOFILE),
    "no more bytes in files": limit(psutil.RLIMIT_FSIZE),
    "no more memory": limit(psutil.RLIMIT_AS),
    "locked databases": lock_databases,
}
ENDED_BY_KILL = ("SIGKILL", "SIGKILL of all", "SIGTERM", "Ctrl-C")
ENDS_BY_ITSELF = METHODS.keys() - ENDED_BY_KILL
STATUSES = {"SIGTERM": ACCEPTED, "Ctrl-C": ACCEPTED, "SIGSTOP and SIGCONT": {0}}


def trials(folder: Path, seed: int, names: Sequence[str]) -> Generator[Trial]:
    """One kill after the other, each in the next step."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
    workshop = Workshop(folder)
    steps = [step for step in STEPS if step.is_killed and (not names or step.name in names)]
    workshop.prepare(steps[-1])
    for count in itertools.count():
        rng, step = random.Random(f"{seed} {count}"), steps[count % len(steps)]
        method = rng.choice([name for name in METHODS if _is_possible(name, step)])
        moment = rng.uniform(0, workshop.seconds[step.name])
        trial = Trial(count, f"{step.name}: {method} at {moment:.1f} s")
        with workshop.small_disk() if method == "full disk" else contextlib.nullcontext():
            _attempt(workshop, step, method, moment, trial)
            if trial.faults:
                _keep(workshop, count)
        yield trial


def _attempt(workshop: Workshop, step: Step, method: str, moment: float, trial: Trial) -> None:
    """Kill the step, run it again, and look for faults."""
    started = time.monotonic()
    workshop.reset(step)
    trial.faults += _kill(workshop, step, method, moment, trial)
    if trial.hit:
        trial.faults += _rerun(workshop, step)
    trial.faults += [f"{line} (of {step.name})" for line in differences(workshop.after(step), workshop.data)]
    trial.faults += unfinished(workshop.data)
    trial.faults += [f"the rerun left process {process.pid}" for process in workshop.processes()]
    trial.seconds = time.monotonic() - started


def _rerun(workshop: Workshop, step: Step) -> Iterator[str]:
    done = step.done(workshop.data)
    status, output = workshop.run(step)
    if status != 0:
        yield f"the rerun ends with {status}: {output[-2000:]}"
    after = (step.taken_over or step.done)(workshop.data)
    yield from (f"done again: {key}" for key, value in done.items() if not _is_kept(value, after.get(key)))


def _kill(workshop: Workshop, step: Step, method: str, moment: float, trial: Trial) -> Iterator[str]:
    log, before = workshop.folder / "killed.log", children_seconds()
    command = workshop.start(step, log)
    while command.poll() is None and _seconds(command.pid) < moment:
        time.sleep(LOOK_S)
    trial.hit = command.poll() is None
    with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
        METHODS[method](command, workshop.data)
    try:
        status = command.wait(STUCK_S if method in ENDS_BY_ITSELF else ENDING_S)
    except subprocess.TimeoutExpired:
        yield "the killed command does not end"
        os.killpg(command.pid, signal.SIGKILL)
        status = command.wait()
    if not trial.hit:
        workshop.seconds[step.name] = children_seconds() - before
    (workshop.data / BALLAST).unlink(missing_ok=True)
    trial.output = log.read_text(errors="replace")[-2000:]
    if status not in STATUSES.get(method, {status}):
        yield f"ends with {status}: {trial.output}"
    if method in ENDS_BY_ITSELF and "Traceback" in log.read_text(errors="replace"):
        yield f"a traceback on the terminal: {trial.output}"
    _, alive = psutil.wait_procs(workshop.processes(), ENDING_S)
    for orphan in alive:
        yield f"orphan: {' '.join(orphan.cmdline())}"
        orphan.kill()


def _is_possible(method: str, step: Step) -> bool:
    needs = {"full disk": os.geteuid() == 0, "SIGKILL of the worker": step.has_workers}
    return needs.get(method, True)


def _seconds(pid: int) -> float:
    """Processor time so far of a process and of all below it."""
    total = 0.0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for each in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += sum(each.cpu_times()[:4])
    return total


def _is_kept(before: object, after: object) -> bool:
    return after >= before if isinstance(before, int) and isinstance(after, int) else before == after


def _keep(workshop: Workshop, number: int) -> None:
    """Keep the data root and the outputs of a trial with faults."""
    kept = workshop.folder / "faults" / str(number)
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(workshop.data, kept / "data", symlinks=True)
    for path in workshop.folder.glob("*.log"):
        shutil.copy(path, kept)
