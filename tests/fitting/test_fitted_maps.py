"""Maps are chosen on unseen queries, features are gathered of unseen queries, and heads are fitted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from torch import Tensor

from feature_task import (
    DIM,
    DOCUMENTS,
    EVERYTHING,
    PRESET,
    Task,
    directions,
    encoder_quality,
    names_of,
    normalized,
    spy_on_folds,
)
from rrra_hf import AdapterConfig, RetrieverAdapter
from rrra_hf.candidates import LabelledQueries
from rrra_hf.evaluation import ndcg_per_query
from rrra_hf.fitting import FitArguments, maps
from rrra_hf.fitting.data import FOLDS, FitData, deal
from rrra_hf.fitting.features import fit_features
from rrra_hf.fitting.fold_state import fold_state
from rrra_hf.fitting.gathered import gather_both, gather_features
from rrra_hf.fitting.heads import candidate_weights, fit_ranking_head, own_head, started_head
from rrra_hf.fitting.maps import NO_MAPS, Maps, choose_maps
from rrra_hf.models.features_rrra import RANKING

# Candidates that a fit of features doesn't use: it searches with its own maps.
NOTHING_MINED = np.empty((0, 0), dtype=np.int64)


def data_of(task: Task, training: LabelledQueries, development: LabelledQueries | None = None) -> FitData:
    return FitData(training, NOTHING_MINED, task.documents, development, task.words)


# -------------------------------------------------------------------- maps


def quality_of(of_fold: Maps, task: Task, queries: LabelledQueries) -> np.ndarray:
    """Return nDCG@10 of each query, searched with maps."""
    cosines = of_fold.map_queries(queries.embeddings) @ of_fold.map_documents(task.documents).T
    found = np.argsort(-cosines, axis=1)[:, :10]
    relevant = np.array([np.isin(rows, p) for rows, p in zip(found, queries.positives, strict=True)])
    return ndcg_per_query(relevant, queries.num_relevant)


@pytest.mark.parametrize("development", [True, False])
def test_maps_are_chosen_by_how_they_rank_queries_that_they_were_not_fitted_on(
    task: Task, training: LabelledQueries, development: bool
) -> None:
    held_out = task.queries(40) if development else None
    chosen = choose_maps(data_of(task, training, held_out), PRESET)
    assert chosen.recipe.steps in maps.STOPS and chosen.recipe.strength in maps.STRENGTHS
    assert len(chosen.by_fold) == FOLDS
    measured = []
    for row, (of_fold, fold) in enumerate(zip(chosen.by_fold, deal(200, PRESET.seed), strict=True)):
        assert of_fold is not None
        measured.append(quality_of(of_fold, task, training.select(fold)))
        if row == 0 and held_out is not None:
            measured.append(quality_of(of_fold, task, held_out))
    assert chosen.quality["maps"] == pytest.approx(np.concatenate(measured).mean(), abs=1e-6)
    unseen = [(training, 200), *([(held_out, 40)] if held_out is not None else [])]
    encoder = sum(encoder_quality(task, part) * count for part, count in unseen) / sum(n for _, n in unseen)
    assert chosen.quality["encoder"] == pytest.approx(encoder, abs=1e-6)
    assert chosen.quality["maps"] > encoder + 0.1


@pytest.mark.usefixtures("quick")
def test_the_maps_of_a_fold_never_saw_its_queries(
    task: Task, training: LabelledQueries, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught: list[set[bytes]] = []
    trained = maps._trained

    def spy(queries: LabelledQueries, *rest: object) -> object:
        taught.append(names_of(queries.embeddings))
        return trained(queries, *rest)

    monkeypatch.setattr(maps, "_trained", spy)
    assert choose_maps(data_of(task, training), PRESET).maps is not None
    everything = names_of(training.embeddings)
    folds = [names_of(training.embeddings[fold]) for fold in deal(200, PRESET.seed)]
    # The last ones are fitted on all queries, when all is chosen.
    assert taught == [*(everything - fold for fold in folds), everything]


@pytest.mark.parametrize("sides", ["none", "query", "both"])
@pytest.mark.usefixtures("quick")
def test_there_are_no_maps_where_they_do_not_help(sides: str) -> None:
    documents = normalized(np.random.default_rng(0).normal(size=(30, DIM)))
    queries = LabelledQueries(documents[:20], [np.array([row]) for row in range(20)])
    chosen = choose_maps(FitData(queries, NOTHING_MINED, documents, queries), FitArguments(maps=sides))
    assert (chosen.recipe, chosen.maps, chosen.by_fold) == (NO_MAPS, None, [None] * FOLDS)
    assert chosen.quality == {"encoder": 1.0, "maps": 1.0}


@pytest.mark.usefixtures("quick")
def test_one_side_is_mapped_if_asked_for(task: Task, training: LabelledQueries) -> None:
    chosen = choose_maps(data_of(task, training), FitArguments(maps="query"))
    assert chosen.maps is not None and chosen.maps.document is None
    assert all(of_fold is not None and of_fold.document is None for of_fold in chosen.by_fold)


def test_a_few_queries_represent_a_large_fold(
    task: Task, training: LabelledQueries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maps, "RANKED", 5)
    nothing: list[Maps | None] = [None] * FOLDS
    folds = deal(200, 0)
    assert maps._quality(nothing, folds, data_of(task, training), 0).shape == (15,)


def test_installed_maps_are_those_of_the_adapter() -> None:
    adapter = RetrieverAdapter(AdapterConfig(embedding_dim=DIM))
    made = Maps(torch.randn(DIM, DIM), torch.randn(DIM, DIM))
    made.install(adapter)
    assert (adapter.config.query_map, adapter.config.document_map) == (True, True)
    x = directions(5, DIM)
    assert_allclose(adapter.map_queries(x), made.map_queries(x), atol=1e-5)
    assert_allclose(adapter.map_documents(x), made.map_documents(x), atol=1e-5)


# -------------------------------------------------------------------- features


@pytest.mark.usefixtures("quick")
def test_features_gathered_once_serve_fits_that_read_fewer(task: Task, training: LabelledQueries) -> None:
    data = data_of(task, training, task.queries(20))
    chosen = choose_maps(data, PRESET)
    gathered = gather_both(data, PRESET, chosen)
    assert list(gathered) == [False, True]
    for found in gathered.values():
        assert set(EVERYTHING) < set(found.names)
        assert found.features.shape == found.given_one.shape == (220, 30, len(found.names))
        assert found.cosines.shape == found.relevant.shape == (220, 30)
    fewer = replace(PRESET, features=("cosine", "recalled"))
    shared, alone = fit_features(data, fewer, chosen, gathered), fit_features(data, fewer)
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(shared.state_dict()[name], value, rtol=1e-4, atol=1e-5)
    assert shared.config == alone.config


@pytest.mark.usefixtures("quick")
def test_features_are_gathered_where_the_query_was_never_seen(
    task: Task, training: LabelledQueries, monkeypatch: pytest.MonkeyPatch
) -> None:
    spied, development = spy_on_folds(monkeypatch), task.queries(10)
    gathered = gather_features(data_of(task, training, development), PRESET, [None] * FOLDS)
    everything, late = names_of(training.embeddings), names_of(development.embeddings)
    read = [names_of(queries) for _, queries in spied]
    for remembered, queries in spied:
        mine = names_of(queries)
        if mine != late:
            assert names_of(remembered) == everything - mine
    assert sum(map(len, read)) == 210 and set().union(*read) == everything | late
    counts = np.unique(gathered.fold, return_counts=True)
    assert_array_equal(counts, [[-1, 0, 1, 2], [10, 67, 67, 66]])
    assert gathered.num_relevant.tolist() == [1] * 210


def test_a_labelled_document_is_known_where_another_one_is_found() -> None:
    task = Task()
    labelled = task.queries(30, answers=3)
    gathered = gather_features(data_of(task, labelled), PRESET, [None] * FOLDS)
    several = gathered.relevant.sum(dim=1) > 1
    assert several.any() and not several.all()
    assert_array_equal(gathered.known >= 0, several)
    rows = np.flatnonzero(several)
    assert gathered.relevant[rows, gathered.known[rows]].all()
    has = gathered.of(["has_labelled"]), gathered.of(["has_labelled"], given_one=True)
    assert (has[0] == 0).all() and (has[1][rows] == 1).all()
    part = gathered.select(rows[:3])
    assert part.names == gathered.names and torch.equal(part.features, gathered.features[rows[:3]])


@pytest.mark.parametrize("block", [1, 64])
def test_features_are_computed_in_blocks_of_whole_queries(
    task: Task, training: LabelledQueries, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    state = fold_state(training, task.documents, None, PRESET, task.words)
    rows = np.random.default_rng(0).integers(0, DOCUMENTS, size=(200, 10))
    whole = state.candidate_features(training, rows)
    assert whole.shape == (200, 10, len(state.reader.names))
    monkeypatch.setattr("rrra_hf.candidates.reading.PAIRS_PER_BLOCK", block)
    torch.testing.assert_close(state.candidate_features(training, rows), whole, rtol=1e-3, atol=1e-4)


# -------------------------------------------------------------------- heads


def test_a_started_head_gives_what_the_trained_one_gives() -> None:
    reader = RetrieverAdapter.pretrained().reader
    trained, features = reader.ranking_head, torch.randn(40, 9, len(EVERYTHING)) * 3
    known = features[..., [EVERYTHING.index(name) for name in reader.ranking]]
    present = torch.rand(40, 9) < 0.8
    head = started_head(trained, reader.ranking, EVERYTHING, features, present)
    with torch.no_grad():
        torch.testing.assert_close(head(features), trained(known), rtol=1e-4, atol=1e-4)
        order = np.random.default_rng(0).permutation(len(EVERYTHING))
        names = [EVERYTHING[place] for place in order]
        turned = started_head(trained, reader.ranking, names, features[..., order], present)
        torch.testing.assert_close(turned(features[..., order]), trained(known), rtol=1e-4, atol=1e-4)
    # New features have the scale of what is shown.
    place = EVERYTHING.index("recalled")
    assert float(head.mean[place]) == pytest.approx(float(features[present][:, place].mean()), rel=1e-4)


def test_a_started_head_without_some_features_takes_them_for_their_mean() -> None:
    reader = RetrieverAdapter.pretrained().reader
    trained, kept = reader.ranking_head, [name for name in RANKING if name != "cosine"]
    features = torch.randn(5, 4, len(RANKING))
    place = reader.ranking.index("cosine")
    without = features.clone()
    without[..., place] = trained.mean[place]
    fewer = without[..., [reader.ranking.index(name) for name in kept]]
    head = started_head(trained, reader.ranking, kept, fewer, torch.ones(5, 4, dtype=torch.bool))
    with torch.no_grad():
        torch.testing.assert_close(head(fewer), trained(without), rtol=1e-4, atol=1e-4)


def signal() -> tuple[Tensor, Tensor]:
    """Features, of which the second is greatest for the relevant candidate."""
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(300, 8, 2)).astype(np.float32))
    relevant = torch.zeros(300, 8, dtype=torch.bool)
    relevant[torch.arange(300), x[..., 1].argmax(1)] = True
    return x, relevant


@pytest.mark.parametrize("started", [True, False])
def test_a_head_learns_the_feature_that_ranks(started: bool) -> None:
    x, relevant = signal()
    present = torch.ones(300, 8, dtype=torch.bool)
    head = own_head(x[:200], present[:200], PRESET)
    assert (head(x) == 0).all()
    taught = x[:200], present[:200], relevant[:200], torch.ones(200, 8)
    fit_ranking_head(head, *taught, PRESET, started=started)
    with torch.no_grad():
        first = head(x[200:]).argmax(1)
    assert relevant[200:][torch.arange(100), first].float().mean() > 0.85


@pytest.mark.parametrize("started", [True, False])
def test_absent_candidates_and_queries_without_both_kinds_teach_nothing(started: bool) -> None:
    x, relevant = signal()
    x, relevant = x[:20], relevant[:20].clone()
    present = torch.ones(20, 8, dtype=torch.bool)
    padded = torch.cat([x, 9 * torch.randn(20, 3, 2)], dim=1)
    more = torch.cat([padded, 5 * torch.randn(4, 11, 2)])
    nothing = torch.zeros(4, 11, dtype=torch.bool)
    # Of the last four, two have no label, one has nothing else, and one has no candidate.
    labels = nothing.clone()
    labels[2], there = True, ~nothing
    there[3] = False
    labels = torch.cat([torch.nn.functional.pad(relevant, (0, 3)), labels])
    there = torch.cat([torch.nn.functional.pad(present, (0, 3)), there])
    expected = fit_ranking_head(
        own_head(x, present, PRESET), x, present, relevant, torch.ones(20, 8), PRESET, started=started
    )
    found = fit_ranking_head(
        own_head(x, present, PRESET), more, there, labels, torch.ones(24, 11), PRESET, started=started
    )
    # The loss says nothing of what all candidates have in common.
    with torch.no_grad():
        scores, others = (head(x) - head(x).mean() for head in (expected, found))
    torch.testing.assert_close(others, scores, rtol=1e-2, atol=1e-2)


def test_weights_count_as_so_many_candidates() -> None:
    x, relevant = signal()
    x, relevant, present = x[:40], relevant[:40], torch.ones(40, 8, dtype=torch.bool)
    relevant[:, 7], relevant[:, 0] = False, True
    doubled = torch.ones(40, 8)
    doubled[:, 7] = 2.0
    # The last candidate twice, and once with the weight of two.
    twice, more = torch.cat([x, x[:, 7:]], dim=1), torch.cat([relevant, relevant[:, 7:]], dim=1)
    head = own_head(x, present, PRESET)
    start = {name: value.clone() for name, value in head.state_dict().items()}
    fit_ranking_head(head, x, present, relevant, doubled, PRESET, started=False)
    other = own_head(x, present, PRESET)
    other.load_state_dict(start)
    there = torch.ones(40, 9, dtype=torch.bool)
    fit_ranking_head(other, twice, there, more, torch.ones(40, 9), PRESET, started=False)
    with torch.no_grad():
        torch.testing.assert_close(head(x), other(x), rtol=0.05, atol=0.05)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1))
def test_weights_give_what_is_remembered_no_worse_odds(candidates: list[tuple[bool, bool]]) -> None:
    relevant, remembered = np.array(candidates).T[:, None]
    weights = candidate_weights(relevant, remembered, relevant, PRESET).numpy()
    assert ((weights > 0) & (weights <= 1)).all()
    assert (weights[relevant | ~remembered] == 1).all()
    odds = [
        ((relevant & part).sum() + 0.5, (~relevant & part).sum() + 0.5) for part in (remembered, ~remembered)
    ]
    expected = min(1.0, odds[0][0] / odds[0][1] / (odds[1][0] / odds[1][1]))
    assert_allclose(weights[~relevant & remembered], expected, rtol=1e-6)
    even = replace(PRESET, even_odds=False)
    assert (candidate_weights(relevant, remembered, relevant, even) == 1).all()
    assert (candidate_weights(relevant, remembered, np.ones_like(relevant), PRESET) == 1).all()


def test_queries_are_dealt_once_each() -> None:
    folds = deal(10, seed=3)
    assert sorted(np.concatenate(folds).tolist()) == list(range(10))
    assert [len(fold) for fold in folds] == [4, 3, 3]
    assert [len(fold) for fold in deal(2, seed=0)] == [1, 1]
    assert [len(fold) for fold in deal(7, seed=0, folds=5)] == [2, 2, 1, 1, 1]
    with pytest.raises(ValueError, match="at least two training queries, got 1"):
        deal(1, seed=0)
