"""The reliability plot: how often documents of a probability are labelled as relevant."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Half of a 95 % interval, in standard deviations.
SPREAD = 1.96


def draw_reliability(axes: Axes, probability: np.ndarray, share: np.ndarray, pairs: np.ndarray) -> None:
    """Draw the points of a reliability plot with 95 % intervals, and the diagonal.

    Args:
        axes: Where to draw.
        probability: Mean probability per bin, `(bins,)`.
        share: Share of labelled pairs per bin, `(bins,)`.
        pairs: Number of pairs per bin, `(bins,)`.
    """
    axes.spines[["top", "right"]].set_visible(False)
    axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
    spread = SPREAD * np.sqrt(share * (1 - share) / pairs)
    axes.errorbar(probability, share, yerr=spread, marker="o", markersize=4, capsize=2, linewidth=1)
    axes.set_xlabel("the adapter's probability")
    axes.set_ylabel("share labelled relevant")
