"""A tiny graph cut into steps, each with the data root before it and the one that it makes undisturbed."""

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

CONFIG = """
boxy_dataset: {min_box_px: 24.0}
boxy_detector: {batch: 8, workers: 0, warmup_epochs: 0.0, multi_scale: 0.0, mosaic: 0.0, epochs: 2, image_size: 320,
  learning_rate: 0.00005}
annotations: {image_size: 320, backend: torch}
split_manifest: {window: {stride: 1}}
checkpoint: {epochs: 3, batch_size: 32, warmup_epochs: 0, learning_rate: 0.001, embedding_dim: 16, hidden_dim: 16,
  attention_num_heads: 4, decoder_num_layers: 1}
evaluation: {bootstrap_samples: 20}
"""
TWO = ("simple_concat_lstm", "simple_concat_transformer")
MARK = "DRIVE_ASSETS_CAMPAIGN"
"""Environment variable that marks the processes of a campaign, including orphans."""
DISK = "500m"
CLOCK = """
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static long step(void) { char text[32] = ""; return readlink(STEP, text, 31) > 0 ? atol(text) : 0; }
int clock_gettime(clockid_t id, struct timespec *now) {
    int status = syscall(SYS_clock_gettime, id, now);
    if (id == CLOCK_REALTIME) now->tv_sec += step();
    return status;
}
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    int status = syscall(SYS_gettimeofday, now, zone);
    now->tv_sec += step();
    return status;
}
time_t time(time_t *now) { struct timeval t; gettimeofday(&t, 0); return now ? *now = t.tv_sec : t.tv_sec; }
"""
"""A library that shifts the wall clock of the processes that preload it, by the seconds that the link STEP names."""
Evidence = Mapping[str, Any]


@dataclass(frozen=True)
class Step:
    """One command, and evidence of the work that it has done."""

    name: str
    arguments: tuple[str, ...]
    inputs: str = ""
    """Pattern of input files in the data root, two of which may be swapped."""
    has_workers: bool = False
    is_killed: bool = True
    from_nothing: bool = False
    """It starts from an empty data root; other steps start from the result of the step before."""
    done: Callable[[Path], Evidence] = lambda root: {}
    """Work that is published or saved in a data root. A rerun may not repeat it."""
    taken_over: Callable[[Path], Evidence] | None = None
    """The same after the rerun, if it is found elsewhere then. Numbers may be higher."""


def files(pattern: str) -> Callable[[Path], Evidence]:
    """Evidence that files are unchanged: their inodes and times."""

    def done(root: Path) -> Evidence:
        found = ((path, path.stat()) for path in root.glob(pattern) if path.is_file())
        return {str(path.relative_to(root)): (stat.st_ino, stat.st_mtime_ns) for path, stat in found}

    return done


def epochs(root: Path) -> Evidence:
    """Seconds of each epoch of a network, which would differ if it were computed again."""
    found: dict[str, float] = {}
    for folder in (root / "models" / "multimodal").glob("*"):
        for path in (*folder.glob(".work/*/training_history.json"), folder / "training_history.json"):
            if path.is_file():
                rows = json.loads(path.read_text())["epochs"]
                found |= {f"{folder.name} epoch {row['epoch']}": row["epoch_seconds"] for row in rows}
    return found


def detector_epochs(root: Path) -> Evidence:
    """Lines of ultralytics' table, which have a time. The last is written before the weights, so it may repeat."""
    published = (root / "models" / "yolo").is_dir()
    lines = [line for path in root.glob("cache/detector/*/results.csv") for line in path.read_text().splitlines()]
    return dict.fromkeys(lines if published else lines[:-1], True)


def annotated_frames(root: Path) -> Evidence:
    """Annotated frames of each recording, in the result or in the partial file that survives a kill."""
    found = {}
    for folder in (root / "recordings").glob("2*"):
        if (folder / "annotations.json").is_file() and (folder / "annotations.csv").is_file():
            found[folder.name] = json.loads((folder / "annotations.json").read_text())["frames"]
        else:
            found[folder.name] = sum(path.read_bytes().count(b"\n") for path in folder.glob(".annotations.*.partial"))
    return found


def resumed_frames(root: Path) -> Evidence:
    """Frames of each recording that the last run did not annotate again."""
    paths = (root / "recordings").glob("2*/annotations.json")
    return {path.parent.name: json.loads(path.read_text())["resumed"] for path in paths}


def run(select: str, *arguments: str, config: str = "config.yaml") -> tuple[str, ...]:
    return ("run", "--select", select, *arguments, "--config", config)


