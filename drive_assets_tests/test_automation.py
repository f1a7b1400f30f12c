"""What follows by itself when a recording arrives, and what does not."""

import dagster as dg

from drive_assets.definitions import AUTOMATION, defs
from drive_assets.partitions import register_recordings

NAME = "2024-05-01_10-00-00"


def requested(
    instance: dg.DagsterInstance, earlier: dg.EvaluateAutomationConditionsResult
) -> tuple[set[str], dg.EvaluateAutomationConditionsResult]:
    """Assets that the next tick requests for the recording."""
    result = dg.evaluate_automation_conditions(defs, instance, cursor=earlier.cursor)
    keys = defs.resolve_asset_graph().get_all_asset_keys()
    return {key.to_user_string() for key in keys if NAME in result.get_requested_partitions(key)}, result


def test_a_recording_is_labelled_and_annotated_once_there_is_a_detector() -> None:
    assert AUTOMATION.default_status == dg.DefaultSensorStatus.RUNNING
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.evaluate_automation_conditions(defs, instance)
        register_recordings(instance, [NAME])
        found, result = requested(instance, result)
        assert found == set()  # a name, no recording yet
        instance.report_runless_asset_event(dg.AssetMaterialization("recording", partition=NAME))
        found, result = requested(instance, result)
        assert found == {"future_labels"}
        instance.report_runless_asset_event(dg.AssetMaterialization("boxy_detector"))
        found, result = requested(instance, result)
        assert found == {"annotations"}
        instance.report_runless_asset_event(dg.AssetMaterialization("annotations", partition=NAME))
        instance.report_runless_asset_event(dg.AssetMaterialization("boxy_detector"))
        found, result = requested(instance, result)
        assert found == set()  # a new detector alone does not annotate everything anew
        instance.report_runless_asset_event(dg.AssetMaterialization("recording", partition=NAME))
        found, result = requested(instance, result)
        assert found == {"future_labels", "annotations"}
