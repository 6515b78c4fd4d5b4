"""Features are gathered where the query was never seen; maps are chosen, and the heads fitted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.special import expit
from sklearn.metrics import average_precision_score
from torch import Tensor

from feature_task import (
    DIM,
    DOCUMENTS,
    PRESET,
    Task,
    assert_every_query_is_read_once,
    directions,
    fit,
    normalized,
    spy_on_folds,
)
from rrra_hf import AdapterConfig, RetrieverAdapter
from rrra_hf.candidates import LabelledQueries
from rrra_hf.fitting import FitArguments, heads
from rrra_hf.fitting.data import FitData
from rrra_hf.fitting.features import FOLDS, fit_features, gather_features
from rrra_hf.fitting.fold_state import fold_state
from rrra_hf.fitting.heads import candidate_weights, fit_ranking_head, fit_relevance_head
from rrra_hf.fitting.maps import MapRecipe, Maps, choose_maps, refit_maps
from rrra_hf.models.features_rrra import FEATURES

# Candidates that a fit of features doesn't use: it searches with its own maps.
NOTHING_MINED = np.empty((0, 0), dtype=np.int64)


def data_of(task: Task, training: LabelledQueries, development: LabelledQueries) -> FitData:
    return FitData(training, NOTHING_MINED, task.documents, development, task.words)


@pytest.mark.usefixtures("quick")
def test_features_gathered_once_serve_fits_that_read_fewer(task: Task, training: LabelledQueries) -> None:
    data = data_of(task, training, task.queries(20))
    gathered = gather_features(data, PRESET)
    assert gathered.names == list(FEATURES)
    assert gathered.features.shape == (200, 30, len(FEATURES))
    assert gathered.cosines.shape == gathered.relevant.shape == (200, 30)
    torch.testing.assert_close(gathered.features[..., 0], gathered.cosines, rtol=0, atol=1e-5)
    fewer = replace(PRESET, features=("base", "memory"))
    shared = fit_features(data, fewer, gathered)
    alone = fit_features(data, fewer)
    assert shared.reader.names == ["base", "memory"]
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(shared.state_dict()[name], value, rtol=1e-4, atol=1e-5)
    again = gather_features(data, PRESET, choose_maps(data, PRESET))
    assert torch.equal(again.features, gathered.features)


@pytest.mark.usefixtures("quick")
def test_features_are_gathered_with_folds_that_never_saw_the_query(
    task: Task, training: LabelledQueries, monkeypatch: pytest.MonkeyPatch
) -> None:
    spied = spy_on_folds(monkeypatch)
    fit(task, training, PRESET, development=task.queries(10))
    # The last one is the state of all training queries, for the development queries.
    assert len(spied) == FOLDS + 1
    assert_every_query_is_read_once(spied[:-1], training)


@pytest.mark.parametrize("block", [1, 64])
def test_features_are_computed_in_blocks_of_whole_queries(
    task: Task, training: LabelledQueries, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    state = fold_state(training, task.documents, None, PRESET, task.words)
    rows = np.random.default_rng(0).integers(0, DOCUMENTS, size=(200, 10))
    whole = state.candidate_features(training, rows)
    assert whole.shape == (200, 10, len(FEATURES))
    monkeypatch.setattr("rrra_hf.candidates.reading.PAIRS_PER_BLOCK", block)
    torch.testing.assert_close(state.candidate_features(training, rows), whole, rtol=1e-4, atol=1e-5)


# -------------------------------------------------------------------- maps


def test_maps_that_are_fitted_again_by_their_recipe_are_the_same(
    task: Task, training: LabelledQueries
) -> None:
    arguments = FitArguments(maps="both")
    chosen, recipe = choose_maps(data_of(task, training, task.queries(40)), arguments)
    assert recipe.strength > 0
    again = refit_maps(training, task.documents, arguments, recipe)
    assert torch.equal(again.query, chosen.query)
    assert torch.equal(again.document, chosen.document)
    fewer = refit_maps(training.select(np.arange(50)), task.documents, arguments, recipe)
    assert not torch.equal(fewer.query, chosen.query)


@pytest.mark.parametrize("sides", ["query", "both"])
@pytest.mark.usefixtures("quick")
def test_maps_that_do_not_help_are_the_identity(sides: str) -> None:
    rng = np.random.default_rng(0)
    documents = normalized(rng.normal(size=(30, DIM)))
    queries = LabelledQueries(documents[:20], [np.array([row]) for row in range(20)])
    arguments = FitArguments(maps=sides)
    chosen, recipe = choose_maps(FitData(queries, NOTHING_MINED, documents, queries), arguments)
    assert recipe == MapRecipe(0, 0, 0.0)
    assert torch.equal(chosen.query, torch.eye(DIM))
    assert (chosen.document is None) == (sides == "query")
    again = refit_maps(queries, documents, arguments, recipe)
    assert torch.equal(again.query, chosen.query)


def test_installed_maps_are_those_of_the_adapter() -> None:
    adapter = RetrieverAdapter(AdapterConfig(embedding_dim=DIM))
    made = Maps(torch.randn(DIM, DIM), torch.randn(DIM, DIM))
    made.install(adapter)
    assert (adapter.config.query_map, adapter.config.document_map) == (True, True)
    x = directions(5, DIM)
    assert_allclose(adapter.map_queries(x), made.map_queries(x), atol=1e-5)
    assert_allclose(adapter.map_documents(x), made.map_documents(x), atol=1e-5)


# -------------------------------------------------------------------- heads


def test_one_head_learns_the_feature_that_ranks_and_the_other_its_probability() -> None:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(300, 8, 2)).astype(np.float32))
    x[..., 0] *= 0.05
    relevant = np.zeros((300, 8), dtype=bool)
    relevant[np.arange(300), x[..., 1].argmax(1)] = True
    cosines = x[..., 0]
    arguments = FitArguments()
    ranking_head = fit_ranking_head(x[:200], relevant[:200], torch.ones(200, 8), cosines[:200], arguments)
    with torch.no_grad():
        scores = cosines / arguments.tau + ranking_head(x)
    right = relevant[np.arange(300), scores.argmax(1)]
    by_cosine = relevant[np.arange(300), cosines.argmax(1)]
    assert right[200:].mean() > 0.85 > 0.3 > by_cosine.mean()
    relevance_head = fit_relevance_head(
        x[:200], relevant[:200], torch.ones(200, 8), ["mapped", "words"], arguments
    )
    with torch.no_grad():
        probability = expit(relevance_head(x)[200:].numpy())
    assert probability.mean() == pytest.approx(1 / 8, abs=0.04)
    assert average_precision_score(relevant[200:].ravel(), probability.ravel()) > 0.7


def test_queries_without_both_kinds_of_candidates_do_not_teach_the_ranking_head() -> None:
    x = torch.randn(6, 4, 2)
    relevant = np.zeros((6, 4), dtype=bool)
    relevant[:3, 0] = True
    relevant[3] = True
    arguments = FitArguments()
    cosines, weights = torch.randn(6, 4), torch.rand(6, 4)
    everything = fit_ranking_head(x, relevant, weights, cosines, arguments)
    usable = fit_ranking_head(x[:3], relevant[:3], weights[:3], cosines[:3], arguments)
    assert all(torch.equal(v, usable.state_dict()[k]) for k, v in everything.state_dict().items())


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1))
def test_weights_give_what_is_remembered_no_worse_odds(candidates: list[tuple[bool, bool]]) -> None:
    relevant, remembered = np.array(candidates).T[:, None]
    weights = candidate_weights(relevant, remembered, PRESET).numpy()
    assert ((weights > 0) & (weights <= 1)).all()
    assert (weights[relevant | ~remembered] == 1).all()
    odds = [
        ((relevant & part).sum() + 0.5, (~relevant & part).sum() + 0.5) for part in (remembered, ~remembered)
    ]
    expected = min(1.0, odds[0][0] / odds[0][1] / (odds[1][0] / odds[1][1]))
    assert_allclose(weights[~relevant & remembered], expected, rtol=1e-6)
    assert (candidate_weights(relevant, remembered, replace(PRESET, even_odds=False)) == 1).all()


def test_weights_count_as_so_many_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(40, 3, 1)).astype(np.float32))
    relevant = np.zeros((40, 3), dtype=bool)
    relevant[:, 0] = True
    # The last candidate twice, and once with the weight of two.
    twice, doubled = torch.cat([x, x[:, 2:]], dim=1), torch.tensor([[1.0, 1.0, 2.0]]).expand(40, 3)
    more = np.concatenate([relevant, relevant[:, 2:]], axis=1)
    cosines = torch.zeros(40, 3), torch.zeros(40, 4)
    losses: list[Callable[..., Tensor]] = []
    monkeypatch.setattr(heads, "_fit", lambda head, count, loss, *rest: losses.append(loss))
    fit_ranking_head(x, relevant, doubled, cosines[0], PRESET)
    fit_ranking_head(twice, more, torch.ones(40, 4), cosines[1], PRESET)
    fit_relevance_head(x, relevant, doubled, ["words"], PRESET)
    fit_relevance_head(twice, more, torch.ones(40, 4), ["words"], PRESET)
    ranking, ranking_twice, relevance, relevance_twice = (
        float(loss(lambda part: part[..., 0], np.arange(40))) for loss in losses
    )
    assert ranking == pytest.approx(ranking_twice, rel=1e-5)
    assert relevance == pytest.approx(relevance_twice, rel=1e-5)
