"""Queries that are documents themselves, and documents that are judged irrelevant, in fits from arrays."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from feature_task import DIM, PRESET, Task, cross_fit_pool, directions, normalized, shorten
from rrra_hf.candidates import LabelledQueries, mine_embeddings
from rrra_hf.fitting import FitArguments, ResidualFitArguments, fit_adapter, maps
from rrra_hf.fitting.arguments import AnyFitArguments
from rrra_hf.fitting.data import FitData
from rrra_hf.fitting.gathered import gather_features
from rrra_hf.fitting.residual_candidates import CandidateSampler

COUNT = 40
RESIDUAL = ResidualFitArguments(max_steps=2, eval_steps=2, depth=10, hidden_size=8)


@pytest.fixture(scope="module", autouse=True)
def quickly() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        yield


def duplicates() -> tuple[np.ndarray, np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """Questions, each a document too, whose duplicates are the other documents; rows of both."""
    questions = directions(COUNT, DIM)
    others = normalized(questions + 0.4 * directions(COUNT, DIM, seed=1))
    rows = np.arange(COUNT)[:, None]
    return questions, np.concatenate([questions, others]), list(rows + COUNT), list(rows)


@pytest.mark.parametrize("arguments", [FitArguments(depth=10), RESIDUAL], ids=["features", "residual"])
def test_a_query_that_is_a_document_is_no_wrong_first_hit_in_a_fit(arguments: AnyFitArguments) -> None:
    questions, documents, positives, own = duplicates()
    quality = []
    for excluded in (None, own):
        pool = mine_embeddings(questions, documents, positives, depth=10, excluded=excluded)
        fit = fit_adapter(questions, documents, pool=pool, arguments=arguments).config.fit
        quality.append(fit["unseen" if "unseen" in fit else "development"]["nDCG@10"]["encoder"])
    # The first hit is second if the question itself is found before it.
    assert quality[0] <= 0.65 and quality[1] > 0.95


def test_a_question_is_no_negative_of_itself_where_it_answers_another() -> None:
    positives, excluded = [np.array([1]), np.array([2])], [np.array([2]), np.empty(0, dtype=int)]
    queries = LabelledQueries(np.eye(2), positives, excluded=excluded)
    sampler = CandidateSampler(queries, np.array([[0], [0]]), 3, num_mined=0, rng=np.random.default_rng(0))
    drawn = sampler.draw(np.array([0, 1]))
    assert_array_equal(drawn.shared, [1, 2])
    assert_array_equal(drawn.mask[:, 1:], [[False, False], [True, False]])
    residuals = torch.nn.ParameterDict({"query": torch.zeros(2, 2)})
    documents, pair, other = np.eye(3)[:, :2] + 0.1, np.array([[0, 1]]), np.array([2])
    losses = [
        maps._contrastive_loss(residuals, pair, other, queries.embeddings, documents, rows, 0.05).item()
        for rows in (queries.no_negatives, queries.positives)
    ]
    assert losses[0] == 0 < losses[1]


def test_known_negatives_stay_certain_in_a_cross_fit_and_in_what_heads_learn_from() -> None:
    task = Task()
    labelled = task.queries(60)
    plain = mine_embeddings(
        labelled.embeddings,
        task.documents,
        labelled.positives,
        depth=30,
        query_words=labelled.words,
        document_words=task.words,
    )
    negatives = [rows[:2] for rows in plain.candidates]
    pool = mine_embeddings(
        labelled.embeddings,
        task.documents,
        labelled.positives,
        depth=30,
        negatives=negatives,
        query_words=labelled.words,
        document_words=task.words,
    )
    judged = cross_fit_pool(task, pool, labelled, folds=2)
    assert (judged.probability[:, :2] == 0).all() and (judged.probability[:, 2:] > 0).all()
    data = FitData(labelled._replace(negatives=negatives), pool.candidates, task.documents, None, task.words)
    gathered = gather_features(data, PRESET, [None] * 3)
    assert gathered.irrelevant.any() and not (gathered.irrelevant & gathered.relevant).any()
    assert gathered.irrelevant.sum(dim=1).max() == 2
