"""The demo: simulated drives through the whole graph, small enough for two cores and ten minutes."""

import os
import sys
import time
from shutil import which

import dagster as dg

from drive_assets.jobs import quick_config
from drive_assets.partitions import register_recordings
from drive_assets.recordings.local import find_all
from drive_assets.recordings.sources import register
from drive_assets.resources.backends import compute_from_environment
from drive_assets.resources.compute import Compute, LocalCompute
from drive_assets.resources.storage import Storage
from drive_assets.running.materialize import EVERYTHING, materialize
from drive_assets.simulation.clips import simulate_boxy, simulate_nuimages
from drive_assets.simulation.config import SimulationConfig
from drive_assets.simulation.drives import simulate_drives
from model.common.processes import usable_cores
from model.common.progress import Log

SIMULATION = SimulationConfig(recordings=10, duration_s=160.0, boxy_sequences=6, boxy_frames=12)
NUIMAGES = SIMULATION.replace(boxy_frames=6)
# A third of the drives is test: intervals from fewer events would be too wide.
SPLITS = {"split_manifest": {"split": {"train": 0.45, "val": 0.2, "test": 0.35}}}
MAX_PROCESSES = 4


def demo_compute() -> Compute:
    """The environment's compute, with a training on each core if it trains on this machine."""
    compute = compute_from_environment()
    if not isinstance(compute, LocalCompute):
        return compute
    processes = max(compute.processes, min(usable_cores(), MAX_PROCESSES))
    return LocalCompute(threads=compute.threads, processes=processes)


def run_demo(
    repository: dg.RepositoryDefinition,
    instance: dg.DagsterInstance,
    storage: Storage,
    tell: Log = print,
) -> bool:
    """Simulate drives, materialise the whole graph, and report outputs, warnings, the verdict and what to do next.

    Returns whether all succeeded.
    """
    started = time.monotonic()
    storage.check_writable()
    tell(
        f"Simulating {SIMULATION.recordings} drives of {SIMULATION.duration_s:.0f} s, and frames to train detectors on"
    )
    folder = storage.simulated / "recordings"
    folder.mkdir(parents=True, exist_ok=True)
    simulate_boxy(storage.simulated / "boxy", SIMULATION, tell)
    simulate_nuimages(storage.simulated / "nuimages", NUIMAGES, tell)
    sources, _ = find_all(simulate_drives(folder, SIMULATION, tell))
    register(storage, sources)
    names = [source.name for source in sources]
    register_recordings(instance, names)
    config = quick_config(repository.assets_defs_by_key.values()) | SPLITS
    warnings: list[str] = []

    def log(line: str) -> None:
        if line.startswith("  check "):
            warnings.append(line)
        tell(line)

    succeeded = materialize(repository, instance, EVERYTHING, recordings=names, config=config, tell=log)
    minutes = (time.monotonic() - started) / 60
    tell(f"\n{'Succeeded' if succeeded else 'Some failed, see above'} in {minutes:.1f} minutes. Below {storage.root}:")
    tell(f"  recordings with annotations and labels   {storage.recordings}")
    tell(f"  detectors                                {storage.boxy_detector.parent}")
    tell(f"  splits                                   {storage.splits}")
    tell(f"  12 checkpoints                           {storage.checkpoints}")
    tell(f"  comparison of all, as a page             {storage.evaluations / 'comparison.html'}")
    if warnings:
        tell("\nWarnings:\n" + "\n".join(dict.fromkeys(warnings)))
        tell("nuimages_detector learns from scratch, too little here to find anything: the demo does not use it.")
    event = instance.get_latest_materialization_event(dg.AssetKey("model_comparison"))
    if succeeded and event is not None:  # else it may be of an earlier demo
        compared = event.asset_materialization
        assert compared is not None
        tell(f"\nVerdict: {compared.metadata['verdict'].value}.")
    tell("\nNext:")
    program = "drive-assets" if which("drive-assets") else os.path.relpath(sys.argv[0])
    for command, purpose in (
        ("ui", "graph, reports and MLflow"),
        (f"video {names[0]}", "a drive as a film"),
        ("ingest PATH", "your own drives"),
    ):
        tell(f"  {program} {command:25}  # {purpose}")
    return succeeded
