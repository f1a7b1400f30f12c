"""Random kills: a step is killed at a random moment and run again. Then all must be as if it had not been killed."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from drive_assets_tests.campaign.compare import differences, unfinished
from drive_assets_tests.campaign.steps import STEPS, Step, Workshop, children_seconds

ENDING_S = 60.0
"""Time in which a command must end after SIGTERM or Ctrl-C, and its other processes after any kill."""
STUCK_S = 600.0
"""A command that runs longer after its worker was killed, or on a full disk, is stuck."""
POLL_S, LOOK_S = 0.05, 0.2
PAUSE_S = 8.0


def kill(command: "subprocess.Popen[bytes]", workshop: Workshop) -> None:
    command.kill()


def kill_worker(command: "subprocess.Popen[bytes]", workshop: Workshop) -> None:
    """Kill the first child from now on. Python's resource tracker is not a worker."""
    while command.poll() is None:
        with contextlib.suppress(psutil.Error, StopIteration):
            children = psutil.Process(command.pid).children()
            next(child for child in children if "resource_tracker" not in " ".join(child.cmdline())).kill()
            return
        time.sleep(POLL_S)


def kill_group(command: "subprocess.Popen[bytes]", workshop: Workshop) -> None:
    os.killpg(command.pid, signal.SIGKILL)


def terminate(command: "subprocess.Popen[bytes]", workshop: Workshop) -> None:
    command.terminate()


def interrupt(command: "subprocess.Popen[bytes]", workshop: Workshop) -> None:
    """Signal all processes of the terminal, as Ctrl-C does."""
    os.killpg(command.pid, signal.SIGINT)


def fill_disk(command: "subprocess.Popen[bytes]", workshop: Workshop) -> None:
    """Use all free space on the data root's disk, which is a small one."""
    with (workshop.data / BALLAST).open("wb", buffering=0) as ballast:
        for size in (1 << 20, 1 << 12):
            with contextlib.suppress(OSError):
                while ballast.write(bytes(size)):
                    pass


def pause(command: "subprocess.Popen[bytes]", workshop: Workshop) -> None:
    """Stop all processes for a while, as a suspended machine does."""
    os.killpg(command.pid, signal.SIGSTOP)
    time.sleep(PAUSE_S)
    os.killpg(command.pid, signal.SIGCONT)


BALLAST = "ballast"
Method = Callable[["subprocess.Popen[bytes]", Workshop], None]
METHODS: dict[str, Method] = {
    "SIGKILL": kill,
    "SIGKILL of the worker": kill_worker,
    "SIGKILL of all": kill_group,
    "SIGTERM": terminate,
    "Ctrl-C": interrupt,
    "full disk": fill_disk,
    "SIGSTOP and SIGCONT": pause,
}
ENDS_BY_ITSELF = (kill_worker, fill_disk, pause)
"""After these the command ends by itself."""
ACCEPTED = {0, 130, -signal.SIGTERM, -signal.SIGINT}
"""Exit statuses after SIGTERM and Ctrl-C: it had just ended, it was interrupted, or Python had no handler yet."""


@dataclass
class Trial:
    """One kill, and what was wrong after it."""

    number: int
    step: str
    method: str
    moment_s: float
    """Processor time of the command and its processes."""
    hit: bool = True
    """Whether the command was still running at that moment."""
    status: int | None = None
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)


def campaign(
    folder: Path, number: int, seed: int, seconds: float, names: Sequence[str], tell: Callable[[str], None]
) -> list[Trial]:
    """At most `number` kills in at most `seconds` seconds; each appends a line to `kills.jsonl`."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
    workshop = Workshop(folder)
    workshop.prepare(tell)
    steps = [step for step in STEPS if step.is_killed and (not names or step.name in names)]
    started, trials = time.monotonic(), list[Trial]()
    while (hits := sum(trial.hit for trial in trials)) < number:
        if time.monotonic() - started > seconds:
            tell(f"The time is over after {hits} of {number} kills.")
            break
        count = len(trials)
        rng, step = random.Random(f"{seed} {count}"), steps[count % len(steps)]
        method = rng.choice([name for name, method in METHODS.items() if _is_possible(method, step)])
        trial = Trial(count, step.name, method, rng.uniform(0, workshop.seconds[step.name]))
        with workshop.small_disk() if METHODS[method] is fill_disk else contextlib.nullcontext():
            attempt(workshop, step, METHODS[method], trial)
            _record(workshop, trial, tell)
        trials.append(trial)
    return [trial for trial in trials if trial.hit or trial.faults]


def attempt(workshop: Workshop, step: Step, method: Method, trial: Trial) -> None:
    """Kill the step, run it again, and look for faults."""
    started = time.monotonic()
    workshop.reset(step)
    log = workshop.folder / "killed.log"
    trial.faults += _kill(workshop, step, method, trial, log)
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


def _kill(workshop: Workshop, step: Step, method: Method, trial: Trial, log: Path) -> Iterator[str]:
    before = children_seconds()
    command = workshop.start(step, log)
    while command.poll() is None and _seconds(command.pid) < trial.moment_s:
        time.sleep(LOOK_S)
    trial.hit = command.poll() is None
    with contextlib.suppress(ProcessLookupError):
        method(command, workshop)
    try:
        trial.status = command.wait(STUCK_S if method in ENDS_BY_ITSELF else ENDING_S)
    except subprocess.TimeoutExpired:
        yield "the killed command does not end"
        os.killpg(command.pid, signal.SIGKILL)
        command.wait()
    if not trial.hit:
        workshop.seconds[step.name] = children_seconds() - before
    (workshop.data / BALLAST).unlink(missing_ok=True)
    output = log.read_text(errors="replace")
    accepted = {0} if method is pause else ACCEPTED
    if method in (terminate, interrupt, pause) and trial.status not in accepted:
        yield f"ends with {trial.status}: {output[-1000:]}"
    if method in ENDS_BY_ITSELF and "Traceback" in output:
        yield f"a traceback on the terminal: {output[-2000:]}"
    _, alive = psutil.wait_procs(workshop.processes(), ENDING_S)
    for orphan in alive:
        yield f"orphan: {' '.join(orphan.cmdline())}"
        orphan.kill()


def _is_possible(method: Method, step: Step) -> bool:
    return os.geteuid() == 0 if method is fill_disk else step.has_workers or method is not kill_worker


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
    if type(before) is int and type(after) is int:
        return after >= before
    return before == after


def _record(workshop: Workshop, trial: Trial, tell: Callable[[str], None]) -> None:
    with (workshop.folder / "kills.jsonl").open("a") as stream:
        stream.write(json.dumps(asdict(trial)) + "\n")
    outcome = f"{len(trial.faults)} FAULTS" if trial.faults else "as undisturbed"
    missed = "" if trial.hit else ", which came after its end"
    tell(f"{trial.number:3} {trial.step}: {trial.method} at {trial.moment_s:.1f} s{missed}: {outcome}")
    for fault in trial.faults[:10]:
        tell(f"      {fault}")
    if trial.faults:
        kept = workshop.folder / "faults" / str(trial.number)
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir(parents=True)
        shutil.copytree(workshop.data, kept / "data", symlinks=True)
        for name in ("killed.log", "run.log"):
            shutil.copyfile(workshop.folder / name, kept / name)
