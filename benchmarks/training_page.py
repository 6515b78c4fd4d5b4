"""The page and the picture of `training.py`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from common import markdown
from rrra_hf.comparison import methods_of
from rrra_hf.comparison.measures import NDCG
from rrra_hf.comparison.plots import drawn

SURE = 0.05
TRAINED = {"full": "all weights", "lora": "LoRA"}
REFERENCE = "in-batch"
# The strategy that `rrra train` uses.
DEFAULT = "drop"
ADVICE = """## What to use

* Few labels, no time: don't train the encoder. [Fit an adapter](tutorial.md#3-fit-it-to-your-labels) instead,
  in minutes.
* To train it, begin with in-batch negatives (stage 1 of `rrra train`). That is where most of the gain comes
  from.
* Then use `drop`, the default of stage 3. It takes about twice as long as in-batch negatives, because more
  texts are read. Where no adapter is at hand, `perc-pos` and `gist` need only the encoder's scores, and are
  nearly as good in the mean.
* Don't use mined negatives without care: on worldtree-open, `top-k` is significantly worse than no mined
  negatives, and on healthver no better.
* Hard negatives also help where nearly each relevant document has its label, as on nl2bash.
"""
INTRODUCTION = """# Strategies in training

Written by `make training`; do not edit.

all-MiniLM-L6-v2 is fine-tuned with the negatives that each strategy chooses: {batch} pairs a step,
four mined negatives each, at most {steps} steps. Every 20 steps it ranks development queries; it stops
after three times without a new best, and the best weights are measured. The untrained encoder counts as a
step. Strategies were run with {seeds}. Each is compared with in-batch negatives of the same seeds: a figure
is the mean of in-batch negatives over all their seeds, plus that difference.

Each training query keeps one of its relevant documents. Test queries are measured with all of them, against
the whole corpus. Collections with no more than one are trained on as they are. The adapter that judges
candidates is one that the collection did not teach. The learning rate was chosen for in-batch negatives.
"""
NOTES = """
A star marks a significant difference to in-batch negatives, paired by query, after averaging over seeds: p
< .05 by the randomisation test with Holm's correction for the strategies of a collection. `oracle` and
`oracle-relabel` know which candidates are false negatives: no estimate can use the same negatives better. A
strategy above them leaves out more than false negatives, because candidates above the label are poor ones.
The columns `to in-batch` and `to drop` have mean differences, each over the collections and seeds that both
strategies were run on. `seconds` are those of the first 20 steps on healthver in float32, mining and judging
included, on one core, all in one run. Other cells were trained in bfloat16 or in float32.
"""
OTHERS = """
Trained as above, with {seeds}, but with another learning rate, also chosen for in-batch negatives.
"""
TRAIN_OR_FIT = """## `rrra train` or `rrra fit`

`rrra train` keeps a trained encoder only if it is clearly better on development queries than the encoder as
it came, each with an adapter fitted to it; if not, the result is that of `rrra fit`. All weights are trained,
on all labels of the training queries, and test queries are measured. `p` is that of the paired randomisation
test.
"""


class Tables(NamedTuple):
    """What `make_tables` returns for a training mode, one table for each collection.

    Args:
        gains: Strategies compared with in-batch negatives.
        default: Strategies compared with the default.
    """

    gains: list[dict[str, Any]]
    default: list[dict[str, Any]]


class Figure(NamedTuple):
    """What a strategy reaches on a collection.

    Args:
        quality: nDCG@10.
        sure: Whether the difference to in-batch negatives is significant.
    """

    quality: float
    sure: bool

    def __str__(self) -> str:
        return f"{self.quality:.3f}{'*' * self.sure}"


def _figures(tables: list[dict[str, Any]]) -> dict[str, dict[str, Figure]]:
    """Return figures by strategy and collection.

    Seeds differ in which label is kept, and not all strategies were run with all of them. So a figure is the
    mean of in-batch negatives, plus the difference to it on the seeds that both were run with.
    """
    found: dict[str, dict[str, Figure]] = {}
    for table in tables:
        of = {row["method"]: row for row in table["rows"]}
        base = of[REFERENCE][NDCG]["all"]
        for method, row in of.items():
            difference = row["difference"]["all"] or {"mean": 0.0, "p (Holm)": 1.0}
            figure = Figure(base + difference["mean"], difference["p (Holm)"] < SURE)
            found.setdefault(method, {})[table["collection"]] = figure
    return {method: found[method] for method in methods_of("strategies") if method in found}


def _mean_difference(tables: list[dict[str, Any]], method: str, reference: str) -> str:
    """Return the mean difference to a strategy over the collections that both were run on."""
    differences = [
        row["difference"]["all"]["mean"]
        for table in tables
        for row in table["rows"]
        if row["method"] == method and table["reference"] == reference and row["difference"]["all"]
    ]
    return f"{np.mean(differences):+.3f}" if differences else ""


def strategy_rows(tables: Tables, costs: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return a row for each strategy: nDCG@10 by collection, mean differences, and seconds.

    Not all strategies were run on all collections and seeds. So each is compared with in-batch negatives, and
    with the default, on those that both were run on.

    Args:
        tables: The tables.
        costs: Seconds by strategy; without any, the rows have none.
    """
    names = [table["collection"] for table in tables.gains]
    return [
        {
            "strategy": method,
            **{name: str(of.get(name, "")) for name in names},
            f"to {REFERENCE}": _mean_difference(tables.gains, method, REFERENCE),
            f"to {DEFAULT}": _mean_difference(tables.default, method, DEFAULT),
            **({"seconds": f"{costs[method]:.0f}" if method in costs else ""} if costs else {}),
        }
        for method, of in _figures(tables.gains).items()
    ]


