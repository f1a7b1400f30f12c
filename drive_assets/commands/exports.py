"""Writes the data set, or recordings, for other tools."""

import argparse

from drive_assets.commands.common import tell, writable_storage
from drive_assets.splits.manifest import check_unchanged, read_manifest
from model.common.errors import DataError
from model.dataset.windows import WindowConfig
from model.recording.folder import parse_recording_name


def export(options: argparse.Namespace) -> bool:
    storage = writable_storage()
    folder = options.output or storage.root / "exports"
    if options.format == "lerobot":
        from model.exports.lerobot import write_lerobot

        if options.recordings:
            raise DataError("export lerobot writes the whole data set: leave out the names of recordings.")
        manifest = read_manifest(storage)
        splits = {}
        for name, part in manifest["splits"].items():
            check_unchanged(storage, manifest, name)
            splits[name] = [storage.recording(recording) for recording in part["recordings"]]
        output = options.output or folder / "lerobot"
        described = {"data_version": manifest["fingerprint"]}
        window = WindowConfig(**manifest["window"])
        episodes, frames = write_lerobot(output, splits, window, options.zone, described, tell)
        tell(f"{output}: {episodes} episodes, {frames:,} frames")
        return True
    from model.exports.mcap import write_mcap

    if not options.recordings:
        raise DataError("export mcap needs the names of recordings, such as 2024-05-31_08-15-00.")
    for name in options.recordings:
        parse_recording_name(name)
        output = folder / f"{name}.mcap"
        counts = write_mcap(storage.recording(name), output, options.zone)
        tell(f"{output}: " + ", ".join(f"{topic} {count:,}" for topic, count in counts.items()))
    return True
