"""A new system, strategy, detector or measure is one registered function; it is in the tables then."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from comparison_task import DIM, QUICK
from rrra_hf.comparison import (
    choose_methods,
    detection_measure,
    detector,
    make_tables,
    ranking_measure,
    run_cells,
    strategy,
    system,
)
from rrra_hf.comparison.measures import DETECTION_MEASURES, RANKING_MEASURES
from rrra_hf.comparison.methods import REGISTRY
from rrra_hf.comparison.negatives import top_k_weights
from rrra_hf.comparison.ranking import searcher
from rrra_hf.comparison.strategies import STRATEGIES
from rrra_hf.comparison.texts import glossary, grid_of
from rrra_hf.comparison.truth import ground_truth

ONE_SEED = replace(QUICK, seeds=1)


@pytest.fixture(autouse=True)
def registered_in_this_test_only() -> Iterator[None]:
    registries = REGISTRY, STRATEGIES, RANKING_MEASURES, DETECTION_MEASURES
    before = [dict(registry) for registry in registries]
    yield
    for registry, kept in zip(registries, before, strict=True):
        registry.clear()
        registry.update(kept)


def table_of(task, store, table, *names):
    """Run some methods, and return their table and its rows as printed, by method."""
    results = run_cells([task], choose_methods(table, names, ONE_SEED), ONE_SEED, store)
    (made,) = make_tables(results)
    header, rows = grid_of(made)
    return made, {row[0]: dict(zip(header, row, strict=True)) for row in rows}


def test_a_new_system(task, store):
    @system("second-half", "the encoder without the first half of the embedding")
    def second_half(trial):
        half = DIM // 2
        documents = trial.task.documents[:, half:]
        return searcher(documents, trial.arguments.fit.depth, lambda queries: queries[:, half:])

    made, rows = table_of(task, store, "systems", "encoder", "second-half")
    assert list(rows) == ["encoder", "second-half"] and rows["encoder"] != rows["second-half"]
    assert glossary([made])["second-half"] == "the encoder without the first half of the embedding"


def test_a_new_strategy(task, store):
    @strategy("best-three", "uniform over the 3 best candidates")
    def best_three(trial):
        return top_k_weights(ground_truth(trial).pool.scores, top_k=3), None

    _, rows = table_of(task, store, "strategies", "in-batch", "best-three")
    assert list(rows) == ["in-batch", "best-three"]


def test_a_new_detector(task, store):
    @detector("truth", "the ground truth itself", probability=True)
    def truth(trial):
        return ground_truth(trial).false_negative.astype(float)

    _, rows = table_of(task, store, "detection", "similarity", "truth")
    assert rows["truth"]["average precision"] == "1.000" and rows["truth"]["ECE"] == "0.000"


def test_a_new_measure_of_rankings_is_a_column(task, store):
    @ranking_measure("half of R@1")
    def half(rankings):
        return rankings.measured("R@1") / 2

    made, rows = table_of(task, store, "systems", "encoder")
    (row,) = made["rows"]
    assert row["half of R@1"]["all"] == pytest.approx(row["R@1"]["all"] / 2)
    assert rows["encoder"]["half of R@1"] == f"{row['R@1']['all'] / 2:.3f}"


def test_a_new_measure_of_detection_is_a_column(task, store):
    @detection_measure("mean score")
    def mean_score(detection):
        return float(np.mean(detection.scores[detection.present]))

    made, rows = table_of(task, store, "detection", "similarity")
    assert rows["similarity"]["mean score"] == f"{made['rows'][0]['mean score']:.3f}"


def test_cells_without_a_new_measure_are_refused(task, store):
    table_of(task, store, "systems", "encoder")
    ranking_measure("new")(lambda rankings: rankings.measured("R@1"))
    with pytest.raises(ValueError, match="made with other settings: measures"):
        table_of(task, store, "systems", "encoder")
