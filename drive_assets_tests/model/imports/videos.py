"""Videos made by FFmpeg's own encoder, with messages in their stream where wanted."""

import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

START = 1_717_143_300.0
"""2024-05-31 08:15:00 UTC"""


def make_video(
    path: Path,
    seconds: float = 10.0,
    rate: int = 20,
    *,
    start: str = "2024-05-31T08:15:00.000000Z",
    size: tuple[int, int] = (320, 180),
    picture: Callable[[int], np.ndarray] | None = None,
    message: Callable[[int], bytes] | None = None,
    times: Callable[[int], float] | None = None,
) -> Path:
    """An H.264 video.

    Args:
        picture: (height, width, 3) uint8 of each frame; a grey that brightens without it.
        message: user data of each frame, as a SEI message.
        times: s of each frame, where they are uneven.
    """
    with av.open(str(path), "w") as container:
        if start:
            container.metadata["creation_time"] = start
        stream = container.add_stream("libx264", rate=rate, options={"bf": "0", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        moments = [round((times(number) if times else number / rate) * 1000) for number in range(round(seconds * rate))]

        def frames() -> Iterator[av.VideoFrame | None]:
            for number, moment in enumerate(moments):
                pixels = picture(number) if picture else np.full((size[1], size[0], 3), number % 256, np.uint8)
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = moment, Fraction(1, 1000)
                yield frame
            yield None  # flushes the encoder

        for frame in frames():
            for packet in stream.encode(frame):
                number = moments.index(round(float(packet.pts * packet.time_base) * 1000))
                container.mux(with_message(packet, message(number)) if message else packet)
    return path


def with_message(packet: av.Packet, content: bytes) -> av.Packet:
    """The packet behind a SEI message of unregistered user data: NAL type 6, payload type 5."""
    size = b"\xff" * (len(content) // 255) + bytes([len(content) % 255])
    body = b"\x05" + size + content + b"\x80"
    body = re.sub(rb"\0\0(?=[\0-\3])", b"\0\0\3", body)
    changed = av.Packet(b"\0\0\0\1\x06" + body + bytes(packet))
    changed.pts, changed.dts, changed.time_base = packet.pts, packet.dts, packet.time_base
    changed.stream, changed.is_keyframe = packet.stream, packet.is_keyframe
    return changed
