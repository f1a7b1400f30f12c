"""Commands for recordings: simulate, ingest, import, forget, sharepoint, video."""

import argparse
import sys
from collections.abc import Sequence

from drive_assets.commands.common import tell, writable_storage
from drive_assets.partitions import register_recordings
from drive_assets.recordings.source import Source
from drive_assets.resources.storage import Storage
from drive_assets.running.instance import open_instance
from drive_assets.running.run_config import AssetConfig
from model.common.errors import DataError
from model.common.progress import Terminal, terminal_of


def simulate(options: argparse.Namespace) -> bool:
    from drive_assets.simulation.clips import simulate_boxy, simulate_nuimages
    from drive_assets.simulation.config import SimulationConfig
    from drive_assets.simulation.drives import simulate_drives

    fields = SimulationConfig.model_fields
    given = {name: value for name, value in vars(options).items() if name in fields and value is not None}
    config, storage = SimulationConfig(**given), writable_storage()
    folder = storage.simulated / "recordings"
    folder.mkdir(parents=True, exist_ok=True)
    if not options.no_boxy:
        simulate_boxy(storage.simulated / "boxy", config, tell)
        simulate_nuimages(storage.simulated / "nuimages", config, tell)
    drives = simulate_drives(folder, config, tell)
    with open_instance() as instance:
        register_recordings(instance, [drive.name for drive in drives])
    tell(f"{len(drives)} drives in {folder}. Next: `drive-assets run`, or `make ui` and materialise.")
    return True


def ingest(options: argparse.Namespace) -> bool:
    from drive_assets.recordings.local import find_all

    config = {"recording": {"pedal_range": options.pedal_range}} if options.pedal_range else {}
    return _take(writable_storage(), *find_all(options.paths), config)


def import_drives(options: argparse.Namespace) -> bool:
    from drive_assets.recordings.imported import find_imports
    from model.imports.draft import draft

    if options.draft:
        if options.kind != "video":
            raise DataError(f"--draft drafts a mapping, which drives of kind {options.kind} do without: leave it out.")
        for path in options.paths:
            tell(draft(path).rstrip())
        return True
    given = {"mapping": options.mapping and str(options.mapping.resolve()), "zone": options.zone}
    sources, refused = find_imports(
        options.kind, options.paths, {name: value for name, value in given.items() if value}
    )
    storage = Storage.from_environment() if options.dry_run else writable_storage()
    there = [source.name for source in sources if storage.recording(source.name).is_dir()]
    tell(f"{len(sources)} drives of kind {options.kind}; {len(there)} of them exist already as recordings")
    if not options.dry_run:
        return _take(storage, sources, refused, {})
    for source in sources:
        tell(f"{source.name}  {source.location}" + ("  (exists already)" if source.name in there else ""))
    _warn(refused)
    return not refused


def _take(storage: Storage, sources: Sequence[Source], refused: Sequence[str], config: AssetConfig) -> bool:
    """Register sources and materialise their recordings; whether all succeeded and nothing was refused."""
    from drive_assets.definitions import defs
    from drive_assets.recordings.sources import register
    from drive_assets.running.materialize import materialize

    _warn(refused)
    if not sources:
        return False
    register(storage, sources)
    names = sorted({source.name for source in sources})
    with open_instance() as instance:
        register_recordings(instance, names)
        succeeded = materialize(defs.get_repository_def(), instance, "recording", names, config=config, tell=tell)
    return succeeded and not refused


def _warn(refused: Sequence[str]) -> None:
    for reason in refused:
        print(f"drive-assets: {reason}", file=sys.stderr)


def forget(options: argparse.Namespace) -> bool:
    from drive_assets.recordings import forget as forgetting

    storage = writable_storage()
    with open_instance() as instance:
        for name in options.names:
            removed = forgetting.forget(instance, storage, name, options.reason)
            tell(f"{name} is forgotten" + (f"; its files are in {removed}" if removed else ""))
    return True


def check_sharepoint(options: argparse.Namespace) -> bool:
    from drive_assets.recordings.sharepoint.check_access import check_access

    return check_access(tell)


def video(options: argparse.Namespace) -> bool:
    from model.annotation.video import SUFFIX, write_video
    from model.evaluation.forecast import predictions_of

    storage = writable_storage()
    folder = storage.recording(options.recording)
    output = options.output or storage.root / "videos" / f"{options.recording}{SUFFIX}"
    terminal = Terminal(terminal_of(sys.stdout))
    frames = write_video(folder, output, options.speed, terminal, predictions=predictions_of(folder))
    terminal.end()
    tell(f"{output}: {frames} frames")
    return True
