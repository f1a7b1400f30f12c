"""Dagster and MLflow on a real PostgreSQL: a small graph, a restart of the server, and the errors without one."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from drive_assets.resources.compute import LocalCompute
from drive_assets.running.home import POSTGRES
from drive_assets.running.instance import GPU_POOL, open_instance
from drive_assets.running.ui import prepare_services
from drive_assets_tests.cluster.small_graph import ARCHITECTURE, NAMES, make
from drive_assets_tests.postgres import PASSWORD, Postgres, postgres, reason_against
from drive_assets_tests.test_graph import annotate
from model.common.errors import DataError

pytestmark = pytest.mark.skipif(bool(reason_against()), reason=f"no PostgreSQL here: {reason_against()}")


@pytest.fixture
def server(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Postgres]:
    with postgres("dagster", "mlflow") as started:
        monkeypatch.setenv(POSTGRES, started.url("dagster"))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", started.url("mlflow"))
        yield started


@pytest.mark.timeout(1500)
def test_the_graph_on_postgres(server: Postgres, data_root: Path) -> None:
    prepare_services()
    with open_instance() as instance:
        assert type(instance.event_log_storage).__name__ == "PostgresEventLogStorage"
        assert [pool.name for pool in instance.event_log_storage.get_pool_limits()] == [GPU_POOL]
        make(data_root, instance, LocalCompute(threads=1), "recording")
        for name in NAMES:
            annotate(data_root / "recordings" / name)
        make(data_root, instance, LocalCompute(threads=1), "future_labels,split_manifest,h5_split")
    server.control("restart", "--mode=fast")
    with open_instance() as instance:
        make(data_root, instance, LocalCompute(threads=1), "checkpoint,evaluation")
        assert instance.get_materialized_partitions(dg.AssetKey("recording")) == set(NAMES)
        assert instance.get_materialized_partitions(dg.AssetKey("evaluation")) == {ARCHITECTURE}
        event = instance.get_latest_materialization_event(dg.AssetKey("checkpoint"))
        assert event is not None and event.asset_materialization is not None
        run_id = str(event.asset_materialization.metadata["mlflow_run"].value).rpartition("/")[2]
    _check_mlflow(server, run_id, data_root)
    assert not list(data_root.rglob("*.db"))  # nothing went into SQLite
    written = [path for path in (data_root / "dagster").rglob("*") if path.is_file()]
    assert [path for path in written if PASSWORD in path.read_text(errors="replace")] == []


def _check_mlflow(server: Postgres, run_id: str, data_root: Path) -> None:
    from mlflow import MlflowClient

    run = MlflowClient(server.url("mlflow")).get_run(run_id)
    assert run.info.status == "FINISHED"
    assert "test_mean_pr_auc" in run.data.metrics
    assert run.info.artifact_uri.startswith((data_root / "mlflow_artifacts").as_uri())


def test_an_unreachable_server_is_reported_without_the_password(server: Postgres) -> None:
    prepare_services()
    server.control("stop", "--mode=fast")
    try:
        with pytest.raises(DataError) as refused:
            open_instance()
    finally:
        server.start()
    assert POSTGRES in str(refused.value)
    assert PASSWORD not in str(refused.value) and "s3cret" not in str(refused.value)


def test_a_home_with_sqlite_is_refused_for_postgres(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(POSTGRES, raising=False)
    open_instance().dispose()
    monkeypatch.setenv(POSTGRES, "postgresql://postgres@/dagster")
    with pytest.raises(DataError, match="does not use PostgreSQL"):
        open_instance()
