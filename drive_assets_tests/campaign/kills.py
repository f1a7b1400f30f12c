"""Random faults: a step is disturbed at a random moment and run again. Then all must be as if it had not been."""

import contextlib
import itertools
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import psutil

from drive_assets_tests.campaign.compare import differences, unfinished
from drive_assets_tests.campaign.faults import ENDS_BY_ITSELF, METHODS, family, is_possible
from drive_assets_tests.campaign.steps import STEPS, Evidence, Step, Workshop, children_seconds
from drive_assets_tests.campaign.trial import Trial

ENDING_S = 60.0
"""Time in which a command must end after SIGTERM or Ctrl-C, and its other processes after any kill."""
STUCK_S = 600.0
"""A command that runs longer after another fault is stuck."""
LOOK_S = 0.2
ACCEPTED = {0, 130, -signal.SIGTERM, -signal.SIGINT}
"""Exit statuses after SIGTERM and Ctrl-C: it had just ended, it was interrupted, or Python had no handler yet."""
STATUSES = {
    "SIGTERM": ACCEPTED,
    "Ctrl-C": ACCEPTED,
    "SIGSTOP and SIGCONT": {0},
    "clock ahead": {0},
    "clock back": {0},
}


def trials(folder: Path, seed: int, names: Sequence[str]) -> Generator[Trial]:
    """One fault after the other, each in the next step."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
    workshop = Workshop(folder)
    methods = [name for name in METHODS if name in names] or list(METHODS)
    steps = [step for step in STEPS if step.is_killed and step.name in names] or [s for s in STEPS if s.is_killed]
    steps = [step for step in steps if any(is_possible(method, step) for method in methods)]
    workshop.prepare(steps[-1])
    for count in itertools.count():
        rng, step = random.Random(f"{seed} {count}"), steps[count % len(steps)]
        method = rng.choice([name for name in methods if is_possible(name, step)])
        moment = rng.uniform(0, workshop.seconds[step.name])
        trial = Trial(count, f"{step.name}: {method} at {moment:.1f} s")
        with workshop.small_disk() if method == "full disk" else contextlib.nullcontext():
            _attempt(workshop, step, method, moment, trial)
            if trial.faults:
                _keep(workshop, count)
        yield trial


def _attempt(workshop: Workshop, step: Step, method: str, moment: float, trial: Trial) -> None:
    """Disturb the step, run it again, and look for faults."""
    started = time.monotonic()
    workshop.reset(step)
    trial.faults += _disturb(workshop, step, method, moment, trial)
    if trial.hit:
        trial.faults += _rerun(workshop, step, {} if method == "inputs swapped" else step.done(workshop.data))
    trial.faults += [f"{line} (of {step.name})" for line in differences(workshop.after(step), workshop.data)]
    trial.faults += unfinished(workshop.data)
    trial.faults += [f"the rerun left process {process.pid}" for process in workshop.processes()]
    trial.seconds = time.monotonic() - started


def _rerun(workshop: Workshop, step: Step, done: Evidence) -> Iterator[str]:
    """Run the step again; yields what of the work `done` was repeated."""
    status, output = workshop.run(step)
    if status != 0:
        yield f"the rerun ends with {status}: {output[-2000:]}"
    after = (step.taken_over or step.done)(workshop.data)
    yield from (f"done again: {key}" for key, value in done.items() if not _is_kept(value, after.get(key)))


def _disturb(workshop: Workshop, step: Step, method: str, moment: float, trial: Trial) -> Iterator[str]:
    log, before, undo = workshop.folder / "killed.log", children_seconds(), None
    command = workshop.start(step, log)
    while command.poll() is None and _seconds(command) < moment:
        time.sleep(LOOK_S)
    trial.hit = command.poll() is None
    with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
        undo = METHODS[method](command, workshop, step) if trial.hit else None
    try:
        status = command.wait(STUCK_S if method in ENDS_BY_ITSELF else ENDING_S)
    except subprocess.TimeoutExpired:
        yield "the killed command does not end"
        for process in family(command):
            process.kill()
        status = command.wait()
    if not trial.hit:
        workshop.seconds[step.name] = children_seconds() - before
    _, alive = psutil.wait_procs(workshop.processes(), ENDING_S)
    for orphan in alive:
        yield f"orphan: {' '.join(orphan.cmdline())}"
        orphan.kill()
    if undo:
        undo()
    trial.output = log.read_text(errors="replace")[-2000:]
    if status not in STATUSES.get(method, {status}):
        yield f"ends with {status}: {trial.output}"
    if method in ENDS_BY_ITSELF and "Traceback" in log.read_text(errors="replace"):
        yield f"a traceback on the terminal: {trial.output}"


def _seconds(command: "subprocess.Popen[bytes]") -> float:
    """Processor time so far of a process and of all below it."""
    total = 0.0
    with contextlib.suppress(psutil.Error):
        for process in family(command):
            with contextlib.suppress(psutil.Error):
                total += sum(process.cpu_times()[:4])
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
