"""Ingestion from folders and zips: complete or not at all, and clear errors for everything else."""

import copy
import errno
import os
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import ClassVar, NamedTuple

import pytest

from drive_assets.recordings import sources
from drive_assets.recordings.ingest import ingest
from drive_assets.recordings.local import LocalSource, find_all
from drive_assets.recordings.source import Source, Transfer
from drive_assets.recordings.sources import lookup, origin, register
from drive_assets.resources.storage import Storage
from drive_assets_tests.drives import write_drive
from drive_assets_tests.recordings.conftest import find_recordings
from model.common.errors import DataError
from model.common.progress import Log
from model.recording.dialect import ReadingConfig
from model.recording.folder import Recording

NAME = "2024-05-01_10-00-00"


def visible(storage: Storage) -> list[str]:
    return sorted(p.name for p in storage.recordings.iterdir() if not p.name.startswith("."))


def zip_of(path: Path, entries: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return path


def files_of(drive: Path, prefix: str = "") -> dict[str, bytes]:
    return {prefix + path.name: path.read_bytes() for path in drive.iterdir()}


def test_a_folder_is_copied_and_the_source_unchanged(storage: Storage, tmp_path: Path) -> None:
    drive = write_drive(tmp_path / NAME, rows=6)
    (drive / "annotations.csv").write_text("of another tool")
    report = ingest(storage, find_recordings(drive)[0])
    assert (report.change, report.content.usable_frames) == ("new", 6)
    assert not storage.annotations(NAME).exists()
    assert len(list(drive.glob("*.jpg"))) == 6
    assert ingest(storage, find_recordings(drive)[0]).change == "unchanged"


def test_other_content_moves_the_earlier_version_aside(storage: Storage, tmp_path: Path) -> None:
    source = find_recordings(write_drive(tmp_path / NAME, rows=6))[0]
    ingest(storage, source)
    storage.annotations(NAME).write_text("derived")
    shutil.rmtree(tmp_path / NAME)
    write_drive(tmp_path / NAME, rows=8)
    assert ingest(storage, source).change == "superseded"
    assert len(list(storage.recording(NAME).glob("*.jpg"))) == 8
    assert not storage.annotations(NAME).exists()
    (earlier,) = (storage.recordings / ".superseded" / NAME).iterdir()
    assert len(list(earlier.glob("*.jpg"))) == 6
    assert (earlier / "annotations.csv").read_text() == "derived"


@pytest.mark.parametrize("prefix", ["", f"{NAME}/", f"export/{NAME}/", f"M\xfcnchen\\{NAME}\\"])
def test_zips_with_and_without_folders(storage: Storage, tmp_path: Path, prefix: str) -> None:
    drive = write_drive(tmp_path / "x" / NAME, rows=6)
    (source,) = find_recordings(zip_of(tmp_path / f"{NAME}.zip", files_of(drive, prefix)))
    assert source.name == NAME
    assert ingest(storage, source).content.usable_frames == 6


class Entry(NamedTuple):
    name: str
    content: bytes = b"x"
    mode: int = 0


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (Entry("../evil.jpg"), "leads out of the archive"),
        (Entry("/etc/evil.jpg"), "leads out of the archive"),
        (Entry("C:/evil.jpg"), "leads out of the archive"),
        (Entry("link.jpg", b"/etc/passwd", 0o120777), "is a link"),
        (Entry("bomb.jpg", bytes(30_000_000)), "absurd size"),
        (Entry("TELEMETRY.JPG"), "holds TELEMETRY.JPG and telemetry.jpg: remove all but one"),
        (Entry("telemetry.jpg"), "holds telemetry.jpg and telemetry.jpg: remove"),
        (Entry("..\\evil.jpg"), "leads out of the archive"),
        (Entry("telemetry\n.jpg"), "control characters"),
    ],
)
def test_hostile_zips_are_refused_by_entry_and_leave_nothing(
    storage: Storage, tmp_path: Path, entry: Entry, message: str
) -> None:
    drive = write_drive(tmp_path / "x" / NAME, rows=4)
    archive = tmp_path / f"{NAME}.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        for path in drive.iterdir():
            opened.write(path, path.name)
        opened.writestr("telemetry.jpg", b"x")
        info = zipfile.ZipInfo(entry.name)
        info.external_attr = entry.mode << 16
        info.compress_type = zipfile.ZIP_DEFLATED
        opened.writestr(info, entry.content)
    with pytest.raises(DataError, match=message):
        ingest(storage, LocalSource(NAME, str(archive), ""))
    assert visible(storage) == []
    assert list((storage.recordings / ".incoming").iterdir()) == []
    assert not (tmp_path / "evil.jpg").exists()


