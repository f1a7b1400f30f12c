"""One declaration is enough for an asset: everything else derives from it, and a contradictory one fails at load."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from starlette.testclient import TestClient

from drive_assets.asset import asset, bound_checks
from drive_assets.checks import check_result, partition_check
from drive_assets.definitions import defs
from drive_assets.partitions import RECORDINGS, register_recordings
from drive_assets.reports.page import Page
from drive_assets.reports.server import Reports
from drive_assets.resources.storage import Storage
from drive_assets.running.batches import Event, each_partition
from drive_assets.running.instance import open_instance
from drive_assets.status import asset_status
from drive_assets.upkeep import upkeep
from drive_assets_tests.drives import write_drive
from model.common.errors import DataError
from model.common.files import write_json
from model.recording.folder import Recording

NAMES = ["2024-05-01_10-00-00", "2024-05-02_10-00-00"]


def profile_path(storage: Storage, name: str) -> Path:
    return storage.recording(name) / "speed_profile.json"


def profile_page(storage: Storage, name: str) -> Page:
    return Page(f"Speeds of {name}", profile_path(storage, name).read_text())


@partition_check()
def moves(storage: Storage, name: str) -> dg.AssetCheckResult:
    """The vehicle moves."""
    return check_result([] if "true" in profile_path(storage, name).read_text() else ["the vehicle stands"], about=name)


@asset(
    group_name="4_labels",
    deps=["recording"],
    partitions_def=RECORDINGS,
    output=profile_path,
    page=profile_page,
    checks=[moves],
    columns=[("moves", "bool", "whether the vehicle moves")],
    code_version="1",
    kinds={"json"},
)
def speed_profile(context: dg.AssetExecutionContext, storage: Storage) -> Iterator[Event]:
    """Statistics of a drive's speed. **In:** the recording's telemetry. **Out:** whether it moves."""

    def profile(name: str) -> dg.MaterializeResult:
        telemetry, _ = Recording(storage.recording(name)).telemetry()
        write_json(profile_path(storage, name), {"moves": bool(telemetry["SPEED"].max() > 95)})
        return dg.MaterializeResult()

    yield from each_partition(context, profile, bound_checks(context, storage))


def test_a_new_asset_has_checks_a_status_a_job_and_a_page(data_root: Path) -> None:
    storage = Storage.from_environment()
    assets = [*(each for each in defs.assets or () if isinstance(each, dg.AssetsDefinition)), speed_profile]
    extended = dg.Definitions.merge(
        dg.Definitions(assets, jobs=[dg.define_asset_job("profile", [speed_profile])], resources=defs.resources),
        upkeep(assets),
    )
    graph, key = extended.resolve_asset_graph(), speed_profile.key
    assert graph.get(key).metadata["stored"] == "recordings/<recording>/speed_profile.json"
    for rows, name in ((80, NAMES[0]), (2, NAMES[1])):
        write_drive(storage.recording(name), rows=rows)
    with open_instance() as instance:
        register_recordings(instance, NAMES)
        tags = {"dagster/asset_partition_range_start": NAMES[0], "dagster/asset_partition_range_end": NAMES[1]}
        job = extended.resolve_job_def("profile")
        result = job.execute_in_process(instance=instance, tags=tags, resources={"storage": storage})
        checks = {(found.check_name, found.partition): found.passed for found in result.get_asset_check_evaluations()}
        assert checks == {("moves", NAMES[0]): True, ("moves", NAMES[1]): False, ("is_current", None): True}
        client = TestClient(Reports(storage, instance, graph).app(), base_url="http://127.0.0.1")
        page = client.get(f"/speed_profile/{NAMES[1]}").text
        assert f"Speeds of {NAMES[1]}" in page and f"{NAMES[1]}: the vehicle stands" in page
        profile_path(storage, NAMES[0]).unlink()
        status = asset_status(instance, graph, storage, key)
        assert (status.materialised, list(status.outdated)) == (NAMES, NAMES[:1])
        assert dg.AssetCheckKey(key, "is_current") in graph.asset_check_keys
        assert client.get(f"/speed_profile/{NAMES[0]}").status_code == 404


COMPLETE: dict[str, Any] = {
    "group_name": "4_labels",
    "output": Storage.future_labels,
    "page": profile_page,
    "partitions_def": RECORDINGS,
    "code_version": "1",
    "kinds": {"json"},
    "description": "Nothing. **In:** nothing. **Out:** nothing.",
}


def declare(**changes: Any) -> dg.AssetsDefinition:
    def broken() -> None: ...

    return asset(**COMPLETE | changes)(broken)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"description": "Something."}, r"its docstring must name \*\*In:\*\* and \*\*Out:\*\*"),
        ({"group_name": "labels"}, "group_name must be one of 1_recordings"),
        ({"partitions_def": dg.StaticPartitionsDefinition(["a"])}, "partitions_def must be one of"),
        ({"partitions_def": None}, "output must return a path below the data root"),
        ({"partitions_def": None, "checks": [moves]}, "without partitions, its checks are dg.asset_check"),
        ({"output": lambda storage, name: Path(name)}, "output must return a path below the data root"),
        ({"quick": {"epochs": 1}}, "quick sets epochs, which its config does not have"),
    ],
)
def test_a_contradictory_part_is_one_sentence_at_load(changes: dict[str, Any], problem: str) -> None:
    declare()
    with pytest.raises(dg.DagsterInvalidDefinitionError, match=f"^Asset broken: {problem}") as error:
        declare(**changes)
    assert str(error.value).endswith(".")


def test_owners_and_the_address_of_the_code_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIVE_ASSETS_OWNERS", "team:drives, ml@example.com")
    monkeypatch.setenv("DRIVE_ASSETS_CODE_URL", "https://code.example/drives/blob/main/")
    (spec,) = declare().specs
    assert spec.owners == ["team:drives", "ml@example.com"]
    (reference,) = spec.metadata["dagster/code_references"].code_references
    assert reference.url.startswith("https://code.example/drives/blob/main/drive_assets_tests/test_asset.py#L")
    monkeypatch.setenv("DRIVE_ASSETS_OWNERS", "drives")
    with pytest.raises(DataError, match=r"DRIVE_ASSETS_OWNERS is 'drives': expected email addresses or teams such as"):
        declare()
