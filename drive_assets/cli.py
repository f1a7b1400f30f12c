"""`drive-assets`: each command does what the UI does, on the same Dagster instance."""

import argparse
import errno
import importlib
import os
import re
import signal
import sys
import threading
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from model.common.errors import DataError, did_you_mean
from model.common.processes import hide_from_others
from model.common.progress import wrapped
from model.imports.kinds import KINDS

BROKEN_PIPE = 128 + signal.SIGPIPE
SHORTAGES = (errno.ENOMEM, errno.EMFILE, errno.ENFILE)
LIMITS = "Raise the limits on memory and open files (`ulimit -a`), then run the command again."
ORDER = """from drives to models:
  drive-assets demo                  everything on simulated drives, 10 minutes
  drive-assets ingest ~/drives       add recordings
  drive-assets import tesla ~/clips  drives of other recorders
  drive-assets run --dry-run         list what would be made; without: make it
  drive-assets status                what is made, missing, out of date, failed
  drive-assets ui                    graph, reports and MLflow in the browser

documentation: `make docs` builds it; open site/index.html, also from disk
uninstall: delete the checkout, and the data root if it lies elsewhere
"""
IMPORTS = """kinds:
  video      any video, or a folder of pictures, with any log: CSV, CAN, MDF4,
             MCAP or ROS; mapping.yaml joins them
  tesla      clips of the front camera, with the car's signals in them
  openpilot  routes or segments: rlog or qlog with a video
  zod        sequences and drives of the Zenseact Open Dataset
  l2d        Learning to Drive, a LeRobot data set

examples:
  what the video and the logs hold, to check:
    drive-assets import video ~/drive --draft > ~/drive/mapping.yaml
  one recording:
    drive-assets import video ~/drive
  one mapping for many drives:
    drive-assets import video ~/drives/* --mapping torque-our-car.yaml
  other kinds:
    drive-assets import tesla /media/usb/TeslaCam --zone Europe/Berlin
    drive-assets import openpilot ~/route --dry-run
"""
EXPORTS = """formats:
  lerobot    the data set, in the layout of LeRobot's version 3
  mcap       recordings, for Foxglove and Lichtblick

examples:
  drive-assets export lerobot --output ~/lerobot --zone Europe/Berlin
  drive-assets export mcap 2024-05-31_08-15-00
"""
ASSETS = """examples:
  everything:
    drive-assets run
  what is missing or out of date, up to the checkpoints:
    drive-assets run --select '+key:checkpoint' --lacking
  some partitions:
    drive-assets run --select checkpoint,evaluation,model_comparison \\
      --architectures simple_concat_lstm
    drive-assets run --select annotations --weights detector.pt \\
      --recordings 2024-05-31_08-15-00

assets:
  recording, annotations, future_labels, split_manifest, h5_split, checkpoint,
  evaluation, model_comparison, review_queue, review_gain, predictions,
  boxy_dataset, boxy_detector, nuimages_dataset, nuimages_detector
"""
PREDICTIONS = """examples:
  a recording of the data root, with its report page:
    drive-assets predict 2024-05-31_08-15-00
  any drive; pages and tables in predictions/ of the data root:
    drive-assets predict /media/usb/2024-06-01_09-00-00
  with another network:
    drive-assets predict 2024-05-31_08-15-00 --architecture simple_concat_lstm

A drive without annotations is annotated first.
"""
VIEW = """moments: found, missed, alarm, false-alarm, each with its number in the drive,
such as false-alarm-2.

Needs the extra viewer: pip install 'drive-assets[viewer]'. The viewer is
started without analytics, on loopback only.
"""
COMPLETE = """to switch it on:
  eval "$(drive-assets completion)"       bash, in ~/.bashrc
  eval "$(drive-assets completion zsh)"   zsh, in ~/.zshrc below compinit
  drive-assets completion fish | source   fish, in ~/.config/fish/config.fish
"""


