"""Which compute the environment chooses, with which settings."""

from pathlib import Path

import pytest

from drive_assets.resources.backends import CHOICE, SETTINGS, compute_from_environment
from drive_assets.resources.cluster.settings import Size
from drive_assets.resources.cluster.slurm import SlurmCompute
from drive_assets.resources.compute import LocalCompute
from model.common.errors import DataError


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (CHOICE, SETTINGS):
        monkeypatch.delenv(name, raising=False)


def test_this_machine_unless_another_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert compute_from_environment() == LocalCompute()
    monkeypatch.setenv(CHOICE, "cloud")
    with pytest.raises(DataError, match="DRIVE_ASSETS_COMPUTE is 'cloud': expected one of local, slurm"):
        compute_from_environment()


def test_a_file_has_the_settings(monkeypatch: pytest.MonkeyPatch, data_root: Path, tmp_path: Path) -> None:
    path = tmp_path / "slurm.yaml"
    monkeypatch.setenv(CHOICE, "slurm")
    monkeypatch.setenv(SETTINGS, str(path))
    path.write_text("account: drives\nsetup: [module load cuda]\ntrain: {time: 2-00:00:00, gres: 'gpu:a100:1'}\n")
    compute = compute_from_environment()
    assert isinstance(compute, SlurmCompute)
    assert (compute.data_root, compute.account, compute.setup) == (str(data_root), "drives", ["module load cuda"])
    assert compute.train == Size(time="2-00:00:00", gres="gpu:a100:1", memory="32G")
    assert compute.annotate.per_task == 20
    for wrong, named in [("acount: drives", "acount"), ("train: {cpus: 0}", "cpus"), ("train: {gpus: 2}", "gpus"),
                         ("partition: 'gpu; id'", "partition"), ("login: -oProxyCommand=id", "login")]:  # fmt: skip
        path.write_text(wrong)
        with pytest.raises(DataError, match=f"slurm.yaml: .*{named}"):
            compute_from_environment()
    path.write_text("- account\n")
    with pytest.raises(DataError, match="expected settings"):
        compute_from_environment()
    path.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        compute_from_environment()
