"""What every adapter does, whichever reader it has."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit, logit

from alike import assert_alike
from feature_task import DIM, directions, disturb, make_old_adapter, normalized
from feature_task import make_adapter as make_feature_adapter
from retriever_models import make_adapter as make_residual_adapter
from rrra_hf import AdapterConfig, RetrieverAdapter
from rrra_hf.models.adapter_rrra import READERS, Reader
from rrra_hf.models.features_rrra import CandidateFeatures
from rrra_hf.models.reader_rrra import FeatureReader
from rrra_hf.models.reader_v2_rrra import NAMES, OF_WORDS

KINDS = ["features", "features with words", "old", "old with words", "residual"]
# Features of candidates with words.
SHARED = ("words", "coverage", "length", "expansion")


def make(kind: str, lambda_: float = 0.5) -> RetrieverAdapter:
    """Return an adapter with random weights."""
    if kind == "residual":
        return make_residual_adapter(dim=DIM, lambda_=lambda_)
    if kind.startswith("features"):
        return disturb(make_feature_adapter(lambda_=lambda_))
    names = [name for name in NAMES if "words" in kind or name not in OF_WORDS]
    adapter = disturb(make_old_adapter(names))
    adapter.config.lambda_ = lambda_
    adapter.reader.memory.idf.fill_(1.0)
    return adapter


@pytest.fixture(params=KINDS)
def adapter(request: pytest.FixtureRequest) -> RetrieverAdapter:
    return make(request.param)


@pytest.fixture
def known(request: pytest.FixtureRequest) -> CandidateFeatures:
    if "words" not in request.node.callspec.params["adapter"]:
        return CandidateFeatures()
    rng = np.random.default_rng(0)
    return CandidateFeatures(
        **{name: torch.from_numpy(rng.random((4, 9), dtype=np.float32)) for name in SHARED}
    )


def part_of(known: CandidateFeatures, rows: Any) -> CandidateFeatures:
    """Return what is known of some of the candidates."""
    given = {name: getattr(known, name) for name in SHARED}
    return CandidateFeatures(**{name: x if x is None else x[rows] for name, x in given.items()})


def expected_scores(adapter: RetrieverAdapter, cosines: np.ndarray, ranking: np.ndarray) -> np.ndarray:
    """Return the reranking scores with a weight of one half."""
    of_cosine = 0.5 if isinstance(adapter.reader, FeatureReader) else 1.0
    return of_cosine * cosines / 0.05 + 0.5 * ranking


Q, C = 3 * directions(4, DIM, seed=4), 2 * directions(4, 9, DIM, seed=5)
COSINES = np.einsum("nd,nkd->nk", normalized(Q), normalized(C))


def read(adapter: RetrieverAdapter, known: CandidateFeatures, **given: Any) -> list[np.ndarray]:
    tensors = torch.from_numpy(Q), torch.from_numpy(C)
    return [values.numpy() for values in adapter.read(*tensors, features=known, **given)]


def test_all_readers_have_the_same_interface() -> None:
    names = {"document_statics", "forward", "read", "score", "settings"}
    for method in names - {"forward"}:
        signatures = {str(inspect.signature(getattr(reader, method))) for reader in READERS.values()}
        assert len(signatures) == 1, method
    for reader in READERS.values():
        assert isinstance(reader.reads_pairs, bool)
        assert reader.strengths[0] == 0
        assert list(reader.strengths) == sorted(reader.strengths)


def test_a_reading_gives_scores_and_probabilities(
    adapter: RetrieverAdapter, known: CandidateFeatures
) -> None:
    cosines, ranking, relevance = read(adapter, known)
    assert_allclose(cosines, COSINES, atol=1e-6)
    assert ranking.shape == relevance.shape == (4, 9)
    assert np.ptp(ranking) > 0
    assert np.ptp(relevance) > 0
    scores = adapter.rerank(Q, C, features=known)
    assert_allclose(scores, expected_scores(adapter, COSINES, ranking), rtol=1e-4, atol=1e-4)
    combined = adapter.combine(torch.from_numpy(cosines), torch.from_numpy(ranking))
    assert_allclose(combined, scores, rtol=1e-4, atol=1e-4)
    assert_allclose(adapter.probability(Q, C, features=known), expit(relevance), rtol=1e-4, atol=1e-6)


def test_the_weight_of_the_ranking_can_be_given(adapter: RetrieverAdapter) -> None:
    cosines, ranking = torch.from_numpy(COSINES), torch.randn(4, 9)
    torch.testing.assert_close(adapter.combine(cosines, ranking, lambda_=0.0), cosines / 0.05)
    expected = expected_scores(adapter, COSINES, ranking.numpy())
    assert_allclose(adapter.combine(cosines, ranking, lambda_=0.5), expected, rtol=1e-5)


def test_cosines_that_are_given_are_those_that_are_ranked_by(
    adapter: RetrieverAdapter, known: CandidateFeatures
) -> None:
    given = COSINES - 0.25
    cosines, ranking, _ = read(adapter, known, cosines=torch.from_numpy(given))
    assert_array_equal(cosines, given)
    scores = adapter.rerank(Q, C, scores=given, features=known)
    assert_allclose(scores, expected_scores(adapter, given, ranking), rtol=1e-4, atol=1e-4)


def test_the_order_of_the_candidates_does_not_matter(
    adapter: RetrieverAdapter, known: CandidateFeatures
) -> None:
    order = np.random.default_rng(0).permutation(9)
    turned = adapter.rerank(Q, C[:, order], features=part_of(known, np.s_[:, order]))
    assert_allclose(turned, adapter.rerank(Q, C, features=known)[:, order], rtol=1e-3, atol=1e-3)


def test_every_query_is_read_by_itself(adapter: RetrieverAdapter, known: CandidateFeatures) -> None:
    one = adapter.probability(Q[2:3], C[2:3], features=part_of(known, np.s_[2:3]))
    assert_allclose(one, adapter.probability(Q, C, features=known)[2:3], rtol=1e-3, atol=1e-5)


def test_the_temperature_divides_the_log_odds(adapter: RetrieverAdapter, known: CandidateFeatures) -> None:
    before = read(adapter, known)[2]
    adapter.config.temperature = 4.0
    assert_allclose(read(adapter, known)[2], before / 4, rtol=1e-4, atol=1e-5)


def test_log_odds_are_shifted_for_every_candidate() -> None:
    adapter = make("residual")
    adapter.config.temperature = 20.0
    before, order = adapter.probability(Q, C), adapter.rerank(Q, C).argsort()
    adapter.reader.shift_log_odds(30.0)
    after = adapter.probability(Q, C)
    assert_allclose(logit(after), logit(before) + 1.5, rtol=1e-3, atol=1e-3)
    assert_array_equal(adapter.rerank(Q, C).argsort(), order)


def test_a_folder_gives_the_same_adapter(
    adapter: RetrieverAdapter, known: CandidateFeatures, tmp_path: Path
) -> None:
    adapter.config.temperature = 1.5
    adapter.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["format_version"] == 3
    assert config["model_type"] == "rrra_adapter"
    kind = next(kind for kind, reader in READERS.items() if isinstance(adapter.reader, reader))
    assert config["reader"] == {"kind": kind, **adapter.reader.settings()}
    loaded = RetrieverAdapter.from_pretrained(tmp_path)
    assert loaded.config == adapter.config
    assert type(loaded.reader) is type(adapter.reader)
    assert loaded.reader.settings() == adapter.reader.settings()
    for method in ("rerank", "probability"):
        expected = getattr(adapter, method)(Q, C, features=known)
        assert_alike(getattr(loaded, method)(Q, C, features=known), expected)


def test_a_reader_that_is_given_is_used(adapter: RetrieverAdapter) -> None:
    reader: Reader = adapter.reader
    assert RetrieverAdapter(adapter.config, reader).reader is reader


def test_features_of_documents_alone_do_not_depend_on_the_others(adapter: RetrieverAdapter) -> None:
    documents = torch.from_numpy(directions(6, DIM, seed=6))
    statics = adapter.reader.document_statics(documents)
    columns = {"features": 1, "features_v2": 2, "residual": 0}
    assert statics.shape == (6, columns[adapter.config.reader["kind"]])
    torch.testing.assert_close(adapter.reader.document_statics(documents[2:4]), statics[2:4])


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_reader_reads_is_said(kind: str) -> None:
    adapter = make(kind)
    assert adapter.reads_words == adapter.reader.reads_words == kind.startswith("features")
    assert adapter.reader.reads_word_pieces == (kind == "old with words")
    assert adapter.reads_pairs == adapter.reader.reads_pairs == (kind == "residual")


def test_pairs_are_read_as_candidates_are_with_gradients() -> None:
    adapter = make("residual")
    adapter.config.temperature = 2.5
    q, c = torch.from_numpy(Q).requires_grad_(), torch.from_numpy(C).requires_grad_()
    log_odds = adapter(q[:, None], c)
    torch.testing.assert_close(log_odds.detach(), adapter.read(q, c).relevance, rtol=1e-4, atol=1e-4)
    assert_allclose(torch.sigmoid(log_odds.detach()), adapter.probability(Q, C), rtol=1e-4, atol=1e-5)
    one = adapter(q[1], c[1, 2])
    assert one.shape == ()
    torch.testing.assert_close(one, log_odds[1, 2])
    log_odds.sum().backward()
    assert q.grad is not None and torch.isfinite(q.grad).all() and (q.grad != 0).any()
    assert all(p.grad is not None for p in adapter.parameters())


@pytest.mark.parametrize("kind", KINDS[:4])
def test_features_are_not_read_of_pairs(kind: str) -> None:
    with pytest.raises(ValueError, match="An adapter that reads features needs all candidates of a query"):
        make(kind)(torch.from_numpy(Q), torch.from_numpy(C[:, 0]))


@pytest.mark.parametrize("lambda_", [0.0, 0.5])
def test_an_adapter_that_is_not_fitted_changes_no_ranking(lambda_: float) -> None:
    adapter = RetrieverAdapter(AdapterConfig(embedding_dim=DIM, lambda_=lambda_)).eval()
    assert len(adapter.reader.memory.queries) == 0
    assert_allclose(adapter.rerank(Q, C), (1 - lambda_) * COSINES / 0.05, rtol=1e-4, atol=1e-4)
    assert_array_equal(adapter.rerank(Q, C).argsort(), COSINES.argsort())
    assert_array_equal(adapter.probability(Q, C), 0.5)
    assert_allclose(adapter.map_queries(Q), normalized(Q), atol=1e-6)


def test_an_unfitted_residual_adapter_changes_no_ranking() -> None:
    reader = {"kind": "residual", "hidden_size": 8}
    adapter = RetrieverAdapter(AdapterConfig(embedding_dim=DIM, reader=reader, lambda_=1.0)).eval()
    assert_array_equal(adapter.rerank(Q, C).argsort(), COSINES.argsort())


def test_words_are_needed_by_old_adapters_only() -> None:
    with pytest.raises(ValueError, match="reads word pieces: give the queries' texts"):
        make("old with words").rerank(Q, C)
    for kind in ("features", "old", "residual"):
        assert make(kind).rerank(Q, C).shape == (4, 9)
