"""Malformed recordings, each ingested and labelled beside a good neighbour by the command line, in this process."""

import contextlib
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from drive_assets.cli import main
from drive_assets.resources.storage import Storage
from drive_assets.simulation.config import SimulationConfig
from drive_assets.simulation.drives import simulate_drives
from drive_assets.tasks import ANNOTATE, AnnotateJob
from drive_assets_tests.campaign import folder_kinds, result_kinds, telemetry_kinds
from drive_assets_tests.campaign.drafts import Draft, Kind
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


@dataclass
class Trial:
    """One input, and what was wrong with how it was taken."""

    number: int
    kinds: list[str] = field(default_factory=list)
    outcome: str = ""
    """taken or refused"""
    seconds: float = 0.0
    said: str = ""
    faults: list[str] = field(default_factory=list)


def campaign(
    folder: Path, number: int, seed: int, seconds: float, names: Sequence[str], log: Callable[[str], None]
) -> list[Trial]:
    """At most so many inputs in at most so many seconds; each appends a line to `inputs.jsonl`.

    First each kind by itself, then as many mixed of two or three, and so on. Every fourth is a file that the product
    has written itself.
    """
    os.environ.update(DRIVE_ASSETS_DATA=str(folder / "data"), OMP_NUM_THREADS="1")
    for variable in ("DAGSTER_HOME", "MLFLOW_TRACKING_URI", "DRIVE_ASSETS_INBOX"):
        os.environ.pop(variable, None)
    pictures = _pictures(folder)
    results, choices = _results(folder, pictures), _choices(seed, names)
    started, trials = time.monotonic(), list[Trial]()
    for count in range(number):
        if time.monotonic() - started > seconds:
            log(f"The time is over after {count} of {number} inputs.")
            break
        trial, rng = Trial(count), random.Random(f"{seed} {count}")
        if count % EVERY == EVERY - 1 and not names:
            _damage_result(results, trial, rng)
        else:
            _Attempt(folder, trial, pictures, rng).run(next(choices))
        trials.append(trial)
        with (folder / "inputs.jsonl").open("a") as stream:
            stream.write(json.dumps(asdict(trial)) + "\n")
        outcome = f"{len(trial.faults)} FAULTS" if trial.faults else trial.outcome
        log(f"{count:3} {', '.join(trial.kinds)}: {outcome} in {trial.seconds:.1f} s")
        for fault in trial.faults:
            log(f"      {fault!r}")
    return trials


def _choices(seed: int, names: Sequence[str]) -> Iterator[dict[str, Kind]]:
    rng, mixable = random.Random(seed), telemetry_kinds.MIXABLE | folder_kinds.MIXABLE
    kinds = mixable | telemetry_kinds.ALONE | folder_kinds.ALONE
    chosen = [name for name in kinds if not names or name in names]
    while True:
        for name in rng.sample(chosen, len(chosen)):
            yield {name: kinds[name]}
        for _ in range(0 if names else len(chosen)):
            mix = rng.sample(list(mixable), rng.randint(2, 3))
            yield {name: kind for name, kind in mixable.items() if name in mix}


def _results(folder: Path, pictures: list[bytes]) -> Path:
    """A data root with results of the product, built once."""
    results = folder / "results"
    if not results.is_dir():
        result_kinds.make(Storage.from_environment(), _command, folder / "given", pictures)
        shutil.copytree(folder / "data", results, symlinks=True)
    return results


