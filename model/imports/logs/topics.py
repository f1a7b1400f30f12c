"""Topics of MCAP files and of ROS 1 and ROS 2 bags. A signal is `topic field.subfield`, as `/can_speed twist.x`."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from model.common.errors import DataError
from model.imports.extras import library
from model.imports.logs.raw import Raw
from model.imports.mapping import LogMapping

_DEPTH = 6
"""Fields within fields that `names` looks at."""


def names(path: Path, log: LogMapping) -> list[str]:
    """The numbers, switches and texts in the first message of each topic."""
    found: dict[str, list[str]] = {}
    for topic, _, decode in _messages(path, None):
        if topic not in found:
            try:
                found[topic] = [f"{topic} {field}" for field in _fields(decode(), _DEPTH)]
            except Exception:
                found[topic] = []
    return sorted(name for fields in found.values() for name in fields)


def read(path: Path, log: LogMapping, wanted: Sequence[str]) -> dict[str, Raw]:
    """The wanted signals, by the time at which they were logged.

    Raises:
        DataError: the file cannot be read, or a topic has no such field.
    """
    topics: dict[str, list[str]] = defaultdict(list)
    for name in wanted:
        topics[name.partition(" ")[0]].append(name)
    samples: dict[str, tuple[list[float], list[Any]]] = defaultdict(lambda: ([], []))
    for topic, seconds, decode in _messages(path, set(topics)):
        content = decode()
        for name in topics[topic]:
            times, values = samples[name]
            times.append(seconds)
            values.append(_value(content, name.partition(" ")[2], path))
    found = {}
    for name, (times, values) in samples.items():
        numeric = all(isinstance(value, (bool, int, float, np.number, np.bool_)) for value in values)
        found[name] = Raw(np.array(times), np.array(values, float if numeric else object))
    return found


def _value(content: Any, field: str, path: Path) -> Any:
    for part in field.split("."):
        try:
            if isinstance(content, dict):
                content = content[part]
            elif part.isdigit():
                content = content[int(part)]
            else:
                content = getattr(content, part)
        except (AttributeError, KeyError, IndexError, TypeError):
            known = ", ".join(list(_fields(content, 1))[:20])
            raise DataError(f"{path} has no field {field}: {part} is none of {known or 'a number'}.") from None
    return content


def _fields(content: Any, depth: int) -> Iterator[str]:
    """Paths of the plain values of a message."""
    for name in content if isinstance(content, dict) else _names_of(content):
        value = content[name] if isinstance(content, dict) else getattr(content, name)
        if isinstance(value, (bool, int, float, str, np.number)):
            yield name
        elif depth:
            yield from (f"{name}.{inner}" for inner in _fields(value, depth - 1))


def _names_of(content: Any) -> list[str]:
    """Fields of a ROS message (a dataclass) or a protobuf message."""
    if hasattr(content, "DESCRIPTOR"):
        return [field.name for field in content.DESCRIPTOR.fields]
    return [name for name in getattr(content, "__dataclass_fields__", ()) if not name.startswith("_")]


def _messages(path: Path, topics: set[str] | None) -> Iterator[tuple[str, float, Callable[[], Any]]]:
    """Topic, s since 1970 and what gives the content of the messages of `topics`, or of all."""
    try:
        yield from (_mcap if path.suffix == ".mcap" else _ros)(path, topics)
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"{path} cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:160]}): copy it again, or "
            "repair it with `mcap recover` or `rosbag reindex`."
        ) from error


def _ros(path: Path, topics: set[str] | None) -> Iterator[tuple[str, float, Callable[[], Any]]]:
    library("rosbags", "A ROS bag")
    from rosbags.highlevel import AnyReader
    from rosbags.typesys import Stores, get_typestore

    with AnyReader([path], default_typestore=get_typestore(Stores.LATEST)) as reader:
        chosen = [each for each in reader.connections if topics is None or each.topic in topics]
        for connection, nanoseconds, data in reader.messages(connections=chosen):
            yield connection.topic, nanoseconds / 1e9, partial(reader.deserialize, data, connection.msgtype)


def _mcap(path: Path, topics: set[str] | None) -> Iterator[tuple[str, float, Callable[[], Any]]]:
    """A file without summary is read from its start to its end."""
    library("mcap", "An MCAP file")
    from mcap.reader import NonSeekingReader, make_reader

    decoders = _Decoders(path)
    with path.open("rb") as file:
        reader = make_reader(file)
        if reader.get_summary() is None:
            file.seek(0)
            reader = NonSeekingReader(file)
        for schema, channel, message in reader.iter_messages(topics=topics):
            yield channel.topic, message.log_time / 1e9, partial(decoders, schema, channel, message.data)


class _Decoders:
    """Decodes messages by their encoding: JSON, protobuf, or ROS's CDR and ROS 1."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[int, Any] = {}

    def __call__(self, schema: Any, channel: Any, data: bytes) -> Any:
        if channel.id not in self.known:
            self.known[channel.id] = self._decoder(schema, channel)
        return self.known[channel.id](data)

    def _decoder(self, schema: Any, channel: Any) -> Any:
        encoding = channel.message_encoding
        if encoding == "json":
            return json.loads
        if encoding == "protobuf":
            library("mcap_protobuf", "A protobuf in MCAP")
            from mcap_protobuf.decoder import DecoderFactory

            return DecoderFactory().decoder_for(encoding, schema)
        if encoding in ("cdr", "ros1"):
            library("rosbags", "A ROS message in MCAP")
            from rosbags.typesys import Stores, get_types_from_msg, get_typestore

            store = get_typestore(Stores.LATEST if encoding == "cdr" else Stores.ROS1_NOETIC)
            if schema.name not in store.fielddefs:
                store.register(get_types_from_msg(schema.data.decode(), schema.name))
            decode = store.deserialize_cdr if encoding == "cdr" else store.deserialize_ros1
            return lambda data: decode(data, schema.name)
        raise DataError(f"{self.path}: topic {channel.topic} is in {encoding}: expected json, protobuf, cdr or ros1.")