SIMULATE = ("simulate", "--workers", "2", "--boxy-sequences", "3", "--boxy-frames", "2")
SIX_SECONDS = (*SIMULATE, "--recordings", "2", "--duration", "6")
DRIVES = (*SIMULATE, "--recordings", "4", "--duration", "24")
SPLITS = Step("splits", run("split_manifest,h5_split"), "recordings/2*/annotations.csv")
OTHER_SPLITS = Step("other splits", run("split_manifest,h5_split", config="other.yaml"))
STEPS = (
    Step("simulate", SIX_SECONDS, has_workers=True, from_nothing=True, done=files("simulated/recordings/2*/*")),
    Step("drives", DRIVES, is_killed=False, from_nothing=True),
    Step("recording", run("recording"), "simulated/recordings/2*/telemetry.csv", done=files("recordings/2*/[!.]*")),
    Step("datasets", run("boxy_dataset,nuimages_dataset")),
    Step("detector", run("boxy_detector"), "datasets/boxy_yolo/**/*.txt", has_workers=True, done=detector_epochs),
    Step(
        "annotations",
        run("annotations"),
        "recordings/2*/*.jpg",
        has_workers=True,
        done=annotated_frames,
        taken_over=resumed_frames,
    ),
    Step("labels", run("future_labels"), "recordings/2*/telemetry.csv"),
    SPLITS,
    Step(
        "checkpoint",
        run("checkpoint", "--architectures", *TWO),
        "datasets/multimodal/*.h5",
        has_workers=True,
        done=epochs,
    ),
    Step(
        "evaluation",
        run("evaluation", "--architectures", TWO[0]),
        "models/multimodal/*/best_model.pt",
        has_workers=True,
    ),
    Step("comparison", run("model_comparison")),
)


@dataclass
class Workshop:
    """A folder with the steps' prepared data roots, and a data root `data` whose path never changes."""

    folder: Path
    seconds: dict[str, float] = field(default_factory=dict)
    """Processor time of each step undisturbed, which depends less on the machine's load than wall time."""

    def __post_init__(self) -> None:
        self.data, self.temporary = self.folder / "data", self.folder / "tmp"
        self.temporary.mkdir(parents=True, exist_ok=True)
        self.clock = self.folder / "clock"
        (self.folder / "config.yaml").write_text(CONFIG)
        (self.folder / "other.yaml").write_text(CONFIG.replace("stride: 1", "stride: 2"))
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DAGSTER_", "MLFLOW_"))}
        self.env = kept | {
            "DRIVE_ASSETS_DATA": str(self.data),
            "TMPDIR": str(self.temporary),
            "OMP_NUM_THREADS": "1",
            MARK: str(self.folder),
        }
        if shutil.which("cc"):
            library = self.folder / "clock.so"
            options = ("-shared", "-fPIC", f'-DSTEP="{self.clock}"', "-x", "c", "-", "-o", str(library))
            subprocess.run(["cc", *options], input=CLOCK.encode(), check=True)
            self.env["LD_PRELOAD"] = str(library)

    def after(self, step: Step) -> Path:
        """The data root that a step makes undisturbed."""
        return self.folder / "made" / step.name

    def prepare(self, last: Step) -> None:
        """Run the graph undisturbed up to a step, unless an earlier campaign in this folder has."""
        times = self.folder / "seconds.json"
        if times.is_file():
            self.seconds = json.loads(times.read_text())
        for step in STEPS[: STEPS.index(last) + 1]:
            if step.name in self.seconds:
                continue
            self.reset(step)
            before = children_seconds()
            status, output = self.run(step)
            if status != 0:
                raise SystemExit(f"{step.name} fails undisturbed:\n{output}")
            self.seconds[step.name] = children_seconds() - before
            shutil.rmtree(self.after(step), ignore_errors=True)
            copy(self.data, self.after(step))
            times.write_text(json.dumps(self.seconds))

    def reset(self, step: Step) -> None:
        """Reset `data` to its state before a step."""
        self.data.mkdir(exist_ok=True)
        for path in self.data.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if not step.from_nothing:
            copy(self.after(STEPS[STEPS.index(step) - 1]), self.data)

    @contextlib.contextmanager
    def small_disk(self) -> Iterator[None]:
        """Mount a small disk in memory on `data` for the block. Needs root."""
        self.data.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(self.data)], check=True)
        try:
            yield
        finally:
            subprocess.run(["umount", "--lazy", str(self.data)], check=True)

    def start(self, step: Step, log: Path) -> subprocess.Popen[bytes]:
        """Start the command in its own session, as in a terminal."""
        command = [sys.executable, "-m", "drive_assets.cli", *step.arguments]
        with log.open("wb") as stream:
            return subprocess.Popen(
                command, cwd=self.folder, env=self.env, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
            )

    def run(self, step: Step) -> tuple[int, str]:
        """Run a command to its end; returns its exit status and its output."""
        log = self.folder / "run.log"
        status = self.start(step, log).wait()
        return status, log.read_text(errors="replace")

    def processes(self) -> list[psutil.Process]:
        """Living processes of the campaign's commands, and all that they started."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == str(self.folder) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found


def children_seconds() -> float:
    """Processor time of all processes that this one has waited for, and of their children."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def copy(source: Path, target: Path) -> None:
    """Copy a folder with its times, links and hard links."""
    target.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", f"{source}/.", str(target)], check=True)
