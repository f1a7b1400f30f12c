"""Windows on the device: the right frames, the right labels, every window once, wrong files refused."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from drive_assets_tests.model.split_files import CLASSES, rewrite, write_split_file
from model.common.errors import DataError
from model.dataset.features import detection_features, telemetry_features
from model.dataset.window_data import WindowData
from model.recording.schema import BINARY_LABELS


@pytest.fixture
def split(tmp_path: Path) -> Path:
    return write_split_file(tmp_path / "val.h5", frames=60, stride=3)


def test_batches_hold_the_frames_of_their_windows(split: Path) -> None:
    data = WindowData.load(split, tasks=("coast_2s", "brake_1s"))
    with h5py.File(split) as file:
        telemetry, detections, mask, labels, starts = (
            torch.from_numpy(file[name][()])
            for name in ("telemetry", "detections", "detection_mask", "labels", "window_start")
        )
    batches = list(data.batches(5))

    assert len(data) == 14 and [len(batch.labels) for batch in batches] == [5, 5, 4]
    row = int(starts[6])
    second = batches[1]
    torch.testing.assert_close(second.telemetry_seq[1], telemetry_features(telemetry[row : row + 20]))
    boxes = detection_features(detections, mask, torch.tensor([1920, 575]).expand(60, 2), CLASSES)[row : row + 20]
    kept = second.detection_seq.shape[2]
    torch.testing.assert_close(second.detection_seq[1], boxes[:, :kept])
    assert torch.equal(second.detection_mask[1], mask[row : row + 20, :kept])
    columns = [BINARY_LABELS.index("coast_2s"), BINARY_LABELS.index("brake_1s")]
    assert second.labels[1].tolist() == labels[row + 19, columns].tolist()
    assert second.label_mask.all()


def test_slots_that_no_frame_uses_are_dropped(split: Path) -> None:
    with h5py.File(split) as file:
        most = int(file["detection_mask"][()].sum(axis=1).max())
    data = WindowData.load(split)
    assert data.detection_mask.shape == (60, most) and most < 12

    rewrite(split, detection_mask=np.zeros((60, 12), bool))
    assert WindowData.load(split).detection_mask.shape == (60, 1)


def test_a_seed_orders_and_every_window_comes_once(split: Path) -> None:
    data = WindowData.load(split)

    def firsts(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.cat([batch.telemetry_seq[:, 0, 0] for batch in data.batches(4, generator)])

    assert torch.equal(firsts(1), firsts(1))
    assert not torch.equal(firsts(1), firsts(2))
    in_order = torch.cat([batch.telemetry_seq[:, 0, 0] for batch in data.batches(4)])
    assert torch.equal(firsts(1).sort().values, in_order.sort().values)


def test_unknown_labels_are_masked(split: Path) -> None:
    with h5py.File(split) as file:
        labels = file["labels"][()]
    labels[19 + 3, BINARY_LABELS.index("brake_1s")] = -1
    rewrite(split, labels=labels)
    data = WindowData.load(split, tasks=("brake_1s", "coast_1s"))
    assert data.label_mask[1].tolist() == [False, True]
    assert data.labels[1, 0] == 0
    assert data.label_mask.sum() == 2 * 14 - 1


def test_flags_change_the_width(split: Path) -> None:
    data = WindowData.load(split, gear="continuous", detection_classes=True)
    assert (data.telemetry_dim, data.detection_dim) == (5, 9)


def test_wrong_files_say_what_to_do(split: Path) -> None:
    with pytest.raises(DataError, match=r"val\.h5 has no label brake_9s: expected tasks of brake_1s"):
        WindowData.load(split, tasks=("brake_9s",))
    with h5py.File(split) as file:
        telemetry, detections = file["telemetry"][()], file["detections"][()]
        mask = file["detection_mask"][()]

    telemetry[3, 1] = np.nan
    rewrite(split, telemetry=telemetry)
    with pytest.raises(DataError, match="not finite"):
        WindowData.load(split)
    telemetry[3, 1] = 1000
    detections[mask.any(axis=1).argmax(), 0, 0] = 7
    rewrite(split, telemetry=telemetry, detections=detections)
    with pytest.raises(DataError, match=r"class ids from 0 to 7: expected 0 to 2 for classes vehicle\.left"):
        WindowData.load(split)
    rewrite(split, window_start=np.zeros(0, np.int32))
    with pytest.raises(DataError, match="holds no window"):
        WindowData.load(split)
