"""A Slurm cluster as compute, over its own commands: sbatch, squeue, scontrol and scancel. No accounting is needed."""

import hashlib
import os
import shlex
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import dagster as dg
from pydantic import Field

from drive_assets.resources.cluster.batch import State
from drive_assets.resources.cluster.compute import READ_S, ClusterCompute, JobSize
from drive_assets.resources.cluster.job_folder import JobFolder
from drive_assets.resources.cluster.slurm_commands import ALL_JOBS, SlurmCommands
from drive_assets.tasks import RESUME_STATUS
from drive_assets.wire import version
from model.common.errors import DataError
from model.common.files import write_json, write_text

UNSEEN_STATUS = 66
"""Exit status of a job whose node does not see its folder (EX_NOINPUT)."""
PROBE = "drive-assets-probe"
"""Name of the job that looks whether others can run."""


class Size(JobSize):
    """What a job asks for. Empty: what the cluster, or the setting for all tasks, gives."""

    partition: str = ""
    account: str = ""
    qos: str = ""
    time: str = Field(default="1:00:00", description="Time limit as Slurm writes it, such as 1-12:00:00.")
    memory: str = Field(default="16G", description="Memory a job as Slurm writes it; empty: the cluster's default.")
    gres: str = Field(default="gpu:1", description="Generic resources a job, such as gpu:a100:1; empty: none.")
    extra: list[str] = Field(default=[], description="Further options of sbatch, such as --constraint=a100.")
    at_once: int = Field(default=0, ge=0, description="Jobs of an array that run at the same time; 0: no limit.")


