"""The review queue as people use it: found out of sample, shown as clips, tagged through the server, honoured after."""

import csv
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from starlette.testclient import TestClient

from drive_assets.definitions import defs
from drive_assets.evaluation.review import review_queue
from drive_assets.reports.server import Reports
from drive_assets.resources.compute import LocalCompute
from drive_assets.resources.storage import Storage
from drive_assets.running.front_door import SETTINGS, cookie_name, guarded
from drive_assets.splits.manifest import outdated_manifest
from drive_assets_tests.browser.walk import BROWSER, DRIVER, browser
from drive_assets_tests.model.dataset.test_windows import labelled_drive
from drive_assets_tests.networks import ARCHITECTURE, TRAINING
from drive_assets_tests.test_predictions import reports
from model.common.errors import DataError
from model.dataset.assignment import SplitConfig
from model.dataset.review import COLUMNS, Review, ReviewConfig, Weighted, read_tags
from model.dataset.split_file import read_split, write_split
from model.dataset.splits import build_manifest
from model.dataset.windows import WindowConfig
from model.evaluation.config import ReviewGainConfig, ReviewQueueConfig
from model.evaluation.review_gain import prove
from model.evaluation.review_queue import write_queue
from model.recording.folder import Recording
from model.recording.labels import future_labels, write_future_labels
from model.training.loop import train

NAMES = [f"2024-05-0{day}_10-00-00" for day in range(1, 6)]
WINDOW = WindowConfig(stride=1)
SPLIT = SplitConfig(fixed=dict(zip(NAMES, ("train", "train", "train", "val", "test"), strict=True)))
TOKEN = "secret"


def _surprise(own: Recording, seed: int) -> None:
    """A braking that nothing announces, and a coasting that no braking follows."""
    lines = own.telemetry_path.read_text().splitlines()
    for row in range(1, len(lines)):
        cells, phase = lines[row].split(","), (row - 1 + 5 * seed) % 24
        if 100 <= row < 124 and cells[5] == "True":
            cells[5], cells[7] = "False", "-0.0200"
        if 100 <= row < 172 and 4 <= phase < 8 and row % 3:
            cells[5], cells[7] = "True", "0.3000"
        lines[row] = ",".join(cells)
    own.telemetry_path.write_text("\n".join(lines) + "\n")
    write_future_labels(own.labels_path, future_labels(own.telemetry()[0]))


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    """A data root with a review queue."""
    root = tmp_path_factory.mktemp("review") / "data"
    storage = Storage(data_root=str(root), inbox_root=str(root / "inbox"))
    for seed, name in enumerate(NAMES):
        _surprise(Recording(labelled_drive(storage.recording(name), 240, seed)), seed)
    manifest = build_manifest(storage.recordings, NAMES, WINDOW, SPLIT)
    storage.splits.mkdir(parents=True)
    storage.manifest.write_text(json.dumps(manifest))
    for split, part in manifest["splits"].items():
        members = [storage.recording(name) for name in part["recordings"]]
        write_split(storage.split(split), members, WINDOW, manifest["fingerprint"])
    with dg.instance_for_test() as instance:
        config = {"ops": {"review_queue": {"config": {"items": 30, "folds": 3}}}}
        resources = {"storage": storage, "compute": LocalCompute()}
        made = dg.materialize([review_queue], instance=instance, resources=resources, run_config=config)
        assert made.success
    yield storage


