"""Tags: stored by people at once, honoured by train and val alone, and part of the data version by what they change."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from drive_assets_tests.drives import write_drive
from drive_assets_tests.model.split_files import write_split_file
from model.common.errors import DataError
from model.dataset.assignment import SplitConfig
from model.dataset.review import Review, ReviewConfig, Tag, moment_ms, moment_text, read_tags, store_tag
from model.dataset.split_file import choose_windows, read_split, write_split
from model.dataset.splits import build_manifest
from model.dataset.window_data import WindowData
from model.dataset.windows import WindowConfig
from model.recording.annotations import Annotations, write_annotations
from model.recording.folder import Recording
from model.recording.labels import future_labels, write_future_labels

NAMES = [f"2024-05-0{day}_10-00-00" for day in range(1, 5)]
WINDOW = WindowConfig(stride=1, length=10)
FIXED = SplitConfig(fixed=dict(zip(NAMES, ("train", "train", "val", "test"), strict=True)))


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("review")
    for seed, name in enumerate(NAMES):
        recording = Recording(write_drive(folder / name, seed=seed, rows=48))
        times = list(recording.frames())
        box = np.array([[100, 100, 500, 300, 0.9, 0]], np.float32)
        boxes = [box if number % 2 else box[:0] for number in range(len(times))]
        write_annotations(
            recording.annotations_path, Annotations.from_frames(times, [f"{time}.jpg" for time in times], boxes)
        )
        write_future_labels(recording.labels_path, future_labels(recording.telemetry()[0]))
    return folder


def built(recordings: Path, *tags: Tag, **options: Any) -> dict[str, Any]:
    return build_manifest(recordings, NAMES, WINDOW, FIXED, review=ReviewConfig(**options), tags=tags)


def written(recordings: Path, manifest: dict[str, Any], folder: Path, split: str = "train") -> Path:
    members = [recordings / name for name in manifest["splits"][split]["recordings"]]
    write_split(folder / f"{split}.h5", members, WINDOW, "v", Review.of(manifest))
    return folder / f"{split}.h5"


def tag(recordings: Path, name: str, row: int, what: str) -> Tag:
    """At the row of a recording."""
    times = Recording(recordings / name).telemetry()[0]["t"]
    return Tag(name, moment_text(int(times.iloc[row])), "brake_1s", "missed", what, "", "Ann", "")


def test_tags_leave_windows_out_of_train_and_val_and_weigh_them_but_never_in_test(
    recordings: Path, tmp_path: Path
) -> None:
    plain = built(recordings)
    train, val, test, gone = (tag(recordings, NAMES[place], 20, "label wrong") for place in (0, 2, 3, 1))
    gone = gone._replace(time=moment_text(moment_ms(gone.time) - 86_400_000))
    reviewed = built(recordings, train, val, test, gone, reach_s=1.0)
    assert reviewed["review"]["windows"] == {"train_out": 5, "train_weighted": 0, "val_out": 5, "val_weighted": 0}
    assert reviewed["review"]["without_window"] == [[gone.recording, gone.time, 0.0]]
    assert reviewed["review"]["of_test"] == 1
    for split, fewer in {"train": 5, "val": 5, "test": 0}.items():
        assert plain["splits"][split]["recordings"] == reviewed["splits"][split]["recordings"]
        assert plain["splits"][split]["windows"] - reviewed["splits"][split]["windows"] == fewer
        assert (
            len(read_split(written(recordings, reviewed, tmp_path, split)).window_start)
            == (reviewed["splits"][split]["windows"])
        )
    hard = built(recordings, train._replace(tag="hard"), reach_s=1.0, weights={"hard": 3.0})
    weight = read_split(written(recordings, hard, tmp_path)).window_weight
    assert (
        weight is not None
        and sorted(weight)[-6:] == [1, 3, 3, 3, 3, 3]
        and len(weight) == (plain["splits"]["train"]["windows"])
    )
    versions = [manifest["fingerprint"] for manifest in (plain, reviewed, hard)]
    assert len(set(versions)) == 3


def test_without_an_effect_everything_stays_as_it_was(recordings: Path, tmp_path: Path) -> None:
    """Neither tags of weight 1, nor those of test, change the data version or a byte."""
    plain = built(recordings)
    assert "review" not in plain and "similar" not in plain
    of_test, hard = tag(recordings, NAMES[3], 20, "label wrong"), tag(recordings, NAMES[0], 20, "hard")
    assert built(recordings, of_test, hard)["fingerprint"] == plain["fingerprint"]
    with_review = written(recordings, plain, tmp_path).read_bytes()
    members = [recordings / name for name in plain["splits"]["train"]["recordings"]]
    write_split(tmp_path / "train.h5", members, WINDOW, "v")
    assert (tmp_path / "train.h5").read_bytes() == with_review


def test_frequent_situations_are_thinned_in_train_alone(recordings: Path) -> None:
    plain, thinned = built(recordings), built(recordings, keep_empty_road=0.5)
    windows = plain["splits"]["train"]["windows"]
    assert abs(thinned["splits"]["train"]["windows"] - 0.75 * windows) <= 2
    for name in ("val", "test"):
        assert thinned["splits"][name]["windows"] == plain["splits"][name]["windows"]


def test_people_who_tag_at_once_lose_nothing_and_the_last_word_counts(tmp_path: Path) -> None:
    path = tmp_path / "review" / "review.csv"
    tags = [
        Tag(NAMES[0], f"2024-05-01 10-00-{second:02d}-500", "brake_1s", "missed", "hard", '=a\n"b"', "Ann", "")
        for second in range(40)
    ]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda each: store_tag(path, each), tags))
    store_tag(path, tags[0]._replace(tag="bad sensor", who="Bob"))
    stored = {each.time: each for each in read_tags(path)}
    assert len(stored) == 40 and stored[tags[0].time].tag == "bad sensor"
    assert stored[tags[1].time].note == '\'=a "b"' and len(path.read_text().splitlines()) == 42


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("x,2024-05-01 10-00-00-500,brake_1s,missed,hard,,Ann,", "row 2: Recording name 'x'"),
        (f"{NAMES[0]},now,brake_1s,missed,hard,,Ann,", "row 2: time data 'now'"),
        (f"{NAMES[0]},2024-05-01 10-00-00-500,brake_1s,missed,great,,Ann,", "row 2: tag 'great'"),
        (f"{NAMES[0]},2024-05-01", "row 2: .*correct or remove the row"),
    ],
)
def test_a_damaged_file_is_named_with_the_row(tmp_path: Path, row: str, said: str) -> None:
    path = tmp_path / "review.csv"
    path.write_text(f"{','.join(Tag._fields)}\n{row}\n")
    with pytest.raises(DataError, match=said):
        read_tags(path)
    path.write_text("wrong,columns\n")
    with pytest.raises(DataError, match="row 1: expected the columns recording"):
        read_tags(path)
    with pytest.raises(DataError, match="expected numbers from 0 to 100"):
        ReviewConfig(weights={"hard": float("nan")})


def test_windows_are_chosen_with_their_weights(tmp_path: Path) -> None:
    source = write_split_file(tmp_path / "all.h5", frames=60)
    weights = np.ones(41, np.float32)
    weights[:10], weights[10] = 0, 2
    choose_windows(source, tmp_path / "some.h5", weights)
    data = WindowData.load(tmp_path / "some.h5")
    assert len(data) == 31 and data.weight is not None
    assert data.gather(data.first_row.new_tensor([0, 1])).weight.tolist() == [2, 1]  # type: ignore[union-attr]
    with h5py.File(source, "a") as file:
        file["window_weight"] = np.full(41, 2, np.float32)
    choose_windows(source, tmp_path / "some.h5", np.ones(41, np.float32))
    assert WindowData.load(tmp_path / "some.h5").weight is None
