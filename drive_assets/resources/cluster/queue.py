"""What a cluster says of all jobs of a data root, asked by one process for all that want to know."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import TypeAdapter

from drive_assets.resources.cluster.batch import NotNow, State
from model.common.files import write_json

_STATES = TypeAdapter(dict[str, State])


class Queue:
    """A hundred runs that wait for jobs ask the cluster as often as one does: the answer lies in a file."""

    def __init__(self, folder: Path, ask: Callable[[], Mapping[str, State]]) -> None:
        self.path, self.lock, self.ask = folder / ".queue.json", FileLock(folder / ".queue.lock"), ask

    def states(self, fresh_s: float) -> Mapping[str, State] | None:
        """State of each job, by id, as of `fresh_s` seconds ago or later; None while another process is asking.

        Raises:
            NotNow: the cluster does not answer, whoever asked it.
        """
        if (known := self._known(fresh_s)) is not None:
            return known
        try:
            with self.lock.acquire(timeout=0):
                known = self._known(fresh_s)
                return self.now() if known is None else known
        except Timeout:
            return None

    def now(self) -> Mapping[str, State]:
        """As the cluster says at this moment. NotNow if it does not answer."""
        at = time.time()
        try:
            states = self.ask()
        except NotNow as error:
            write_json(self.path, {"at": at, "error": str(error)})
            raise
        write_json(self.path, {"at": at, "states": _STATES.dump_python(dict(states), mode="json")})
        return states

    def forget(self) -> None:
        """Jobs were submitted: what was said before does not tell of them."""
        with self.lock:
            self.path.unlink(missing_ok=True)

    def _known(self, fresh_s: float) -> Mapping[str, State] | None:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        if not 0 <= time.time() - content["at"] < fresh_s:
            return None
        if "error" in content:
            raise NotNow(content["error"])
        return _STATES.validate_python(content["states"])
