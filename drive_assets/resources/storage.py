"""Paths of all files: the only module that knows the layout of the data root."""

import bisect
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import dagster as dg

from model.common.errors import DataError
from model.common.files import explained_errors
from model.dataset.assignment import SPLITS
from model.network.architectures import ARCHITECTURES
from model.recording.folder import Recording, parse_recording_name

PROBE_BYTES = 65_536
"""Bytes that a disk must be able to take before work begins."""


def data_root() -> Path:
    """`DRIVE_ASSETS_DATA`, else `data/` in the checkout (in the current folder for an installed package)."""
    checkout = Path(__file__).resolve().parents[2]
    default = (checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()) / "data"
    return Path(os.environ.get("DRIVE_ASSETS_DATA") or default).expanduser().resolve()


def inbox_root() -> Path:
    """`DRIVE_ASSETS_INBOX`, else `inbox/` in the data root."""
    return Path(os.environ.get("DRIVE_ASSETS_INBOX") or data_root() / "inbox").expanduser().resolve()


def own_detector() -> str:
    """`DRIVE_ASSETS_WEIGHTS`: a team's weights in place of those that boxy_detector trains; empty if there are none."""
    return os.environ.get("DRIVE_ASSETS_WEIGHTS", "")


class Storage(dg.ConfigurableResource):
    """The layout of the data root as paths. Creates no folder before something is written to it."""

    data_root: str
    inbox_root: str

    @classmethod
    def from_environment(cls) -> "Storage":
        return cls(data_root=str(data_root()), inbox_root=str(inbox_root()))

    @property
    def root(self) -> Path:
        return Path(self.data_root)

    @property
    def inbox(self) -> Path:
        return Path(self.inbox_root)

    @property
    def recordings(self) -> Path:
        return self.root / "recordings"

    @property
    def sources(self) -> Path:
        """One JSON per recording: its source."""
        return self.root / "sources"

    @property
    def simulated(self) -> Path:
        return self.root / "simulated"

    def recording(self, name: str) -> Path:
        """DataError if the name is none: it may come from a partition that anybody added, such as ../../outside."""
        parse_recording_name(name)
        return self.recordings / name

    def recording_names(self) -> list[str]:
        """Names of the folders in `recordings`, sorted."""
        if not self.recordings.is_dir():
            return []
        return sorted(entry.name for entry in os.scandir(self.recordings) if not entry.name.startswith("."))

    def recordings_before(self, name: str, most: int) -> list[str]:
        """At most `most` recordings that started before this one, the nearest last."""
        names = self.recording_names()
        place = bisect.bisect_left(names, name)
        return names[max(place - most, 0) : place]

    def annotations(self, name: str) -> Path:
        return Recording(self.recording(name)).annotations_path

    def future_labels(self, name: str) -> Path:
        return Recording(self.recording(name)).labels_path

    def predictions(self, name: str) -> Path:
        return self.recording(name) / "predictions.csv"

    def predictions_elsewhere(self, name: str) -> Path:
        """The folder of the predictions for a drive that is not in `recordings`."""
        parse_recording_name(name)
        return self.root / "predictions" / name

    @property
    def boxy_raw(self) -> Path:
        return self.root / "raw" / "boxy"

    @property
    def nuimages_raw(self) -> Path:
        return self.root / "raw" / "nuimages"

    @property
    def boxy_dataset(self) -> Path:
        return self.root / "datasets" / "boxy_yolo"

    @property
    def nuimages_dataset(self) -> Path:
        return self.root / "datasets" / "nuimages_yolo"

    @property
    def boxy_detector(self) -> Path:
        return self.root / "models" / "yolo" / "yolo12n1.pt"

    @property
    def nuimages_detector(self) -> Path:
        return self.root / "models" / "yolo" / "yolo11n_nuimages.pt"

    def detector_files(self, weights: Path) -> Path:
        """The folder beside a detector's weights with the curves and pictures of its training."""
        return weights.with_suffix("")

    @property
    def splits(self) -> Path:
        return self.root / "datasets" / "multimodal"

    @property
    def manifest(self) -> Path:
        return self.splits / "dataset_config.json"

    def split(self, name: str) -> Path:
        """Raises DataError if the split does not exist."""
        _require(name, SPLITS, "split")
        return self.splits / f"{name}.h5"

    @property
    def checkpoints(self) -> Path:
        return self.root / "models" / "multimodal"

    def checkpoint(self, architecture: str) -> Path:
        """Raises DataError if the architecture does not exist."""
        _require(architecture, ARCHITECTURES, "architecture")
        return self.checkpoints / architecture

    @property
    def review(self) -> Path:
        """The folder of the review queue and of review.csv."""
        return self.root / "review"

    @property
    def tags(self) -> Path:
        return self.review / "review.csv"

    @property
    def evaluations(self) -> Path:
        return self.root / "evaluation"

    def evaluation(self, architecture: str) -> Path:
        """Raises DataError if the architecture does not exist."""
        _require(architecture, ARCHITECTURES, "architecture")
        return self.evaluations / architecture

    def bundle(self, architecture: str) -> Path:
        """Raises DataError if the architecture does not exist."""
        _require(architecture, ARCHITECTURES, "architecture")
        return self.root / "bundles" / architecture

    @property
    def summaries(self) -> Path:
        """Summaries of recordings that the last manifest read."""
        return self.cache / "recordings.json"

    @property
    def cache(self) -> Path:
        """Files that can be computed again: converted networks, ultralytics' settings, unfinished trainings."""
        return self.root / "cache"

    def check_writable(self) -> None:
        """Raises DataError if the data root cannot be written."""
        with explained_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
        with explained_errors(self.root), tempfile.TemporaryFile(dir=self.root) as probe:
            probe.write(b"\0" * PROBE_BYTES)
            probe.flush()

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Check before each run of the UI or the daemon; a command checks once before all its runs."""
        self.check_writable()


def _require(name: str, known: Sequence[str], what: str) -> None:
    if name not in known:
        raise DataError(f"Unknown {what} {name!r}: expected one of {', '.join(known)}.")
