"""Materialises from the command line what the UI would, on the same instance, so that the UI shows its runs."""

import os
import sys
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from drive_assets.partitions import ARCHITECTURE_PARTITIONS, RECORDINGS, SPLITS, check_known, recording_keys
from drive_assets.reports.records import without_name
from drive_assets.resources.storage import Storage, own_detector
from drive_assets.running.batches import PARTITION, RANGE_END, RANGE_START
from drive_assets.running.instance import end_interrupted_run, lease, wait_for_pools
from drive_assets.running.interrupts import INTERRUPTIONS, raise_missed_interrupts
from drive_assets.running.run_config import AssetConfig, check_config
from drive_assets.status import MAX_NAMED, asset_status, listed, named
from drive_assets.upkeep import TRUSTED
from model.common.errors import DataError
from model.common.progress import TERMINAL, Log, terminal_of

REPOSITORY_TAG = {".dagster/repository": "__repository__@drive_assets.definitions"}
"""Tag with Dagster's name of our code location: the UI lists runs that have it with their jobs and assets."""
EVERYTHING = 'not key:"car_bundle"'
"""What is made unless assets are named: bundles take a while, and a car needs one."""
QUIET: dict[str, Any] = {"console": {"config": {"log_level": "CRITICAL"}}}


def materialize(
    repository: dg.RepositoryDefinition,
    instance: dg.DagsterInstance,
    selection: str,
    recordings: Sequence[str] = (),
    architectures: Sequence[str] = (),
    config: AssetConfig | None = None,
    tell: Log = print,
    needed_in: Storage | None = None,
    dry_run_in: Storage | None = None,
) -> bool:
    """Materialise the selected assets, upstream first, each for its partitions; return whether all succeeded.

    A partition that fails is reported, and what depends on it is left out; the rest continues.

    Args:
        selection: Dagster's selection syntax, such as `annotations` or `+key:checkpoint`; several separated by commas.
        recordings: partition keys; all known ones if empty.
        architectures: partition keys; all twelve if empty.
        config: run config by asset name.
        needed_in: if given, only what is missing, failed or out of date there.
        dry_run_in: if given, what would be made, and its state there, is only reported.

    Raises:
        DataError: an unknown partition key, or a selection that selects nothing.
        KeyboardInterrupt: SIGINT or SIGTERM arrived.
    """
    if terminal := terminal_of(sys.stdout):
        os.environ[TERMINAL] = terminal
    config = config or {}
    graph = repository.asset_graph
    every = [key for level in graph.toposorted_asset_keys_by_level for key in sorted(level)]
    selected = _select(graph, selection)
    ordered = [key for key in every if key in selected]
    if not ordered:
        raise DataError(f"Selection {selection!r} selects nothing: name assets such as recording or model_comparison.")
    keys = _partition_keys(instance, graph, ordered, recordings, architectures, tell)
    check_config(repository, config, ordered, tell)
    with lease(instance) as process:
        tags = {**process, **REPOSITORY_TAG}
        plan = _Plan(repository, instance, ordered, keys, config, tell, needed_in, dry_run_in, tags)
        for key in every:
            plan.make(key)
    return not any(plan.failed[key] for key in ordered)


def _select(graph: Any, selection: str) -> set[dg.AssetKey]:
    try:
        parts = [dg.AssetSelection.from_string(part.strip()) for part in selection.split(",")]
        return set().union(*(part.resolve(graph) for part in parts))
    except Exception as error:  # the parser raises its own types
        raise DataError(f"Selection {selection!r} is not valid: {error}") from error


