"""An adapter that reads features: what it ranks by, and where it is kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit
from torch import Tensor

from alike import assert_alike
from feature_task import DIM, VOCABULARY, directions, disturb, make_adapter, normalized, read
from rrra_hf import AdapterConfig, RetrieverAdapter
from rrra_hf.models.features_rrra import FEATURES, CandidateFeatures
from rrra_hf.models.reader_rrra import WITHOUT_WORDS, FeatureReader


def test_unfitted_heads_change_no_ranking_and_give_even_odds() -> None:
    adapter = make_adapter()
    queries, candidates = 3 * directions(4, DIM, seed=4), 2 * directions(4, 9, DIM, seed=5)
    cosines = np.einsum("nd,nkd->nk", normalized(queries), normalized(candidates))
    assert_allclose(adapter.rerank(queries, candidates), cosines / 0.05, rtol=1e-4, atol=1e-5)
    assert_array_equal(adapter.probability(queries, candidates), 0.5)


def test_one_head_ranks_and_the_other_gives_the_probability() -> None:
    adapter = disturb(make_adapter(lambda_=0.25))
    adapter.config.temperature = 2.0
    q, c = directions(4, DIM, seed=4), directions(4, 9, DIM, seed=5)
    reader, cosines = adapter.reader, np.einsum("nd,nkd->nk", q, c)
    found = torch.from_numpy(read(reader, q, c))
    with torch.no_grad():
        expected = cosines / 0.05 + 0.25 * reader.ranking_head(found).numpy()
        odds = reader.relevance_head(found).numpy() / 2.0
    assert_allclose(adapter.rerank(q, c), expected, rtol=1e-4, atol=1e-4)
    assert_allclose(adapter.probability(q, c), expit(odds), rtol=1e-4, atol=1e-6)
    assert np.ptp(odds) > 0
    shifted = adapter.rerank(q, c, scores=cosines + 1.0)
    assert not np.allclose(shifted, expected)

    reader.shift_log_odds(3.0)
    assert_allclose(adapter.probability(q, c), expit(odds + 1.5), rtol=1e-4, atol=1e-6)
    assert_allclose(adapter.rerank(q, c), expected, rtol=1e-4, atol=1e-4)


def test_numpy_torch_and_read_only_arrays_are_read_alike() -> None:
    adapter = disturb(make_adapter())
    q, c = directions(2, DIM, seed=4), directions(2, 3, DIM, seed=5)
    expected = adapter.rerank(q, c)
    assert isinstance(adapter.rerank(torch.from_numpy(q), torch.from_numpy(c)), Tensor)
    assert_alike(adapter.rerank(torch.from_numpy(q), torch.from_numpy(c)).numpy(), expected)
    q.setflags(write=False)
    assert_alike(adapter.rerank(q, c.astype(np.float64)), expected)


def test_no_query_and_no_candidate_are_no_error() -> None:
    adapter = make_adapter()
    for n, k in ((0, 3), (2, 0), (2, 1)):
        q, c = np.ones((n, DIM), np.float32), np.ones((n, k, DIM), np.float32)
        assert adapter.rerank(q, c).shape == (n, k)
        assert adapter.probability(q, c).shape == (n, k)


def test_a_folder_keeps_memory_and_heads(tmp_path: Path) -> None:
    adapter = disturb(make_adapter(list(FEATURES)))
    adapter.reader.memory.idf.copy_(torch.rand(VOCABULARY))
    adapter.save_pretrained(tmp_path)
    loaded = RetrieverAdapter.from_pretrained(tmp_path)
    assert loaded.config == adapter.config
    assert loaded.reader.settings() == adapter.reader.settings()
    assert adapter.config.reader == {"kind": "features", **adapter.reader.settings()}
    for name, value in adapter.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
        assert loaded.state_dict()[name].dtype == value.dtype, name
    pairs = directions(2, DIM, seed=4), directions(2, 3, DIM, seed=5)
    known = CandidateFeatures(words=torch.rand(2, 3), expansion=torch.rand(2, 3))
    for method in ("rerank", "probability"):
        assert_alike(
            getattr(loaded, method)(*pairs, features=known), getattr(adapter, method)(*pairs, features=known)
        )


@pytest.mark.parametrize(
    ("names", "vocabulary", "match"),
    [
        (["mapped", "colour"], 0, "features must be among mapped, base, .*; got colour"),
        ([], 0, "features must be among .*; got None"),
        (["words"], 0, "vocabulary must be positive with words and 0 without, got 0"),
        (["mapped"], 7, "vocabulary must be positive with words and 0 without, got 7"),
    ],
)
def test_readers_that_cannot_be_made_are_named(names: list[str], vocabulary: int, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        FeatureReader(DIM, 0.05, names, 1, 1, 1, vocabulary)
    sizes = {"names": names, "queries": 1, "documents": 1, "pairs": 1, "vocabulary": vocabulary}
    with pytest.raises(ValueError, match=match):
        RetrieverAdapter(AdapterConfig(embedding_dim=DIM, reader={"kind": "features", **sizes}))


def test_an_adapter_that_reads_words_needs_them() -> None:
    adapter = make_adapter(["mapped", "words"])
    assert adapter.reads_words
    assert not make_adapter().reads_words
    pairs = directions(2, DIM), directions(2, 3, DIM)
    for method in (adapter.rerank, adapter.probability):
        with pytest.raises(ValueError, match="reads words: give the words shared with the candidates, too"):
            method(*pairs)


def test_an_adapter_of_features_reads_no_pairs() -> None:
    with pytest.raises(ValueError, match=r"needs all candidates of a query: call rerank or probability\."):
        make_adapter()(torch.ones(DIM), torch.ones(DIM))


def test_the_default_adapter_reads_the_features_that_need_no_words() -> None:
    adapter = RetrieverAdapter(AdapterConfig(embedding_dim=DIM))
    assert isinstance(adapter.reader, FeatureReader)
    assert adapter.reader.names == list(WITHOUT_WORDS)
    assert WITHOUT_WORDS == ("mapped", "base", "memory", "hubness", "agreement")


def test_a_config_of_unknown_sizes_is_refused_by_name(tmp_path: Path) -> None:
    make_adapter().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["reader"]["colours"] = 3
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        ValueError, match=r"config\.json of .* can't be used: .*kind 'features' doesn't know: .*colours"
    ):
        RetrieverAdapter.from_pretrained(tmp_path)


def test_weights_of_another_size_are_refused(tmp_path: Path) -> None:
    make_adapter().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["reader"]["queries"] = 13
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="don't fit its config"):
        RetrieverAdapter.from_pretrained(tmp_path)
