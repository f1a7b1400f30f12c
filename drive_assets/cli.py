"""`drive-assets`: a thin command line; each command does what the UI does, on the same Dagster instance."""

import argparse
import shutil
import signal
import sys
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from model.common.errors import DataError

if TYPE_CHECKING:
    from drive_assets.resources.storage import Storage


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit: 0 all succeeded, 1 something failed after the rest went on, 2 wrong input."""
    warnings.filterwarnings("ignore", module="dagster")
    interrupted = threading.Event()

    def interrupt(*_: object) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        for ending in (signal.SIGINT, signal.SIGTERM):  # also between two runs, of which Dagster hears
            signal.signal(ending, interrupt)
    threading.excepthook = _thread_failed
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        sys.exit(0 if options.command(options) else 1)
    except DataError as error:
        print(f"drive-assets: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if interrupted.is_set():  # in the midst of an import, say: Python and libraries raise errors of their own then
            sys.exit(130)
        if not _of_records(error):
            raise
        print(f"drive-assets: {_records_fail(error)}", file=sys.stderr)
        sys.exit(1)


def _of_records(error: BaseException | None) -> bool:
    return type(error).__module__.startswith("sqlalchemy")


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    """A traceback, as by default, unless Dagster's records fail: the main thread soon finds and tells that."""
    if not _of_records(failure.exc_value):
        threading.__excepthook__(failure)


def _records_fail(error: Exception) -> str:
    """Dagster's SQLite writes after each event; a full disk shows there first, as an error of input or output."""
    from drive_assets.running.home import prepare_home

    home, reason = prepare_home(), str(error).splitlines()[0]
    free = shutil.disk_usage(home).free / 1e6
    return (
        f"Dagster's records in {home} cannot be written ({reason}): {free:,.0f} MB are free there. Free some if that "
        "is little, and run the command again: it resumes there."
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="drive-assets", description="Recorded drives to compared models.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    simulate = commands.add_parser("simulate", help="make simulated drives, and frames like those of Boxy and nuImages")
    simulate.add_argument("--recordings", type=int, help="number of drives")
    simulate.add_argument("--duration", type=float, dest="duration_s", help="length of a drive in seconds")
    simulate.add_argument("--seed", type=int)
    simulate.add_argument("--fault-rate", type=float, help="share of rows with a recorder's fault")
    simulate.add_argument("--workers", type=int, help="processes that simulate side by side")
    simulate.add_argument("--boxy-sequences", type=int)
    simulate.add_argument("--boxy-frames", type=int, help="frames in a sequence")
    simulate.add_argument("--no-boxy", action="store_true", help="drives only")
    simulate.set_defaults(command=_simulate)

    ingest = commands.add_parser("ingest", help="take recordings into the data root")
    ingest.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH", help="recording folders, zips, or folders of them"
    )
    ingest.add_argument(
        "--pedal-range",
        nargs=2,
        type=float,
        metavar=("REST", "FULL"),
        help="what the accelerator reads at rest and at full, such as 14.12 81.56: rescaled to 0 to 100 %%",
    )
    ingest.set_defaults(command=_ingest)

    run = commands.add_parser("run", help="materialise assets")
    run.add_argument("--select", default="*", help="Dagster's selection syntax; default everything")
    run.add_argument("--recordings", nargs="+", default=[], metavar="NAME", help="default all")
    run.add_argument("--architectures", nargs="+", default=[], metavar="NAME", help="default all twelve")
    run.add_argument("--weights", type=Path, help="detector for annotations, instead of the trained one")
    run.add_argument("--lacking", action="store_true", help="only what is missing, failed or out of date")
    run.add_argument("--config", type=Path, help="YAML file: config by asset name, as in the launchpad")
    run.set_defaults(command=_run)

    status = commands.add_parser("status", help="what is there, missing, out of date, running and refused")
    status.set_defaults(command=_status)

    forget = commands.add_parser(
        "forget", help="take recordings out, say refused ones; files move to recordings/.removed"
    )
    forget.add_argument("names", nargs="+", metavar="NAME")
    forget.add_argument("--reason", default="", help="stands in the history of the recording")
    forget.set_defaults(command=_forget)

    sharepoint = commands.add_parser("sharepoint", help="recordings that arrive in a SharePoint library")
    check = sharepoint.add_subparsers(required=True, metavar="COMMAND").add_parser(
        "check", help="tell step by step what of the access works and what is missing"
    )
    check.set_defaults(command=_check_sharepoint)

    video = commands.add_parser("video", help="write a video of an annotated recording")
    video.add_argument("recording", metavar="RECORDING", help="name of a recording")
    video.add_argument(
        "--output",
        type=Path,
        help="an .mp4 or .webm file; default <recording>.mp4 in the current folder",
    )
    video.add_argument("--speed", type=float, default=5.0, help="times faster than recorded; default 5")
    video.set_defaults(command=_video)

    demo = commands.add_parser("demo", help="simulated drives through the whole graph")
    demo.set_defaults(command=_demo)

    ready = commands.add_parser(
        "prepare", help="make what services need: DAGSTER_HOME, MLflow's store, the pool's limit"
    )
    ready.set_defaults(command=_prepare)

    ui = commands.add_parser("ui", help="serve Dagster, the report pages and MLflow on loopback")
    ui.add_argument("--host", default="127.0.0.1")
    ui.add_argument("--port", type=int, default=3000)
    ui.add_argument("--mlflow-port", type=int, default=5000)
    ui.add_argument("--reports-port", type=int, default=3001)
    ui.set_defaults(command=_ui)

    reports = commands.add_parser("reports", help="serve the report pages alone, for a Dagster that runs elsewhere")
    reports.add_argument("--host", default="127.0.0.1")
    reports.add_argument("--port", type=int, default=3001)
    reports.set_defaults(command=_reports)
    return parser


