"""Probabilities of candidates, calibrated on labels of other queries."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import average_precision_score

from feature_task import (
    DIM,
    PRESET,
    Task,
    cross_fit_pool,
    fit,
    normalized,
    text_of,
    words_of,
)
from rrra_hf import RetrieverAdapter
from rrra_hf.candidates import LabelledQueries, mine_embeddings
from rrra_hf.fitting import calibration as calibration_module
from rrra_hf.fitting.calibration import MIN_POSITIVES, calibrate_relevance
from rrra_hf.fitting.data import FitData, deal
from rrra_hf.fitting.gathered import GatheredFeatures, gather_features


def test_hidden_positives_are_found_better_than_by_similarity() -> None:
    rng = np.random.default_rng(7)
    # Each query has two relevant documents, near each other and of the same words; one is not labelled.
    twins = Task(documents=150, seed=1)
    twins.documents = normalized(
        np.concatenate([twins.documents, twins.documents + 0.1 * rng.normal(size=twins.documents.shape)])
    )
    twins.bags = [*twins.bags, *twins.bags]
    twins.words = words_of(twins.bags)
    rows = rng.integers(0, 150, size=300)
    embeddings = normalized(twins.documents[rows] @ twins.turn + 0.15 * rng.normal(size=(300, DIM)))
    texts = [text_of(rng.choice(twins.bags[row], 2, replace=False)) for row in rows]
    labelled = LabelledQueries(embeddings, [np.array([row]) for row in rows], twins.words.count(texts))
    pool = mine_embeddings(
        embeddings,
        twins.documents,
        labelled.positives,
        depth=100,
        query_words=labelled.words,
        document_words=twins.words,
    )
    crossed = cross_fit_pool(twins, pool, labelled, folds=3)
    hidden = pool.candidates == (rows + 150)[:, None]
    assert hidden.sum() > 150
    found = average_precision_score(hidden.ravel(), crossed.probability.ravel())
    by_similarity = average_precision_score(hidden.ravel(), pool.scores.ravel())
    assert found > 2 * by_similarity


@pytest.mark.parametrize("words", [True, False])
def test_cross_fitted_probabilities_cover_exactly_the_candidates(words: bool) -> None:
    small = Task(documents=20)
    labelled = small.queries(90, answers=2)
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


def test_a_query_without_candidates_is_no_error() -> None:
    small = Task(documents=20)
    labelled = small.queries(12)
    pool = mine_embeddings(labelled.embeddings, small.documents, labelled.positives, depth=3)
    candidates = pool.candidates.copy()
    for query in range(12):
        candidates[query, query % 4 :] = -1
    few = replace(pool, candidates=candidates, scores=np.where(candidates < 0, -np.inf, pool.scores))
    crossed = cross_fit_pool(small, few, labelled, folds=2)
    assert_array_equal(np.isnan(crossed.probability), candidates < 0)


def test_a_fold_gets_its_level_from_the_labels_of_the_others(task: Task, training: LabelledQueries) -> None:
    pool = mine_embeddings(training.embeddings, task.documents, training.positives, depth=10)
    crossed = cross_fit_pool(task, pool, training, folds=4)
    fold = deal(200, PRESET.seed, 4)[0]
    # Labels of its own queries, exchanged among them, change the level of the other folds only.
    other = list(training.positives)
    for row, taken in zip(fold, np.roll(fold, 1), strict=True):
        other[row] = np.r_[training.positives[row][:1], training.positives[taken]]
    moved = mine_embeddings(training.embeddings, task.documents, other, depth=10)
    same = [row for row in fold if np.array_equal(moved.candidates[row], pool.candidates[row])]
    again = cross_fit_pool(task, moved, training._replace(positives=moved.positives), folds=4)
    first = [row for row in same if moved.positives[row][0] == training.positives[row][0]]
    assert len(first) > 10
    assert_allclose(again.probability[first], crossed.probability[first], rtol=1e-5)


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


# -------------------------------------------------------------------- calibration


def gathered_of(task: Task, labelled: LabelledQueries) -> GatheredFeatures:
    data = FitData(labelled, np.empty((0, 0)), task.documents, None, task.words)
    return gather_features(data, PRESET, [None] * 3)


def probabilities(adapter: RetrieverAdapter, gathered: GatheredFeatures, given_one: bool) -> torch.Tensor:
    reader = adapter.reader
    with torch.no_grad():
        log_odds = reader.relevance_head(gathered.of(reader.relevance, given_one))
    return torch.sigmoid(log_odds / adapter.config.temperature)


def test_probabilities_have_the_mean_of_the_labels_with_a_known_document_and_without() -> None:
    """A property of maximum likelihood with an intercept for each of the two."""
    task = Task()
    gathered = gathered_of(task, task.queries(150, answers=3))
    adapter = RetrieverAdapter.pretrained(DIM)
    calibrate_relevance(adapter, gathered)
    present = gathered.present
    alone = probabilities(adapter, gathered, given_one=False)[present].mean()
    assert float(alone) == pytest.approx(float(gathered.relevant[present].float().mean()), rel=0.02)
    rows = np.flatnonzero(gathered.known >= 0)
    others = present[rows].clone()
    others[np.arange(len(rows)), gathered.known[rows]] = False
    told = probabilities(adapter, gathered, given_one=True)[rows][others].mean()
    assert float(told) == pytest.approx(float(gathered.relevant[rows][others].float().mean()), rel=0.02)
    record = adapter.config.fit["calibration"]
    assert 0 <= record["expected_calibration_error"] < 0.1
    assert set(record) == {"expected_calibration_error", "reliability"}


def test_the_order_of_candidates_stays() -> None:
    task = Task()
    gathered = gathered_of(task, task.queries(60))
    adapter, trained = RetrieverAdapter.pretrained(DIM), RetrieverAdapter.pretrained(DIM)
    calibrate_relevance(adapter, gathered)
    before, after = (
        probabilities(one, gathered, given_one=False).argsort(dim=1) for one in (trained, adapter)
    )
    assert (before == after).float().mean() > 0.99


def test_a_few_labels_change_no_probability(caplog: pytest.LogCaptureFixture) -> None:
    task = Task()
    gathered = gathered_of(task, task.queries(MIN_POSITIVES // 2))
    adapter, trained = RetrieverAdapter.pretrained(DIM), RetrieverAdapter.pretrained(DIM)
    calibrate_relevance(adapter, gathered)
    assert "calibration" not in adapter.config.fit
    assert all(torch.equal(v, trained.state_dict()[k]) for k, v in adapter.state_dict().items())
    assert adapter.config == trained.config


def test_labels_that_fall_with_the_log_odds_are_not_believed(caplog: pytest.LogCaptureFixture) -> None:
    task = Task()
    gathered = gathered_of(task, task.queries(60))
    adapter = RetrieverAdapter.pretrained(DIM)
    worst = probabilities(adapter, gathered, given_one=False).argmin(dim=1)
    relevant = torch.zeros_like(gathered.relevant)
    relevant[torch.arange(60), worst] = True
    before = {name: value.clone() for name, value in adapter.state_dict().items()}
    calibrate_relevance(adapter, gathered._replace(relevant=relevant, known=np.full(60, -1)))
    assert "don't rise with relevance" in caplog.text
    assert all(torch.equal(v, before[k]) for k, v in adapter.state_dict().items())


@pytest.mark.usefixtures("quick")
def test_a_fitted_adapter_is_calibrated(task: Task, training: LabelledQueries, monkeypatch: Any) -> None:
    adapter = fit(task, training, PRESET)
    assert 0 <= adapter.config.fit["calibration"]["expected_calibration_error"] < 0.1
    monkeypatch.setattr(calibration_module, "MIN_POSITIVES", 10_000)
    assert "calibration" not in fit(task, training, PRESET).config.fit


def test_documents_are_prepared_once_for_all_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task()
    labelled = task.queries(40)
    pool = mine_embeddings(labelled.embeddings, task.documents, labelled.positives, depth=10)
    sizes = []
    prepare = RetrieverAdapter.map_documents
    monkeypatch.setattr(
        RetrieverAdapter, "map_documents", lambda self, rows: sizes.append(len(rows)) or prepare(self, rows)
    )
    cross_fit_pool(task, pool, labelled, folds=4)
    assert sizes == [len(task.documents)]
