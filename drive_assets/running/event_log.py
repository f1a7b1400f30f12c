"""Dagster's event log in SQLite, with connections that are kept. Named in dagster.yaml."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

from dagster import EventLogEntry, StringSource
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._serdes import ConfigurableClassData
from sqlalchemy import Connection, Engine, create_engine, event

MOST_OPEN = 16
"""Databases of runs, one a run, that a process keeps open."""


class KeptEventLog(SqliteEventLogStorage):
    """Dagster's own opens a database for each event, and closes it, for which the disk is waited for several times.

    In the files is what Dagster's own would write. A loss of power may take the events of the last moments.
    """

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._engines: dict[str, Engine] = {}
        self._batch = threading.local()
        super().__init__(base_dir, inst_data)

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        return {"home": StringSource}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        """Where Dagster's own would be by default, in DAGSTER_HOME."""
        return cls(str(Path(config_value["home"]) / "history" / "runs"), inst_data)

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store events, such as that so many partitions will be made, in one transaction a database."""
        with self._db_lock, ExitStack() as stack:
            self._batch.connections, self._batch.stack = {}, stack
            try:
                for entry in events:
                    self.store_event(entry)
            finally:
                del self._batch.connections, self._batch.stack

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        batch: dict[str, Connection] | None = getattr(self._batch, "connections", None)
        if batch is None:
            with self._db_lock, self._engine(shard).connect() as connection, connection.begin():
                yield connection
            return
        if shard not in batch:
            batch[shard] = self._batch.stack.enter_context(self._engine(shard).connect())
            self._batch.stack.enter_context(batch[shard].begin())
        yield batch[shard]

    def _engine(self, shard: str) -> Engine:
        engine = self._engines.pop(shard, None) or self._opened(shard)
        self._engines[shard] = engine  # used last, stands last
        runs = [name for name in self._engines if name != INDEX_SHARD_NAME]
        for name in runs[:-MOST_OPEN]:
            self._engines.pop(name).dispose()
        return engine

    def _opened(self, shard: str) -> Engine:
        waits = {"timeout": SQLITE_BUSY_TIMEOUT_SECONDS, "check_same_thread": False}
        engine = create_engine(self.conn_string_for_shard(shard), pool_size=1, connect_args=waits)
        event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=NORMAL"))
        if shard not in self._initialized_dbs:
            self._initdb(engine)
            self._initialized_dbs.add(shard)
        return engine

    def dispose(self) -> None:
        """Close all."""
        super().dispose()
        for engine in self._engines.values():
            engine.dispose()
        self._engines.clear()
