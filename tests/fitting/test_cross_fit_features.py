"""Probabilities of candidates, by folds that never saw their query."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.metrics import average_precision_score
from torch import Tensor

from feature_task import (
    DIM,
    PRESET,
    Task,
    assert_every_query_is_read_once,
    counts_of,
    cross_fit_pool,
    normalized,
    spy_on_folds,
)
from rrra_hf.candidates import LabelledQueries, mine_embeddings
from rrra_hf.fitting import FitArguments
from rrra_hf.fitting import features as fitting_features
from rrra_hf.fitting.data import FitData
from rrra_hf.fitting.features import cross_fit_features
from rrra_hf.models.heads_rrra import Head


@pytest.mark.slow
def test_cross_fitting_finds_hidden_positives_better_than_similarity_does(task: Task) -> None:
    rng = np.random.default_rng(7)
    # Each query has two relevant documents, near each other and of the same words; one is not labelled.
    twins = Task(documents=150, seed=1)
    twins.documents = normalized(
        np.concatenate([twins.documents, twins.documents + 0.1 * rng.normal(size=twins.documents.shape)])
    )
    twins.bags = [*twins.bags, *twins.bags]
    twins.words = counts_of([list(bag) for bag in twins.bags])
    rows = rng.integers(0, 150, size=300)
    embeddings = normalized(twins.documents[rows] @ twins.turn + 0.15 * rng.normal(size=(300, DIM)))
    texts = [[int(w) for w in rng.choice(twins.bags[row], 2, replace=False)] for row in rows]
    labelled = LabelledQueries(embeddings, [np.array([row]) for row in rows], counts_of(texts))
    pool = mine_embeddings(embeddings, twins.documents, labelled.positives, depth=100)
    crossed = cross_fit_pool(twins, pool, labelled, folds=3)
    hidden = pool.candidates == (rows + 150)[:, None]
    assert hidden.sum() > 150
    found = average_precision_score(hidden.ravel(), crossed.probability.ravel())
    by_similarity = average_precision_score(hidden.ravel(), pool.scores.ravel())
    assert found > 2 * by_similarity
    assert found > 0.5


@pytest.mark.parametrize("words", [True, False])
@pytest.mark.usefixtures("quick")
def test_cross_fitted_probabilities_cover_exactly_the_candidates(words: bool) -> None:
    small = Task(documents=20)
    labelled = small.queries(30, answers=2)
    pool = mine_embeddings(labelled.embeddings, small.documents, labelled.positives, depth=25)
    assert (pool.candidates < 0).any(axis=1).all()
    given = {} if words else {"query_words": None, "document_words": None}
    crossed = cross_fit_pool(small, pool, labelled, folds=3, **given)
    probability = crossed.probability
    assert probability.dtype == np.float32
    assert_array_equal(np.isnan(probability), pool.candidates < 0)
    known = probability[pool.candidates >= 0]
    assert ((known > 0) & (known < 1)).all()
    assert pool.probability is None
    again = cross_fit_pool(small, pool, labelled, folds=3, **given)
    assert_array_equal(again.probability, probability)
    other = cross_fit_pool(small, pool, labelled, folds=3, arguments=replace(PRESET, seed=1), **given)
    assert not np.array_equal(other.probability, probability, equal_nan=True)


@pytest.mark.usefixtures("quick")
def test_padding_teaches_nothing_wrong_and_a_query_without_candidates_is_no_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taught: list[tuple[Tensor, np.ndarray]] = []
    fitting = fitting_features.fit_relevance_head

    def spy(x: Tensor, y: np.ndarray, *rest: Any) -> Head:
        taught.append((x, y))
        return fitting(x, y, *rest)

    monkeypatch.setattr(fitting_features, "fit_relevance_head", spy)
    small = Task(documents=20)
    labelled = small.queries(12)
    candidates = np.full((12, 3), -1)
    for query, rows in enumerate(labelled.positives):
        candidates[query, : query % 3] = np.setdiff1d(np.arange(20), rows)[: query % 3]
    parts = labelled, candidates, small.documents, small.words, small.queries(4), PRESET
    probability = cross_fit_features(*parts, folds=2)
    assert_array_equal(np.isnan(probability), candidates < 0)
    assert len(taught) == 2
    for x, relevant in taught:
        # What is taught to be irrelevant is never the query's positive, which is the last one.
        same = (x == x[:, -1:]).all(-1).numpy()
        assert_array_equal(relevant, same)


@pytest.mark.usefixtures("quick")
def test_a_querys_own_fold_neither_maps_nor_remembers_it(
    task: Task, training: LabelledQueries, monkeypatch: pytest.MonkeyPatch
) -> None:
    spied = spy_on_folds(monkeypatch)
    pool = mine_embeddings(training.embeddings, task.documents, training.positives, depth=10)
    cross_fit_pool(task, pool, training, folds=4, development=task.queries(10))
    assert len(spied) == 4
    assert_every_query_is_read_once(spied, training)


@pytest.mark.usefixtures("quick")
def test_the_recipe_of_the_maps_is_chosen_on_queries_that_did_not_train_them(
    task: Task, training: LabelledQueries, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[FitData] = []
    choose = fitting_features.choose_maps

    def spy(data: FitData, arguments: FitArguments) -> Any:
        chosen.append(data)
        return choose(data, arguments)

    monkeypatch.setattr(fitting_features, "choose_maps", spy)
    pool = mine_embeddings(training.embeddings, task.documents, training.positives, depth=10)
    cross_fit_pool(task, pool, training, folds=2)
    (data,) = chosen
    taught, measured = (
        {row.tobytes() for row in queries.embeddings} for queries in (data.training, data.development)
    )
    assert len(taught) == 170
    assert len(measured) == 30
    assert not taught & measured


@pytest.mark.usefixtures("quick")
def test_bad_input_to_cross_fitting_is_named(task: Task, training: LabelledQueries) -> None:
    pool = mine_embeddings(training.embeddings, task.documents, training.positives, depth=5)
    with pytest.raises(ValueError, match="folds must lie between 2 and the number of queries, 200; got 201"):
        cross_fit_pool(task, pool, training, folds=201)
    with pytest.raises(ValueError, match="query_embeddings must have the pool's 200 rows, got 10"):
        cross_fit_pool(task, pool, training.select(np.arange(10)))
    with pytest.raises(ValueError, match="both query_words and document_words"):
        cross_fit_pool(task, pool, training, query_words=None)
    with pytest.raises(ValueError, match="query_words must have shape"):
        cross_fit_pool(task, pool, training, query_words=training.words[:7])
    with pytest.raises(ValueError, match="development must have words"):
        cross_fit_pool(task, pool, training, development=task.queries(3)._replace(words=None))
    broken = training.embeddings.copy()
    broken[0, 0] = np.nan
    with pytest.raises(ValueError, match="query_embeddings"):
        cross_fit_pool(task, pool, training._replace(embeddings=broken))
