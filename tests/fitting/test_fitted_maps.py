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
    assert_every_query_is_asked_once,
    directions,
    fit,
    normalized,
    spy_on_spaces,
)
from rrra_hf import AdapterConfig, RetrieverAdapter
from rrra_hf.candidates import LabelledQueries
from rrra_hf.fitting import FitArguments
from rrra_hf.fitting import features as features
from rrra_hf.fitting.features import (
    candidate_weights,
    fit_features,
    fit_ranking_head,
    fit_relevance_head,
    fold_state,
    gather_features,
)
from rrra_hf.fitting.maps import MapRecipe, Maps, choose_maps, refit_maps
from rrra_hf.models.features_rrra import FEATURES


@pytest.mark.usefixtures("quick")
def test_evidence_gathered_once_serves_fits_that_read_less_of_it(
    task: Task, training: LabelledQueries
) -> None:
    development = task.queries(20)
    parts = training, task.documents, development
    gathered = gather_features(*parts, PRESET, task.words)
    assert gathered.features.shape == (200, 30, len(FEATURES))
    assert gathered.cosines.shape == gathered.relevant.shape == (200, 30)
    torch.testing.assert_close(gathered.features[..., 0], gathered.cosines, rtol=0, atol=1e-5)
    less = replace(PRESET, features=("base", "memory"))
    shared = fit_features(*parts, less, task.words, gathered)
    alone = fit_features(*parts, less, task.words)
    assert shared.features.names == ["base", "memory"]
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(shared.state_dict()[name], value, rtol=1e-4, atol=1e-5)
    stage1 = choose_maps(*parts, PRESET)
    again = gather_features(*parts, PRESET, task.words, stage1)
    assert torch.equal(again.features, gathered.features)


@pytest.mark.usefixtures("quick")
def test_evidence_is_gathered_from_spaces_that_never_saw_the_query(
    task: Task, training: LabelledQueries, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = spy_on_spaces(monkeypatch)
    fit(task, training, PRESET, development=task.queries(10))
    # The last one is the space of all training queries, asked for the development queries.
    assert len(asked) == features.FOLDS + 1
    assert_every_query_is_asked_once(asked[:-1], training)


@pytest.mark.parametrize("block", [1, 64])
def test_evidence_is_gathered_in_blocks_of_whole_queries(
    task: Task, training: LabelledQueries, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    space = fold_state(training, task.documents, None, PRESET, task.words)
    rows = np.random.default_rng(0).integers(0, DOCUMENTS, size=(200, 10))
    whole = space.gather(training, rows)
    assert whole.shape == (200, 10, len(FEATURES))
    monkeypatch.setattr(features, "PAIRS_PER_BLOCK", block)
    torch.testing.assert_close(space.gather(training, rows), whole, rtol=1e-4, atol=1e-5)


# -------------------------------------------------------------------- maps


def test_maps_that_are_fitted_again_by_their_recipe_are_the_same(
    task: Task, training: LabelledQueries
) -> None:
    arguments = FitArguments(stage1="both")
    chosen, recipe = choose_maps(training, task.documents, task.queries(40), arguments)
    assert recipe.strength > 0
    again = refit_maps(training, task.documents, arguments, recipe)
    assert torch.equal(again.query, chosen.query)
    assert torch.equal(again.document, chosen.document)
    fewer = refit_maps(training.select(np.arange(50)), task.documents, arguments, recipe)
    assert not torch.equal(fewer.query, chosen.query)


@pytest.mark.parametrize("stage1", ["query", "both"])
@pytest.mark.usefixtures("quick")
def test_maps_that_do_not_help_are_the_identity(stage1: str) -> None:
    rng = np.random.default_rng(0)
    documents = normalized(rng.normal(size=(30, DIM)))
    queries = LabelledQueries(documents[:20], [np.array([row]) for row in range(20)])
    arguments = FitArguments(stage1=stage1)
    chosen, recipe = choose_maps(queries, documents, queries, arguments)
    assert recipe == MapRecipe(0, 0, 0.0)
    assert torch.equal(chosen.query, torch.eye(DIM))
    assert (chosen.document is None) == (stage1 == "query")
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


# -------------------------------------------------------------------- readers


def test_a_ranker_learns_the_evidence_that_tells_and_a_judge_its_odds() -> None:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(300, 8, 2)).astype(np.float32))
    x[..., 0] *= 0.05
    relevant = np.zeros((300, 8), dtype=bool)
    relevant[np.arange(300), x[..., 1].argmax(1)] = True
    cosines = x[..., 0]
    arguments = FitArguments()
    ranker = fit_ranking_head(x[:200], relevant[:200], torch.ones(200, 8), cosines[:200], arguments)
    with torch.no_grad():
        scores = cosines / arguments.tau + ranker(x)
    right = relevant[np.arange(300), scores.argmax(1)]
    by_cosine = relevant[np.arange(300), cosines.argmax(1)]
    assert right[200:].mean() > 0.85 > 0.3 > by_cosine.mean()
    judge = fit_relevance_head(x[:200], relevant[:200], torch.ones(200, 8), ["mapped", "words"], arguments)
    with torch.no_grad():
        probability = expit(judge(x)[200:].numpy())
    assert probability.mean() == pytest.approx(1 / 8, abs=0.04)
    assert average_precision_score(relevant[200:].ravel(), probability.ravel()) > 0.7


def test_queries_without_both_kinds_of_candidates_do_not_teach_the_ranker() -> None:
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
    monkeypatch.setattr(features, "_fit", lambda reader, count, loss, *rest: losses.append(loss))
    fit_ranking_head(x, relevant, doubled, cosines[0], PRESET)
    fit_ranking_head(twice, more, torch.ones(40, 4), cosines[1], PRESET)
    fit_relevance_head(x, relevant, doubled, ["words"], PRESET)
    fit_relevance_head(twice, more, torch.ones(40, 4), ["words"], PRESET)
    ranker, ranker_twice, judge, judge_twice = (
        float(loss(lambda part: part[..., 0], np.arange(40))) for loss in losses
    )
    assert ranker == pytest.approx(ranker_twice, rel=1e-5)
    assert judge == pytest.approx(judge_twice, rel=1e-5)
