"""States of all jobs of a data root, which one process asks Slurm for on behalf of all runs."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import dagster as dg
from filelock import FileLock, Timeout
from pydantic import TypeAdapter

from drive_assets.resources.cluster.commands import SlurmUnavailable, State
from drive_assets.resources.compute import JobsContinue
from model.common.files import write_json

_STATES = TypeAdapter(dict[str, State])
LONGEST_WAIT_S = 60.0


class Queue:
    """A hundred runs that wait for jobs ask Slurm as often as one does: they share its answer in a file."""

    def __init__(self, folder: Path, ask: Callable[[], Mapping[str, State]]) -> None:
        self.path, self.lock, self.ask = folder / ".queue.json", FileLock(folder / ".queue.lock"), ask

    def states(self, max_age_s: float) -> Mapping[str, State] | None:
        """State of each job, by id, at most `max_age_s` old; None while another process is asking.

        Raises:
            SlurmUnavailable: Slurm does not answer, whichever process asked.
        """
        if (known := self._known(max_age_s)) is not None:
            return known
        try:
            with self.lock.acquire(timeout=0):
                known = self._known(max_age_s)
                return self.refresh() if known is None else known
        except Timeout:
            return None

    def refresh(self) -> Mapping[str, State]:
        """Ask Slurm now. Raises SlurmUnavailable if it does not answer."""
        at = time.time()
        try:
            states = self.ask()
        except SlurmUnavailable as error:
            write_json(self.path, {"at": at, "error": str(error)})
            raise
        write_json(self.path, {"at": at, "states": _STATES.dump_python(dict(states), mode="json")})
        return states

    def invalidate(self) -> None:
        """Forget the last answer, which knows nothing of jobs submitted since."""
        with self.lock:
            self.path.unlink(missing_ok=True)

    def _known(self, max_age_s: float) -> Mapping[str, State] | None:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        if not 0 <= time.time() - content["at"] < max_age_s:
            return None
        if "error" in content:
            raise SlurmUnavailable(content["error"])
        return _STATES.validate_python(content["states"])


class Backoff:
    """How often Slurm is asked, and how long to wait for it while it does not answer."""

    def __init__(self, patience_s: float, poll_s: float, log: dg.DagsterLogManager) -> None:
        self.patience_s, self.poll_s, self.log = patience_s, poll_s, log
        self.wait_s, self._since = poll_s, 0.0

    def failed(self, error: SlurmUnavailable) -> None:
        """Warn the first time and double the wait. Raises JobsContinue once `patience_s` is over."""
        now = time.monotonic()
        if not self._since:
            self._since = now
            self.log.warning(f"{error} Retrying for up to {self.patience_s:.0f} s; jobs continue.")
        if now - self._since > self.patience_s:
            raise JobsContinue(f"Gave up after {now - self._since:.0f} s: {error} Jobs continue; a retry adopts them.")
        self.wait_s = min(2 * self.wait_s, max(LONGEST_WAIT_S, self.poll_s))

    def succeeded(self) -> None:
        self._since, self.wait_s = 0.0, self.poll_s