def _seeds(tables: list[dict[str, Any]]) -> str:
    """Return how many seeds there are of the strategies that train."""
    counts = {row["seeds"] for table in tables for row in table["rows"] if row["method"] != "untrained"}
    least, most = min(counts), max(counts)
    number = str(most) if least == most else f"{least} to {most}"
    return f"{number} seed{'s' * (most > 1)}"


def page(
    tables: dict[str, Tables],
    shares: dict[str, float],
    fits: list[dict[str, Any]],
    costs: Mapping[str, float],
    arguments: argparse.Namespace,
) -> str:
    """Return the page.

    Args:
        tables: The tables, by training mode.
        shares: Share of known false negatives among the best candidates, by collection.
        fits: Rows of `train_or_fit.py`.
        costs: Seconds by strategy.
        arguments: Of the command.
    """
    about = methods_of("strategies")
    (mode, first), *others = tables.items()
    facts = [
        {
            "collection": table["collection"],
            "test queries": table["queries"]["all"],
            "false negatives among the 50 best candidates": f"{shares[table['collection']]:.1%}",
        }
        for table in first.gains
    ]
    rows = strategy_rows(first, costs)
    parts = [
        INTRODUCTION.format(batch=arguments.batch_size, steps=arguments.steps, seeds=_seeds(first.gains)),
        markdown(facts),
        ADVICE,
        f"## nDCG@10, {TRAINED[mode]}",
        markdown(rows),
        NOTES,
        "![Gain over in-batch negatives against the share of false negatives](pictures/training_gains.svg)",
        "\n".join(f"* `{row['strategy']}`: {about[row['strategy']].about}" for row in rows),
    ]
    for mode, other in others:
        parts += [f"## nDCG@10, {TRAINED[mode]}", OTHERS.format(seeds=_seeds(other.gains))]
        parts += [markdown(strategy_rows(other, {}))]
    if fits:
        parts += [TRAIN_OR_FIT, markdown(fits)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def gains(tables: list[dict[str, Any]], shares: dict[str, float]) -> str:
    """Return the picture of gains over in-batch negatives, as SVG.

    Args:
        tables: From `make_tables`, with in-batch negatives as reference.
        shares: Share of known false negatives among the best candidates, by collection.
    """
    shown = {DEFAULT: "o", "perc-pos": "v", "gist": "^", "oracle-relabel": "x"}

    def draw(axes: Any) -> None:
        for name, marker in shown.items():
            points = {
                table["collection"]: (100 * shares[table["collection"]], row["difference"]["all"]["mean"])
                for table in tables
                for row in table["rows"]
                if row["method"] == name and row["difference"]["all"] is not None
            }
            axes.plot(*zip(*points.values(), strict=True), marker=marker, linestyle="none", label=name)
            for collection, point in points.items() if name == DEFAULT else ():
                axes.annotate(collection, point, (6, 0), textcoords="offset points", va="center", fontsize=7)
        axes.axhline(0.0, color="0.6", linewidth=0.8)
        axes.set_xlabel("known false negatives among the 50 best candidates, %")
        axes.set_ylabel("nDCG@10 over in-batch negatives")
        axes.legend(fontsize=8, frameon=False)

    return drawn(draw)
