"""Settings of a Slurm cluster: where the worker is, and what a job of each task requests."""

import hashlib
import sys
from abc import ABC
from pathlib import Path
from typing import Annotated, Any, ClassVar

import dagster as dg
from pydantic import ConfigDict, Field, StringConstraints, model_validator

from drive_assets.resources.compute import Compute
from drive_assets.resources.storage import data_root

Word = Annotated[str, StringConstraints(pattern=r"^([\w.,:@%+=/*\[][\w.,:@%+=/*\[\]-]*)?$")]
"""A value of an option of sbatch or ssh: no space, quote or line end, and no dash at its beginning."""


class Size(dg.Config):
    """What a job requests. Empty: the setting for all tasks, or else the cluster's default."""

    model_config = ConfigDict(extra="forbid")

    partition: Word = ""
    account: Word = ""
    qos: Word = ""
    time: Word = Field(default="1:00:00", description="Time limit in Slurm's notation, such as 1-12:00:00.")
    cpus: int = Field(default=4, ge=1, description="CPUs per job; also the threads of torch.")
    memory: Word = Field(default="16G", description="Memory per job in Slurm's notation; empty: the cluster's default.")
    gres: Word = Field(default="gpu:1", description="Generic resources per job, such as gpu:a100:1; empty: none.")
    extra: list[str] = Field(default=[], description="Further options of sbatch, such as --constraint=a100.")
    per_task: int = Field(default=1, ge=1, description="Most partitions that one job does, one after the other.")
    at_once: int = Field(default=0, ge=0, description="Jobs of an array that run at the same time; 0: no limit.")


class SlurmSettings(Compute, ABC):
    """A Slurm cluster whose nodes see the data root at the same path as this machine."""

    data_root: str = Field(
        default_factory=lambda: str(data_root()),
        description="Folder that this machine and the nodes see at the same path.",
    )
    poll_s: float = Field(default=20.0, gt=0, description="Seconds between two questions of a run to Slurm.")
    grace_s: float = Field(
        default=30.0,
        ge=0,
        description="Seconds after a job's end in which its last messages may arrive: file systems show files late.",
    )
    patience_s: float = Field(default=3600.0, ge=0, description="Seconds to wait while Slurm is away or full.")
    runs_at_once: int = Field(
        default=20, ge=1, description="Runs that may have jobs in the queue: the default limit of pool `gpu`."
    )
    login: Word = Field(default="", description="Host to run Slurm's commands on by ssh; empty: this machine.")
    partition: Word = Field(default="", description="For all tasks without their own; empty: the cluster's default.")
    account: Word = ""
    qos: Word = ""
    python: str = Field(default=sys.executable, description="Python with this package on the nodes.")
    prefix: list[str] = Field(
        default=[], description="Words before it, one per item, such as apptainer exec --nv image.sif."
    )
    setup: list[str] = Field(default=[], description="Lines of shell before it, such as module load cuda.")
    end_early_s: int = Field(
        default=120, ge=0, description="Seconds before the time limit at which a job is told to save and end."
    )
    requeues: int = Field(default=50, ge=0, description="How often a job that ended early is queued again.")
    train: Size = Size(time="12:00:00", memory="32G")
    train_detector: Size = Size(time="24:00:00", cpus=8, memory="32G")
    evaluate: Size = Size()
    annotate: Size = Size(per_task=20)

    worker_module: ClassVar[str] = "drive_assets.worker"

    @model_validator(mode="before")
    @classmethod
    def _completed(cls, given: dict[str, Any]) -> dict[str, Any]:
        """A task's size replaces the fields that it names and keeps the others."""
        completed = dict(given)
        for name, field in cls.model_fields.items():
            if isinstance(field.default, Size) and isinstance(size := completed.get(name), dict):
                completed[name] = {**field.default.model_dump(), **size}
        return completed

    @property
    def pool_limit(self) -> int:
        return self.runs_at_once

    @property
    def jobs(self) -> Path:
        return Path(self.data_root) / "jobs"

    @property
    def name_prefix(self) -> str:
        """Prefix of the names of all jobs of this data root."""
        return f"{hashlib.sha256(self.data_root.encode()).hexdigest()[:8]}-"

    def size(self, task: str) -> Size:
        """What a job of a task requests: the field with the task's name."""
        return getattr(self, task)