class Parser(argparse.ArgumentParser):
    """Begins its errors with the sentence, and reports an unknown option where the options are known."""

    def parse_known_args(self, *arguments: Any) -> Any:  # type: ignore[override]
        options, unknown = super().parse_known_args(*arguments)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return options, unknown

    def error(self, message: str) -> NoReturn:
        problem, _, choices = message.partition(" (choose from ")
        known = re.findall(r"[\w-]+", choices or self.format_usage())
        word = problem.split(" ")[-1].strip("'")
        hint = did_you_mean(word, known) + f" `{self.prog} --help` lists what there is."
        self.exit(2, wrapped(f"{self.prog}: {problem}.{hint}", sys.stderr) + "\n")


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit: 0 all succeeded, 1 something failed after the rest was done, 2 wrong input."""
    warnings.filterwarnings("ignore", module="dagster")
    hide_from_others()
    interrupted = _handle_interrupts()
    options = parser().parse_args(sys.argv[1:] or ["--help"] if arguments is None else arguments)
    try:
        module, function = options.command.split(".")
        # Heavy modules are imported by the command that needs them, so that `--help` is quick.
        command = getattr(importlib.import_module(f"drive_assets.commands.{module}"), function)
        status = 0 if command(options) else 1
        sys.stdout.flush()
    except DataError as error:
        status = _fail(error, 2)
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:  # the reader of a pipe has ended, as in `drive-assets status | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it at exit
        status = BROKEN_PIPE
    except Exception as error:
        status = 130 if interrupted.is_set() else _explain(error)
    sys.exit(status)


def parser() -> argparse.ArgumentParser:
    """The parser of all commands; `options.command` is module.function in `drive_assets.commands`."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser(
        "drive-assets", description="From recorded drives to compared models.", epilog=ORDER, formatter_class=raw
    )
    parser.add_argument("--version", action="version", version=f"drive-assets {version('drive-assets')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, function: str, text: str, epilog: str = "") -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text, epilog=epilog, formatter_class=raw)
        command.set_defaults(command=function)
        return command

    add("demo", "graph.demo", "simulated drives through the whole graph")

    simulate = add("simulate", "recordings.simulate", "simulate drives, and frames like those of Boxy and nuImages")
    simulate.add_argument("--recordings", type=int, help="number of drives")
    simulate.add_argument("--duration", type=float, dest="duration_s", help="length of a drive in seconds")
    simulate.add_argument("--seed", type=int)
    simulate.add_argument("--fault-rate", type=float, help="share of rows with a fault of the recorder")
    simulate.add_argument("--workers", type=int, help="processes that simulate in parallel")
    simulate.add_argument("--boxy-sequences", type=int)
    simulate.add_argument("--boxy-frames", type=int, help="frames per sequence")
    simulate.add_argument("--no-boxy", action="store_true", help="drives only")

    ingest = add("ingest", "recordings.ingest", "add recordings to the data root")
    ingest.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="recording folders, zips, or their parents")
    pedal = "accelerator values at rest and fully pressed, such as 14.12 81.56: rescaled to 0 to 100 %%"
    ingest.add_argument("--pedal-range", nargs=2, type=float, metavar=("REST", "FULL"), help=pedal)

    imports = add("import", "recordings.import_drives", "make recordings of drives of other recorders", IMPORTS)
    imports.add_argument("kind", choices=list(KINDS), metavar="KIND", help=", ".join(KINDS))
    imports.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="the drives, or folders that hold them")
    imports.add_argument("--mapping", type=Path, metavar="FILE", help="of video; default mapping.yaml beside the video")
    imports.add_argument("--draft", action="store_true", help="of video: print a mapping, drafted from the files")
    imports.add_argument("--zone", help="of tesla and openpilot: time zone of the names, such as Europe/Berlin")
    imports.add_argument("--dry-run", action="store_true", help="only list what would be imported")

    export = add("export", "exports.export", "write a data set or recordings for other tools", EXPORTS)
    export.add_argument("format", choices=["lerobot", "mcap"])
    export.add_argument("recordings", nargs="*", metavar="RECORDING", help="of mcap: names of recordings")
    export.add_argument("--output", type=Path, help="folder; default exports in the data root")
    export.add_argument("--zone", default="UTC", help="time zone of the recordings, such as Europe/Berlin; default UTC")

    forget = add("forget", "recordings.forget", "remove recordings; their files move to recordings/.removed")
    forget.add_argument("names", nargs="+", metavar="NAME")
    forget.add_argument("--reason", default="", help="kept in the history of the recording")

    sharepoint = add("sharepoint", "recordings.check_sharepoint", "recordings that arrive in a SharePoint library")
    sharepoint.add_argument("action", choices=["check"], help="test the access step by step")

    run = add("run", "graph.run", "materialise assets", ASSETS)
    run.add_argument(
        "--select", help="Dagster's selection syntax; default everything but car_bundle, which is made on request"
    )
    run.add_argument("--recordings", nargs="+", default=[], metavar="NAME", help="default all")
    run.add_argument("--architectures", nargs="+", default=[], metavar="NAME", help="default all twelve")
    run.add_argument("--weights", type=Path, help="detector for annotations, instead of the trained one")
    run.add_argument("--lacking", action="store_true", help="only what is missing, failed or out of date")
    run.add_argument("--dry-run", action="store_true", help="only list what would be made, and why")
    run.add_argument("--config", type=Path, help="YAML file: config by asset name, as in the launchpad")

    status = add("status", "graph.status", "list what is made, missing, out of date, running and refused")
    status.add_argument("--json", action="store_true", help="for scripts")

    predict = add("predict", "predictions.predict", "predict a drive: probabilities, alarms and a page", PREDICTIONS)
    what = "name of a recording, or the folder of a drive anywhere, which is only read"
    predict.add_argument("recording", metavar="RECORDING|PATH", help=what)
    best = "an evaluated network; default: the one with the alias best, else the first of the comparison"
    predict.add_argument("--architecture", metavar="NAME", help=best)
    budget = "false alarms per hour whose thresholds ring; default 3"
    predict.add_argument("--false-alarms", type=float, metavar="NUMBER", help=budget)
    predict.add_argument("--weights", type=Path, help="detector for a drive without annotations")

    video = add("video", "recordings.video", "write a video of an annotated recording")
    video.add_argument("recording", metavar="RECORDING", help="name of a recording")
    where = "an .mp4 or .webm file; default videos/<recording>.mp4 in the data root"
    video.add_argument("--output", type=Path, help=where)
    video.add_argument("--speed", type=float, default=5.0, help="times faster than recorded; default 5")

    view = add("view", "predictions.view", "write a file of the Rerun viewer, and open it", VIEW)
    view.add_argument("recording", metavar="RECORDING", help="name of a recording, or of a drive that was predicted")
    moment = "a clip around a row's time, such as 08-15-12-5, or a moment, such as missed-1"
    view.add_argument("--around", default="", metavar="TIME|MOMENT", help=moment)
    view.add_argument("--seconds", type=float, default=20.0, help="length of the clip; default 20")
    view.add_argument("--output", type=Path, help="an .rrd file; default videos/<recording>.rrd in the data root")
    view.add_argument("--no-open", action="store_false", dest="open", help="only write the file")

    ui = add("ui", "servers.ui", "serve Dagster, the report pages and MLflow on loopback")
    ui.add_argument("--host", default="127.0.0.1")
    ui.add_argument("--port", type=int, default=3000)
    ui.add_argument("--mlflow-port", type=int, default=5000)
    ui.add_argument("--reports-port", type=int, default=3001)
    ui.add_argument("--no-token", action="store_true", help="let every user of this machine in")

    reports = add("reports", "servers.reports", "serve the report pages alone, for a Dagster that runs elsewhere")
    reports.add_argument("--host", default="127.0.0.1")
    reports.add_argument("--port", type=int, default=3001)

    services = "create what services need: DAGSTER_HOME, MLflow's store, the pool's limit"
    add("prepare", "servers.prepare", services)

    options = {word for each in commands.choices.values() for word in re.findall(r"--[\w-]+", each.format_usage())}
    completion = add("completion", "servers.completion", "print a shell's completion of commands and names", COMPLETE)
    completion.add_argument("shell", nargs="?", choices=["bash", "zsh", "fish"], default="bash", help="default bash")
    completion.set_defaults(words=[*commands.choices, *sorted(options)])
    return parser


def _handle_interrupts() -> threading.Event:
    """SIGINT and SIGTERM raise KeyboardInterrupt.

    Returns:
        An event that is set then: Python and libraries turn the interruption of an import into errors of their own.
    """
    interrupted = threading.Event()

    def interrupt(*_: object) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, interrupt)
    return interrupted


def _explain(error: Exception) -> int:
    """Report an error of Dagster's database, or a lack of memory or open files, in a sentence; raise any other."""
    try:
        from drive_assets.running.database_errors import explain, is_database_error
    except (OSError, MemoryError, ImportError) as shortage:
        return _fail(f"{type(error).__name__}: {error}. No module can be loaded any more: {shortage!r}. {LIMITS}", 1)
    if is_database_error(error):
        return _fail(explain(error, Path(os.environ["DAGSTER_HOME"])), 1)  # set before a database was opened
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in SHORTAGES):
        return _fail(f"{type(error).__name__}: {error}. {LIMITS}", 1)
    raise error


def _fail(reason: object, status: int) -> int:
    print(wrapped(f"drive-assets: {reason}", sys.stderr), file=sys.stderr)
    return status


if __name__ == "__main__":
    main()