def _partition_keys(
    instance: dg.DagsterInstance,
    graph: Any,
    ordered: Sequence[dg.AssetKey],
    recordings: Sequence[str],
    architectures: Sequence[str],
    tell: Log,
) -> dict[dg.PartitionsDefinition | None, list[str]]:
    """The keys to make, by kind of partition; [""] for assets without partitions."""
    known = recording_keys(instance)
    check_known(list(recordings), known, "recording")
    check_known(list(architectures), list(ARCHITECTURE_PARTITIONS.get_partition_keys()), "architecture")
    by_recording = any(graph.get(key).partitions_def == RECORDINGS for key in ordered)
    if not recordings and dg.AssetKey("recording") not in ordered and by_recording:
        ingested = instance.get_materialized_partitions(dg.AssetKey("recording"))
        if absent := sorted(set(known) - ingested):
            tell(f"Left out because they are not ingested yet (select recording, too): {', '.join(absent)}")
            known = sorted(set(known) & ingested)
    return {
        None: [""],
        RECORDINGS: sorted(recordings or known),
        SPLITS: list(SPLITS.get_partition_keys()),
        ARCHITECTURE_PARTITIONS: list(architectures or ARCHITECTURE_PARTITIONS.get_partition_keys()),
    }


@dataclass(frozen=True)
class _Plan:
    """What to make, and what can no longer be made."""

    repository: dg.RepositoryDefinition
    instance: dg.DagsterInstance
    ordered: Sequence[dg.AssetKey]
    keys: Mapping[dg.PartitionsDefinition | None, Sequence[str]]
    config: AssetConfig
    tell: Log
    needed_in: Storage | None
    dry_run_in: Storage | None
    tags: Mapping[str, str]
    failed: dict[dg.AssetKey, set[str]] = field(default_factory=dict)
    """Partitions that failed, or were left out because something upstream did; also of assets that are not selected."""
    doubts: dict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))
    """Partitions of the current asset by failed check and what it says."""

    def make(self, key: dg.AssetKey) -> None:
        """Make an asset's partitions, if it is selected, except those that depend on what failed."""
        definition = self.repository.asset_graph.get(key).partitions_def
        wanted = self.keys[definition]
        left_out = self.failed[key] = self._left_out(key, wanted)
        if key not in self.ordered:
            return
        place = f"[{self.ordered.index(key) + 1}/{len(self.ordered)}] {key.to_user_string()}"
        todo = [name for name in self._needed(key, wanted) if name not in left_out]
        if left_out:
            names = f" for {', '.join(sorted(left_out))}" if definition else ""
            self.tell(f"{place} is left out{names}: its inputs failed")
        if not todo:
            return
        if self.dry_run_in is not None:
            self._report_states(place, key, todo, self.dry_run_in)
            return
        started = time.monotonic()
        self.tell(f"{place} for {len(todo)} partition{'s' * (len(todo) > 1)}" if definition else place)
        failed = set(todo).difference(*(self._run(key, tags) for tags in self._ranges(key, todo)))
        self.failed[key] = left_out | failed
        self._report_doubts()
        if failed:
            self.tell(f"{place} FAILED{': ' + ', '.join(sorted(failed)) if definition else ''}")
        else:
            self.tell(f"{place} done in {time.monotonic() - started:.0f} s")

    def _needed(self, key: dg.AssetKey, wanted: Sequence[str]) -> Sequence[str]:
        if self.needed_in is None:
            return wanted
        status = asset_status(self.instance, self.repository.asset_graph, self.needed_in, key)
        return [name for name in wanted if name in status.missing or name in status.outdated or name in status.failed]

    def _report_states(self, place: str, key: dg.AssetKey, names: Sequence[str], storage: Storage) -> None:
        """Report how many partitions are in which state, and why some are failed or out of date."""
        status = asset_status(self.instance, self.repository.asset_graph, storage, key)
        states = {"failed": status.failed, "missing": status.missing, "out of date": status.outdated}
        counts = Counter(next((state for state in states if name in states[state]), "up to date") for name in names)
        self.tell(f"{place}: {', '.join(f'{count} {state}' for state, count in counts.most_common())}")
        reasons = {name: text for name, text in {**status.outdated, **status.failed}.items() if name in names}
        for line in listed(reasons, MAX_NAMED):
            self.tell(f"  {line}")

    def _left_out(self, key: dg.AssetKey, wanted: Sequence[str]) -> set[str]:
        graph = self.repository.asset_graph
        # Given weights replace the detector: it does not matter then whether its training failed.
        given = self.config.get("annotations", {}).get("weights") or own_detector()
        replaced = {dg.AssetKey("boxy_detector")} if given else set()
        left_out: set[str] = set()
        for parent in graph.get(key).parent_keys - replaced:
            failed, definition = self.failed[parent], graph.get(parent).partitions_def
            if definition == graph.get(key).partitions_def:
                left_out |= failed & set(wanted)
                continue
            mapping = graph.get_partition_mapping(key, parent)
            if isinstance(mapping, dg.SpecificPartitionsPartitionMapping):
                is_lost = bool(failed & set(mapping.partition_keys))
            else:  # made from all partitions that exist, such as recordings: one that failed does not matter
                is_lost = bool(failed) and failed >= set(self.keys[definition])
            left_out |= set(wanted) if is_lost else set()
        return left_out

    def _ranges(self, key: dg.AssetKey, names: Sequence[str]) -> list[dict[str, str]]:
        """Run tags that cover partitions with as few contiguous ranges as possible."""
        definition = self.repository.asset_graph.get(key).partitions_def
        if definition is None:
            return [{}]
        with dg.partition_loading_context(dynamic_partitions_store=self.instance):
            ranges = definition.subset_with_partition_keys(names).get_partition_key_ranges(definition)
        return [
            {PARTITION: each.start} if each.start == each.end else {RANGE_START: each.start, RANGE_END: each.end}
            for each in ranges
        ]

    def _run(self, key: dg.AssetKey, tags: dict[str, str]) -> set[str]:
        """Run one asset once. Returns the partition keys that were materialised; "" for an asset without partitions."""
        wait_for_pools(self.instance, self.repository.asset_graph.get(key).pools or set(), self.tell)
        name, run_id = key.to_user_string(), str(uuid.uuid4())
        ops = {name: {"config": dict(self.config[name])}} if name in self.config else {}
        try:
            with raise_missed_interrupts():
                result = self.repository.get_implicit_global_asset_job_def().execute_in_process(
                    instance=self.instance,
                    asset_selection=[key],
                    tags={**tags, **self.tags},
                    partition_key=tags.get(PARTITION),
                    run_config={"ops": ops, "loggers": QUIET},
                    raise_on_error=False,
                    run_id=run_id,
                )
                return self._report(key, result.all_events)
        except INTERRUPTIONS:
            end_interrupted_run(self.instance, run_id)
            raise KeyboardInterrupt from None

    def _report(self, key: dg.AssetKey, events: Sequence[dg.DagsterEvent]) -> set[str]:
        made = {
            event.partition or "": event.step_materialization_data.materialization.metadata
            for event in events
            if event.is_step_materialization and event.asset_key == key
        }
        for partition, metadata in sorted(made.items(), key=lambda item: item[0]):
            if "summary" in metadata:
                self.tell(f"  {partition or key.to_user_string()}: {metadata['summary'].value}")
        for page in sorted({str(metadata["mlflow"].value) for metadata in made.values() if "mlflow" in metadata}):
            self.tell(f"  MLflow (served by `drive-assets ui`, or your server): {page}")
        for event in events:
            if event.is_step_failure:
                errors = list(_causes(event.step_failure_data.error))
                given = event.step_failure_data.user_failure_data
                self.tell(f"  {given.description if given else errors[-1].message.strip() if errors else 'failed'}")
                if {error.cls_name for error in errors} & {interruption.__name__ for interruption in INTERRUPTIONS}:
                    raise KeyboardInterrupt
            elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
                check = event.asset_check_evaluation_data
                if not check.passed and check.check_name != TRUSTED:  # it repeats the other checks
                    partition = check.partition or ""
                    text = without_name(check.description or "", partition)
                    self.doubts[f"check {check.check_name}", text].append(partition)
                    if check.blocking and check.severity == dg.AssetCheckSeverity.ERROR:
                        made.pop(partition, None)  # nothing is made from what a check refuses
        return set(made)

    def _report_doubts(self) -> None:
        """One line for what a check says of several partitions."""
        for (name, text), partitions in self.doubts.items():
            self.tell(f"  {name}: {named(partitions)}: {text}" if any(partitions) else f"  {name}: {text}")
        self.doubts.clear()


def _causes(error: Any) -> Iterator[Any]:
    """An error of a step, and the errors that led to it."""
    while error is not None:
        yield error
        error = error.cause
