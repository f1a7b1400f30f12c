import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from model.annotation import backends
from model.annotation.backends import Keep, OpenVinoBackend, TorchBackend, choose_backend, suppress
from model.common.errors import DataError
from model.recording.folder import Region

KEEP = Keep(torch.tensor([0.3, 0.3]), np.array([0, 1]), 0.6, 40)
FRAME, REGION = np.full((32, 32, 3), 255, np.uint8), Region(0, 0, 32, 32)


class Network(torch.nn.Module):
    """Predictions of (B, 4 + 2 classes, 1 anchor), filled with the mean of each image."""

    def __init__(self) -> None:
        super().__init__()
        self.model = [SimpleNamespace(end2end=False)]
        self.batches: list[int] = []

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor]:
        self.batches.append(len(images))
        return (images.mean((1, 2, 3))[:, None, None].repeat(1, 6, 1),)


@pytest.fixture
def backend() -> TorchBackend:
    backend = TorchBackend(Network(), KEEP)
    backend.batch = 4
    return backend


def captured(network: Any, example: torch.Tensor) -> backends._Graph:
    """A graph as on a GPU: its buffers stay, and a replay computes one from the other."""
    source = example.clone()
    (result,) = network(source)
    graph = SimpleNamespace(replay=lambda: result.copy_(network(source)[0]))
    return backends._Graph(graph, source, result, ())


@pytest.mark.parametrize("capture", [captured, lambda *_: None])
def test_batches_of_a_gpu_are_padded_to_one_size(
    backend: TorchBackend, monkeypatch: pytest.MonkeyPatch, capture: Any
) -> None:
    captures = Mock(side_effect=capture)
    monkeypatch.setattr(backends._Graph, "capture", captures)
    for values in ([1.0, 2.0, 3.0, 4.0], [5.0], [6.0, 7.0]):
        images = torch.tensor(values)[:, None, None, None].expand(-1, 3, 32, 32)
        assert backend._replayed(images)[:, 0, 0].tolist() == values
    assert captures.call_count == 1 and set(backend.network.batches) == {4}
    assert len(backend._replayed(torch.zeros(6, 3, 32, 32))) == 6  # larger than usual: a graph of its own
    assert captures.call_count == 2


@pytest.mark.parametrize("where", ["forward", "suppress"])
def test_graphs_are_released_when_memory_runs_out(
    backend: TorchBackend, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    backend._graphs = {torch.Size([4]): None}
    short = Mock(side_effect=torch.OutOfMemoryError("CUDA out of memory."))
    monkeypatch.setattr(backend if where == "forward" else backends, where, short)
    with pytest.raises(torch.OutOfMemoryError):
        backend.detect([FRAME], REGION)
    assert backend._graphs == {}


def test_a_queue_is_not_used_again_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its other requests still run: OpenVINO refuses a callback for them."""
    failing, working = Mock(), Mock()
    failing.wait_all.side_effect = MemoryError
    monkeypatch.setattr(OpenVinoBackend, "_compile", Mock(side_effect=[failing, working]))
    backend = OpenVinoBackend(Network(), KEEP)
    with pytest.raises(MemoryError):
        backend.forward([FRAME])
    for _ in range(2):
        backend.forward([FRAME])
    assert (failing.wait_all.call_count, working.wait_all.call_count) == (1, 2)


def test_a_broken_openvino_is_replaced_by_torch_unless_it_is_requested(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "openvino.py").write_text("raise OSError('invalid ELF header')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "openvino", raising=False)
    assert type(choose_backend("auto", Network(), KEEP, False, "cpu")) is TorchBackend
    with pytest.raises(DataError, match=r"openvino cannot be imported \(invalid ELF header\): install the extra"):
        choose_backend("openvino", Network(), KEEP, False, "cpu")


def test_boxes_outside_the_picture_do_not_suppress_those_of_other_classes() -> None:
    boxes = torch.tensor([[645.0, 645.0, 119.0, 119.0], [-59.5, -59.5, 119.0, 119.0]])
    scores = torch.tensor([[0.9, 0.0], [0.0, 0.8]])
    (found,) = suppress(torch.cat([boxes, scores], 1).T[None], False, KEEP, (704, 704), Region(0, 0, 704, 704))
    assert found[:, 5].tolist() == [0, 1]
