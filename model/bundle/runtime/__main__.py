"""python -m drive_alarms check | replay RECORDING | watch FOLDER | camera TELEMETRY --input "-f v4l2 -i /dev/video0"

Alarms are lines of JSON on the standard output; what else happens is reported on the standard error.
"""

import argparse
import contextlib
import json
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from .anticipation import LATE_S, Anticipation, Outcome
from .bundle import Bundle
from .check import check
from .detector import Detector
from .errors import BundleError
from .shadow import Clips, Lines, ShadowLog, Writer, shadow_line
from .sources import PATIENCE_S, Camera, Frames, frames_of, growing_lines, recorded_lines
from .telemetry import READING, TELEMETRY, Reader, region_of


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m drive_alarms", description=__doc__)
    parser.add_argument("--bundle", type=Path, default=Path(__file__).parents[1], help="by default, this package's")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="compare the golden drive with what torch gave, and measure")
    for name, what in (
        ("replay", "a recording"),
        ("watch", "the folder that a recorder writes telemetry.csv and frames to"),
        ("camera", "the telemetry.csv that a recorder writes"),
    ):
        command = commands.add_parser(name, help=what)
        command.add_argument("drive", type=Path, help=what)
        command.add_argument("--alarms", type=Path, help="also append alarms to this file")
        command.add_argument("--shadow", type=Path, help="write shadow.csv into this folder")
        command.add_argument("--clips", type=Path, help="keep clips of alarms and unforeseen brakings in this folder")
        if name != "replay":
            command.add_argument("--idle", type=float, help="end after as many seconds without a row")
        if name == "camera":
            command.add_argument("--input", required=True, help="what ffmpeg reads, such as '-f v4l2 -i /dev/video0'")
    options = parser.parse_args(arguments)
    try:
        bundle = Bundle.read(options.bundle)
        if options.command == "check":
            parity = check(bundle)
            print(json.dumps(parity.to_dict()))
            if problems := parity.problems(bundle.limits):
                raise BundleError(f"{options.bundle}: {'; '.join(problems)}: do not use this bundle here.")
        else:
            drive(bundle, options)
    except BundleError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def drive(bundle: Bundle, options: argparse.Namespace) -> None:
    """Read a drive to its end and raise its alarms."""
    live, folder = options.command != "replay", options.drive.parent if options.command == "camera" else options.drive
    path = options.drive if options.command == "camera" else options.drive / TELEMETRY
    if live:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with contextlib.ExitStack() as stack:
        frames: Frames = frames_of(folder, PATIENCE_S if live else 0.0)
        if options.command == "camera":
            frames = camera = Camera(options.input)
            stack.callback(camera.close)
        writer = Writer()
        region = region_of(folder)
        anticipation = Anticipation(bundle, Detector(bundle, region))
        lines = growing_lines(path, options.idle) if live else recorded_lines(path)
        header = next(lines, None)
        if header is None:
            raise BundleError(f"{path} has no header: expected a line that begins with Time.")
        reader = Reader(bundle, header, folder / READING)
        shadow = ShadowLog(bundle, options.shadow, writer) if options.shadow else None
        clips = (
            Clips(bundle, options.clips, reader.header, anticipation.detector.region, writer) if options.clips else None
        )
        alarms = Lines(options.alarms) if options.alarms else None
        stack.callback(_report, anticipation, reader, writer, clips)
        stack.callback(writer.close)
        if clips:
            stack.callback(clips.close)
        with contextlib.suppress(KeyboardInterrupt):
            for outcome, frame in outcomes(anticipation, reader, lines, frames, live):
                for task in outcome.raised:
                    text = json.dumps(_alarm(bundle, outcome, task))
                    print(text, flush=True)
                    if alarms:
                        writer.put(lambda text=text: alarms.append(text))  # type: ignore[misc]
                lost = sum(anticipation.counts[name] for name in anticipation.counts if "frame" in name)
                line = shadow_line(bundle, outcome, lost, writer.dropped)
                if shadow:
                    shadow.add(line)
                if clips:
                    clips.add(outcome, frame, line)


def outcomes(
    anticipation: Anticipation, reader: Reader, lines: Iterator[str], frames: Frames, live: bool
) -> Iterator[tuple[Outcome, bytes | None]]:
    """What became of each row. A live row's age counts from the arrival of the fastest one since the clock was set."""
    fastest: float | None = None
    for line in lines:
        row = reader(line)
        if row is None:
            continue
        age = None
        if live:
            delay = time.monotonic() - row.t_ms / 1000
            fastest = delay if fastest is None or row.restart else min(fastest, delay)
            age = delay - fastest
            if age > LATE_S:
                anticipation.counts["late rows"] += 1
                continue
        picture = frames(row.time)
        content, frame_age = picture or (None, None)
        yield anticipation(row, content, frame_age, age), content


def _alarm(bundle: Bundle, outcome: Outcome, name: str) -> dict[str, object]:
    task = next(task for task in bundle.tasks if task.name == name)
    return {
        "time": outcome.row.time,
        "task": name,
        "within_s": task.horizon_s,
        "probability": round(outcome.probabilities[name], 5),
        "threshold": task.on,
        "bundle": bundle.identity[:12],
        "latency_ms": round(outcome.latency_ms, 1),
    }


def _report(anticipation: Anticipation, reader: Reader, writer: Writer, clips: Clips | None) -> None:
    counts = {
        **reader.counts,
        **anticipation.counts,
        "shadow rows dropped": writer.dropped,
        "writes failed": writer.failed,
    }
    if clips:
        counts |= {"clips": clips.written, "clips skipped": clips.skipped}
    print(json.dumps({name: count for name, count in counts.items() if count}), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
