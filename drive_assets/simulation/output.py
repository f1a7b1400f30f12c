"""Folders of simulated data: written under a temporary name, renamed when complete, never over other data."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import starmap
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import cv2

from model.common.errors import DataError, PassingError
from model.common.files import atomic_path, fsync_folder, remove_abandoned, write_json
from model.common.processes import children_ignore_ctrl_c, die_with_parent

MARKER = ".simulation.json"
Result = TypeVar("Result")


def exists(folder: Path, made_from: dict[str, Any]) -> bool:
    """Whether `folder` was already made from equal options; further ones in its marker are of earlier versions.

    Raises:
        DataError: it holds something else.
    """
    if not folder.exists():
        return False
    with contextlib.suppress(OSError, ValueError):
        if made_from.items() <= json.loads((folder / MARKER).read_text(encoding="utf-8")).items():
            return True
    raise DataError(
        f"{folder} exists and was not simulated with these options. Choose another output folder or another seed, or "
        "remove it."
    )


@contextlib.contextmanager
def new_folder(folder: Path, made_from: dict[str, Any]) -> Iterator[Path]:
    """Yield a temporary folder to fill; on success it becomes `folder`, on failure it is removed.

    Raises:
        DataError: as `atomic_path`.
    """
    remove_abandoned(folder.parent, levels=0)
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        yield temporary
        write_json(temporary / MARKER, made_from)
        fsync_folder(temporary)


def side_by_side(task: Callable[..., Result], arguments: Sequence[tuple[Any, ...]], workers: int) -> Iterator[Result]:
    """Yield `task(*each)` for each of `arguments`, in their order, from `workers` processes.

    A single task runs in this process.

    Raises:
        PassingError: one of the processes was killed.
    """
    if min(workers, len(arguments)) <= 1:
        yield from starmap(task, arguments)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), _start, (os.getpid(),)) as pool:
        with children_ignore_ctrl_c():
            results = pool.map(task, *zip(*arguments, strict=True))
        try:
            yield from results
        except BrokenProcessPool:
            raise PassingError(
                "A process of the simulation was killed, perhaps because memory ran out. Run again with fewer workers: "
                "finished drives are kept."
            ) from None


def _start(parent: int) -> None:
    die_with_parent(parent)
    cv2.setNumThreads(1)
