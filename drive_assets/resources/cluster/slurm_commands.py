"""Slurm's commands, here or on a login node, and what they say."""

import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from drive_assets.resources.cluster.batch import NotNow, State
from model.common.errors import DataError

COMMAND_S = 60.0
ALL_JOBS = ("--noheader", "--array", "--states=all")
WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT")
ENDED = ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED",
         "REVOKED", "TIMEOUT")  # fmt: skip
NEVER = ("BadConstraints", "InvalidAccount", "InvalidQOS", "PartitionNodeLimit", "PartitionTimeLimit", "QOSNotAllowed",
         "DependencyNeverSatisfied")  # fmt: skip
"""Reasons for which a job waits for ever."""
PASSING = ("unable to contact", "socket timed out", "connection refused", "zero bytes", "communication connection",
           "temporarily unable", "temporarily unavailable", "submit limit", "maxsubmit", "job violates accounting/qos",
           "connection timed out", "partition not available", "slurm backup controller",
           "message authentication")  # fmt: skip
"""What Slurm's commands say where the same may succeed later, in lower case."""


@dataclass(frozen=True)
class SlurmCommands:
    """sbatch, squeue, scontrol and scancel. Each raises NotNow if Slurm does not answer."""

    login: str = ""
    """Host to run them on by ssh; empty: this machine."""

    def submit(self, options: Sequence[str], script: str, asked: Sequence[str]) -> str:
        """Submit a script; return the job's id. DataError, with what was `asked` for, if Slurm refuses it."""
        status, out, error = self._call(["sbatch", *options], script)
        if status:
            said = " ".join(error.replace("sbatch: error: ", "").split())
            if _may_pass(error):
                raise NotNow(f"Slurm takes no job at the moment: {said}.")
            raise DataError(
                f"Slurm refused the job: {said}. Asked for: {' '.join(asked)}. `sinfo` lists "
                "partitions, `scontrol show node` what a node has; change the settings of the compute resource."
            )
        return out.strip().splitlines()[-1].split(";")[0]

    def states(self, beginning: str) -> Mapping[str, State]:
        """State, by id, of the user's jobs whose names begin so, ended ones too while Slurm knows them."""
        lines = [line.split("|", 3) for line in self.lines("squeue", *ALL_JOBS, "--me", "--format=%i|%T|%r|%j")]
        return {job: _state(state, reason) for job, state, reason, name in lines if name.startswith(beginning)}

    def explained(self, job: str, state: State, unseen_status: int, folder: Path) -> State:
        """How a job that has ended did so, with what `scontrol` still knows of it.

        Args:
            unseen_status: what it ends with where its node does not see `folder`.
        """
        shown = " ".join(self.lines("scontrol", "show", "job", "--oneliner", job))
        details = dict(pair.split("=", 1) for pair in shown.split() if "=" in pair)
        how = details.get("JobState", state.reason)
        status, _, number = details.get("ExitCode", "0:0").partition(":")
        node, limit = details.get("BatchHost", "its node"), details.get("TimeLimit", "its limit")
        memory = details.get("MinMemoryNode") or details.get("MinMemoryCPU") or "what the cluster gives by default"
        killed = status in ("137", "9") or number == "9"
        if how == "OUT_OF_MEMORY" or (how == "FAILED" and killed):
            sure = "was" if how == "OUT_OF_MEMORY" else "was killed (signal 9) on {node}, most likely"
            text = f"{sure.format(node=node)} out of memory: it had asked for {memory}. Raise `memory` for this task."
            return State("ended", text, passing=how != "OUT_OF_MEMORY", memory=True)
        if how == "FAILED" and status == str(unseen_status):
            return State("ended", f"found no {folder} on {node}: is the file system mounted there?")
        said = {
            "CANCELLED": ("was cancelled, not by this run (scancel).", False),
            "TIMEOUT": (f"reached its time limit of {limit}; run again it resumes. Raise `time` for this task.", True),
            "DEADLINE": ("could not start before its deadline.", False),
            "NODE_FAIL": (f"was lost with its node {node}.", True),
            "BOOT_FAIL": (f"was lost, as its node {node} did not boot.", True),
            "PREEMPTED": ("was pre-empted; run again it resumes.", True),
            "COMPLETED": ("ended without a result.", True),
        }
        text, passing = said.get(how, (f"died on {node} (exit status {status}, signal {number or 0}).", True))
        return State("ended", text, passing)

    def lines(self, *command: str) -> list[str]:
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


def _state(state: str, reason: str) -> State:
    """How a job stands; of one that has ended Slurm's own word for it as the reason."""
    if state in WAITING:
        if reason in NEVER or reason.startswith("Invalid"):
            text = f"never starts: Slurm says {reason}. Change the settings of the compute resource."
            return State("stuck", f"was cancelled, as it {text}", passing=False)
        return State("waiting", reason)
    return State("ended" if state in ENDED else "running", state)