class SlurmCompute(ClusterCompute):
    """Jobs on a Slurm cluster whose nodes see the data root at the path at which this machine does."""

    login: str = Field(default="", description="Host to run Slurm's commands on by ssh; empty: this machine.")
    partition: str = Field(default="", description="For all tasks that name none; empty: the cluster's default.")
    account: str = ""
    qos: str = ""
    python: str = Field(default=sys.executable, description="Python with this package on the nodes.")
    prefix: list[str] = Field(
        default=[], description="Words before it, such as apptainer exec --nv image.sif, each an item."
    )
    setup: list[str] = Field(default=[], description="Lines of shell before it, such as module load cuda.")
    end_early_s: int = Field(
        default=120, ge=0, description="Seconds before the time limit at which a job is asked to save and end."
    )
    requeues: int = Field(default=50, ge=0, description="How often a job that ended early goes on by itself.")
    train: Size = Size(time="12:00:00", memory="32G")
    train_detector: Size = Size(time="24:00:00", cpus=8, memory="32G")
    evaluate: Size = Size()
    annotate: Size = Size(per_task=20)

    def size(self, task: str) -> Size:
        size = super().size(task)
        assert isinstance(size, Size)
        return size

    @property
    def commands(self) -> SlurmCommands:
        return SlurmCommands(self.login)

    def _name(self, submission: str) -> str:
        """The name of a submission's job: its beginning tells data roots apart."""
        return f"{hashlib.sha256(self.data_root.encode()).hexdigest()[:8]}-{submission}"

    def worker(self) -> str:
        """The command of the worker, for the shell."""
        return shlex.join([*self.prefix, self.python, "-u", "-m", "drive_assets.worker"])

    # The four verbs

    def submit(self, task: str, name: str, folders: Sequence[JobFolder]) -> list[str]:
        size = self.size(task)
        limit = f"%{size.at_once}" if size.at_once else ""
        array = [f"--array=0-{len(folders) - 1}{limit}"] if len(folders) > 1 else []
        # B: to the script alone, which passes it on once the worker is there.
        early = [f"--signal=B:USR1@{self.end_early_s}"] if self.end_early_s else []
        job = self._sbatch(
            size, [f"--job-name={self._name(name)}", *array, *early, "--requeue"], self._script(name, folders)
        )
        return [f"{job}_{index}" for index in range(len(folders))] if array else [job]

    def states(self) -> Mapping[str, State]:
        return self.commands.states(self._name(""))

    def explained(self, job: str, state: State) -> State:
        return self.commands.explained(job, state, UNSEEN_STATUS, self.jobs)

    def cancel(self, ids: Sequence[str]) -> None:
        if ids:
            self.commands.lines("scancel", *ids)

    def adopt(self, name: str) -> dict[int, str]:
        lines = self.commands.lines("squeue", *ALL_JOBS, "--format=%i", f"--name={self._name(name)}")
        return {int(job.partition("_")[2] or 0): job for job in lines}

    def check(self, task: str, log: dg.DagsterLogManager) -> None:
        """Before the first job with these settings, one of a second: do nodes see the data root, and this version?"""
        size = self.size(task)
        where = [self.login, size.partition or self.partition, self.python, *self.prefix, *self.setup, version()]
        passed = self.jobs / "probes" / f"{uuid.uuid5(uuid.NAMESPACE_URL, repr(where))}.json"
        if passed.is_file():
            return
        folder = self.jobs / "probes" / uuid.uuid4().hex[:12]
        write_text(folder / "question", "")
        code = f"import pathlib; from drive_assets.wire import version; pathlib.Path({str(folder / 'answer')!r})"
        command = shlex.join([*self.prefix, self.python, "-c", f"{code}.write_text(version() + chr(10))"])
        path = f"export PYTHONPATH={shlex.quote(os.environ.get('PYTHONPATH', ''))}"
        script = self._lines_of_script([str(folder)], "log", [path, *self.setup, command])
        small = size.model_copy(update={"time": "5", "cpus": 1, "memory": "", "gres": ""})
        job = self._sbatch(small, [f"--job-name={PROBE}", "--no-requeue"], script)
        log.info(f"Job {job} probes whether the nodes see {self.data_root} and have this version of the package.")
        found = self._answer(job, folder, log)
        if found != version():
            raise DataError(
                f"The nodes have {found} of drive-assets in {self.python}, this machine has {version()}: install the "
                "same version on both, or let them share one folder."
            )
        write_json(passed, {"job": job, "settings": where})

    def _answer(self, job: str, folder: Path, log: dg.DagsterLogManager) -> str:
        """What the probe job wrote. DataError if it ended without a word."""
        asked, ended, reason = time.monotonic(), 0.0, ""
        while True:
            text = (folder / "answer").read_text(encoding="utf-8") if (folder / "answer").is_file() else ""
            if text.endswith("\n"):
                return text.strip()
            if ended and time.monotonic() - ended > self.grace_s:
                said = JobFolder(folder).log_tail("log")
                if said:
                    raise DataError(f"The worker cannot be started on the nodes: job {job} {reason} It said:\n{said}")
                raise DataError(
                    f"The nodes do not see {self.data_root}: job {job} {reason} Put the data root on a file system "
                    "that this machine and all nodes mount at the same path, and name it with DRIVE_ASSETS_DATA."
                )
            if not ended and time.monotonic() - asked >= self.poll_s:
                asked, state = time.monotonic(), self.commands.states(PROBE).get(job, State("gone"))
                if state.phase == "stuck":
                    self.cancel([job])
                    raise DataError(f"The probe job {job} {state.reason}")
                if state.phase in ("ended", "gone"):
                    ended, reason = time.monotonic(), self.explained(job, state).reason or "ended."
            time.sleep(READ_S / 3)

    # What Slurm is told

    def _sbatch(self, size: Size, options: Sequence[str], script: str) -> str:
        chosen = {
            "partition": size.partition or self.partition,
            "account": size.account or self.account,
            "qos": size.qos or self.qos,
            "time": size.time,
            "cpus-per-task": str(size.cpus),
            "mem": size.memory,
            "gres": size.gres,
        }
        asked = [f"--{name}={value}" for name, value in chosen.items() if value]
        fixed = ["--parsable", "--nodes=1", "--ntasks=1", "--export=PATH,HOME,USER,LANG", "--chdir=/",
                 "--output=/dev/null"]  # fmt: skip
        return self.commands.submit([*fixed, *asked, *size.extra, *options], script, [*asked, *size.extra])

    def _script(self, name: str, folders: Sequence[JobFolder]) -> str:
        """The batch script: the worker, Slurm's signals passed on to it, and a requeue where it ended early.

        It outlives SIGTERM, as of a pre-emption, until the worker has saved: Slurm may kill all once it has ended.
        """
        return self._lines_of_script(
            [str(folder.path) for folder in folders],
            name,
            [
                # A line that a killed attempt left unfinished must not join the next one.
                f'echo >>"{name}.messages.jsonl"',
                f'. "./{name}.env"',
                *self.setup,
                f"{self.worker()} & worker=$!",
                "early=0; trap 'told=1; early=1; kill -USR1 $worker' USR1",
                "trap 'told=1; kill -TERM $worker' TERM",
                "told=1; while [ $told = 1 ]; do told=0; wait $worker; status=$?; done",
                # 138: the signal came before the worker listened.
                f"if [ $status = {RESUME_STATUS} ] || {{ [ $early = 1 ] && [ $status = 138 ]; }}; then",
                f'  if [ "${{SLURM_RESTART_COUNT:-0}}" -lt {self.requeues} ] && scontrol requeue "$SLURM_JOB_ID"; then',
                "    sleep 300  # Slurm ends this script",
                "  fi",
                "fi",
                "exit $status",
            ],
        )

    def _lines_of_script(self, folders: Sequence[str], log: str, lines: Sequence[str]) -> str:
        """A script in its folder, whose output goes to a log there; it says by its status that a node sees none."""
        heading = [
            "#!/bin/bash",
            f"folders=({shlex.join(folders)})",
            f'cd "${{folders[${{SLURM_ARRAY_TASK_ID:-0}}]}}" || exit {UNSEEN_STATUS}',
            f'exec >>"{log}.log" 2>&1 || exit {UNSEEN_STATUS}',
        ]
        return "\n".join([*heading, *lines]) + "\n"
