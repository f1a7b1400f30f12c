"""Ticks of the sensors, a SharePoint library on the local Graph server, and a clock that tests put forward."""

import shutil
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from drive_assets.recordings import arrivals
from drive_assets.recordings.arrivals import ArrivalRules
from drive_assets.recordings.inbox import inbox_sensor
from drive_assets.recordings.ingest import IngestReport, ingest
from drive_assets.recordings.local import LocalSource, find_all
from drive_assets.recordings.sharepoint.sensor import sharepoint_sensor
from drive_assets.recordings.sources import lookup
from drive_assets.resources.storage import Storage
from drive_assets_tests.drives import write_drive
from drive_assets_tests.graph_server import GraphServer
from model.common.errors import DataError
from model.common.progress import Log

SETTLING_S = 600.0


class Clock:
    """The sensors' clock: the real one, put forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead

    def settle(self) -> None:
        self.ahead += SETTLING_S + 1


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(arrivals, "now", clock)
    return clock


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(data_root=str(tmp_path / "data"), inbox_root=str(tmp_path / "inbox"))


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    """One for a module: the sensors' state is in their cursor and in the data root."""
    with dg.instance_for_test() as instance:
        yield instance


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """The watched folder, in a library with other things in it."""
    root = tmp_path / "library"
    (root / "Drives").mkdir(parents=True)
    (root / "Office").mkdir()
    (root / "Office" / "notes.txt").write_text("nothing to do with drives")
    return root / "Drives"


@pytest.fixture
def server(library: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GraphServer]:
    with GraphServer(library.parent, page_size=20) as server:
        for name, value in (server.environment() | {"SHAREPOINT_FOLDER": "Drives"}).items():
            monkeypatch.setenv(name, value)
        yield server


class Sensor:
    """A sensor as the daemon runs it: each tick gets the cursor of the one before."""

    def __init__(
        self, definition: dg.SensorDefinition, instance: dg.DagsterInstance, storage: Storage, clock: Clock
    ) -> None:
        self.definition, self.instance, self.storage, self.clock = definition, instance, storage, clock
        self.rules = ArrivalRules(settling_s=SETTLING_S)
        self.cursor: str | None = None
        self.keys: list[str | None] = []
        """Run keys of the last tick."""
        self.text = ""
        """Skip reason of the last tick."""

    def tick(self, is_lost: bool = False) -> list[str | None]:
        """Run one tick; returns the partitions that it requests. Dagster forgets a lost one before it acts on it."""
        resources = {"storage": self.storage, "arrival_rules": self.rules}
        with dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, resources=resources, sensor_name=self.definition.name
        ) as context:
            result = self.definition(context)
        assert isinstance(result, (dg.SensorResult, dg.SkipReason))
        if isinstance(result, dg.SkipReason):
            self.text, self.keys = str(result.skip_message), []
            return []
        if not is_lost:
            self.cursor = result.cursor
        self.text = str(getattr(result.skip_reason, "skip_message", result.skip_reason))
        self.keys = [request.run_key for request in result.run_requests or []]
        added = [key for add in result.dynamic_partitions_requests or [] for key in add.partition_keys]
        names = [request.partition_key for request in result.run_requests or []]
        assert sorted(map(str, names)) == added
        return sorted(names, key=str)

    def ingest(self, name: str, log: Log = lambda line: None) -> IngestReport:
        """Ingest a recording from the source that a tick registered."""
        return ingest(self.storage, lookup(self.storage, name), log)

    @property
    def ingested(self) -> list[str]:
        return sorted(path.name for path in self.storage.recordings.glob("[!.]*"))

    @property
    def cached(self) -> list[str]:
        """Folders of downloads that are kept for retries."""
        return sorted(path.name for path in (self.storage.cache / "downloads").glob("[!.]*"))

    def request_all(self) -> list[str | None]:
        """See what is there, wait until it is settled, and request it."""
        assert self.tick() == []
        self.clock.settle()
        return self.tick()


@pytest.fixture
def sensor(instance: dg.DagsterInstance, storage: Storage, server: GraphServer, clock: Clock) -> Sensor:
    return Sensor(sharepoint_sensor, instance, storage, clock)


@pytest.fixture
def inbox(instance: dg.DagsterInstance, storage: Storage, clock: Clock) -> Sensor:
    """The inbox sensor, on an empty inbox, at a time when all that tests write is settled."""
    clock.settle()
    storage.inbox.mkdir()
    return Sensor(inbox_sensor, instance, storage, clock)


def write_zip(path: Path, drives: list[Path], inside: str = "{name}/") -> Path:
    """A zip of recordings; `inside` is the folder of each in it. Written elsewhere, so that it appears as a whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.parent.parent / "unfinished.zip"
    with zipfile.ZipFile(unfinished, "w") as archive:
        for drive in drives:
            for file in sorted(drive.iterdir()):
                archive.write(file, inside.format(name=drive.name) + file.name)
    shutil.move(unfinished, path)
    return path


def drive(folder: Path, name: str, rows: int = 3, seed: int = 0) -> Path:
    return write_drive(folder / name, rows=rows, seed=seed)


def sketch(folder: Path, *names: str, rows: int = 3) -> Path:
    """The files of recordings as far as a sensor reads them: names and a few bytes. Returns the last recording."""
    for name in names:
        recording = folder / name
        recording.mkdir(parents=True)
        for number in range(rows):
            (recording / f"{name[:10]} {number}.jpg").write_bytes(f"{name} {number}".encode())
        (recording / "telemetry.csv").write_text(f"Time\n{name}\n")
    return recording


def find_recordings(path: Path) -> list[LocalSource]:
    """The recordings at a path. Raises DataError if something there is none."""
    found, refused = find_all([path])
    if refused:
        raise DataError(refused[0])
    return found
