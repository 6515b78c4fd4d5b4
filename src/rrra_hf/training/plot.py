"""The plot of a run: loss, quality on the development queries, and suspects among the negatives."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..evaluation.svg import svg_of
from ..models.files_rrra import read_json, write_aside
from .choice import FROZEN
from .evaluator import METRIC
from .run_folder import RESULTS_NAME

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

PLOT_NAME = "training.svg"
NDCG = "nDCG@10"


def plot_run(folder: Path) -> None:
    """Draw the plot of a run whose stages are complete into its folder, as SVG.

    Steps of stage 3 are counted on from those of stage 1. Without matplotlib, there is no plot.

    Args:
        folder: Folder of the run.
    """
    histories = {stage: read_json(folder / stage / "history.json") for stage in ("stage1", "stage3")}
    results = {stage: read_json(folder / stage / RESULTS_NAME) for stage in (*histories, "comparison")}
    starts = {"stage1": 0, "stage3": results["stage1"]["steps"]}

    def draw(figure: Figure) -> None:
        axes = figure.subplots(3, sharex=True)
        for one in axes:
            one.spines[["top", "right"]].set_visible(False)
            one.axvline(starts["stage3"], color="0.8", linewidth=1)
        _losses(axes[0], histories, starts)
        _quality(axes[1], histories, starts, results)
        _suspects(axes[2], histories["stage3"], starts["stage3"])
        axes[2].set_xlabel("step")

    try:
        plot = svg_of(draw, (7, 7))
    except ImportError:
        logger.info("%s is left out: it needs matplotlib.", PLOT_NAME)
        return
    with write_aside(folder / PLOT_NAME) as temporary:
        temporary.write_text(plot, encoding="utf-8")


def _losses(axes: Axes, histories: dict[str, list[dict[str, Any]]], starts: dict[str, int]) -> None:
    for stage, label in (("stage1", "stage 1"), ("stage3", "stage 3")):
        axes.plot(*_series(histories[stage], "loss", starts[stage]), label=label, linewidth=1)
    axes.set_ylabel("loss")
    axes.legend(loc="upper right", frameon=False)


def _quality(
    axes: Axes,
    histories: dict[str, list[dict[str, Any]]],
    starts: dict[str, int],
    results: dict[str, dict[str, Any]],
) -> None:
    """Plot the encoder alone on the whole corpus, and in the course of the stages on a part of it."""
    development = results["comparison"]["development"]
    ends = [0, starts["stage3"], starts["stage3"] + results["stage3"]["steps"]]
    quality = [development[encoder]["encoder"][NDCG] for encoder in (FROZEN, "stage1", "stage3")]
    axes.plot(ends, quality, "o", color="0.2", label="whole corpus")
    for number, (stage, history) in enumerate(histories.items()):
        series = _series(history, METRIC, starts[stage])
        label = "labelled and mined documents" if number == 0 and series[0] else None
        axes.plot(*series, marker=".", color="C0", label=label)
    axes.set_ylabel(f"development {NDCG}")
    # Not at the best place: that is searched for, and a search that takes long warns.
    axes.legend(loc="lower right", frameon=False)


def _suspects(axes: Axes, history: list[dict[str, Any]], start: int) -> None:
    axes.plot(*_series(history, "suspects", start), color="C1", linewidth=1)
    axes.set_ylabel("share of suspects\namong negatives")
    axes.set_ylim(bottom=0)


def _series(history: list[dict[str, Any]], name: str, start: int) -> tuple[list[int], list[float]]:
    """Return the steps, counted from a start, and the values of what a history has under a name."""
    found = [(start + entry["step"], entry[name]) for entry in history if name in entry]
    return [step for step, _ in found], [value for _, value in found]
