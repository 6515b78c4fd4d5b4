"""An adapter that reads features: what it ranks by, and where it is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit
from torch import Tensor
from torch.nn import functional as F

from alike import assert_alike
from feature_task import DIM, directions, disturb, make_adapter, normalized
from rrra_hf import AdapterConfig, RetrieverAdapter
from rrra_hf.models.features_rrra import FEATURES, OF_LABELS, RANKING, RELEVANCE, CandidateFeatures
from rrra_hf.models.heads_rrra import FURTHEST, Head
from rrra_hf.models.reader_rrra import FeatureReader

Q, C = directions(4, DIM, seed=4), directions(4, 9, DIM, seed=5)
COSINES = np.einsum("nd,nkd->nk", Q, C)


def read(adapter: RetrieverAdapter, names: list[str], **known: Tensor) -> Tensor:
    """Return features of the candidates by name."""
    reader, tensors = adapter.reader, [torch.from_numpy(x) for x in (Q, C, COSINES)]
    assert isinstance(reader, FeatureReader)
    return reader.select(reader.features(*tensors, CandidateFeatures(**known)), names)


def test_one_head_ranks_and_the_other_gives_the_probability() -> None:
    adapter = disturb(make_adapter(lambda_=0.25))
    adapter.config.temperature = 2.0
    reader = adapter.reader
    with torch.no_grad():
        ranking = reader.ranking_head(read(adapter, reader.ranking)).numpy()
        odds = reader.relevance_head(read(adapter, reader.relevance)).numpy() / 2.0
    expected = 0.75 * COSINES / 0.05 + 0.25 * ranking
    assert_allclose(adapter.rerank(Q, C), expected, rtol=1e-4, atol=1e-4)
    assert_allclose(adapter.probability(Q, C), expit(odds), rtol=1e-4, atol=1e-6)
    assert np.ptp(odds) > 0


def test_with_a_weight_of_one_the_cosine_counts_as_a_feature_only() -> None:
    adapter = disturb(make_adapter(lambda_=1.0))
    cosines, ranking, _ = adapter.read(torch.from_numpy(Q), torch.from_numpy(C))
    assert torch.equal(adapter.combine(cosines, ranking), ranking)
    cosines[0, 3] = -torch.inf
    assert adapter.combine(cosines, ranking)[0, 3] == -torch.inf


def test_unfitted_heads_change_no_ranking_and_give_even_odds() -> None:
    adapter = make_adapter(lambda_=0.5)
    expected = 0.5 * COSINES / 0.05
    assert_allclose(adapter.rerank(3 * Q, 2 * C), expected, rtol=1e-4, atol=1e-5)
    assert_array_equal(adapter.probability(Q, C), 0.5)


def test_numpy_torch_and_read_only_arrays_are_read_alike() -> None:
    adapter, q = disturb(make_adapter()), Q.copy()
    expected = adapter.rerank(q, C)
    assert isinstance(adapter.rerank(torch.from_numpy(q), torch.from_numpy(C)), Tensor)
    assert_alike(adapter.rerank(torch.from_numpy(q), torch.from_numpy(C)).numpy(), expected)
    q.setflags(write=False)
    assert_alike(adapter.rerank(q, C.astype(np.float64)), expected)


def test_no_query_and_no_candidate_are_no_error() -> None:
    for adapter in (make_adapter(), RetrieverAdapter.pretrained()):
        for n, k in ((0, 3), (2, 0), (2, 1)):
            q, c = np.ones((n, DIM), np.float32), np.ones((n, k, DIM), np.float32)
            assert adapter.rerank(q, c).shape == (n, k)
            assert adapter.probability(q, c).shape == (n, k)


def test_what_is_known_of_candidates_changes_what_is_read() -> None:
    adapter = disturb(make_adapter())
    words = {"words": torch.rand(4, 9), "coverage": torch.rand(4, 9)}
    for known in (words, {"length": torch.rand(4, 9)}, {"query_words": torch.tensor([3.0] * 4)}):
        assert not np.allclose(
            adapter.rerank(Q, C, features=CandidateFeatures(**known)), adapter.rerank(Q, C)
        )
    told = CandidateFeatures(labelled=torch.zeros(4, dtype=torch.int64))
    assert_allclose(adapter.rerank(Q, C, features=told), adapter.rerank(Q, C), rtol=1e-5)
    assert not np.allclose(adapter.probability(Q, C, features=told), adapter.probability(Q, C))


# -------------------------------------------------------------------- the head


def test_a_head_is_linear_in_clamped_standard_scores_at_first() -> None:
    x = torch.randn(7, 5, 3) * torch.tensor([1.0, 20.0, 0.0]) + torch.tensor([0.0, 5.0, 2.0])
    head = Head(3, 4)
    assert (head(x) == 0).all()
    head.standardize(x)
    assert_allclose(head.mean, x.flatten(0, 1).mean(0), rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        head.linear.weight.copy_(torch.tensor([[1.0, 2.0, 0.0]]))
        head.linear.bias.fill_(0.5)
    rows = x.flatten(0, 1)[:, :2]
    z = (x[..., :2] - rows.mean(0)) / rows.std(0, unbiased=False)
    torch.testing.assert_close(head(x), z @ torch.tensor([1.0, 2.0]) + 0.5, rtol=1e-4, atol=1e-4)
    far = torch.tensor([[1e6, -1e6, 2.0]])
    torch.testing.assert_close(head(far), torch.tensor([FURTHEST - 2 * FURTHEST + 0.5]))


def test_a_head_adds_a_network_of_two_hidden_layers() -> None:
    torch.manual_seed(0)
    head, x = Head(3, 4), torch.randn(2, 5, 3)
    with torch.no_grad():
        head.output.weight.copy_(torch.randn(1, 4))
    hidden = F.gelu(x @ head.first.weight.T + head.first.bias)
    hidden = F.gelu(hidden @ head.second.weight.T + head.second.bias)
    torch.testing.assert_close(head(x), (hidden @ head.output.weight.T)[..., 0])


# -------------------------------------------------------------------- settings and files


def test_readers_have_all_features_by_default_that_need_no_label_of_other_queries() -> None:
    reader = RetrieverAdapter(AdapterConfig()).reader
    assert isinstance(reader, FeatureReader)
    assert (reader.ranking, reader.relevance) == (list(RANKING), list(RELEVANCE))
    assert set(reader.names) | set(OF_LABELS) == set(FEATURES)
    assert len(reader.names) == len(set(reader.names))
    assert not reader.remembers and make_adapter().reader.remembers


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"ranking": ["cosine", "colour"]}, "features must be among cosine, cosine_gap, .*; got colour"),
        ({"relevance": ["base"]}, "features must be among .*; got base"),
        ({"ranking": []}, "features must be among .*; got None"),
        ({"relevance": []}, "features must be among .*; got None"),
        (
            {"ranking": ["hubness"]},
            "queries must be positive to read recalled, nearest_query, hubness; got 0",
        ),
    ],
)
def test_readers_that_cannot_be_made_are_named(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        FeatureReader(DIM, 0.05, **settings)
    with pytest.raises(ValueError, match=match):
        RetrieverAdapter(AdapterConfig(embedding_dim=DIM, reader={"kind": "features", **settings}))


def test_an_adapter_of_features_reads_no_pairs() -> None:
    with pytest.raises(ValueError, match=r"needs all candidates of a query: call rerank or probability\."):
        make_adapter()(torch.ones(DIM), torch.ones(DIM))


def test_a_folder_keeps_memory_and_heads(tmp_path: Path) -> None:
    adapter = disturb(make_adapter())
    adapter.save_pretrained(tmp_path)
    loaded = RetrieverAdapter.from_pretrained(tmp_path)
    assert loaded.config == adapter.config
    assert adapter.config.reader == {"kind": "features", **adapter.reader.settings()}
    for name, value in adapter.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
        assert loaded.state_dict()[name].dtype == value.dtype, name
    known = CandidateFeatures(words=torch.rand(4, 9), coverage=torch.rand(4, 9))
    for method in ("rerank", "probability"):
        expected = getattr(adapter, method)(Q, C, features=known)
        assert_alike(getattr(loaded, method)(Q, C, features=known), expected)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"colours": 3}, r"config\.json of .* can't be used: .*kind 'features' doesn't know: .*colours"),
        ({"queries": 13}, "don't fit its config"),
        ({"ranking": ["cosine"]}, "don't fit its config"),
    ],
)
def test_settings_that_do_not_fit_are_refused(setting: dict[str, Any], message: str, tmp_path: Path) -> None:
    make_adapter().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["reader"].update(setting)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        RetrieverAdapter.from_pretrained(tmp_path)


# -------------------------------------------------------------------- the adapter that comes trained


@pytest.mark.parametrize("dim", [2, DIM, 400])
def test_the_trained_adapter_reads_embeddings_of_any_dimension(dim: int) -> None:
    q, c = directions(3, dim), directions(3, 7, dim, seed=1)
    adapter = RetrieverAdapter.pretrained()
    assert adapter.config.embedding_dim is None and not adapter.training
    assert not adapter.has_maps and adapter.reads_words and not adapter.reader.remembers
    assert adapter.config.lambda_ == 1.0
    scores = adapter.rerank(q, c)
    assert np.ptp(scores, axis=1).min() > 0
    bound = RetrieverAdapter.pretrained(dim)
    assert_array_equal(bound.rerank(q, c), scores)
    assert_array_equal(bound.probability(q, c), adapter.probability(q, c))
    assert_allclose(adapter.map_documents(7 * c[0]), c[0], atol=1e-6)


def test_the_trained_adapter_of_a_dimension_refuses_others(tmp_path: Path) -> None:
    adapter = RetrieverAdapter.pretrained(DIM)
    with pytest.raises(ValueError, match=f"queries must have dimension {DIM}, got 3"):
        adapter.rerank(directions(2, 3), directions(2, 4, 3))
    adapter.save_pretrained(tmp_path)
    assert RetrieverAdapter.from_pretrained(tmp_path).config.embedding_dim == DIM
    assert (tmp_path / "model.safetensors").stat().st_size < 100_000


def test_the_trained_adapter_ranks_near_documents_with_the_querys_words_first() -> None:
    q = directions(1, DIM)
    near, far = normalized(q + 0.3 * directions(3, DIM, seed=2)), directions(20, DIM, seed=3)
    documents = np.concatenate([far, near])[None]
    words = torch.zeros(1, 23)
    words[0, 20] = 0.8
    adapter = RetrieverAdapter.pretrained()
    known = CandidateFeatures(words=words, coverage=words, query_words=torch.tensor([3.0]))
    scores = adapter.rerank(q, documents, features=known)
    assert scores.argmax() == 20
    assert set(np.argsort(-scores[0])[:3]) == {20, 21, 22}
    assert adapter.probability(q, documents, features=known).argmax() == 20
