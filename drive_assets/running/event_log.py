"""Dagster's event log in SQLite, with connections that stay open. Named in dagster.yaml."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from dagster import StringSource

# Private, and apart from the others in `dagster_private`, because it imports sqlalchemy: loading the definitions does
# not. A log that opens a database for each event would record a fifth as many events a second.
from dagster._core.storage.event_log import SqliteEventLogStorage
from sqlalchemy import Connection, Engine, create_engine, event

MAX_OPEN = 16
"""Databases that a process keeps open: one per run, and the index of all runs."""
BUSY_TIMEOUT_S = 60


class KeptEventLog(SqliteEventLogStorage):
    """Dagster's own log opens a database for each event, closes it again, and waits for the disk each time.

    The files are those of Dagster's own log. A power failure may lose the latest events.
    """

    def __init__(self, base_dir: str, inst_data: Any = None) -> None:
        self._engines: dict[str, Engine] = {}
        super().__init__(base_dir, inst_data)

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        return {"home": StringSource}

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Mapping[str, Any]) -> Self:
        """The log at its default place in DAGSTER_HOME."""
        return cls(str(Path(config_value["home"]) / "history" / "runs"), inst_data)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        with self._db_lock, self._engine(shard).begin() as connection:
            yield connection

    def _engine(self, shard: str) -> Engine:
        engine = self._engines.pop(shard, None) or self._open(shard)
        self._engines[shard] = engine  # in the order of their latest use
        if len(self._engines) > MAX_OPEN:
            self._engines.pop(next(iter(self._engines))).dispose()
        return engine

    def _open(self, shard: str) -> Engine:
        options = {"timeout": BUSY_TIMEOUT_S, "check_same_thread": False}
        engine = create_engine(self.conn_string_for_shard(shard), pool_size=1, connect_args=options)
        event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=NORMAL"))
        if shard not in self._initialized_dbs:
            self._initdb(engine)
            self._initialized_dbs.add(shard)
        return engine
