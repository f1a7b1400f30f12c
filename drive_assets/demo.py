"""The demo: simulated drives through the whole graph, small enough for two cores and ten minutes."""

import time

import dagster as dg

from drive_assets.materialize import materialize
from drive_assets.partitions import register_recordings
from drive_assets.presets import QUICK
from drive_assets.recordings.local import find_all
from drive_assets.recordings.sources import register
from drive_assets.resources.storage import Storage
from drive_assets.simulation.boxy import simulate_boxy
from drive_assets.simulation.config import SimulationConfig
from drive_assets.simulation.drives import simulate_drives
from drive_assets.simulation.nuimages import simulate_nuimages
from model.common.progress import Tell

SIMULATION = SimulationConfig(recordings=8, duration_s=180.0, boxy_sequences=6, boxy_frames=20)
NUIMAGES = SIMULATION.replace(boxy_frames=8)


def run_demo(
    repository: dg.RepositoryDefinition,
    instance: dg.DagsterInstance,
    storage: Storage,
    tell: Tell = print,
) -> bool:
    """Simulate, materialise the whole graph, say what was made. Returns whether all succeeded."""
    started = time.monotonic()
    storage.check_writable()
    tell(f"Simulating {SIMULATION.recordings} drives of {SIMULATION.duration_s:.0f} s and frames to train detectors on")
    folder = storage.simulated / "recordings"
    folder.mkdir(parents=True, exist_ok=True)
    simulate_boxy(storage.simulated / "boxy", SIMULATION, tell)
    simulate_nuimages(storage.simulated / "nuimages", NUIMAGES, tell)
    drives = simulate_drives(folder, SIMULATION, tell)
    sources, _ = find_all(drives)
    register(storage, sources)
    register_recordings(instance, [source.name for source in sources])
    names = [source.name for source in sources]
    succeeded = materialize(repository, instance, "*", recordings=names, config=QUICK, tell=tell)
    minutes = (time.monotonic() - started) / 60
    tell(
        f"\n{'All is made' if succeeded else 'Some failed, see above'}, in {minutes:.1f} minutes, under {storage.root}:"
    )
    tell(f"  recordings with annotations and labels   {storage.recordings}")
    tell(f"  detectors                                {storage.boxy_detector.parent}")
    tell(f"  splits                                   {storage.splits}")
    tell(f"  12 checkpoints                           {storage.checkpoints}")
    tell(f"  comparison of all, as a page             {storage.evaluations / 'comparison.html'}")
    tell("Look at the graph, its plots and the MLflow runs with `make ui`.")
    return succeeded
