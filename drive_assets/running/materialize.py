"""Materialising from the command line what the UI would, on the same instance, so that its runs are seen there."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.storage.tags import REPOSITORY_LABEL_TAG
from dagster._core.utils import make_new_run_id

from drive_assets.partitions import (
    ARCHITECTURE_PARTITIONS,
    RECORDINGS,
    SPLITS,
    check_known,
    recording_keys,
)
from drive_assets.resources.storage import Storage
from drive_assets.running.batches import MAY_PASS, TRIES_TAG
from drive_assets.running.instance import end_interrupted_run, hold_lease, interrupts_heard, process_tag, wait_for_pools
from drive_assets.running.run_config import AssetConfig, check_config
from drive_assets.status import asset_status
from model.common.errors import DataError
from model.common.progress import Tell

OURS = "__repository__@drive_assets.definitions"
"""What the UI calls our code location: runs with this tag are listed with their jobs and assets."""
RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
QUIET: dict[str, Any] = {"console": {"config": {"log_level": "CRITICAL"}}}
REPLACED = {("annotations", "weights"): "boxy_detector"}
"""Options that stand in for an upstream asset: whether it failed does not matter then."""


def materialize(
    repository: dg.RepositoryDefinition,
    instance: dg.DagsterInstance,
    selection: str,
    recordings: Sequence[str] = (),
    architectures: Sequence[str] = (),
    config: AssetConfig | None = None,
    tell: Tell = print,
    lacking_in: Storage | None = None,
    resources: Mapping[str, Any] | None = None,
) -> bool:
    """Materialise the selected assets, upstream first, each for its partitions; return whether all succeeded.

    A failing partition is told and takes only what depends on it along; the rest goes on.

    Args:
        selection: Dagster's selection syntax, such as `annotations` or `+key:checkpoint`; several with commas between.
        recordings: partition keys; all known ones if empty.
        architectures: partition keys; all twelve if empty.
        config: run config by asset name.
        lacking_in: if given, only what is missing, failed or out of date there.
        resources: run config of the resources.

    Raises:
        DataError: an unknown partition key, or a selection that selects nothing.
        KeyboardInterrupt: the user or the system ended it.
    """
    config = config or {}
    graph = repository.asset_graph
    every = [key for level in graph.toposorted_asset_keys_by_level for key in sorted(level)]
    selected = _selected(graph, selection)
    ordered = [key for key in every if key in selected]
    if not ordered:
        raise DataError(f"Selection {selection!r} selects nothing: name assets such as recording or model_comparison.")
    keys_of = _partition_keys(instance, graph, ordered, recordings, architectures, tell)
    check_config(repository, config, ordered, tell)
    hold_lease(instance)
    plan = _Plan(repository, instance, ordered, keys_of, config, resources or {}, tell, lacking_in)
    for key in every:
        plan.make(key)
    return not any(plan.lost[key] for key in ordered)


def _selected(graph: Any, selection: str) -> set[dg.AssetKey]:
    try:
        parts = [dg.AssetSelection.from_string(part.strip()) for part in selection.split(",")]
        return set().union(*(part.resolve(graph) for part in parts))
    except Exception as error:  # the parser's own kinds
        raise DataError(f"Selection {selection!r} cannot be understood: {error}") from error


def _partition_keys(
    instance: dg.DagsterInstance,
    graph: Any,
    ordered: Sequence[dg.AssetKey],
    recordings: Sequence[str],
    architectures: Sequence[str],
    tell: Tell,
) -> dict[dg.PartitionsDefinition | None, list[str]]:
    """The keys to make of each kind of partition; [""] where there are none."""
    known = recording_keys(instance, tell)
    check_known(list(recordings), known, "recording")
    check_known(list(architectures), list(ARCHITECTURE_PARTITIONS.get_partition_keys()), "architecture")
    by_recording = any(graph.get(key).partitions_def == RECORDINGS for key in ordered)
    if not recordings and dg.AssetKey("recording") not in ordered and by_recording:
        there = instance.get_materialized_partitions(dg.AssetKey("recording"))
        if absent := sorted(set(known) - there):
            tell(f"Left out, as they are not taken yet (select recording too): {', '.join(absent)}")
            known = sorted(set(known) & there)
    return {
        None: [""],
        RECORDINGS: sorted(recordings or known),
        SPLITS: list(SPLITS.get_partition_keys()),
        ARCHITECTURE_PARTITIONS: list(architectures or ARCHITECTURE_PARTITIONS.get_partition_keys()),
    }


@dataclass(frozen=True)
class _Plan:
    """What is to be made, and what cannot be made any more."""

    repository: dg.RepositoryDefinition
    instance: dg.DagsterInstance
    ordered: Sequence[dg.AssetKey]
    keys_of: Mapping[dg.PartitionsDefinition | None, Sequence[str]]
    config: AssetConfig
    resources: Mapping[str, Any]
    tell: Tell
    lacking_in: Storage | None
    lost: dict[dg.AssetKey, set[str]] = field(default_factory=dict)
    """Partitions that failed, or were left out as something upstream did; of assets that are not selected too."""

    def make(self, key: dg.AssetKey) -> None:
        """Make an asset's partitions, if it is selected, but for those that depend on what failed."""
        definition = self.repository.asset_graph.get(key).partitions_def
        wanted = self.keys_of[definition]
        left_out = self.lost[key] = self._left_out(key, wanted)
        if key not in self.ordered:
            return
        place = f"[{self.ordered.index(key) + 1}/{len(self.ordered)}] {key.to_user_string()}"
        todo = [name for name in self._lacking(key, wanted) if name not in left_out]
        if left_out:
            names = f" for {', '.join(sorted(left_out))}" if definition else ""
            self.tell(f"{place} is left out{names}: what it is made from failed")
        if not todo:
            return
        started = time.monotonic()
        what = f" for {len(todo)} partition{'s' * (len(todo) > 1)}" if definition else ""
        self.tell(f"{place}{what}")
        failed = set(todo) - self._run_and_retry(key, todo)
        self.lost[key] = left_out | failed
        if failed:
            self.tell(f"{place} FAILED{': ' + ', '.join(sorted(failed)) if definition else ''}")
        else:
            self.tell(f"{place} done in {time.monotonic() - started:.0f} s")

    def _lacking(self, key: dg.AssetKey, wanted: Sequence[str]) -> Sequence[str]:
        """Those that are to be made: all, or what is missing, failed or out of date."""
        if self.lacking_in is None:
            return wanted
        status = asset_status(self.instance, self.repository.asset_graph, self.lacking_in, key)
        return [name for name in wanted if name in status.missing or name in status.stale or name in status.refused]

    def _left_out(self, key: dg.AssetKey, wanted: Sequence[str]) -> set[str]:
        graph = self.repository.asset_graph
        replaced = {
            dg.AssetKey(parent)
            for (asset, option), parent in REPLACED.items()
            if asset == key.to_user_string() and self.config.get(asset, {}).get(option)
        }
        found: set[str] = set()
        for parent in graph.get(key).parent_keys - replaced:
            failed, definition = self.lost[parent], graph.get(parent).partitions_def
            if definition == graph.get(key).partitions_def:
                found |= failed & set(wanted)
                continue
            mapping = graph.get_partition_mapping(key, parent)
            if isinstance(mapping, dg.SpecificPartitionsPartitionMapping):
                is_lost = bool(failed & set(mapping.partition_keys))
            else:  # made from all that are there, such as recordings of which one is broken
                is_lost = bool(failed) and failed >= set(self.keys_of[definition])
            found |= set(wanted) if is_lost else set()
        return found

    def _run_and_retry(self, key: dg.AssetKey, todo: Sequence[str]) -> set[str]:
        """Make these partitions; what failed and may pass is tried again, as the asset's policy says."""
        definition = self.repository.asset_graph.get(key).partitions_def
        policy = self.repository.asset_graph.get(key).assets_def.op.retry_policy
        done: set[str] = set()
        for tries in range(1, 2 + (policy.max_retries if policy else 0)):
            passing = False
            for tags in _ranges([name for name in todo if name not in done], definition, self.instance):
                made, may_pass = self._run(key, tags | ({TRIES_TAG: str(tries - 1)} if tries > 1 else {}))
                done, passing = done | made, passing or may_pass
            if policy is None or not passing or tries > policy.max_retries:
                break
            delay = policy.calculate_delay(tries)
            self.tell(f"  Tried again in {delay:.0f} s, as that may pass by itself; Ctrl-C ends it.")
            time.sleep(delay)
        return done

    def _run(self, key: dg.AssetKey, tags: dict[str, str]) -> tuple[set[str], bool]:
        """Run one asset once.

        Returns:
            The partition keys that were materialised ("" for an asset without partitions), and whether what failed may
            pass by itself.

        Raises:
            KeyboardInterrupt: the user or the system ended it. Dagster takes the signals of a run for itself.
        """
        wait_for_pools(self.instance, self.repository.asset_graph.get(key).pools or set(), self.tell)
        run_id = make_new_run_id()
        try:
            with interrupts_heard():
                result = self.repository.get_implicit_global_asset_job_def().execute_in_process(
                    instance=self.instance,
                    asset_selection=[key],
                    tags={**tags, **process_tag(), REPOSITORY_LABEL_TAG: OURS},
                    partition_key=tags.get("dagster/partition"),
                    run_config=self._run_config(key),
                    raise_on_error=False,
                    run_id=run_id,
                )
                return self._told(key, result.all_events)
        except (DagsterExecutionInterruptedError, KeyboardInterrupt):
            end_interrupted_run(self.instance, run_id)
            raise KeyboardInterrupt from None

    def _run_config(self, key: dg.AssetKey) -> dict[str, Any]:
        name = key.to_user_string()
        ops = {name: {"config": dict(self.config[name])}} if name in self.config else {}
        used = self.repository.asset_graph.get(key).assets_def.required_resource_keys
        resources = {resource: options for resource, options in self.resources.items() if resource in used}
        return {"ops": ops, "resources": resources, "loggers": QUIET}

    def _told(self, key: dg.AssetKey, events: Sequence[dg.DagsterEvent]) -> tuple[set[str], bool]:
        made = {e.partition or "": e for e in events if e.is_step_materialization and e.asset_key == key}
        for partition, event in sorted(made.items()):
            summary = event.step_materialization_data.materialization.metadata.get("summary")
            if summary is not None:
                self.tell(f"  {partition or key.to_user_string()}: {summary.value}")
        pages = (event.step_materialization_data.materialization.metadata.get("mlflow") for event in made.values())
        for page in sorted({str(page.value) for page in pages if page is not None}):
            self.tell(f"  MLflow (served by `drive-assets ui`, or your server): {page}")
        may_pass = False
        for event in events:
            if event.is_step_failure:
                self.tell(_reason(event))
                if _was_interrupted(event):
                    raise KeyboardInterrupt
                may_pass |= _may_pass(event)
            elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
                check = event.asset_check_evaluation_data
                if not check.passed:
                    self.tell(f"  check {check.check_name}: {check.description}")
                if not check.passed and check.blocking and check.severity == dg.AssetCheckSeverity.ERROR:
                    made.pop(check.partition or "", None)  # nothing is to be made from it
        return set(made), may_pass


