"""Folders of simulated data: written under a temporary name, renamed when complete, never over other data."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import cv2

from model.common.errors import DataError, PassingError
from model.common.files import fsync, fsync_folder, remove_abandoned, temporary_sibling, write_json
from model.common.processes import children_ignore_ctrl_c, die_with_parent

MARKER = ".simulation.json"
Result = TypeVar("Result")


def exists(folder: Path, made_from: dict[str, Any]) -> bool:
    """Whether `folder` was already made from equal options.

    Raises:
        DataError: it holds something else.
    """
    if not folder.exists():
        return False
    try:
        found = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if found == made_from:
        return True
    raise DataError(
        f"{folder} exists and was not simulated with these options. Choose another output folder or another seed, or "
        "remove it."
    )


@contextmanager
def new_folder(folder: Path, made_from: dict[str, Any]) -> Iterator[Path]:
    """Yield a temporary folder to fill; on success it becomes `folder`, on failure it is removed.

    Raises:
        DataError: `folder` cannot be written, for example because the disk is full.
    """
    temporary = temporary_sibling(folder)
    try:
        remove_abandoned(folder.parent, levels=0)
        temporary.mkdir(parents=True)
        yield temporary
        write_json(temporary / MARKER, made_from)
        fsync_folder(temporary)
        temporary.rename(folder)
        fsync(folder.parent)
    except OSError as error:
        text = f"{folder} cannot be written: {error}. Free space or choose another folder, then run again."
        raise DataError(text) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def side_by_side(
    task: Callable[..., Result], arguments: Sequence[tuple[Any, ...]], workers: int, done: Callable[[int, Result], None]
) -> list[Result]:
    """Run `task(*arguments[i])` for all i in `workers` spawned processes and return the results in order.

    `done(i, result)` is called as each ends. A single task runs in this process.

    Raises:
        PassingError: one of the processes was killed.
    """
    results: dict[int, Result] = {}
    if min(workers, len(arguments)) <= 1:
        for index, each in enumerate(arguments):
            results[index] = task(*each)
            done(index, results[index])
    else:
        with ProcessPoolExecutor(min(workers, len(arguments)), get_context("spawn"), _start, (os.getpid(),)) as pool:
            with children_ignore_ctrl_c():
                running = {pool.submit(task, *each): index for index, each in enumerate(arguments)}
            try:
                for future in as_completed(running):
                    index = running[future]
                    results[index] = future.result()
                    done(index, results[index])
            except BrokenProcessPool:
                raise PassingError(
                    "A process of the simulation was killed, perhaps because memory ran out. Run again with fewer "
                    "workers: finished drives are kept."
                ) from None
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    return [results[index] for index in range(len(arguments))]


def _start(parent: int) -> None:
    die_with_parent(parent)
    cv2.setNumThreads(1)
