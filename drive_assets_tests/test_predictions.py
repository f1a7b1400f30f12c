"""`drive-assets predict`, the asset and its page: of a recording of the data root, and of a drive anywhere."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from starlette.testclient import TestClient

from drive_assets import cli
from drive_assets.definitions import defs
from drive_assets.reports.server import Reports
from drive_assets.resources.storage import Storage
from drive_assets.running.instance import open_instance
from drive_assets_tests.model.dataset.test_windows import labelled_drive
from drive_assets_tests.networks import ARCHITECTURE, NAMES, bare_drive, write_network
from model.detection.detector import BUNDLED

ASKED = ("--architecture", ARCHITECTURE)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("predicted") / "data"
    write_network(root, rows=160)
    return root


@pytest.fixture
def storage(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    monkeypatch.setenv("DRIVE_ASSETS_DATA", str(root))
    monkeypatch.setenv("DAGSTER_HOME", str(root / "dagster"))
    monkeypatch.setenv("DRIVE_ASSETS_WEIGHTS", str(BUNDLED))
    yield Storage.from_environment()


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["predict", *arguments])
    return int(ended.value.code or 0)


def test_of_a_recording_it_is_the_asset_with_a_page(storage: Storage) -> None:
    command = [sys.executable, "-m", "drive_assets.cli", "predict", NAMES[0], *ASKED]
    told = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert told.returncode == 0 and "141 of 160 rows predicted" in told.stdout, told.stdout
    with open_instance() as instance:
        assert instance.get_materialized_partitions(dg.AssetKey("predictions")) == {NAMES[0]}
        reports = Reports(storage, instance, defs.resolve_asset_graph())
        client = TestClient(reports.app(), base_url="http://127.0.0.1")
        answer = client.get(f"/predictions/{NAMES[0]}")
        page, policy = answer.text, answer.headers["content-security-policy"]
        assert "This recording was in train" in page and 'src="http' not in page
        assert page.count("<script>") == 1 and "script-src 'sha256-" in policy
        (data,) = (json.loads(text) for text in re.findall(r'<script type="application/json">(.*?)</script>', page))
        assert [len(task["probability"]) for task in data["tasks"]] == [160] * 4
        assert client.get(f"/{data['pictures'][7]}").content.startswith(b"\xff\xd8")
        for wrong in ("telemetry.csv", "..%2F..%2Fsecret.jpg", "none.jpg"):
            assert client.get(f"/thumbnail/{NAMES[0]}/{wrong}").status_code == 404


@pytest.mark.parametrize("is_annotated", [True, False])
def test_a_drive_elsewhere_is_only_read(
    storage: Storage, tmp_path: Path, is_annotated: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / f"2024-07-0{1 + is_annotated}_10-00-00"
    drive = labelled_drive(folder, 60) if is_annotated else bare_drive(folder).folder
    before = {path.name: (path.stat().st_mtime_ns, path.stat().st_size) for path in drive.iterdir()}
    for _ in range(2):  # the second time over what the first left
        assert run(str(drive), *ASKED) == 0, capfd.readouterr()
    assert {path.name: (path.stat().st_mtime_ns, path.stat().st_size) for path in drive.iterdir()} == before
    made = storage.predictions_elsewhere(folder.name)
    page = (made / "predictions.html").read_text()
    assert "No split of the current data set holds" in page
    assert page.count("data:image/jpeg;base64,") == 60 and "http" not in page and "<nav" not in page
    assert not list(storage.recordings.glob("2024-07*"))
    assert (made / "annotations.csv").is_symlink() == is_annotated


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("DRIVE", "--architecture", "../../etc"), "Unknown architecture '../../etc'"),
        (("DRIVE",), "No network has the alias best"),
        (("2031-01-01_00-00-00",), "does not exist: give a recording, or the path of a drive's folder"),
        (("/nowhere/drive",), "does not exist: give a recording, or the folder of a drive"),
        (("DRIVE", *ASKED, "--false-alarms", "5"), "No threshold was chosen for 5 false alarms per hour: choose 3, 60"),
    ],
)
def test_what_cannot_be_predicted_is_one_sentence(
    storage: Storage, tmp_path: Path, arguments: tuple[str, ...], sentence: str, capfd: pytest.CaptureFixture[str]
) -> None:
    drive = labelled_drive(tmp_path / "2024-07-05_10-00-00", 30)
    assert run(*(str(drive) if word == "DRIVE" else word for word in arguments)) == 2
    told = "".join(capfd.readouterr())
    assert sentence in told and "Traceback" not in told
