"""Drawing figures as SVG: the same figure is always the same file."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Text stays text, and nothing is random.
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "rrra", "font.size": 9, "font.family": "sans-serif"}
NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


def svg_of(draw: Callable[[Figure], None], size: tuple[float, float]) -> str:
    """Return a figure as an SVG document.

    Args:
        draw: Draws on an empty figure.
        size: Width and height in inches.

    Raises:
        ImportError: If matplotlib isn't installed.
    """
    try:
        from matplotlib import style
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("The plots need matplotlib: pip install 'rrra-hf[compare]'.") from error
    # Not with the settings of whoever draws.
    with style.context(["default", STYLE]):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        buffer = io.StringIO()
        FigureCanvasSVG(figure).print_svg(buffer, metadata=NO_METADATA)
    return buffer.getvalue()


def inline_svg(svg: str, prefix: str) -> str:
    """Return an SVG document as a figure of an HTML page.

    Args:
        svg: The document.
        prefix: Makes the ids of its parts unique on the page.

    Example:
        >>> inline_svg('<?xml version="1.0"?><svg><g id="a"/><use href="#a"/></svg>', "first-")
        '<figure><svg><g id="first-a"/><use href="#first-a"/></svg></figure>'
    """
    element = svg[svg.index("<svg") :]
    element = re.sub(r'\bid="', f'id="{prefix}', element)
    element = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}", element)
    return f"<figure>{element}</figure>"
