"""Tables from finished cells: means over seeds, and paired differences with intervals and p-values.

A table is a JSON object. Reports are made from tables alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..evaluation import QueryGroup, compare_paired, holm, split_by_seen
from .cells import Cell, Result
from .measures import AVERAGE_PRECISION, DETECTION_MEASURES, NDCG, RANKING_MEASURES
from .methods import TABLES, methods_of

GROUPS = ("all", "seen", "unseen")
# Results of a method by seed.
Runs = dict[int, Result]


def make_tables(results: Mapping[Cell, Result], reference: str | None = None) -> list[dict[str, Any]]:
    """Return the tables of a comparison, one for each collection and kind of table.

    Args:
        results: Results by cell.
        reference: Method that the others are compared with, in the tables that have it. By default the best
            of the table's baselines.

    Returns:
        JSON objects with `table`, `collection`, `reference` and `rows`.
    """
    grouped: dict[tuple[str, str], dict[str, Runs]] = {}
    for cell, result in results.items():
        by_method = grouped.setdefault((cell.collection, cell.table), {})
        by_method.setdefault(cell.method, {})[cell.seed] = result
    return [
        {
            "table": table,
            "collection": collection,
            **(_detection_table if table == "detection" else _ranking_table)(table, by_method, reference),
        }
        for (collection, table), by_method in grouped.items()
    ]


def _reference(table: str, means: dict[str, float], wanted: str | None) -> str:
    """Return the wanted reference if it was run, or else the best of the table's baselines."""
    if wanted is not None and wanted in means:
        return wanted
    baselines = [method for method in TABLES[table].references if method in means]
    return max(baselines or list(means)[:1], key=lambda method: means[method])


def _costs(runs: Runs) -> dict[str, Any]:
    milliseconds = [run.milliseconds for run in runs.values() if run.milliseconds is not None]
    return {
        "seconds": float(np.mean([run.seconds for run in runs.values()])),
        "milliseconds": float(np.median(milliseconds)) if milliseconds else None,
    }


# -------------------------------------------------------------------- ranking


def _ranking_table(table: str, by_method: dict[str, Runs], reference: str | None) -> dict[str, Any]:
    seen = _any(by_method).rows["seen"].to_numpy()
    # The figures of each group, (seeds, queries).
    groups = {
        method: split_by_seen(
            {
                name: np.stack([run.rows[name].to_numpy() for run in runs.values()])
                for name in RANKING_MEASURES
            },
            seen,
        )
        for method, runs in by_method.items()
    }
    means = {method: of["all"].mean[NDCG] for method, of in groups.items()}
    reference = _reference(table, means, reference)
    seeds = {method: _seeds(table, method, runs) for method, runs in by_method.items()}
    differences = {
        group: _differences(
            {method: of[group].per_query[NDCG] for method, of in groups.items()}, seeds, reference
        )
        for group in GROUPS
    }
    rows = [
        {
            "method": method,
            "seeds": len(runs),
            **{
                name: {group: _mean(groups[method][group], name) for group in GROUPS}
                for name in RANKING_MEASURES
            },
            "standard deviation over seeds": float(groups[method]["all"].per_query[NDCG].mean(axis=1).std()),
            "difference": {group: differences[group].get(method) for group in GROUPS},
            **_costs(runs),
        }
        for method, runs in by_method.items()
    ]
    return {
        "reference": reference,
        "queries": {name: group.num_queries for name, group in groups[reference].items()},
        "rows": rows,
    }


def _any(by_method: dict[str, Runs]) -> Result:
    return next(result for runs in by_method.values() for result in runs.values())


def _seeds(table: str, method: str, runs: Runs) -> list[int] | None:
    """Return the seeds of a method's runs; None if its result depends on none."""
    return list(runs) if methods_of(table)[method].seeded else None


def _differences(
    qualities: dict[str, np.ndarray], seeds: dict[str, list[int] | None], reference: str
) -> dict[str, dict[str, Any]]:
    """Return the paired difference in nDCG@10 of each other method, with Holm-corrected p-values.

    Two methods are compared on the seeds that both were run with, because one that was run with fewer may
    have been lucky in them. If there are none, or one of the two depends on no seed, on all of them.

    Args:
        qualities: nDCG@10 by method, `(seeds, queries)`.
        seeds: Seeds by method; None if its result depends on none.
        reference: The method to compare with.
    """
    others = [method for method in qualities if method != reference]
    if qualities[reference].shape[1] < 2 or not others:
        return {}

    def on_shared(method: str, other: str) -> np.ndarray:
        ours, theirs = seeds[method], seeds[other]
        shared = [row for row, seed in enumerate(ours or ()) if seed in (theirs or ())]
        return qualities[method][shared] if shared else qualities[method]

    found = {
        method: compare_paired(on_shared(method, reference), on_shared(reference, method))
        for method in others
    }
    adjusted = holm([found[method].p_value for method in others])
    return {
        method: {
            "mean": found[method].difference,
            "interval": list(found[method].interval),
            "p": found[method].p_value,
            "p (Holm)": float(p),
        }
        for method, p in zip(others, adjusted, strict=True)
    }


def _mean(group: QueryGroup, name: str) -> float | None:
    return group.mean[name] if group.num_queries else None


# -------------------------------------------------------------------- detection


def _detection_table(table: str, by_method: dict[str, Runs], reference: str | None) -> dict[str, Any]:
    rows = [
        {
            "method": method,
            "seeds": len(runs),
            **{name: _mean_figure(runs, name) for name in DETECTION_MEASURES},
            "interval": np.mean([run.figures["interval"] for run in runs.values()], axis=0).tolist(),
            "reliability": next(iter(runs.values())).figures.get("reliability"),
            **_costs(runs),
        }
        for method, runs in by_method.items()
    ]
    first = _any(by_method).figures
    return {
        "reference": _reference(table, {row["method"]: row[AVERAGE_PRECISION] for row in rows}, reference),
        "protocol": first["protocol"],
        "base rate": _mean_figure(next(iter(by_method.values())), "base rate"),
        "pairs": first["pairs"],
        "rows": rows,
    }


def _mean_figure(runs: Runs, name: str) -> float | None:
    values = [run.figures[name] for run in runs.values() if name in run.figures]
    return float(np.mean(values)) if values else None
