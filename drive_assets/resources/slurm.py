"""A Slurm cluster as compute, over its own commands: sbatch, squeue, scontrol and scancel. No accounting is needed."""

import os
import re
import shlex
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import dagster as dg
from pydantic import Field

from drive_assets.jobs import JobFolder
from drive_assets.resources.cluster import READ_S, ClusterCompute, NotNow, State
from drive_assets.resources.compute import check_names
from drive_assets.resources.storage import data_root
from drive_assets.tasks import RESUME_STATUS
from drive_assets.wire import version
from model.common.errors import DataError
from model.common.files import write_json, write_text

COMMAND_S = 60.0
UNSEEN_STATUS = 66
"""Exit status of a job whose node does not see its folder (EX_NOINPUT)."""
WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT")
ENDED = ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED",
         "REVOKED", "TIMEOUT")  # fmt: skip
NEVER = ("BadConstraints", "InvalidAccount", "InvalidQOS", "PartitionNodeLimit", "PartitionTimeLimit", "QOSNotAllowed",
         "DependencyNeverSatisfied")  # fmt: skip
"""Reasons for which a job waits for ever."""
PASSING = ("unable to contact", "socket timed out", "connection refused", "zero bytes", "communication connection",
           "temporarily unable", "temporarily unavailable", "submit limit", "maxsubmit", "job violates accounting/qos",
           "connection timed out", "slurm backup controller", "message authentication")  # fmt: skip
"""What Slurm's commands say where the same may succeed later, in lower case."""