def _ranges(
    keys: Sequence[str], definition: dg.PartitionsDefinition | None, instance: dg.DagsterInstance
) -> list[dict[str, str]]:
    """Run tags that cover `keys` with as few contiguous ranges as possible."""
    if definition is None:
        return [{}] if keys else []
    order = list(definition.get_partition_keys(dynamic_partitions_store=instance))
    places = sorted(order.index(key) for key in keys)
    ranges: list[list[int]] = []
    for place in places:
        if ranges and place == ranges[-1][1] + 1:
            ranges[-1][1] = place
        else:
            ranges.append([place, place])
    return [
        {"dagster/partition": order[first]} if first == last else {RANGE_START: order[first], RANGE_END: order[last]}
        for first, last in ranges
    ]


def _may_pass(event: dg.DagsterEvent) -> bool:
    data = event.step_failure_data.user_failure_data
    return data is not None and MAY_PASS in data.metadata and bool(data.metadata[MAY_PASS].value)


def _was_interrupted(event: dg.DagsterEvent) -> bool:
    error = event.step_failure_data.error
    while error is not None:
        if error.cls_name in (DagsterExecutionInterruptedError.__name__, KeyboardInterrupt.__name__):
            return True
        error = error.cause
    return False


def _reason(event: dg.DagsterEvent) -> str:
    data = event.step_failure_data
    if data.user_failure_data is not None:
        return f"  {data.user_failure_data.description}"
    error = data.error
    while error is not None and error.cause is not None:
        error = error.cause
    return f"  {error.message.strip() if error else 'failed'}"
