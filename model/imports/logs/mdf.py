"""Channels of MDF4 measurements, read by asammdf."""

import contextlib
import gc
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model.common.errors import DataError
from model.imports.extras import library
from model.imports.logs.raw import Raw
from model.imports.mapping import LogMapping


def names(path: Path, log: LogMapping) -> list[str]:
    """The channels of the measurement."""
    with opened(path) as mdf:
        return sorted(name for name in mdf.channels_db if name not in ("time", "t"))


def read(path: Path, log: LogMapping, wanted: Sequence[str]) -> dict[str, Raw]:
    """The wanted channels that the measurement has. A channel in several groups is read from the first that has values.

    Raises:
        DataError: it is no MDF4, or is cut.
    """
    with opened(path) as mdf:
        start = mdf.header.start_time.timestamp()
        found = {}
        for name in wanted:
            for group, index in mdf.channels_db.get(name, ()):
                signal = mdf.get(name, group=group, index=index, raw=False, ignore_invalidation_bits=False)
                if len(signal.timestamps):
                    values = np.asarray(signal.samples)
                    texts = values.dtype.kind in "SU"
                    values = np.char.decode(values, "latin-1") if values.dtype.kind == "S" else values
                    found[name] = Raw(
                        signal.timestamps.astype(float) + start,
                        values.astype(object) if texts else values.astype(float),
                        signal.unit or "",
                    )
                    break
        return found


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """asammdf's measurement.

    Raises:
        DataError: it is no MDF4, or is cut; or it was not finalised and asammdf cannot do so in memory.
    """
    asammdf = library("asammdf", "An MDF4 file")
    reason, hook = "", sys.unraisablehook
    sys.unraisablehook = lambda unraisable: None  # asammdf fails again when what it began is deleted
    with path.open("rb") as file:
        try:
            with contextlib.redirect_stdout(None):  # it prints tracebacks
                mdf = asammdf.MDF(file)
        except Exception as error:
            reason = " ".join(str(error).split())[:160] or type(error).__name__
        if reason:
            gc.collect()
        sys.unraisablehook = hook
        if reason:
            raise DataError(
                f"{path} is no complete MDF4 measurement ({reason}): copy it again, or finalise it with "
                "the logger's tool."
            )
        with mdf:
            yield mdf
