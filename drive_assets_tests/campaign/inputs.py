"""Malformed recordings, each ingested and labelled beside a good neighbour by the command line, in this process."""

import contextlib
import io
import itertools
import os
import random
import re
import resource
import shutil
import signal
import time
from collections.abc import Generator, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import dagster as dg

from drive_assets.cli import main
from drive_assets.resources.storage import Storage
from drive_assets.simulation.config import SimulationConfig
from drive_assets.simulation.drives import simulate_drives
from drive_assets.tasks import ANNOTATE, AnnotateJob
from drive_assets_tests.campaign import mixable_kinds, result_kinds, single_kinds
from drive_assets_tests.campaign.drafts import Draft, Kind
from drive_assets_tests.campaign.trial import Trial
from model.annotation.config import AnnotationConfig
from model.common.errors import DataError
from model.detection.detector import BUNDLED
from model.recording.folder import Recording, inspect_recording

LIMIT_S = 10.0
"""Of this process's time: wall time depends on what else the machine does."""
HANGS_S = 120.0
EVERY = 4
MEMORY_BYTES = 1.5e9
"""What one input may add to the most memory that was used before."""
RAW = re.compile(r"Traceback|not foreseen|\b[A-Za-z]+(?:Error|Exception)\b")
"""What is no sentence for a person."""


