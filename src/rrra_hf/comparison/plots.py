"""Plots of tables as SVG."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..evaluation.svg import svg_of
from .measures import NDCG

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plots_of(table: dict[str, Any]) -> dict[str, str]:
    """Return the plots of a table by name, as SVG documents.

    Args:
        table: A table from `make_tables`.

    Raises:
        ImportError: If matplotlib isn't installed.
    """
    if table["table"] == "detection":
        return {"reliability": drawn(lambda axes: _reliability(axes, table))}
    return {"quality-cost": drawn(lambda axes: _quality_cost(axes, table))}


def drawn(draw: Callable[[Axes], None]) -> str:
    """Return what a function draws on axes, as an SVG document.

    Args:
        draw: The function.

    Raises:
        ImportError: If matplotlib isn't installed.
    """

    def on(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        draw(axes)

    return svg_of(on, (7, 4.2))


def _quality_cost(axes: Axes, table: dict[str, Any]) -> None:
    """Plot quality against milliseconds per query. A line joins the methods that no other one dominates."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    points = sorted(
        (row["milliseconds"], row[NDCG]["all"], row["method"])
        for row in table["rows"]
        if row["milliseconds"] is not None
    )
    costs = [cost for cost, _, _ in points]
    middle = math.sqrt(costs[0] * costs[-1])
    best, front = -1.0, []
    for cost, quality, method in points:
        if quality > best:
            best = quality
            front.append((cost, quality))
        right = cost > middle  # labels point towards the middle
        axes.annotate(
            method,
            (cost, quality),
            xytext=(-7 if right else 7, 0),
            textcoords="offset points",
            horizontalalignment="right" if right else "left",
            verticalalignment="center",
        )
    axes.plot(*zip(*front, strict=True), color="0.8", zorder=0)
    axes.scatter(costs, [quality for _, quality, _ in points], s=18)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("ms per query, one thread, without encoding the query")
    axes.set_ylabel(NDCG)
    axes.margins(0.1)


def _reliability(axes: Axes, table: dict[str, Any]) -> None:
    """Plot the share of false negatives against their probability, in bins of equal size."""
    highest = 1e-6
    for row in table["rows"]:
        bins = row["reliability"]
        if bins is not None:
            axes.plot(bins["probability"], bins["share"], marker="o", markersize=3, label=row["method"])
            highest = max(highest, *bins["probability"], *bins["share"])
    axes.plot([0, highest], [0, highest], color="0.8", linewidth=1, zorder=0)
    axes.set_xlabel("false-negative probability")
    axes.set_ylabel("share of known false negatives")
    axes.legend(fontsize=8, frameon=False)
