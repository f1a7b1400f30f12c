"""Commands for what a network foresees: predict, view."""

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

from drive_assets.commands.common import tell, writable_storage
from drive_assets.partitions import is_recording_name, register_recordings
from drive_assets.resources.storage import Storage, own_detector
from drive_assets.running.instance import open_instance
from drive_assets.running.run_config import AssetConfig
from model.common.errors import DataError
from model.common.files import write_text
from model.evaluation.forecast import PREDICTIONS
from model.recording.folder import ANNOTATIONS, CONTENT, DETAILS, IMPORTED, ROI, TELEMETRY, Recording

LINKED = (*CONTENT, DETAILS, ROI, IMPORTED)


def predict(options: argparse.Namespace) -> bool:
    storage, given = writable_storage(), Path(options.recording)
    chosen = {"architecture": options.architecture, "false_alarms_per_hour": options.false_alarms}
    chosen = {name: value for name, value in chosen.items() if value is not None}
    weights = str(options.weights.resolve()) if options.weights else ""
    is_name = is_recording_name(options.recording) and not given.is_dir()
    if is_name or given.resolve().parent == storage.recordings:
        config = {"predictions": chosen, **({"annotations": {"weights": weights}} if weights else {})}
        return _predict_partition(storage, given.resolve().name, config)
    return _predict_elsewhere(storage, given, chosen, weights)


def _predict_partition(storage: Storage, name: str, config: AssetConfig) -> bool:
    """Materialise the predictions of a recording, and its annotations if there are none."""
    from drive_assets.definitions import defs
    from drive_assets.running.materialize import materialize

    if not storage.recording(name).is_dir():
        raise DataError(f"{storage.recording(name)} does not exist: give a recording, or the path of a drive's folder.")
    assets = ["predictions"] if storage.annotations(name).is_file() else ["annotations", "predictions"]
    with open_instance() as instance:
        register_recordings(instance, [name])
        config = {asset: options for asset, options in config.items() if asset in assets}
        repository = defs.get_repository_def()
        return materialize(repository, instance, ",".join(assets), [name], config=config, tell=tell)


def _predict_elsewhere(storage: Storage, drive: Path, chosen: dict[str, object], weights: str) -> bool:
    """Predict a drive that is not in the data root, beside links to its files in `predictions`; it is only read."""
    from drive_assets.predictions.assets import predict_job
    from drive_assets.reports.page import html
    from drive_assets.reports.predictions import page_alone, standing_alone
    from drive_assets.tasks import AnnotateJob, annotate, predict
    from model.annotation.config import AnnotationConfig
    from model.evaluation.config import PredictionConfig

    if not (drive / TELEMETRY).is_file():
        raise DataError(f"{drive / TELEMETRY} does not exist: give a recording, or the folder of a drive that has one.")
    folder = storage.predictions_elsewhere(drive.resolve().name)
    _link(drive.resolve(), folder)
    if not (folder / ANNOTATIONS).is_file():
        given = weights or own_detector()
        detector = storage.root / Path(given).expanduser() if given else storage.boxy_detector
        annotate(AnnotateJob(folder, detector, storage.cache, AnnotationConfig()), tell)
    predict(predict_job(storage, folder, PredictionConfig(**chosen)), tell)
    page = standing_alone(folder)
    write_text(page, html(page_alone(Recording(folder)), "", None))
    tell(f"{page}: open it in a browser. {folder / PREDICTIONS}: the table.")
    return True


def _link(drive: Path, folder: Path) -> None:
    """Links to the files of a drive; what was made from another drive of this name is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {path.name: path for path in Recording(drive).frames().values()}
    wanted |= {name: drive / name for name in LINKED if (drive / name).is_file()}
    moved = (folder / TELEMETRY).is_symlink() and (folder / TELEMETRY).readlink() != drive / TELEMETRY
    for entry in list(folder.iterdir()):
        if entry.is_symlink() or moved:
            entry.unlink()
    for name, path in wanted.items():
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(path)


def view(options: argparse.Namespace) -> bool:
    """Write a file of the Rerun viewer, and open it."""
    from model.evaluation.viewer import SUFFIX, write_viewer_file

    storage, name = writable_storage(), options.recording
    folder = storage.recording(name)
    if not folder.is_dir() and storage.predictions_elsewhere(name).is_dir():
        folder = storage.predictions_elsewhere(name)
    stem = f"{name}_{options.around.replace(' ', '_')}" if options.around else name
    output = options.output or storage.root / "videos" / f"{stem.replace('/', '_')}{SUFFIX}"
    if output.suffix != SUFFIX:
        raise DataError(f"{output}: expected a file name that ends with {SUFFIX}.")
    frames = write_viewer_file(folder, output, options.around, options.seconds)
    tell(f"{output}: {frames} frames")
    if options.open and any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")):
        # CI: Rerun's switch for sending no analytics. It would also listen on all of the machine's addresses.
        command = [sys.executable, "-m", "rerun_cli", "--bind", "127.0.0.1", "--port", "auto", str(output)]
        subprocess.Popen(command, env={**os.environ, "CI": "1"}, start_new_session=True)
    else:
        tell(f"To open it: CI=1 rerun --bind 127.0.0.1 {shlex.quote(str(output))}")
    return True