def _simulate(options: argparse.Namespace) -> bool:
    from drive_assets.partitions import register_recordings
    from drive_assets.running.instance import open_instance
    from drive_assets.simulation.boxy import simulate_boxy
    from drive_assets.simulation.config import SimulationConfig
    from drive_assets.simulation.drives import simulate_drives
    from drive_assets.simulation.nuimages import simulate_nuimages

    options_of = SimulationConfig.model_fields
    given = {name: value for name, value in vars(options).items() if name in options_of and value is not None}
    config, storage = SimulationConfig(**given), _storage()
    folder = storage.simulated / "recordings"
    folder.mkdir(parents=True, exist_ok=True)
    if not options.no_boxy:
        simulate_boxy(storage.simulated / "boxy", config, _tell)
        simulate_nuimages(storage.simulated / "nuimages", config, _tell)
    drives = simulate_drives(folder, config, _tell)
    register_recordings(open_instance(), [drive.name for drive in drives])
    _tell(f"{len(drives)} drives in {folder}. Next: drive-assets run, or `make ui` and materialise.")
    return True


def _ingest(options: argparse.Namespace) -> bool:
    from drive_assets.definitions import defs
    from drive_assets.partitions import register_recordings
    from drive_assets.recordings.local import find_all
    from drive_assets.recordings.sources import register
    from drive_assets.running.instance import open_instance
    from drive_assets.running.materialize import materialize

    storage = _storage()
    sources, refused = find_all(options.paths)
    for reason in refused:
        print(f"drive-assets: {reason}", file=sys.stderr)
    if not sources:
        return False
    register(storage, sources)
    names = sorted({source.name for source in sources})
    with open_instance() as instance:
        register_recordings(instance, names)
        config = {"recording": {"pedal_range": options.pedal_range}} if options.pedal_range else {}
        done = materialize(defs.get_repository_def(), instance, "recording", names, config=config, tell=_tell)
        return done and not refused


def _run(options: argparse.Namespace) -> bool:
    from drive_assets.definitions import defs
    from drive_assets.resources.backends import compute_from_environment
    from drive_assets.running.instance import open_instance
    from drive_assets.running.materialize import materialize
    from drive_assets.running.pools import set_default_limit
    from drive_assets.running.run_config import read_config

    storage = _storage()
    config = read_config(options.config)
    if options.weights is not None:
        if not options.weights.is_file():
            raise DataError(f"{options.weights} does not exist: expected the weights file of a YOLO detector.")
        config.setdefault("annotations", {})["weights"] = str(options.weights.resolve())
    with open_instance() as instance:
        set_default_limit(instance, compute_from_environment())
        return materialize(
            defs.get_repository_def(),
            instance,
            options.select,
            options.recordings,
            options.architectures,
            config,
            tell=_tell,
            lacking_in=storage if options.lacking else None,
        )


def _status(options: argparse.Namespace) -> bool:
    from drive_assets.definitions import defs
    from drive_assets.resources.storage import Storage
    from drive_assets.running.instance import open_instance
    from drive_assets.status import lines, read_status

    with open_instance() as instance:
        for line in lines(read_status(instance, defs.resolve_asset_graph(), Storage.from_environment())):
            _tell(line)
    return True


def _forget(options: argparse.Namespace) -> bool:
    from drive_assets.recordings.forget import forget
    from drive_assets.running.instance import open_instance

    storage = _storage()
    with open_instance() as instance:
        for name in options.names:
            aside = forget(instance, storage, name, options.reason)
            _tell(f"{name} is forgotten" + (f"; its files lie in {aside}" if aside else ""))
    return True


def _check_sharepoint(options: argparse.Namespace) -> bool:
    from drive_assets.recordings.sharepoint.check_access import check_access

    return check_access(_tell)


def _video(options: argparse.Namespace) -> bool:
    from model.annotation.video import SUFFIX, write_video
    from model.recording.folder import parse_recording_name

    parse_recording_name(options.recording)
    output = options.output or Path(f"{options.recording}{SUFFIX}")
    recording = _storage().recording(options.recording)
    frames = write_video(recording, output, options.speed, _tell)
    _tell(f"{output}: {frames} frames")
    return True


def _demo(options: argparse.Namespace) -> bool:
    from drive_assets.definitions import defs
    from drive_assets.demo import run_demo
    from drive_assets.running.instance import open_instance

    storage = _storage()
    with open_instance() as instance:
        return run_demo(defs.get_repository_def(), instance, storage, tell=_tell)


def _prepare(options: argparse.Namespace) -> bool:
    from drive_assets.running.services import prepare_services

    _storage()
    _tell(f"DAGSTER_HOME is {prepare_services(_tell)}.")
    return True


def _ui(options: argparse.Namespace) -> bool:
    from drive_assets.running.ui import run_ui

    _storage()
    return run_ui(options.host, options.port, options.mlflow_port, options.reports_port, _tell) == 0


def _reports(options: argparse.Namespace) -> bool:
    from drive_assets.definitions import defs
    from drive_assets.reports.server import serve
    from drive_assets.resources.storage import Storage
    from drive_assets.running.instance import open_instance

    with open_instance() as instance:
        serve(options.host, options.port, Storage.from_environment(), instance, defs.resolve_asset_graph())
    return True


def _storage() -> "Storage":
    """The data root that the environment names: it can be written, and nothing of killed processes lies in it."""
    from drive_assets.recordings.ingest import sweep
    from drive_assets.resources.storage import Storage
    from model.common.files import remove_abandoned

    storage = Storage.from_environment()
    storage.check_writable()
    sweep(storage)
    remove_abandoned(storage.root)
    return storage


def _tell(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
