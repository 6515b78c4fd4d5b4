"""The reliability plot of a model card."""

from __future__ import annotations

import io
import logging
from typing import Any

import numpy as np

from ..evaluation.reliability_plot import draw_reliability
from .saved import SavedFolder, read_evaluations

logger = logging.getLogger(__name__)


def reliability_plot(saved: SavedFolder) -> bytes | None:
    """Draw the reliability plot of a saved folder as a PNG.

    It shows the last evaluation. If the folder was never evaluated, it shows the queries that the probability
    was calibrated on.

    Returns:
        The file's bytes, equal for equal figures; None if the folder records no figures, or matplotlib isn't
        installed.
    """
    bins = _bins(saved)
    if bins is None:
        return None
    try:
        from matplotlib import style
    except ImportError:
        logger.info("The reliability plot is left out: it needs matplotlib.")
        return None
    # Not with the settings of whoever draws.
    with style.context("default"):
        return _draw(*(np.array(bins[name]) for name in ("probability", "share", "pairs")))


def _draw(probability: np.ndarray, share: np.ndarray, pairs: np.ndarray) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.6), layout="constrained")
    draw_reliability(figure.add_subplot(), probability, share, pairs)
    file = io.BytesIO()
    # Without the name and version of the software, equal plots are equal files.
    FigureCanvasAgg(figure).print_png(file, metadata={"Software": None})
    return file.getvalue()


def _bins(saved: SavedFolder) -> dict[str, Any] | None:
    measured = [figures for figures in read_evaluations(saved.path) if "calibration" in figures]
    if measured:
        return measured[-1]["calibration"].get("reliability")
    return saved.calibration.get("reliability")