def test_a_zip_whose_entries_share_bytes_is_refused(storage: Storage, tmp_path: Path) -> None:
    archive = tmp_path / f"{NAME}.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("a.jpg", bytes(100_000))
        first = opened.infolist()[0]
        for number in range(500):
            twin = copy.copy(first)
            twin.filename = twin.orig_filename = f"{number}.jpg"
            opened.filelist.append(twin)
            opened.NameToInfo[twin.filename] = twin
    with pytest.raises(DataError, match="entries overlap"):
        ingest(storage, LocalSource(NAME, str(archive), ""))
    assert visible(storage) == []


def test_what_is_refused_is_named_on_one_line_and_does_not_affect_the_others(tmp_path: Path) -> None:
    folder, other = tmp_path / "all", "2024-05-02_10-00-00"
    good = write_drive(folder / NAME, rows=2)
    content = files_of(good)
    for name in ("drive", f"{NAME}\nERROR all drives lost", "2026-02-30_10-00-00"):
        shutil.copytree(good, folder / name)
    (folder / "2024-05-03_10-00-00").mkdir()
    for name in ("broken.zip", "week.tar.gz", "week.rar", f"{other}.zip.part", "notes.txt"):
        (folder / name).write_bytes(b"x")
    inside = {f"{name}/{file}": data for name in (other, f"{NAME} - Copy") for file, data in content.items()}
    zip_of(folder / "week.zip", inside)
    latin = zip_of(folder / "latin.zip", {"\xfc\xfc.jpg": b"x"})
    latin.write_bytes(latin.read_bytes().replace("\xfc".encode(), b"\xff\xfe"))
    secret = bytearray(
        zip_of(folder / "secret.zip", {f"{NAME}/{file}": data for file, data in content.items()}).read_bytes()
    )
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = -1
        while (place := secret.find(signature, place + 1)) >= 0:
            secret[place + offset] |= 1
    (folder / "secret.zip").write_bytes(secret)
    os.mkfifo(folder / "pipe.zip")
    twice = Path(shutil.copytree(good, tmp_path / "again" / NAME))
    (tmp_path / "empty").mkdir()
    found, refused = find_all([folder, twice, tmp_path / "none", tmp_path / "empty", Path("/dev/zero")])
    assert [source.name for source in found] == [NAME, other]
    assert not any("\n" in reason for reason in refused)
    expected = {
        "drive holds 'drive', not a recording name",
        "lost has control characters in its path: rename it",
        "2026-02-30_10-00-00 holds '2026-02-30_10-00-00', not a recording name",
        "2024-05-03_10-00-00 lacks telemetry.csv and a frame",
        "broken.zip is no complete zip",
        "week.tar.gz is no zip: unpack it",
        "week.rar is no zip: unpack it",
        f"{other}.zip.part is an unfinished download or copy",
        f"week.zip holds '{NAME} - Copy', not a recording name",
        "latin.zip is no complete zip",
        "secret.zip is encrypted: unpack it with its password",
        "pipe.zip is no regular file",
        f"{twice} holds {NAME}, as {good} does",
        "none does not exist",
        "empty holds no recording",
        "/dev/zero holds no recording",
    }
    assert {text for text in expected if any(text in reason for reason in refused)} == expected
    assert len(refused) == len(expected)