@pytest.fixture
def client(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A browser of somebody who has the token."""
    monkeypatch.setenv(SETTINGS, json.dumps({"token": TOKEN, "hosts": ["127.0.0.1"]}))
    storage.tags.unlink(missing_ok=True)
    with dg.instance_for_test() as instance:
        app = Reports(storage, instance, defs.resolve_asset_graph()).app()
        browser = TestClient(guarded(app), "http://127.0.0.1", raise_server_exceptions=False)
        browser.cookies.set(cookie_name(TOKEN), TOKEN)
        yield browser


def queue(storage: Storage) -> list[dict[str, str]]:
    with (storage.review / "queue.csv").open() as stream:
        return list(csv.DictReader(stream))


def tag_of(row: dict[str, str], tag: str = "label wrong", who: str = "Ann", note: str = "") -> dict[str, str]:
    return {**{name: row[name] for name in ("recording", "time", "task", "kind")}, "tag": tag, "who": who, "note": note}


def test_the_queue_holds_moments_of_train_and_val_but_never_of_test(storage: Storage) -> None:
    rows = queue(storage)
    assert rows and tuple(rows[0]) == COLUMNS
    assert {row["split"] for row in rows} == {"train", "val"} and NAMES[4] not in {row["recording"] for row in rows}
    assert {"missed", "false alarm"} <= {row["kind"] for row in rows}
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True) and len(rows) <= 30
    assert not list((storage.cache / "review").iterdir())


def test_clips_are_shown_and_a_tag_is_stored_and_seen_by_others(storage: Storage, client: TestClient) -> None:
    rows, page = queue(storage), client.get("/review_queue").text
    assert page.count("<article") == len(rows) and page.count("<polyline") == 3 * len(rows)
    picture = page.partition('<img loading="lazy"')[2].partition('src="')[2].partition('"')[0]
    assert client.get(picture).headers["content-type"] == "image/jpeg"
    stored = client.post("/review_queue/tags", json=tag_of(rows[0], note="<b>brakes\nlate</b>")).json()
    assert [each["tag"] for each in stored.values()] == ["label wrong"]
    client.post("/review_queue/tags", json=tag_of(rows[0], "hard", "Bob"))
    (seen,) = client.get("/review_queue/tags").json().values()
    assert (seen["tag"], seen["who"]) == ("hard", "Bob") and len(storage.tags.read_text().splitlines()) == 3
    client.post("/review_queue/tags", json=tag_of(rows[0], note="<b>brakes\nlate</b>"))
    page = client.get("/review_queue").text
    assert "&lt;b&gt;brakes late&lt;/b&gt;" in page and "label wrong — Ann" in page


def test_two_reviewers_at_once_lose_nothing(storage: Storage, client: TestClient) -> None:
    rows = queue(storage)[:12]
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda row: client.post("/review_queue/tags", json=tag_of(row)), rows))
    assert {answer.status_code for answer in answers} == {200} and len(read_tags(storage.tags)) == len(rows)


def test_nobody_else_can_tag(storage: Storage, client: TestClient) -> None:
    good, address = tag_of(queue(storage)[0]), "/review_queue/tags"
    text = json.dumps(good)
    for status, options in (
        (403, {"json": good, "headers": {"Origin": "http://evil.example"}}),
        (415, {"content": text, "headers": {"Content-Type": "text/plain"}}),
        (413, {"json": {**good, "note": "x" * 20_000}}),
        (422, {"json": {**good, "note": "x" * 501}}),
        (422, {"json": {**good, "path": "../../x"}}),
        (404, {"json": {**good, "recording": "../../etc"}}),
        (409, {"json": {**good, "tag": "great"}}),
        (409, {"json": {**good, "who": " "}}),
    ):
        assert client.post(address, **options).status_code == status, options  # type: ignore[arg-type]
    assert client.get(address, params=good).json() == {}
    assert client.put(address, json=good).status_code == 405
    client.cookies.clear()
    assert client.post(address, json=good).status_code == 403
    assert not storage.tags.exists()


def test_tags_make_the_splits_out_of_date(storage: Storage, client: TestClient) -> None:
    with dg.instance_for_test() as instance:
        assert outdated_manifest(instance, storage) == ""
        client.post("/review_queue/tags", json=tag_of(queue(storage)[0], "hard"))
        assert outdated_manifest(instance, storage) == ""
        client.post("/review_queue/tags", json=tag_of(queue(storage)[0]))
        assert outdated_manifest(instance, storage) == "tags in review.csv changed"
        manifest = build_manifest(
            storage.recordings, NAMES, WINDOW, SPLIT, json.loads(storage.manifest.read_text()),
            tags=read_tags(storage.tags),
        )  # fmt: skip
        assert sum(manifest["review"]["windows"].values()) > 0
        before = storage.manifest.read_text()
        storage.manifest.write_text(json.dumps(manifest | {"similar": {NAMES[0]: [NAMES[1], 0.25]}}))
        page = client.get("/split_manifest").text
        storage.manifest.write_text(before)
        assert "tags that change train or val" in page and "25%" in page


def test_three_arms_are_trained_alike_and_compared(storage: Storage, client: TestClient) -> None:
    """Tags leave windows out; without tags nothing is trained."""
    splits, members = storage.splits, json.loads(storage.manifest.read_text())["splits"]["train"]["recordings"]
    version = json.loads(storage.manifest.read_text())["fingerprint"]
    work, config = storage.cache / "gain", ReviewGainConfig(seeds=2, false_alarms_per_hour=60)
    how = (work, config, version, work, lambda line: None)
    nothing = prove(splits, storage.recordings, members, Review(ReviewConfig()), *how)
    assert not nothing.changed and nothing.verdict.startswith("No tag changes train")
    in_train = [row for row in queue(storage) if row["split"] == "train"][:4]
    review = Review(ReviewConfig(), [Weighted(row["recording"], row["time"], 0.0) for row in in_train])
    gain = prove(splits, storage.recordings, members, review, *how)
    windows = len(read_split(splits / "train.h5").window_start)
    assert gain.arms["untouched"].windows == windows > windows - gain.changed
    assert gain.arms["reviewed"].windows == gain.arms["random"].windows == windows - gain.changed
    assert all(interval is not None for interval in gain.foreseen.values()) and {*gain.foreseen} == {
        "untouched",
        "random",
    }
    gain.write(storage.evaluations / "review_gain.json")
    assert gain.verdict in (page := client.get("/review_gain").text) and page.count("<tr>") == 4


def test_a_network_is_trained_once_a_fold_and_once_an_arm(storage: Storage, tmp_path: Path) -> None:
    splits, manifest = storage.splits, json.loads(storage.manifest.read_text())
    version, members = manifest["fingerprint"], manifest["splits"]["train"]["recordings"]
    recipe = TRAINING.replace(epochs=1)
    best = train(ARCHITECTURE, splits, tmp_path / "published", recipe, version).best_model
    config = ReviewQueueConfig(predictor=ARCHITECTURE, folds=2, items=10)
    found = write_queue(splits, tmp_path, tmp_path / "work", config, version, best, storage.recordings)
    assert set(found["split"]) == {"train", "val"}
    review = Review(ReviewConfig(), [Weighted(*row, 3.0) for row in found[["recording", "time"]].values.tolist()])
    once = ReviewGainConfig(predictor=ARCHITECTURE, seeds=1)
    gain = prove(splits, storage.recordings, members, review, tmp_path / "work", once, version, best)
    assert gain.changed and len({figures.windows for figures in gain.arms.values()}) == 1
    with pytest.raises(DataError, match=r"was trained on data version .*, the splits have other: train simple_concat"):
        write_queue(splits, tmp_path, tmp_path / "work", config, "other", best, storage.recordings)
    with pytest.raises(DataError, match="predictor 'best': expected boosting or one of"):
        write_queue(
            splits, tmp_path, tmp_path / "work", config.replace(predictor="best"), version, best, storage.recordings
        )


@pytest.mark.skipif(BROWSER is None or DRIVER is None, reason="no chromium and chromedriver")
def test_in_the_browser_two_people_tag_by_keyboard(storage: Storage, tmp_path: Path) -> None:
    storage.tags.unlink(missing_ok=True)
    with reports(storage) as address, browser(tmp_path / "ann") as ann, browser(tmp_path / "bob") as bob:

        def see(driver: webdriver.Chrome, number: int, words: str) -> None:
            path = f"(//article)[{number}]//*[@class='tag' and contains(.,\"{words}\")]"
            WebDriverWait(driver, 60).until(lambda _: driver.find_elements(By.XPATH, path), f"{words} at {number}")

        for driver, name in ((ann, "Ann"), (bob, "Bob")):
            driver.get(f"{address}/review_queue")
            driver.find_element(By.TAG_NAME, "body").send_keys("1")
            WebDriverWait(driver, 60).until(
                lambda d: d.find_element(By.TAG_NAME, "output").text.startswith("Enter your")
            )
            driver.switch_to.active_element.send_keys(name)
            driver.execute_script("document.activeElement.blur()")
        keys = {driver: driver.find_element(By.TAG_NAME, "body").send_keys for driver in (ann, bob)}
        keys[ann]("1")
        see(ann, 1, "label wrong — Ann")
        see(bob, 1, "label wrong — Ann")
        keys[bob]("2")
        see(bob, 1, "not the driver's choice — Bob")
        see(ann, 1, "not the driver's choice — Bob")
        keys[ann]("n")
        ann.switch_to.active_element.send_keys("<i>turns off</i>", Keys.ENTER)
        see(bob, 2, "note — Ann")
        keys[ann]("k", "0")
        see(ann, 1, "")
        WebDriverWait(ann, 60).until(lambda _: storage.tags.read_text().count("\n") == 5)
        assert [(tag.tag, tag.note) for tag in read_tags(storage.tags)] == [("", ""), ("", "<i>turns off</i>")]
        image = ann.find_element(By.CSS_SELECTOR, "article.active img")
        WebDriverWait(ann, 60).until(lambda _: image.get_property("naturalWidth") == 320)
        complaints = [entry["message"] for entry in ann.get_log("browser") if entry["level"] == "SEVERE"]
        assert [text for text in complaints if "favicon.ico" not in text] == []
