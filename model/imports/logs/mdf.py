"""MDF4 measurements, as channels or as the bytes of a CAN bus that DBC files decode; read by asammdf."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model.common.errors import DataError
from model.imports.extras import library
from model.imports.logs.raw import Raw
from model.imports.mapping import LogMapping


def names(path: Path, log: LogMapping, dbc: Sequence[Path]) -> list[str]:
    """The channels of the measurement; of decoded messages as `message.signal`."""
    with _open(path, log, dbc) as mdf:
        return sorted(name for name in mdf.channels_db if name not in ("time", "t"))


def read(path: Path, log: LogMapping, wanted: Sequence[str], dbc: Sequence[Path]) -> dict[str, Raw]:
    """The wanted channels that the measurement has. A channel in several groups is read from the first that has values.

    Raises:
        DataError: it is no MDF4, is not finalised, or a DBC file does not fit.
    """
    with _open(path, log, dbc) as mdf:
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


def _open(path: Path, log: LogMapping, dbc: Sequence[Path]) -> Any:
    asammdf = library("asammdf", "An MDF4 file")
    for file in dbc:
        if not file.is_file():
            raise DataError(f"{file} does not exist: expected a DBC file.")
    try:
        mdf = asammdf.MDF(path)
    except Exception as error:
        raise DataError(
            f"{path} is no complete MDF4 measurement ({' '.join(str(error).split())[:160]}): copy it again, or "
            "finalise it with the logger's tool."
        ) from error
    if not dbc:
        return mdf
    try:
        files = [(str(file), int(log.bus or 0)) for file in dbc]
        decoded = mdf.extract_bus_logging({"CAN": files})
    except Exception as error:
        raise DataError(f"{path}: {', '.join(map(str, dbc))} does not decode it ({str(error)[:160]}).") from error
    mdf.close()
    return decoded
