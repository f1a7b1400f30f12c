"""What the demo reports at its end."""

from unittest.mock import Mock

import dagster as dg
import pytest

from drive_assets import demo
from drive_assets.recordings.local import LocalSource
from drive_assets.resources.storage import Storage
from drive_assets.running.instance import open_instance


@pytest.mark.parametrize("succeeded", [True, False])
def test_only_a_demo_that_succeeded_has_a_verdict(
    data_root: object, monkeypatch: pytest.MonkeyPatch, succeeded: bool
) -> None:
    """An earlier one may have left its own."""
    for name in ("simulate_boxy", "simulate_nuimages", "simulate_drives"):
        monkeypatch.setattr(demo, name, Mock())
    monkeypatch.setattr(demo, "find_all", Mock(return_value=([LocalSource("2024-05-01_10-00-00", "/drive")], [])))
    monkeypatch.setattr(demo, "materialize", Mock(return_value=succeeded))
    told: list[str] = []
    with open_instance() as instance:
        compared = dg.AssetMaterialization("model_comparison", metadata={"verdict": "the best is better"})
        instance.report_runless_asset_event(compared)
        repository = dg.Definitions().get_repository_def()
        assert demo.run_demo(repository, instance, Storage.from_environment(), told.append) == succeeded
    assert ("Verdict: the best is better." in "\n".join(told)) == succeeded
