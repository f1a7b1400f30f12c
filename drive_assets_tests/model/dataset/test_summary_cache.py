"""Summaries of recordings and their cache."""

import re
import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from drive_assets_tests.drives import write_drive
from drive_assets_tests.model.dataset.test_windows import labelled_drive
from model.dataset import summary_cache
from model.dataset.assignment import SplitConfig
from model.dataset.splits import build_manifest
from model.dataset.summaries import Summary, crossing_sketch, drive_sketch, repeated, summarise
from model.dataset.windows import WindowConfig
from model.recording.folder import Recording

COPIES = (("copy", 120, 0), ("int", 120, 0))


def test_a_recording_is_read_again_only_if_its_files_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [labelled_drive(tmp_path / f"2024-05-0{n}_10-00-00", seed=n).name for n in range(1, 5)]
    names.append(shutil.copytree(tmp_path / names[0], tmp_path / "2024-06-01_10-00-00").name)
    later = time.time() + 60  # files that have just changed are not stored
    monkeypatch.setattr(summary_cache.time, "time", lambda: later)
    read: list[str] = []

    def counted(own: Recording, window: WindowConfig) -> Summary:
        read.append(own.name)
        return summarise(own, window)

    monkeypatch.setattr(summary_cache, "summarise", counted)
    options = (WindowConfig(), SplitConfig(), None, tmp_path / "cache.json")
    first = build_manifest(tmp_path, names, *options)
    assert first == build_manifest(tmp_path, names, WindowConfig(), SplitConfig())
    assert first["skipped"][names[4]].startswith(f"the same drive as {names[0]}")
    read.clear()
    assert build_manifest(tmp_path, names, *options) == first
    assert read == []
    frame = next(iter(Recording(tmp_path / names[2]).frames().values()))
    frame.write_bytes(bytes(byte ^ 1 for byte in frame.read_bytes()))  # in its place, of equal size
    build_manifest(tmp_path, names, *options)
    assert read == [names[2]]
    read.clear()
    (tmp_path / names[1] / "annotations.csv").unlink()
    assert "annotations.csv" in build_manifest(tmp_path, names, *options)["skipped"][names[1]]
    assert read == [names[1]]
    build_manifest(tmp_path, names, WindowConfig(stride=1), *options[1:])
    assert read[1:] == names
    (tmp_path / "cache.json").write_text("{")
    build_manifest(tmp_path, names, *options)
    assert read[6:] == names


def test_a_drive_repeats_another_whatever_its_clock_and_digits_but_not_another_car_at_the_same_time(
    tmp_path: Path,
) -> None:
    drives = {
        car: Recording(write_drive(tmp_path / car / "2024-05-01_10-00-00", rows, seed))
        for car, rows, seed in (("a", 120, 0), ("another", 120, 1), ("part of a", 60, 0), *COPIES)
    }
    text = drives["copy"].telemetry_path.read_text().replace("2024-05-01 10-", "2024-05-01 08-")
    for car, digits in (("copy", 1), ("int", 0)):
        rounded = re.sub(r"\d+\.\d\d(?=,2000)", lambda speed, digits=digits: f"{float(speed[0]):.{digits}f}", text)
        drives[car].telemetry_path.write_text(rounded)
    summaries = {car: Summary(sketch=drive_sketch(own.telemetry()[0])) for car, own in drives.items()}
    repeats, similar = repeated(summaries, same=0.4)
    assert (repeats, similar) == ({"part of a": "a", "copy": "a", "int": "a"}, {})
    repeats, similar = repeated(summaries, same=1.0)
    assert repeats == {"part of a": "a", "int": "a"} and similar["copy"][0] == "a"


def test_a_drive_sampled_at_other_moments_or_in_part_is_similar_and_other_drives_are_not() -> None:
    fine = np.arange(0, 600_000, 100)

    def summary(seed: int, first: int, step: int, last: int = 600_000, unit: float = 0.01) -> Summary:
        knots = np.random.default_rng(seed).uniform(0, 90, 40)
        smooth = np.convolve(np.interp(fine, np.linspace(0, 600_000, 40), knots), np.ones(100) / 100, "same")
        t = np.arange(first, last, step)
        rounded = np.round(np.interp(t, fine, smooth) / unit) * unit
        return Summary(crossings=crossing_sketch(pd.DataFrame({"t": t, "SPEED": rounded})))

    drives = {f"{seed}": summary(seed, 0, 500) for seed in range(8)}
    assert repeated(drives, same=0.4) == ({}, {})
    for changes in ((250, 500), (100, 200), (100_000, 500, 500_000), (400, 500, 600_000, 0.1)):
        copies = {f"{seed} again": summary(seed, *changes) for seed in range(8)}
        repeats, similar = repeated({**drives, **copies}, same=0.4)
        assert not repeats and {name: first for name, (first, _) in similar.items()} == {
            f"{n} again": n for n in drives
        }
    assert crossing_sketch(pd.DataFrame({"t": fine, "SPEED": 0.0})) == []
