"""Figures without global state: creating, styling and saving them."""

import io
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000", "#999999", "#7F3C8D")
"""Okabe and Ito's colours, which colour-blind readers can distinguish; then two more."""
LEVEL_DPI = (110, 90, 72, 60, 48, 36)


def png_bytes(figure: "Figure", limit: int) -> bytes:
    """A figure as PNG of at most `limit` bytes, as sharp as that allows."""
    content = b""
    for dpi in LEVEL_DPI:
        stream = io.BytesIO()
        figure.savefig(stream, dpi=dpi, format="png")
        content = stream.getvalue()
        if len(content) <= limit:
            break
    return content


def new_figure(
    panels: int, title: str, columns: int | None = None, height: float = 3.2, width: float | None = None
) -> tuple["Figure", list["Axes"]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = columns or min(panels, 2)
    rows = -(-panels // columns)
    width = width or (8.0 if columns == 1 and panels > 1 else 4.6)
    figure = Figure(figsize=(width * columns + (1.6 if columns > 2 else 0), height * rows + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    all_axes = list(np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel())
    for axes in all_axes[panels:]:
        axes.set_axis_off()
    for axes in all_axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    return figure, all_axes


def legend(axes: "Axes", note: str | None) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7, title=note, title_fontsize=7)
