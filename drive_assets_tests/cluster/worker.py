"""The worker with one more task, whose jobs wait, save and fail on demand."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from drive_assets import worker
from drive_assets.tasks import TASKS, Task, exit_if_requested
from model.common.errors import DataError
from model.common.progress import Log


@dataclass(frozen=True)
class EchoJob:
    output: Path
    text: str
    wait: Path | None = None
    """The job waits for this file."""
    fault: str = ""
    seconds: float = 0.0
    """Duration of the work."""


@dataclass(frozen=True)
class EchoResult:
    text: str
    process: int
    begun: int
    """How often the job has begun."""


def begun(output: Path) -> int:
    return _lines(output.with_suffix(".begun"))


def ended(output: Path) -> int:
    """How often the job was done to its end."""
    return _lines(output.with_suffix(".ended"))


def _lines(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.is_file() else 0


def echo(job: EchoJob, log: Log) -> EchoResult:
    with job.output.with_suffix(".begun").open("a") as stream:
        stream.write(f"{os.getpid()}\n")
    log(f"{job.text} begins")
    if job.fault == "killed once" and begun(job.output) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if job.fault == "hungry":
        content = bytearray(900 * 2**20)
        content[:: 2**12] = b"x" * len(content[:: 2**12])
        time.sleep(60)
    if job.fault == "wrong":
        raise DataError("row 3 is wrong")
    while job.wait and not job.wait.exists():
        time.sleep(0.02)
        exit_if_requested()
    for _ in range(round(job.seconds / 0.05)):
        time.sleep(0.05)
        exit_if_requested()
    job.output.write_text(job.text)
    with job.output.with_suffix(".ended").open("a") as stream:
        stream.write(f"{os.getpid()}\n")
    return EchoResult(job.text, os.getpid(), begun(job.output))


ECHO = Task("echo", EchoJob, EchoResult, echo, lambda job: [], lambda job: job.output)

if __name__ == "__main__":
    TASKS["echo"] = ECHO
    worker.main()
