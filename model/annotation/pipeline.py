"""Recording + detector -> annotations.csv: threads read frames while the network runs over batches of them."""

import os
import time
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from model.annotation.backends import Keep, choose_backend
from model.annotation.config import PACE, AnnotationConfig
from model.annotation.frames import Detections, Frame, OtherSize, UnreadableFrame, View, read_letterboxed, view_of
from model.annotation.partial import PartialAnnotations
from model.annotation.report import AnnotationReport
from model.common.config import fingerprint
from model.common.errors import DataError, PassingError, is_out_of_memory
from model.common.files import sha256, write_json
from model.common.progress import Log, Progress
from model.detection.detector import configure_ultralytics, load_detector, training_source, vehicle_classes
from model.recording.annotations import Annotations, write_annotations
from model.recording.content import FRAME_HASHES, file_hashes
from model.recording.folder import Recording, Region
from model.recording.frame_files import repeated_frames
from model.recording.plausibility import CAMERA, implausible_camera

PROGRESS_S = 5.0
CONFIDENCE_BINS = 20
OPTIONS = "options"
"""Key in the details of annotations: the options that they were made with."""


class Annotator:
    """A detector, loaded once, for any number of recordings."""

    def __init__(self, weights: Path, config: AnnotationConfig, cache: Path) -> None:
        """Raises DataError if `weights` hold no detector, no requested class, or need another image size."""
        configure_ultralytics(cache / "ultralytics")
        self.config = config
        detector = load_detector(weights)
        class_ids, self.class_names = vehicle_classes(detector.names, config.class_map)
        used = {detector.names[number]: self.class_names[output] for number, output in class_ids.items()}
        unused = sorted(set(detector.names.values()) - set(used))
        self.mapping = ", ".join(f"{name} as {output}" for name, output in used.items())
        self.mapping += f"; not used: {', '.join(unused)}" if unused else ""
        if unknown := sorted(set(config.class_confidence) - set(self.class_names)):
            raise DataError(f"class_confidence names {unknown[0]!r}: expected some of {', '.join(self.class_names)}.")
        thresholds, outputs = torch.full((len(detector.names),), 2.0), np.zeros(len(detector.names), np.int64)
        for number, output in class_ids.items():
            thresholds[number] = config.class_confidence.get(self.class_names[output], config.confidence)
            outputs[number] = output
        self.digest = sha256(weights)
        self.weights = f"{weights.name} {self.digest[:12]}"
        self.trained_on = training_source(detector, weights)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        network = detector.model.eval()
        self.stride = int(network.stride.max())
        if config.image_size % self.stride:
            raise DataError(f"image_size {config.image_size}: {weights} takes multiples of {self.stride}.")
        network.fuse(verbose=False)
        keep = Keep(thresholds, outputs, config.iou, config.max_detections, config.agnostic_nms)
        self.backend = choose_backend(config.backend, network, keep, config.half, device)
        self.backend.batch = config.batch or self.backend.batch

    def annotate(self, folder: Path, log: Log = lambda line: None) -> AnnotationReport:
        """Annotate the frames of a recording that have a telemetry row; write annotations and details beside them.

        Frames that a killed run, or an earlier run with equal weights and options, annotated are not annotated again.

        Raises:
            DataError: wrong telemetry, no readable frame, a region of interest outside the frame, not enough memory for
                a single frame, or a recording that changes meanwhile.
        """
        started = time.perf_counter()
        recording = Recording(folder)
        files_before = _files(recording)
        telemetry, _ = recording.telemetry()
        present = recording.frames()
        frames = {row: present[row] for row in telemetry["Time"] if row in present}
        paths = list(frames.values())
        chosen = recording.region() or Region(*self.config.roi)
        view = view_of(folder, paths, chosen, self.config.image_size, self.stride)
        hashes = file_hashes(paths)
        identity = fingerprint(self.digest, self.config.model_dump(exclude=set(PACE)), view.roi)
        with PartialAnnotations(recording, identity, hashes) as done:
            todo = [path for path in paths if path.name not in done.frames]
            skipped = self._run(todo, view, done, lambda line: log(type(line)(f"{recording.name}: {line}")))
            if _files(recording) != files_before:
                done.discard()
                raise PassingError(f"{folder} was changed or replaced while it was annotated: annotate it again.")
            annotated = {row: path.name for row, path in frames.items() if path.name in done.frames}
            if not annotated:
                raise DataError(f"{folder} has no readable frame: {len(paths)} were tried; copy the recording again.")
            detections = [done.frames[name] for name in annotated.values()]
            annotations = Annotations.from_frames(list(annotated), list(annotated.values()), detections)
            resumed = len(paths) - len(todo)
            report = AnnotationReport(
                recording=recording.name,
                weights=self.weights,
                trained_on=self.trained_on,
                frames=len(annotations),
                unreadable=skipped["unreadable"],
                other_size=skipped["other_size"],
                detections=len(annotations.confidence),
                vehicles_per_frame=len(annotations.confidence) / len(annotations),
                frames_without_vehicle=int((annotations.count == 0).sum()),
                confidence_histogram=np.histogram(annotations.confidence, CONFIDENCE_BINS, (0, 1))[0].tolist(),
                roi=list(view.roi),
                class_names=self.class_names,
                backend=self.backend.name,
                resumed=resumed,
                without_row=len(present) - len(frames),
                missing=len(telemetry) - len(frames),
                frames_per_s=(len(annotations) - resumed) / max(time.perf_counter() - started, 1e-9),
            )
            camera = [asdict(finding) for finding in implausible_camera(present, telemetry, repeated_frames(present))]
            annotated_hashes = {name: hashes[name] for name in annotated.values()}
            write_annotations(recording.annotations_path, annotations)
            details = {
                **asdict(report),
                "fingerprint": identity,
                OPTIONS: self.config.model_dump(mode="json"),
                CAMERA: camera,
                FRAME_HASHES: annotated_hashes,
            }
            write_json(recording.details_path, details)
            done.discard()
        return report

    def _run(self, frames: list[Path], view: View, done: PartialAnnotations, log: Log) -> Counter[str]:
        """Add the detections of `frames` to `done`; return how many were left out, by reason."""
        skipped, logged, finished = Counter[str](), time.perf_counter(), 0
        with ThreadPoolExecutor(self.config.decode_threads or max(2, os.cpu_count() or 2)) as readers:
            for batch in self._batches(readers, frames, view, skipped, log):
                detections = self._detect(list(batch.values()), view, log)
                done.add(zip(batch, detections, strict=True), self.config.checkpoint_every)
                finished += len(batch)
                if time.perf_counter() - logged > PROGRESS_S:
                    logged = time.perf_counter()
                    log(Progress(f"{finished} of {len(frames)} frames"))
        return skipped

    def _batches(
        self, readers: ThreadPoolExecutor, frames: list[Path], view: View, skipped: Counter[str], log: Log
    ) -> Iterator[dict[str, Frame]]:
        """Frames by file name, as many at once as the network takes, while the threads read the next ones."""
        batch: dict[str, Frame] = {}
        for path, frame in _read_ahead(readers, frames, view, 2 * self.backend.batch):
            try:
                batch[path.name] = frame.result()
            except UnreadableFrame as error:
                skipped["unreadable"] += 1
                log(f"{path.name} cannot be read and is skipped ({error})")
            except OtherSize as error:
                skipped["other_size"] += 1
                log(f"{path.name} is skipped: it has {error}")
            if len(batch) >= self.backend.batch:
                yield batch
                batch = {}
        if batch:
            yield batch

    def _detect(self, images: list[Frame], view: View, log: Log) -> list[Detections]:
        """Detections of each frame. If memory runs out, this batch and the next ones are halved."""
        try:
            return self.backend.detect(images, view.roi)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        if len(images) == 1:
            raise DataError(
                f"There is not enough memory for one frame at image size {view.image_size}: free some, or choose a "
                "smaller image_size."
            )
        half = len(images) // 2
        self.backend.batch = min(self.backend.batch, half)
        log(f"out of memory: the batch is halved to {self.backend.batch} frames")
        return self._detect(images[:half], view, log) + self._detect(images[half:], view, log)


def _files(recording: Recording) -> set[tuple[str, int, int, int]]:
    """Name, inode, size and time of the files that annotations depend on."""
    paths = [recording.telemetry_path, recording.roi_path, *recording.frames().values()]
    stats = {path.name: path.stat() for path in paths if path.is_file()}
    return {(name, stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}


def _read_ahead(
    readers: ThreadPoolExecutor, paths: list[Path], view: View, limit: int
) -> Iterator[tuple[Path, "Future[Frame]"]]:
    """Each file with the future of its frame, in order, with at most `limit` being read or waiting."""
    waiting: deque[tuple[Path, Future[Frame]]] = deque()
    for path in paths:
        waiting.append((path, readers.submit(read_letterboxed, path, view)))
        if len(waiting) >= limit:
            yield waiting.popleft()
    yield from waiting
