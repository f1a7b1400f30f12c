import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from drive_assets.resources.storage import Storage
from model.common.errors import DataError
from model.common.files import atomic_path, locked, remove_abandoned, write_text


def test_a_lock_names_its_holder_and_is_free_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lock"
    host = os.uname().nodename
    with locked(path), pytest.raises(DataError) as refused, locked(path, 0.0, "out is in use: {holder} trains"):
        pass
    assert str(refused.value) == f"out is in use: process {os.getpid()} on {host} trains"
    with locked(path, 0.0):
        pass


WRITE = """
import os, sys
from pathlib import Path
from model.common.files import atomic_path
with atomic_path(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), 9)
"""


def test_what_a_killed_process_was_writing_is_removed_and_what_a_live_one_writes_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b" / "c"
    subprocess.run([sys.executable, "-c", WRITE, str(folder / "x.csv")], check=False)
    (left,) = folder.iterdir()
    assert left.name.startswith(".x.") and left.suffix == ".csv"
    elsewhere = folder / f".y.00000000-{left.name.split('-', 1)[1]}"
    elsewhere.write_text("of another host")
    with atomic_path(folder / "z.csv") as ours:
        ours.write_text("in work")
        assert remove_abandoned(tmp_path) == [left]
        assert sorted(folder.iterdir()) == sorted([elsewhere, ours])
    os.utime(elsewhere, (0, 0))
    assert remove_abandoned(tmp_path) == [elsewhere]
    assert [path.name for path in folder.iterdir()] == ["z.csv"]


def test_a_full_disk_is_named_and_the_earlier_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "best_model.pt"
    path.write_text("before")
    with (
        pytest.raises(DataError, match=r"best_model\.pt cannot be written: the disk is full"),
        atomic_path(path) as temporary,
    ):
        temporary.symlink_to("/dev/full")
        temporary.write_bytes(b"after")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("best_model.pt", "before")]


def told_to_nobody(work: Callable[[], object]) -> str:
    """The DataError of `work` in a process whose user may not write what others own."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            if os.geteuid() == 0:
                os.setuid(65534)
            work()
        except DataError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as stream:
        return stream.read()


def test_what_may_not_be_written_is_named() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "models"
        folder.mkdir()
        Path(name).chmod(0o755)
        folder.chmod(0o555)
        storage = Storage(data_root=name, inbox_root=name)
        for path, work in (
            (folder / "x" / "lock", lambda: locked(folder / "x" / "lock").__enter__()),
            (folder / "lock", lambda: locked(folder / "lock").__enter__()),
            (folder / "best.pt", lambda: write_text(folder / "best.pt", "x")),
            (folder / "x" / "best.pt", lambda: write_text(folder / "x" / "best.pt", "x")),
            (Path(name), storage.check_writable),
        ):
            assert told_to_nobody(work).startswith(f"{path} cannot be written: Permission denied. Choose another")
