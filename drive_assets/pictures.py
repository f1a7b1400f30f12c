"""Pictures in Dagster's metadata: small ones stand in it, larger ones are linked."""

import base64
from typing import TYPE_CHECKING

import dagster as dg

from model.common.figures import png_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LIMIT_BYTES = 100_000
"""Larger texts make the UI slow."""


def inline(figure: "Figure") -> dg.MarkdownMetadataValue:
    """A figure as a picture that the UI shows."""
    return inline_image(png_bytes(figure, LIMIT_BYTES * 3 // 4), "png")


def inline_image(content: bytes, kind: str) -> dg.MarkdownMetadataValue:
    """The bytes of a PNG or JPEG file as a picture that the UI shows."""
    text = base64.b64encode(content).decode()
    return dg.MetadataValue.md(f"![picture](data:image/{kind};base64,{text})")