def test_a_folder_that_cannot_be_read_does_not_affect_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed, good = (write_drive(tmp_path / name, rows=2) for name in (NAME, "2024-05-02_10-00-00"))
    list_folder = os.scandir

    def scandir(path: Path) -> "Iterator[os.DirEntry[str]]":
        if path == closed:
            raise PermissionError(errno.EACCES, "Permission denied")
        return list_folder(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found, refused = find_all([closed, good])
    assert [source.name for source in found] == [good.name]
    assert refused == [f"{closed} cannot be read: Permission denied."]


def test_an_invalid_recording_leaves_nothing_and_its_error_names_the_source(storage: Storage, tmp_path: Path) -> None:
    drive = write_drive(tmp_path / NAME, rows=4)
    text = (drive / "telemetry.csv").read_text()
    (drive / "telemetry.csv").write_text(text.replace(",2000,", ",fast,"))
    with pytest.raises(DataError, match="'fast' is not a number") as caught:
        ingest(storage, find_recordings(drive)[0])
    assert str(drive / "telemetry.csv") in str(caught.value)
    assert ".incoming" not in str(caught.value)
    assert visible(storage) == [] == list((storage.recordings / ".incoming").iterdir())


def test_a_full_disk_is_noticed_in_time(storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drive = write_drive(tmp_path / NAME, rows=2)
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DataError, match="DRIVE_ASSETS_DATA"):
        ingest(storage, find_recordings(drive)[0])
    assert visible(storage) == []


def test_all_files_are_flushed_before_they_are_visible(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive = write_drive(tmp_path / NAME, rows=2)
    flushed: set[str] = set()

    def fsync(descriptor: int) -> None:
        if visible(storage) == []:
            flushed.add(Path(f"/proc/self/fd/{descriptor}").readlink().name)

    monkeypatch.setattr(os, "fsync", fsync)
    ingest(storage, find_recordings(drive)[0])
    assert {path.name for path in storage.recording(NAME).iterdir()} <= flushed


def test_registered_sources_come_before_the_inbox(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no source"):
        lookup(storage, NAME)
    inbox = write_drive(storage.inbox / NAME, rows=2)
    assert lookup(storage, NAME).location == str(inbox)
    given = write_drive(tmp_path / "given" / NAME, rows=2)
    register(storage, find_recordings(given))
    assert lookup(storage, NAME).location == str(given)


def test_an_incomplete_folder_does_not_hide_a_complete_source(storage: Storage, tmp_path: Path) -> None:
    (storage.inbox / NAME).mkdir(parents=True)
    with pytest.raises(DataError, match=f"{storage.inbox / NAME} lacks telemetry.csv"):
        lookup(storage, NAME)
    archive = zip_of(storage.inbox / f"{NAME}.zip", files_of(write_drive(tmp_path / NAME, rows=2)))
    assert lookup(storage, NAME).location == str(archive)


def _ingest(data: str, folder: str) -> None:
    ingest(Storage(data_root=data, inbox_root=data), find_recordings(Path(folder))[0])


def test_another_drive_with_the_same_start_time_is_refused(storage: Storage, tmp_path: Path) -> None:
    first, second = (find_recordings(write_drive(tmp_path / car / NAME, seed=n))[0] for n, car in enumerate("ab"))
    register(storage, [first])
    version = ingest(storage, first).version
    register(storage, [second])
    message = f"{NAME} exists already from {first.location} with other content than {second.location}.*forget {NAME}"
    with pytest.raises(DataError, match=message):
        ingest(storage, second)
    assert lookup(storage, NAME) == first
    assert ingest(storage, first).version == version
    copy = LocalSource(NAME, str(shutil.copytree(first.location, tmp_path / "usb" / NAME)))
    assert ingest(storage, copy).change == "unchanged"
    shutil.rmtree(tmp_path / "usb")
    assert ingest(storage, second).change == "superseded"


def test_two_processes_at_once(storage: Storage, tmp_path: Path) -> None:
    drives = [write_drive(tmp_path / str(n) / NAME, rows=6 + n) for n in range(2)]
    context = get_context("spawn")
    processes = [context.Process(target=_ingest, args=(storage.data_root, str(drive))) for drive in drives]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    first = [process.exitcode for process in processes].index(0)
    assert processes[1 - first].exitcode != 0, "two drives of one name"
    assert visible(storage) == [NAME]
    assert len(list(storage.recording(NAME).glob("*.jpg"))) == 6 + first


def test_files_of_a_desktop_in_a_zip_are_ignored(storage: Storage, tmp_path: Path) -> None:
    drive = write_drive(tmp_path / "x" / NAME, rows=2)
    left = {
        f"{NAME}/Icon\r": b"",
        f"{NAME}/.DS_Store": b"x",
        f"{NAME}/._{NAME}.jpg": b"x",
        f"__MACOSX/{NAME}/._telemetry.csv": b"x",
    }
    archive = zip_of(tmp_path / "mac.zip", files_of(drive, f"{NAME}/") | left)
    (source,) = find_recordings(archive)
    report = ingest(storage, source)
    assert (report.content.frames, report.content.frames_without_row) == (2, 0)


def test_links_are_followed_only_where_allowed(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive = write_drive(tmp_path / "given" / NAME, rows=2)
    cache = tmp_path / "cache"
    cache.mkdir()
    for number, path in enumerate(sorted(drive.iterdir())):
        path.rename(cache / str(number))
        path.symlink_to(cache / str(number))
    (source,) = find_recordings(tmp_path / "given")
    with pytest.raises(DataError, match=r"is a link to .*/cache/.*cp -rL.*DRIVE_ASSETS_LINKS"):
        ingest(storage, source)
    monkeypatch.setenv("DRIVE_ASSETS_LINKS", str(cache))
    assert ingest(storage, source).content.usable_frames == 2
    assert not any(path.is_symlink() for path in storage.recording(NAME).iterdir())


def test_frames_whose_names_are_not_utf8_are_named_and_skipped(storage: Storage, tmp_path: Path) -> None:
    drive = write_drive(tmp_path / NAME, rows=2)
    os.link(next(drive.glob("*.jpg")), os.fsencode(drive) + b"/Stra\xdfe\n.jpg")
    lines: list[str] = []
    report = ingest(storage, find_recordings(drive)[0], lines.append)
    assert (report.content.frames, report.transfer["skipped_frames"]) == (2, "Stra\\udcdfe\\n.jpg")
    assert len(lines) == 1 and "1 frames skipped" in lines[0]


def test_a_file_that_cannot_be_read_is_named(storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drive, fail = write_drive(tmp_path / NAME, rows=2), OSError(errno.EIO, os.strerror(errno.EIO))
    monkeypatch.setattr(shutil, "copyfile", lambda source, target: (_ for _ in ()).throw(fail))
    with pytest.raises(DataError, match=rf"cannot be copied .* Input/output error: '{drive}/.*\.jpg'"):
        ingest(storage, find_recordings(drive)[0])
    assert visible(storage) == []


@pytest.mark.parametrize("kind", ["fifo", "device", "broken link", "circle of links", "folder"])
def test_only_regular_files_are_read(storage: Storage, tmp_path: Path, kind: str) -> None:
    drive = write_drive(tmp_path / NAME, rows=2)
    odd = drive / "odd.jpg"
    links = {"device": Path("/dev/zero"), "broken link": drive / "none.jpg", "circle of links": odd}
    if kind in links:
        odd.symlink_to(links[kind])
    else:
        os.mkfifo(odd) if kind == "fifo" else odd.mkdir()
    with pytest.raises(DataError, match=r"odd\.jpg is (a link to /dev/zero|no regular file)|Too many levels"):
        ingest(storage, find_recordings(drive)[0])


@pytest.mark.parametrize("zipped", [False, True])
def test_names_in_another_case_are_accepted(storage: Storage, tmp_path: Path, zipped: bool) -> None:
    drive = write_drive(tmp_path / NAME, rows=3)
    (drive / "telemetry.csv").rename(drive / "Telemetry.CSV")
    for frame in list(drive.glob("*.jpg")):
        frame.rename(frame.with_suffix(".JPEG"))
    source = drive
    if zipped:
        source = Path(shutil.make_archive(str(drive), "zip", drive))
    assert ingest(storage, find_recordings(source)[0]).content.usable_frames == 3
    assert (storage.recording(NAME) / "telemetry.csv").is_file()
    shutil.copyfile(drive / "Telemetry.CSV", drive / "telemetry.csv")
    if not zipped:
        with pytest.raises(DataError, match=r"Telemetry\.CSV, telemetry\.csv, which differ only in case"):
            ingest(storage, find_recordings(source)[0])


def test_the_reading_options_are_stored_with_the_recording(storage: Storage, tmp_path: Path) -> None:
    source = find_recordings(write_drive(tmp_path / NAME, rows=3))[0]
    before = ingest(storage, source)
    storage.annotations(NAME).write_text("derived")
    raw = ReadingConfig(pedal_range=[0, 255])
    changed = ingest(storage, source, config=raw)
    assert (changed.change, changed.version == before.version) == ("reread", False)
    pedal = Recording(storage.recording(NAME)).telemetry()[0]["ACCELERATOR_POS_D"]
    assert pedal.tolist() == pytest.approx([30 / 2.55] * 3)
    for again in (ingest(storage, source), ingest(storage, LocalSource(NAME, str(storage.recording(NAME))))):
        assert (again.change, again.version) == ("unchanged", changed.version)
    in_place = ingest(
        storage, LocalSource(NAME, str(storage.recording(NAME))), config=ReadingConfig(pedal_range=[0, 100])
    )
    assert (in_place.change, in_place.version) == ("reread", before.version)
    assert storage.annotations(NAME).read_text() == "derived"


@pytest.mark.parametrize("killed_at", [1, 2, 3])
def test_a_kill_while_a_version_moves_aside_loses_nothing(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    source = find_recordings(write_drive(tmp_path / NAME, rows=3))[0]
    raw = ReadingConfig(pedal_range=[0, 255])
    ingest(storage, source, config=raw)
    shutil.rmtree(tmp_path / NAME)
    write_drive(tmp_path / NAME, rows=4)
    renames, rename = list[Path](), Path.rename

    def killed(path: Path, target: Path) -> Path:
        renames.append(path)
        if len(renames) == killed_at:
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as kill, pytest.raises(KeyboardInterrupt):
        kill.setattr(Path, "rename", killed)
        ingest(storage, source)
    ingest(storage, source)
    assert Recording(storage.recording(NAME)).reading() == raw
    assert len(list(storage.recording(NAME).glob("*.jpg"))) == 4
    (earlier,) = (storage.recordings / ".superseded" / NAME).iterdir()
    assert len(list(earlier.glob("*.jpg"))) == 3 and earlier.name.startswith("20")


def test_unreadable_source_files(storage: Storage, tmp_path: Path) -> None:
    drive = write_drive(tmp_path / NAME, rows=2)
    ingest(storage, find_recordings(drive)[0])
    (storage.recording(NAME) / ".source.json").write_text("{")
    assert origin(storage, NAME) is None
    ingest(storage, find_recordings(drive)[0])
    assert origin(storage, NAME) == find_recordings(drive)[0]  # written again
    storage.sources.mkdir(exist_ok=True)
    for junk in ("{", "[]", '{"kind": "ftp"}', "\x00"):
        (storage.sources / f"{NAME}.json").write_text(junk)
        with pytest.raises(DataError, match=f"{NAME}.json does not name the source of"):
            lookup(storage, NAME)


@pytest.mark.parametrize("file", ["frame", "roi.json"])
def test_changed_content_of_equal_size_is_a_new_version(storage: Storage, tmp_path: Path, file: str) -> None:
    drive = write_drive(tmp_path / NAME, rows=2)
    path = drive / "roi.json" if file == "roi.json" else sorted(drive.glob("*.jpg"))[0]
    if file == "roi.json":
        path.write_text('{"x": 0, "y": 100, "width": 1920, "height": 575}')
    assert ingest(storage, find_recordings(drive)[0]).change == "new"
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[content.index(b"100") if file == "roi.json" else len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert ingest(storage, find_recordings(drive)[0]).change == "superseded"
    assert (storage.recording(NAME) / path.name).read_bytes() == content
    assert ingest(storage, find_recordings(drive)[0]).change == "unchanged"


@dataclass(frozen=True)
class Bucket(Source):
    """A new kind of source, as small as a kind can be."""

    kind: ClassVar[str] = "bucket"

    @classmethod
    def find(cls, storage: Storage, name: str) -> "Bucket | None":
        folder = storage.root / "objects" / name
        return Bucket(name, f"bucket:{folder}") if folder.is_dir() else None

    def fetch(self, storage: Storage, target: Path, log: Log) -> Transfer:
        shutil.copytree(self.location.removeprefix("bucket:"), target, dirs_exist_ok=True)
        return {"downloaded_megabytes": 1.0}

    def release(self, storage: Storage) -> None:
        (storage.root / "released").touch()


def test_a_new_kind_of_source_is_a_class_in_the_table(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Bucket(NAME, f"bucket:{write_drive(storage.root / 'objects' / NAME, rows=2)}")
    with pytest.raises(DataError, match="has no source"):
        lookup(storage, NAME)
    monkeypatch.setattr(sources, "KINDS", (*sources.KINDS, Bucket))
    assert lookup(storage, NAME) == source
    report = ingest(storage, source)
    assert (report.change, report.source, report.transfer) == ("new", source.location, {"downloaded_megabytes": 1.0})
    assert (storage.root / "released").exists()
    register(storage, [source])
    assert origin(storage, NAME) == lookup(storage, NAME) == source
