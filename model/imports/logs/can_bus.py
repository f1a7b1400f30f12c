"""CAN logs (candump, BLF, ASC, MDF4, GVRET and what else python-can reads), decoded with DBC files."""

import re
from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model.common.errors import DataError
from model.imports.extras import library
from model.imports.logs.mdf import opened
from model.imports.logs.raw import Raw
from model.imports.mapping import LogMapping

GVRET_HEADER = re.compile(r"^time ?stamp,id,extended,(dir,)?bus,len,d1", re.IGNORECASE)


def read_databases(paths: Sequence[Path]) -> Any:
    """The cantools database of DBC files.

    Raises:
        DataError: one is missing or cannot be read.
    """
    cantools = library("cantools", "A DBC file")
    database = cantools.database.Database(strict=False)  # merged files have signals that overlap
    if not paths:
        raise DataError("A CAN log holds bytes: name the DBC files of the car under `dbc`.")
    for path in paths:
        try:
            database.add_dbc_file(str(path), encoding="cp1252")
        except FileNotFoundError:
            raise DataError(f"{path} does not exist: expected a DBC file.") from None
        except Exception as error:
            reason = " ".join(str(error).split())
            raise DataError(f"{path} is no DBC file that cantools reads ({reason[:200]}): correct it.") from error
    return database


def names(path: Path, log: LogMapping, database: Any) -> list[str]:
    """Signals whose messages are in the log, as `message.signal`."""
    seen = {message.arbitration_id for message in messages(path, log)}
    return [
        f"{message.name}.{signal.name}"
        for message in database.messages
        if message.frame_id in seen
        for signal in message.signals
    ]


def read(path: Path, log: LogMapping, wanted: Sequence[str], database: Any) -> dict[str, Raw]:
    """The wanted signals whose messages are in the log. Of the log, only those messages' bytes are held in memory.

    Raises:
        DataError: the log cannot be read, or a wanted message has fewer bytes than the DBC says.
    """
    signals = {name: _find(database, name) for name in wanted}
    ids = {message.frame_id for found in signals.values() if found for message, _ in [found]}
    times: dict[int, array[float]] = defaultdict(lambda: array("d"))
    payloads: dict[int, bytearray] = defaultdict(bytearray)
    short: dict[int, int] = defaultdict(int)
    lengths = {message.frame_id: message.length for found in signals.values() if found for message, _ in [found]}
    last, back = 0.0, 0
    for message in messages(path, log):
        key, t = message.arbitration_id, message.timestamp
        back += t < last
        last = t
        if key in ids:
            data = message.data
            if len(data) < lengths[key]:
                short[key] += 1
                continue
            times[key].append(t)
            payloads[key] += data[: lengths[key]]
    result = {}
    for name, found in signals.items():
        if found is None:
            continue
        message, signal = found
        t = np.array(times[message.frame_id])
        if not len(t):
            if short[message.frame_id]:
                raise DataError(
                    f"{path}: {short[message.frame_id]} messages {message.name} have fewer bytes than the "
                    f"{message.length} of the DBC: it is another car's."
                )
            continue
        data = np.frombuffer(payloads[message.frame_id], np.uint8).reshape(len(t), message.length)
        values = decode(data, signal)
        if signal.multiplexer_ids:
            switch = message.get_signal_by_name(signal.multiplexer_signal)
            chosen = np.isin(decode(data, switch, scaled=False), signal.multiplexer_ids)
            t, values = t[chosen], values[chosen]
        result[name] = Raw(t, values, signal.unit or "", back)
    return result


def _find(database: Any, name: str) -> tuple[Any, Any] | None:
    """Message and signal of `message.signal`; None if the DBC has neither."""
    message_name, _, signal_name = name.partition(".")
    try:
        message = database.get_message_by_name(message_name)
        return message, message.get_signal_by_name(signal_name)
    except KeyError:
        return None


def decode(data: npt.NDArray[np.uint8], signal: Any, scaled: bool = True) -> npt.NDArray[np.float64]:
    """(N,) values of a signal in payloads (N, length)."""
    if signal.is_float:
        return np.array([_float(row, signal) for row in data])
    total = np.zeros(len(data), np.int64)
    for bit in _bits(signal):  # from the most significant
        total = (total << 1) | ((data[:, bit // 8] >> (bit % 8)) & 1)
    if signal.is_signed:
        total = np.where(total >= 1 << (signal.length - 1), total - (1 << signal.length), total)
    values = total.astype(np.float64)
    return values * float(signal.scale) + float(signal.offset) if scaled else values


def _bits(signal: Any) -> list[int]:
    """The signal's bits, byte * 8 + bit of the byte, from the most significant."""
    if signal.byte_order == "little_endian":
        return list(range(signal.start + signal.length - 1, signal.start - 1, -1))
    bits, bit = [], signal.start
    for _ in range(signal.length):
        bits.append(bit)
        bit = bit - 1 if bit % 8 else bit + 15
    return bits


def _float(row: npt.NDArray[np.uint8], signal: Any) -> float:
    bits = np.array([(row[bit // 8] >> (bit % 8)) & 1 for bit in _bits(signal)], np.uint8)
    kind = {16: ">f2", 32: ">f4", 64: ">f8"}[signal.length]
    return float(np.frombuffer(np.packbits(bits).tobytes(), kind)[0]) * float(signal.scale) + float(signal.offset)


def messages(path: Path, log: LogMapping) -> Iterator[Any]:
    """The log's data frames, of the mapping's bus only, streamed."""
    for message in _all(path):
        if log.bus and str(message.channel) not in (log.bus, f"can{log.bus}"):
            continue
        if not (message.is_error_frame or message.is_remote_frame):
            yield message


def _all(path: Path) -> Iterator[Any]:
    can = library("can", "A CAN log")
    with path.open("rb") as file:
        start = file.read(200).decode("latin-1").removeprefix("\xef\xbb\xbf")
    if GVRET_HEADER.match(start):
        yield from _gvret(path, can)
        return
    if path.suffix.lower() == ".mf4":
        with opened(path):  # python-can's errors say less
            pass
    try:
        with can.LogReader(str(path)) as reader:
            yield from reader
    except Exception as error:
        raise DataError(
            f"{path} cannot be read as a {path.suffix.lstrip('.')} log ({' '.join(str(error).split())[:160]}): copy it "
            "again, or export it with the logger's tool."
        ) from error


def _gvret(path: Path, can: Any) -> Iterator[Any]:
    """SavvyCAN's CSV: microseconds, identifiers and bytes in hexadecimal."""
    with path.open(encoding="utf-8-sig") as file:
        has_direction = ",dir," in next(file).lower()
        bus, length = (4, 5) if has_direction else (3, 4)
        for number, line in enumerate(file, 2):
            cells = line.strip().split(",")
            try:
                size = int(cells[length])
                yield can.Message(
                    timestamp=int(cells[0]) / 1e6,
                    arbitration_id=int(cells[1], 16),
                    is_extended_id=cells[2].strip().lower() == "true",
                    channel=cells[bus].strip(),
                    data=bytes(int(cell, 16) for cell in cells[length + 1 : length + 1 + size]),
                )
            except (ValueError, IndexError) as error:
                raise DataError(f"{path}, line {number}: no frame of a GVRET log ({line.strip()[:80]}).") from error
