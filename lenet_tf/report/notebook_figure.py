"""A matplotlib figure that a notebook shows, although pyplot does not know it.

Only `curves` imports this file, and only when it draws: matplotlib is optional.
"""

from __future__ import annotations

import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


class NotebookFigure(Figure):
    """Figure that is made without pyplot, and leaves pyplot's global state alone.

    IPython shows such a figure by itself only after pyplot was used. Otherwise it calls
    `_repr_png_`.
    """

    def png(self) -> bytes:
        """Returns the picture as a PNG file's content."""
        buffer = io.BytesIO()
        FigureCanvasAgg(self).print_png(buffer)
        return buffer.getvalue()

    def _repr_png_(self) -> bytes:
        return self.png()