class Size(dg.Config):
    """What a job asks for. Empty: what the cluster, or the setting for all tasks, gives."""

    partition: str = ""
    account: str = ""
    qos: str = ""
    time: str = Field(default="1:00:00", description="Time limit as Slurm writes it, such as 1-12:00:00.")
    cpus: int = Field(default=4, ge=1, description="CPUs a job; also the threads of torch.")
    memory: str = Field(default="16G", description="Memory a job as Slurm writes it; empty: the cluster's default.")
    gres: str = Field(default="gpu:1", description="Generic resources a job, such as gpu:a100:1; empty: none.")
    extra: list[str] = Field(default=[], description="Further options of sbatch, such as --constraint=a100.")
    per_task: int = Field(default=1, ge=1, description="Partitions that one job does, one after the other, at most.")
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

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """Settings of a file; a task's size there replaces the fields that it names, and leaves the preset's others."""
        chosen = {"data_root": str(data_root()), **settings}
        for name, field in cls.model_fields.items():
            if isinstance(field.default, Size) and isinstance(given := chosen.get(name), Mapping):
                check_names(given, Size)
                chosen[name] = Size(**{**field.default.model_dump(), **given})
        return super().from_settings(chosen)

    def size(self, task: str) -> Size:
        size = getattr(self, task)
        if not isinstance(size, Size):
            raise DataError(f"There is no size for task {task!r}.")
        return size

    def per_task(self, task: str) -> int:
        return self.size(task).per_task

    def environment(self, task: str) -> dict[str, str]:
        threads = str(self.size(task).cpus)
        return {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}

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
        job = self._sbatch(size, [f"--job-name={name}", *array, *early, "--requeue"], self._script(name, folders))
        return [f"{job}_{index}" for index in range(len(folders))] if array else [job]

    def state(self, ids: Sequence[str]) -> dict[str, State]:
        wanted = ",".join(sorted({job.partition("_")[0] for job in ids}))
        lines = self._lines("squeue", "--noheader", "--array", "--states=all", "--format=%i|%T|%r", f"--jobs={wanted}")
        known = {job: (state, reason) for job, state, reason in (line.split("|", 2) for line in lines)}
        return {job: self._state(job, *known[job]) if job in known else State("gone") for job in ids}

    def cancel(self, ids: Sequence[str]) -> None:
        if ids:
            self._lines("scancel", *ids)

    def adopt(self, name: str) -> dict[int, str]:
        lines = self._lines("squeue", "--noheader", "--array", "--states=all", "--format=%i", f"--name={name}")
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
        job = self._sbatch(small, ["--job-name=drive-assets-probe", "--no-requeue"], script)
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
                asked, state = time.monotonic(), self.state([job])[job]
                if state.phase == "stuck":
                    self.cancel([job])
                    raise DataError(f"The probe job {job} {state.reason}")
                if state.phase in ("ended", "gone"):
                    ended, reason = time.monotonic(), state.reason or "ended."
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
        status, out, error = self._call(["sbatch", *fixed, *asked, *size.extra, *options], script)
        if status:
            said = " ".join(error.replace("sbatch: error: ", "").split())
            if _may_pass(error):
                raise NotNow(f"Slurm takes no job at the moment: {said}.")
            raise DataError(
                f"Slurm refused the job: {said}. Asked for: {' '.join([*asked, *size.extra])}. `sinfo` lists "
                "partitions, `scontrol show node` what a node has; change the settings of the compute resource."
            )
        return out.strip().splitlines()[-1].split(";")[0]

    def _script(self, name: str, folders: Sequence[JobFolder]) -> str:
        """The batch script: the worker, Slurm's signal passed on to it, and a requeue where it ended early."""
        return self._lines_of_script(
            [str(folder.path) for folder in folders],
            name,
            [
                # A line that a killed attempt left unfinished must not join the next one.
                f'echo >>"{name}.messages.jsonl"',
                f'. "./{name}.env"',
                *self.setup,
                f"{self.worker()} & worker=$!",
                "early=0; trap 'early=1; kill -USR1 $worker' USR1",
                "wait $worker; status=$?",
                "[ $early = 0 ] || { wait $worker; status=$?; }",
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

    # What Slurm says

    def _state(self, job: str, state: str, reason: str) -> State:
        if state in WAITING:
            if reason in NEVER or reason.startswith("Invalid"):
                text = f"never starts: Slurm says {reason}. Change the settings of the compute resource."
                return State("stuck", f"was cancelled, as it {text}", passing=False)
            return State("waiting", reason)
        return self._ended(job, state) if state in ENDED else State("running", state)

    def _ended(self, job: str, state: str) -> State:
        """How a job ended, with what `scontrol` still knows of it."""
        shown = " ".join(self._lines("scontrol", "show", "job", "--oneliner", job))
        details = dict(pair.split("=", 1) for pair in shown.split() if "=" in pair)
        status, _, number = details.get("ExitCode", "0:0").partition(":")
        node, limit = details.get("BatchHost", "its node"), details.get("TimeLimit", "its limit")
        memory = details.get("MinMemoryNode") or details.get("MinMemoryCPU") or "what the cluster gives by default"
        killed = status in ("137", "9") or number == "9"
        if state == "OUT_OF_MEMORY" or (state == "FAILED" and killed):
            sure = "was" if state == "OUT_OF_MEMORY" else "was killed (signal 9) on {node}, most likely"
            text = f"{sure.format(node=node)} out of memory: it had asked for {memory}. Raise `memory` for this task."
            return State("ended", text, passing=state != "OUT_OF_MEMORY")
        if state == "FAILED" and status == str(UNSEEN_STATUS):
            return State("ended", f"found no {self.jobs} on {node}: is the file system mounted there?")
        said = {
            "CANCELLED": ("was cancelled, not by this run (scancel).", False),
            "TIMEOUT": (f"reached its time limit of {limit}; run again it resumes. Raise `time` for this task.", True),
            "DEADLINE": ("could not start before its deadline.", False),
            "NODE_FAIL": (f"was lost with its node {node}.", True),
            "BOOT_FAIL": (f"was lost, as its node {node} did not boot.", True),
            "PREEMPTED": ("was pre-empted; run again it resumes.", True),
            "COMPLETED": ("ended without a result.", True),
        }
        text, passing = said.get(state, (f"died on {node} (exit status {status}, signal {number or 0}).", True))
        return State("ended", text, passing)

    def _lines(self, *command: str) -> list[str]:
        """Lines that a command of Slurm prints; none for jobs that Slurm does not know."""
        status, out, error = self._call(command)
        if status and _may_pass(error):
            raise NotNow(f"{command[0]} gets no answer from Slurm: {' '.join(error.split())}.")
        if status and "invalid job id" not in error.lower():
            raise DataError(f"{shlex.join(command)} failed: {' '.join(error.split())}")
        return out.splitlines()

    def _call(self, command: Sequence[str], script: str = "") -> tuple[int, str, str]:
        """Exit status, output and errors of a command here or on the login node."""
        remote = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20", self.login, "--", shlex.join(command)]
        try:
            ended = subprocess.run(
                remote if self.login else command, input=script, capture_output=True, text=True, timeout=COMMAND_S
            )
        except subprocess.TimeoutExpired:
            raise NotNow(f"{command[0]} did not end in {COMMAND_S:.0f} s.") from None
        except FileNotFoundError as error:
            raise DataError(
                f"{error.filename} is not installed here: install Slurm's commands, or name a login node in `login`."
            ) from error
        if self.login and ended.returncode == 255:
            raise NotNow(f"{self.login} cannot be reached by ssh: {' '.join(ended.stderr.split())}.")
        return ended.returncode, ended.stdout, ended.stderr


def _may_pass(said: str) -> bool:
    return bool(re.search("|".join(PASSING), said.lower()))
