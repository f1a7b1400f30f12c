import os
from pathlib import Path

import pytest

from model.common.errors import DataError
from model.common.files import locked


def test_a_lock_names_its_holder_and_is_free_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lock"
    host = os.uname().nodename
    with locked(path), pytest.raises(DataError) as refused, locked(path, 0.0, "out is in use: {holder} trains"):
        pass
    assert str(refused.value) == f"out is in use: process {os.getpid()} on {host} trains"
    with locked(path, 0.0):
        pass
