"""Commands for recordings: simulate, ingest, forget, sharepoint, video."""

import argparse
import sys
from pathlib import Path
from typing import Any

from drive_assets.commands.common import tell, writable_storage


def add_commands(commands: Any) -> None:
    simulate = commands.add_parser("simulate", help="simulate drives, and frames like those of Boxy and nuImages")
    simulate.add_argument("--recordings", type=int, help="number of drives")
    simulate.add_argument("--duration", type=float, dest="duration_s", help="length of a drive in seconds")
    simulate.add_argument("--seed", type=int)
    simulate.add_argument("--fault-rate", type=float, help="share of rows with a fault of the recorder")
    simulate.add_argument("--workers", type=int, help="processes that simulate in parallel")
    simulate.add_argument("--boxy-sequences", type=int)
    simulate.add_argument("--boxy-frames", type=int, help="frames per sequence")
    simulate.add_argument("--no-boxy", action="store_true", help="drives only")
    simulate.set_defaults(command=_simulate)

    ingest = commands.add_parser("ingest", help="add recordings to the data root")
    ingest.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="recording folders, zips, or their parents")
    ingest.add_argument(
        "--pedal-range",
        nargs=2,
        type=float,
        metavar=("REST", "FULL"),
        help="accelerator values at rest and fully pressed, such as 14.12 81.56: rescaled to 0 to 100 %%",
    )
    ingest.set_defaults(command=_ingest)

    forget = commands.add_parser("forget", help="remove recordings; their files move to recordings/.removed")
    forget.add_argument("names", nargs="+", metavar="NAME")
    forget.add_argument("--reason", default="", help="kept in the history of the recording")
    forget.set_defaults(command=_forget)

    sharepoint = commands.add_parser("sharepoint", help="recordings that arrive in a SharePoint library")
    check = sharepoint.add_subparsers(required=True, metavar="COMMAND").add_parser(
        "check", help="test the access step by step"
    )
    check.set_defaults(command=_check_sharepoint)

    video = commands.add_parser("video", help="write a video of an annotated recording")
    video.add_argument("recording", metavar="RECORDING", help="name of a recording")
    video.add_argument(
        "--output", type=Path, help="an .mp4 or .webm file; default <recording>.mp4 in the current folder"
    )
    video.add_argument("--speed", type=float, default=5.0, help="times faster than recorded; default 5")
    video.set_defaults(command=_video)


def _simulate(options: argparse.Namespace) -> bool:
    from drive_assets.partitions import register_recordings
    from drive_assets.running.instance import open_instance
    from drive_assets.simulation.boxy import simulate_boxy
    from drive_assets.simulation.config import SimulationConfig
    from drive_assets.simulation.drives import simulate_drives
    from drive_assets.simulation.nuimages import simulate_nuimages

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


def _ingest(options: argparse.Namespace) -> bool:
    from drive_assets.definitions import defs
    from drive_assets.partitions import register_recordings
    from drive_assets.recordings.local import find_all
    from drive_assets.recordings.sources import register
    from drive_assets.running.instance import open_instance
    from drive_assets.running.materialize import materialize

    storage = writable_storage()
    sources, refused = find_all(options.paths)
    for reason in refused:
        print(f"drive-assets: {reason}", file=sys.stderr)
    if not sources:
        return False
    register(storage, sources)
    names = sorted({source.name for source in sources})
    config = {"recording": {"pedal_range": options.pedal_range}} if options.pedal_range else {}
    with open_instance() as instance:
        register_recordings(instance, names)
        succeeded = materialize(defs.get_repository_def(), instance, "recording", names, config=config, tell=tell)
    return succeeded and not refused


def _forget(options: argparse.Namespace) -> bool:
    from drive_assets.recordings.forget import forget
    from drive_assets.running.instance import open_instance

    storage = writable_storage()
    with open_instance() as instance:
        for name in options.names:
            removed = forget(instance, storage, name, options.reason)
            tell(f"{name} is forgotten" + (f"; its files are in {removed}" if removed else ""))
    return True


def _check_sharepoint(options: argparse.Namespace) -> bool:
    from drive_assets.recordings.sharepoint.check_access import check_access

    return check_access(tell)


def _video(options: argparse.Namespace) -> bool:
    from model.annotation.video import SUFFIX, write_video
    from model.recording.folder import parse_recording_name

    parse_recording_name(options.recording)
    output = options.output or Path(f"{options.recording}{SUFFIX}")
    frames = write_video(writable_storage().recording(options.recording), output, options.speed, tell)
    tell(f"{output}: {frames} frames")
    return True
