"""Slurm's commands, here or on a login node, and what their output means."""

import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from model.common.errors import DataError

TIMEOUT_S = 60.0
ALL_JOBS = ("--noheader", "--array", "--states=all")
WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT")
ENDED = ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED",
         "REVOKED", "TIMEOUT")  # fmt: skip
NEVER_STARTS = ("BadConstraints", "InvalidAccount", "InvalidQOS", "PartitionNodeLimit", "PartitionTimeLimit",
                "QOSNotAllowed", "DependencyNeverSatisfied")  # fmt: skip
"""Reasons for which a job waits for ever."""
TRANSIENT = ("unable to contact", "socket timed out", "connection refused", "zero bytes", "communication connection",
             "temporarily unable", "temporarily unavailable", "submit limit", "maxsubmit",
             "job violates accounting/qos", "connection timed out", "partition not available",
             "slurm backup controller", "message authentication")  # fmt: skip
"""Parts of Slurm's error messages, in lower case, after which the same command may succeed later."""


UNSEEN_STATUS = 66
"""Exit status of a job whose node does not see its folder (EX_NOINPUT)."""


class SlurmUnavailable(Exception):
    """Slurm does not answer, or takes no more jobs at the moment."""


@dataclass(frozen=True)
class State:
    """State of a job, as Slurm reports it."""

    phase: Literal["waiting", "running", "stuck", "ended", "unknown"]
    """`stuck`: it can never start. `unknown`: Slurm has no record of it."""
    reason: str = ""
    """For the user: why the job waits or is stuck, or how it ended."""
    retryable: bool = True
    """Whether the same job may succeed without anybody changing anything. For jobs that are stuck or have ended."""


UNKNOWN = State("unknown", "is unknown to Slurm and left no result: it is lost.")