def _damage_result(results: Path, trial: Trial, rng: random.Random) -> None:
    with _bounded(trial):
        storage = Storage.from_environment()
        kind, trial.outcome, faults = result_kinds.attempt(storage, results, trial.number // EVERY, rng, _command)
        trial.kinds.append(kind)
        trial.faults += faults


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


class _Attempt:
    """One input: written, ingested, labelled and looked at."""

    def __init__(self, folder: Path, trial: Trial, pictures: list[bytes], rng: random.Random) -> None:
        self.folder, self.trial, self.rng = folder, trial, rng
        self.storage = Storage.from_environment()
        start = datetime(2024, 1, 1, 8) + timedelta(days=trial.number)
        self.bad = Draft(f"{start:%Y-%m-%d_%H-%M-%S}", pictures)
        self.good = Draft(f"{start + timedelta(hours=4):%Y-%m-%d_%H-%M-%S}", pictures)

    def run(self, kinds: Mapping[str, Kind]) -> None:
        for kind in kinds.values():
            kind(self.bad, self.rng)
        if len(self.bad.harmed) > 3:  # of 60 rows: more than 5 % need not be taken
            self.bad.may_refuse = True
        given = self.folder / "given"
        shutil.rmtree(given, ignore_errors=True)
        paths = [self.bad.write(given), self.good.write(given)]
        before = _listing(given)
        self.trial.kinds += kinds
        with _bounded(self.trial):
            self._take([str(path) for path in paths])
        if _listing(given) != before:
            self.fault("the source was changed")
        if list(self.folder.rglob("evil*")) or list(Path("/tmp").glob("evil*")):
            self.fault("wrote outside")
        for draft in (self.bad, self.good):
            shutil.rmtree(self.storage.recording(draft.name), ignore_errors=True)

    def fault(self, text: str) -> None:
        self.trial.faults.append(text)

    def _take(self, paths: list[str]) -> None:
        status, said = _command("ingest", *paths)
        folder = self.storage.recording(self.bad.name)
        self.trial.said = said[-4000:]
        self.trial.outcome = "taken" if folder.is_dir() else "refused"
        self._check_words(said)
        if self.trial.outcome == "taken":
            if self.bad.must_refuse:
                self.fault("taken, though it cannot be right")
            if status != 0:
                self.fault(f"taken, but the status is {status}")
        else:
            self._check_refusal(status, said, paths[0])
        if list((self.storage.recordings / ".incoming").glob("*")):
            self.fault("left something in .incoming")
        self._check_labels()
        if self.trial.outcome == "taken" and self.bad.is_annotated:
            self._check_annotations(folder)

    def _check_words(self, said: str) -> None:
        if raw := RAW.search(said):
            self.fault(f"{raw.group()} in what it says: {said[-1500:]}")
        self.trial.faults += [f"is not in its output: {word}" for word in self.bad.expected_words if word not in said]

    def _check_refusal(self, status: int, said: str, path: str) -> None:
        if not (self.bad.must_refuse or self.bad.may_refuse):
            self.fault(f"refused, though it can be read: {said[-1500:]}")
        if status == 0:
            self.fault("refused with status 0")
        given = (Path(path).name, self.bad.name)
        named = [line for line in said.splitlines() if any(name in line for name in given) and " FAILED: " not in line]
        about = [line for line in named if not line.strip().startswith(self.good.name)]
        if len(about) != 1:
            self.fault(f"{len(about)} sentences that name it instead of one: {said[-1500:]}")
        elif len(about[0]) > 1000:
            self.fault(f"a sentence of {len(about[0])} characters: {about[0][:300]}")

    def _check_labels(self) -> None:
        there = [draft for draft in (self.bad, self.good) if self.storage.recording(draft.name).is_dir()]
        if self.good not in there:
            self.fault("the neighbour is not taken")
            return
        names = [draft.name for draft in there]
        status, said = _command("run", "--select", "future_labels", "--recordings", *names)
        self._check_words_of_labels(status, said)
        for draft in there:
            recording = Recording(self.storage.recording(draft.name))
            who = "neighbour: " if draft is self.good else ""
            if not recording.labels_path.is_file():
                self.fault(f"{who}no labels: {said[-1500:]}")
                continue
            table, _ = recording.telemetry()
            self.trial.faults += [f"{who}{line}" for line in draft.wrong_rows(table)]
            self.trial.faults += [f"{who}{line}" for line in draft.wrong_labels(recording.labels())]

    def _check_words_of_labels(self, status: int, said: str) -> None:
        if status != 0 or RAW.search(said):
            self.fault(f"labels end with {status}: {said[-1500:]}")

    def _check_annotations(self, folder: Path) -> None:
        """As the worker does it: each whole frame with a row is annotated, or one sentence says why not."""
        job = AnnotateJob(folder, BUNDLED, self.folder / "cache", AnnotationConfig(image_size=160, backend="torch"))
        said: list[str] = []
        try:
            report = ANNOTATE.do(job, said.append)
        except DataError as error:
            if not self.bad.may_refuse:
                self.fault(f"frames are refused: {error}")
            elif RAW.search(str(error)) or str(folder) not in str(error):
                self.fault(f"frames are refused without a name: {error}")
            return
        usable = inspect_recording(folder).usable_frames
        if not report.frames <= usable <= report.frames + report.unreadable + report.other_size:
            self.fault(f"{usable} usable frames, but annotated {report.frames}, unreadable {report.unreadable}")
        if len(Recording(folder).annotations().filename) != report.frames:
            self.fault("annotations.csv has another number of frames than its report")


def _command(*arguments: str) -> tuple[int, str]:
    """Exit status and all that a command says, and what Dagster records of what failed."""
    said = io.StringIO()
    status: Any = 0
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            main(list(arguments))
        except SystemExit as ended:
            status = ended.code
    if status == 130:
        raise KeyboardInterrupt
    return int(status or 0), said.getvalue() + "".join(f"[event] {text}" for text in _failures())


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
