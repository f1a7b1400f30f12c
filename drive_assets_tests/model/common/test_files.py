import errno
import hashlib
import itertools
import os
import re
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from drive_assets.resources.storage import Storage
from model.common.errors import DataError
from model.common.files import atomic_path, explained_errors, locked, remove_abandoned, sha256, write_text
from model.common.processes import hide_from_others


def test_a_lock_names_its_holder_and_is_free_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lock"
    host = os.uname().nodename
    with locked(path), pytest.raises(DataError) as refused, locked(path, 0.0, "out is in use: {holder} trains"):
        pass
    assert str(refused.value) == f"out is in use: process {os.getpid()} on {host} trains"
    with locked(path, 0.0):
        pass


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o640), (0o002, 0o660), (0o077, 0o600)])
def test_files_are_hidden_from_other_users_and_the_group_keeps_its_access(
    tmp_path: Path, umask: int, mode: int
) -> None:
    before = os.umask(umask)
    try:
        hide_from_others()
        write_text(tmp_path / "new" / "x.csv", "x")
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o666 for path in (tmp_path / "new" / "x.csv", tmp_path / "new")] == [mode, mode]


def contend(path: Path) -> list[str]:
    """The errors of many attempts to hold a lock."""
    texts = []
    for _ in range(300):
        try:
            with locked(path, 0.0, "{holder}"):
                pass
        except DataError as error:
            texts.append(str(error))
    return texts


def test_under_contention_the_holder_is_named(tmp_path: Path) -> None:
    with get_context("spawn").Pool(3) as pool:  # a forked process inherits locks that threads hold
        texts = itertools.chain(*pool.map(contend, [tmp_path / "lock"] * 3))
    assert not [text for text in texts if not re.fullmatch(r"process \d+ on .+", text)]


WRITE = """
import os, sys
from pathlib import Path
from model.common.files import atomic_path
with atomic_path(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), 9)
"""


def test_temporary_files_of_killed_processes_are_removed_and_those_of_living_ones_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a" / "b" / "c"
    subprocess.run([sys.executable, "-c", WRITE, str(folder / "x.csv")], check=False)
    (left,) = folder.iterdir()
    assert left.name.startswith(".x.") and left.suffix == ".csv"
    elsewhere = folder / f".y.00000000-{left.name.split('-', 1)[1]}"
    elsewhere.write_text("of another host")
    with atomic_path(folder / "z.csv") as ours:
        ours.write_text("in work")
        monkeypatch.setattr(psutil.Process, "create_time", lambda process: 1.0)  # as after a step of the clock
        assert remove_abandoned(tmp_path) == [left]
        assert sorted(folder.iterdir()) == sorted([elsewhere, ours])
    os.utime(elsewhere, (0, 0))
    assert remove_abandoned(tmp_path) == [elsewhere]
    assert [path.name for path in folder.iterdir()] == ["z.csv"]


def test_a_full_disk_is_named_and_the_earlier_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "best_model.pt"
    path.write_text("before")
    with (
        pytest.raises(DataError, match=r"best_model\.pt cannot be written: the disk is full.* MB that are free in"),
        atomic_path(path) as temporary,
    ):
        temporary.symlink_to("/dev/full")
        temporary.write_bytes(b"after")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("best_model.pt", "before")]


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EIO, "Input/output error. The disk, or the storage that it is mounted from, fails"),
        (errno.EROFS, "Read-only file system. Choose another data root"),
        (errno.EACCES, "Permission denied. Choose another data root"),
        (errno.ENOLCK, "No locks available. Choose a data root on a file system with locks"),
        (errno.EMFILE, "Too many open files. Raise the limit on open files"),
        (errno.EFBIG, "File too large. Raise the limit on the size of files"),
        (errno.EDQUOT, "Disk quota exceeded. Delete files of yours"),
        (errno.EISDIR, "Is a directory. A folder has the name of this file"),
        (errno.ENOSPC, "the disk has no inodes left"),
    ],
)
def test_the_reason_of_an_error_decides_the_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, advice: str
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_files=1000, f_favail=0))
    with (
        pytest.raises(DataError, match=re.escape(f"{tmp_path / 'x'} cannot be written: {advice}")),
        explained_errors(tmp_path / "x"),
    ):
        raise OSError(number, os.strerror(number))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    path = tmp_path / "x.jpg"
    path.write_bytes(b"x")
    monkeypatch.setattr(hashlib, "file_digest", fail)
    with pytest.raises(DataError, match=r"x\.jpg cannot be read: Input/output error\. The disk"):
        sha256(path)
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        sha256(tmp_path)


def test_a_folder_in_the_place_of_a_file_and_a_file_in_that_of_a_folder_are_named(tmp_path: Path) -> None:
    folder, file = tmp_path / "x.csv", tmp_path / "models"
    folder.mkdir()
    file.write_text("")
    with pytest.raises(DataError, match=r"x\.csv cannot be written: Is a directory\. A folder has the name"):
        write_text(folder, "x")
    for work in (
        lambda: locked(file / "x" / "lock").__enter__(),
        lambda: write_text(file / "best.pt", "x"),
        Storage(data_root=str(file / "data"), inbox_root="").check_writable,
    ):
        with pytest.raises(DataError, match=r"models/.* cannot be written: .*\. A file has the name"):
            work()


def test_a_lock_whose_holder_cannot_be_named_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "lock.holder").mkdir()
    with locked(tmp_path / "lock"):
        assert {path.name for path in tmp_path.iterdir()} == {"lock", "lock.holder"}