def trials(folder: Path, seed: int, names: Sequence[str]) -> Generator[Trial]:
    """First each kind by itself, then as many mixed of two or three, and so on.

    Every fourth is a file that the product has written itself.
    """
    os.environ.update(DRIVE_ASSETS_DATA=str(folder / "data"), OMP_NUM_THREADS="1")
    for variable in ("DAGSTER_HOME", "MLFLOW_TRACKING_URI", "DRIVE_ASSETS_INBOX"):
        os.environ.pop(variable, None)
    pictures, storage = _pictures(folder), Storage.from_environment()
    results, choices = folder / "results", _choices(seed, names)
    if not results.is_dir():
        result_kinds.make(storage, _command, folder / "given", pictures)
        shutil.copytree(storage.root, results, symlinks=True)
    for count in itertools.count():
        trial, rng = Trial(count, ""), random.Random(f"{seed} {count}")
        with _bounded(trial):
            if count % EVERY == EVERY - 1 and not names:
                trial.faults += result_kinds.attempt(storage, results, count // EVERY, rng, _command, trial)
            else:
                trial.faults += _attempt(folder, storage, next(choices), pictures, rng, trial)
        yield trial


def _choices(seed: int, names: Sequence[str]) -> Iterator[dict[str, Kind]]:
    rng, mixable = random.Random(seed), _kinds(mixable_kinds)
    kinds = mixable | _kinds(single_kinds)
    chosen = [name for name in kinds if not names or name in names]
    while True:
        for name in rng.sample(chosen, len(chosen)):
            yield {name: kinds[name]}
        for _ in range(0 if names else len(chosen)):
            mix = rng.sample(list(mixable), rng.randint(2, 3))
            yield {name: kind for name, kind in mixable.items() if name in mix}


def _kinds(module: ModuleType) -> dict[str, Kind]:
    """Public functions of a module, in its order."""
    own = {name: value for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__}
    return {name: kind for name, kind in own.items() if not name.startswith("_")}


@contextlib.contextmanager
def _bounded(trial: Trial) -> Iterator[None]:
    """What takes too long or too much memory, or raises, is a fault of the trial."""
    memory, started = _memory(), time.process_time()
    signal.signal(signal.SIGALRM, _hang)
    signal.setitimer(signal.ITIMER_REAL, HANGS_S)
    try:
        yield
    except Hangs:
        trial.faults.append(f"hangs for {HANGS_S:.0f} s")
    except Exception as error:
        trial.faults.append(f"raises {type(error).__name__}: {error}")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    trial.seconds = time.process_time() - started
    if trial.seconds > LIMIT_S:
        trial.faults.append(f"takes {trial.seconds:.0f} s")
    if _memory() - memory > MEMORY_BYTES:
        trial.faults.append(f"takes {(_memory() - memory) / 1e9:.1f} GB of memory")


def _pictures(folder: Path) -> list[bytes]:
    """A dozen frames of a simulated drive."""
    config = SimulationConfig(recordings=1, duration_s=6, workers=1, fault_rate=0)
    (folder / "simulated").mkdir(parents=True, exist_ok=True)
    (drive,) = simulate_drives(folder / "simulated", config, lambda line: None)
    return [path.read_bytes() for path in sorted(drive.glob("*.jpg"))]


class Hangs(BaseException):
    """Raised in the midst of what takes too long."""


def _attempt(
    folder: Path, storage: Storage, kinds: dict[str, Kind], pictures: list[bytes], rng: random.Random, trial: Trial
) -> Iterator[str]:
    """Write one input, ingest it, label it and look at it."""
    start = datetime(2024, 1, 1, 8) + timedelta(days=trial.number)
    bad = Draft(f"{start:%Y-%m-%d_%H-%M-%S}", pictures)
    good = Draft(f"{start + timedelta(hours=4):%Y-%m-%d_%H-%M-%S}", pictures)
    trial.what = ", ".join(kinds)
    for kind in kinds.values():
        kind(bad, rng)
    if len(bad.harmed) > 3:  # of 60 rows: more than 5 % need not be taken
        bad.may_refuse = True
    given = folder / "given"
    shutil.rmtree(given, ignore_errors=True)
    paths = [bad.write(given), good.write(given)]
    before = _listing(given)
    status, trial.output = _command("ingest", *map(str, paths))
    yield from _wrong_ingest(storage, bad, good, paths[0], status, trial)
    yield from _wrong_labels(storage, bad, good)
    if storage.recording(bad.name).is_dir() and bad.has_other_pictures():
        yield from _wrong_annotations(storage.recording(bad.name), bad, folder)
    if _listing(given) != before:
        yield "the source was changed"
    if list(folder.rglob("evil*")) or list(Path("/tmp").glob("evil*")):
        yield "wrote outside"
    for draft in (bad, good):
        shutil.rmtree(storage.recording(draft.name), ignore_errors=True)


def _wrong_ingest(storage: Storage, bad: Draft, good: Draft, given: Path, status: int, trial: Trial) -> Iterator[str]:
    output, is_taken = trial.output, storage.recording(bad.name).is_dir()
    trial.outcome = "taken" if is_taken else "refused"
    if raw := RAW.search(output):
        yield f"{raw.group()} in its output: {output[-1500:]}"
    yield from (f"is not in its output: {word}" for word in bad.expected_words if word not in output)
    if is_taken and bad.must_refuse:
        yield "taken, though it cannot be right"
    if not is_taken and not (bad.must_refuse or bad.may_refuse):
        yield f"refused, though it can be read: {output[-1500:]}"
    if is_taken != (status == 0):
        yield f"{trial.outcome}, but the status is {status}"
    named = [
        line for line in output.splitlines() if (given.name in line or bad.name in line) and " FAILED: " not in line
    ]
    about = [line for line in named if not line.strip().startswith(good.name)]
    if not is_taken and (len(about) != 1 or len(about[0]) > 1000):
        yield f"{len(about)} sentences that name it instead of a short one: {output[-1500:]}"
    if list((storage.recordings / ".incoming").glob("*")):
        yield "left something in .incoming"


def _wrong_labels(storage: Storage, bad: Draft, good: Draft) -> Iterator[str]:
    drafts = [draft for draft in (bad, good) if storage.recording(draft.name).is_dir()]
    if good not in drafts:
        yield "the neighbour is not taken"
        return
    status, output = _command("run", "--select", "future_labels", "--recordings", *(draft.name for draft in drafts))
    if status != 0 or RAW.search(output):
        yield f"labels end with {status}: {output[-1500:]}"
    for draft in drafts:
        recording = Recording(storage.recording(draft.name))
        who = "neighbour: " if draft is good else ""
        if not recording.labels_path.is_file():
            yield f"{who}no labels: {output[-1500:]}"
            continue
        table, _ = recording.telemetry()
        yield from (f"{who}{line}" for line in draft.wrong_rows(table) + draft.wrong_labels(recording.labels()))


def _wrong_annotations(folder: Path, bad: Draft, campaign: Path) -> Iterator[str]:
    """As the worker does it: each whole frame with a row is annotated, or one sentence says why not."""
    job = AnnotateJob(folder, BUNDLED, campaign / "cache", AnnotationConfig(image_size=160, backend="torch"))
    try:
        report = ANNOTATE.do(job, lambda line: None)
    except DataError as error:
        if not bad.may_refuse or RAW.search(str(error)) or str(folder) not in str(error):
            yield f"frames are refused: {error}"
        return
    usable = inspect_recording(folder).usable_frames
    if not report.frames <= usable <= report.frames + report.unreadable + report.other_size:
        yield f"{usable} usable frames, but annotated {report.frames}, unreadable {report.unreadable}"
    if len(Recording(folder).annotations().filename) != report.frames:
        yield "annotations.csv has another number of frames than its report"


def _command(*arguments: str) -> tuple[int, str]:
    """Exit status and output of a command, and what Dagster records of what failed."""
    output = io.StringIO()
    status: Any = 0
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            main(list(arguments))
        except SystemExit as ended:
            status = ended.code
    if status == 130:
        raise KeyboardInterrupt
    return int(status or 0), output.getvalue() + "".join(f"[event] {text}" for text in _failures())


def _failures() -> Iterator[str]:
    """Descriptions of the failures of the last run."""
    with dg.DagsterInstance.get() as instance:
        for record in instance.get_run_records(limit=1):
            for entry in instance.all_logs(record.dagster_run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
                data = entry.get_dagster_event().step_failure_data.user_failure_data
                text = data.description if data and data.description else "a failure without a description: Exception"
                if RAW.search(text):
                    yield text


def _listing(folder: Path) -> list[tuple[str, int, int]]:
    stats = [(path, path.lstat()) for path in sorted(folder.rglob("*"))]
    return [(str(path), stat.st_size, stat.st_mtime_ns) for path, stat in stats]


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _hang(*_: object) -> None:
    raise Hangs