@dataclass(frozen=True)
class SlurmCommands:
    """sbatch, squeue, scontrol and scancel. Each method raises SlurmUnavailable if Slurm does not answer."""

    login: str = ""
    """Host to run them on by ssh; empty: this machine."""

    def submit(self, options: Sequence[str], script: str, requested: Sequence[str]) -> str:
        """Submit a script and return the job's id. If Slurm refuses it, a DataError names what was `requested`."""
        status, out, error = self._call(["sbatch", "--parsable", *options], script)
        if status:
            reason = " ".join(error.replace("sbatch: error: ", "").split())
            if _is_transient(error):
                raise SlurmUnavailable(f"Slurm accepts no jobs at the moment: {reason}.")
            raise DataError(
                f"Slurm refused the job: {reason}. Requested: {' '.join(requested)}. `sinfo` lists partitions, "
                "`scontrol show node` shows the resources of a node; change the settings of the compute resource."
            )
        # A login node may print a greeting before or after the answer of sbatch: "id" or "id;cluster".
        ids = [found[1] for line in out.splitlines() if (found := re.fullmatch(r"(\d+)(;\S+)?", line.strip()))]
        if not ids:
            raise DataError(f"sbatch printed no job id: expected a line with a number, got {out!r}.")
        return ids[-1]

    def states(self, prefix: str) -> Mapping[str, State]:
        """State, by id, of the user's jobs whose names have a prefix, including ended jobs that Slurm still knows."""
        lines = [line.split("|", 3) for line in self.lines("squeue", *ALL_JOBS, "--me", "--format=%i|%T|%r|%j")]
        jobs = [fields for fields in lines if len(fields) == 4 and fields[3].startswith(prefix)]
        return {job: _state(state, reason) for job, state, reason, _ in jobs}

    def ids(self, name: str) -> dict[int, str]:
        """Ids of the jobs of an array with this name, by their index; a single job has index 0."""
        lines = self.lines("squeue", *ALL_JOBS, "--format=%i", f"--name={name}")
        return {int(found[1] or 0): line for line in lines if (found := re.fullmatch(r"\d+(?:_(\d+))?", line))}

    def cancel(self, ids: Sequence[str]) -> None:
        """Cancel jobs. Jobs that have already ended are no error."""
        if ids:
            self.lines("scancel", *ids)

    def explain(self, job: str, state: State, folder: Path) -> State:
        """State of a job in a subfolder of `folder` that ended without a result, with what `scontrol` knows of it."""
        if state.phase == "unknown":
            return state
        shown = " ".join(self.lines("scontrol", "show", "job", "--oneliner", job))
        details = dict(pair.split("=", 1) for pair in shown.split() if "=" in pair)
        name = details.get("JobState", state.reason)
        status, _, signal = details.get("ExitCode", "0:0").partition(":")
        node = details.get("BatchHost", "its node")
        if name == "FAILED" and (status in ("137", "9") or signal == "9"):
            name = "KILLED"
        elif name == "FAILED" and status == str(UNSEEN_STATUS):
            name = "UNSEEN"
        memory = details.get("MinMemoryNode") or details.get("MinMemoryCPU") or "the cluster's default"
        out_of_memory = f"out of memory: it had requested {memory}. Raise `memory` for this task."
        limit = details.get("TimeLimit", "its limit")
        endings = {
            "OUT_OF_MEMORY": (f"ran {out_of_memory}", False),
            "KILLED": (f"was killed (signal 9) on {node}, most likely because it ran {out_of_memory}", True),
            "UNSEEN": (f"found no {folder} on {node}: check that the file system is mounted there.", True),
            "CANCELLED": ("was cancelled, but not by this run (scancel).", False),
            "TIMEOUT": (f"reached its time limit of {limit}. Raise `time` for this task; a new run resumes.", True),
            "DEADLINE": ("could not start before its deadline.", False),
            "COMPLETED": ("ended without a result.", True),
            "FAILED": (f"died on {node} (exit status {status}, signal {signal or 0}).", True),
        }
        text, retryable = endings.get(name, (f"ended as {name} on {node}.", True))
        return State("ended", text, retryable)

    def lines(self, *command: str) -> list[str]:
        """Lines that a Slurm command prints; none for jobs that Slurm does not know."""
        status, out, error = self._call(command)
        if status and _is_transient(error):
            raise SlurmUnavailable(f"{command[0]} gets no answer from Slurm: {' '.join(error.split())}.")
        if status and "invalid job id" not in error.lower():
            raise DataError(f"{shlex.join(command)} failed: {' '.join(error.split())}")
        return out.splitlines()

    def _call(self, command: Sequence[str], script: str = "") -> tuple[int, str, str]:
        """Exit status, output and errors of a command here or on the login node."""
        remote = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20", self.login, "--", shlex.join(command)]
        try:
            ended = subprocess.run(
                remote if self.login else command, input=script, capture_output=True, text=True, timeout=TIMEOUT_S
            )
        except subprocess.TimeoutExpired:
            raise SlurmUnavailable(f"{command[0]} did not end within {TIMEOUT_S:.0f} s.") from None
        except FileNotFoundError as error:
            raise DataError(
                f"{error.filename} is not installed here: install Slurm's commands, or set `login` to a login node."
            ) from error
        if self.login and ended.returncode == 255:
            raise SlurmUnavailable(f"{self.login} cannot be reached by ssh: {' '.join(ended.stderr.split())}.")
        return ended.returncode, ended.stdout, ended.stderr


def _is_transient(error: str) -> bool:
    return any(words in error.lower() for words in TRANSIENT)


def _state(state: str, reason: str) -> State:
    """State of a job; for a job that has ended, Slurm's own word is the reason."""
    if state in WAITING:
        if reason in NEVER_STARTS or reason.startswith("Invalid"):
            text = f"was cancelled: it can never start ({reason}). Change the settings of the compute resource."
            return State("stuck", text, retryable=False)
        return State("waiting", reason)
    return State("ended" if state in ENDED else "running", state)
