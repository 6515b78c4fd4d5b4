"""Features beside two embeddings: each piece in closed form, what is fitted on it, and where it is kept."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import load_file, save_file
from scipy.sparse import csr_array
from scipy.special import expit, softmax
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import BoW
from sklearn.metrics import average_precision_score
from torch import Tensor
from transformers import AutoModel

from rrra_hf import AdapterConfig, Retriever, RetrieverAdapter, RRRAModel, fit_model
from rrra_hf.candidates import (
    CandidatePool,
    DocumentFeatures,
    LabelledQueries,
    SharedWords,
    count_words,
    mine_collection,
    mine_embeddings,
    weigh_words,
)
from rrra_hf.candidates import words as words_module
from rrra_hf.candidates.labelled import RetrievedCandidates
from rrra_hf.candidates.reading import candidate_probabilities, read_candidates
from rrra_hf.candidates.words import word_statistics
from rrra_hf.data import Collection
from rrra_hf.embeddings import embed_collection, encode
from rrra_hf.evaluation import ndcg_per_query, reorder
from rrra_hf.fitting import FitArguments, cross_fit, fit_adapter, maps
from rrra_hf.fitting import features as features
from rrra_hf.fitting.features import (
    FoldState,
    candidate_weights,
    cross_fit_features,
    fit_features,
    fit_ranking_head,
    fit_relevance_head,
    fold_state,
    gather_features,
)
from rrra_hf.fitting.maps import MapRecipe, Maps, choose_maps, refit_maps
from rrra_hf.fitting.tuning import CORRECTION_LAMBDAS
from rrra_hf.losses import CachedRRRALoss, RRRALoss
from rrra_hf.models.features_rrra import (
    AGREEMENT_TAU,
    FEATURES,
    HUB_QUERIES,
    MEMORY_TAU,
    OF_WORDS,
    CandidateFeatures,
    FeatureReader,
    Reader,
    in_context,
)
from rrra_hf.retrieval import evaluate
from rrra_hf.retrieval.measure import measure
from rrra_hf.training import Refresh, Resampler, TrainArguments, train
from tiny import SPECIAL, WORDS, word_collection

DIM, DOCUMENTS, VOCABULARY = 16, 120, 80
PRESET = FitArguments.preset("features", depth=30)
WORDLESS = tuple(name for name in FEATURES if name not in OF_WORDS)
# Half precision of the memory.
HALF = 2e-3


def normalized(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def directions(*shape: int, seed: int = 0) -> np.ndarray:
    return normalized(np.random.default_rng(seed).normal(size=shape))


def counts_of(rows: list[list[int]], vocabulary: int = VOCABULARY) -> csr_array:
    """Return the counts of texts that are given as lists of words."""
    return csr_array(np.stack([np.bincount(row, minlength=vocabulary) for row in rows]).astype(np.float32))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fit in a few steps: for tests of anything but quality."""
    shorten(monkeypatch)


def shorten(patch: pytest.MonkeyPatch) -> None:
    for name, value in {"STEPS": 8, "STOPS": (4, 8), "CORPUS_NEGATIVES": (5,), "LEARNING_RATE": 2e-2}.items():
        patch.setattr(maps, name, value)
    patch.setattr(features, "RANKING_STEPS", 10)
    patch.setattr(features, "RELEVANCE_STEPS", 5)


# -------------------------------------------------------------------- words


def overlap(queries: csr_array, weights: csr_array, idf: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return what candidates share with their query, nothing being remembered."""
    nothing = csr_array((1, weights.shape[1]), dtype=np.float32)
    recalled = np.ones((len(rows), 1), dtype=np.float32), np.zeros((len(rows), 1), dtype=int)
    return SharedWords(weights, idf, nothing).with_candidates(queries, *recalled, rows)[0]


def naive_bm25(query: list[int], document: list[int], corpus: list[list[int]]) -> float:
    """BM25 as the textbook has it, over the most that the query's words can weigh."""
    length = sum(map(len, corpus)) / len(corpus)
    counts, score, total = Counter(document), 0.0, 0.0
    for word in set(query):
        frequency = sum(word in other for other in corpus)
        idf = np.log(1 + (len(corpus) - frequency + 0.5) / (frequency + 0.5))
        tf = counts[word]
        score += idf * tf * 2.2 / (tf + 1.2 * (0.25 + 0.75 * len(document) / length))
        total += idf
    return score / total if total else 0.0


texts = st.lists(st.integers(0, 9), max_size=8)


@settings(max_examples=100, deadline=None)
@given(corpus=st.lists(texts, min_size=1, max_size=6).filter(any), queries=st.lists(texts, min_size=1))
def test_overlap_is_bm25_as_a_share_of_the_querys_weight(
    corpus: list[list[int]], queries: list[list[int]]
) -> None:
    counts = counts_of(corpus, 10)
    idf, length = word_statistics(counts)
    rows = np.tile(np.arange(len(corpus)), (len(queries), 1))
    found = overlap(counts_of(queries, 10), weigh_words(counts, idf, length), idf, rows)
    mean = sum(map(len, corpus)) / len(corpus)
    if mean < 1:  # a corpus of little but empty texts
        return
    expected = [[naive_bm25(query, document, corpus) for document in corpus] for query in queries]
    assert found.dtype == np.float32
    assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_statistics_of_words_count_documents_and_not_repetitions() -> None:
    idf, length = word_statistics(counts_of([[0, 0, 0], [0, 1], []], 3))
    assert_allclose(idf, np.log([1 + 1.5 / 2.5, 1 + 2.5 / 1.5, 1 + 3.5 / 0.5]), rtol=1e-6)
    assert idf.dtype == np.float32
    assert length == pytest.approx(5 / 3)
    assert word_statistics(counts_of([[], []], 3))[1] == 1.0


def test_candidates_are_read_in_the_order_of_their_rows() -> None:
    documents, queries = counts_of([[0, 1], [1, 2], [3]], 5), counts_of([[1], [3, 3, 0]], 5)
    idf, length = word_statistics(documents)
    weights = weigh_words(documents, idf, length)
    everything = overlap(queries, weights, idf, np.array([[0, 1, 2], [0, 1, 2]]))
    chosen = overlap(queries, weights, idf, np.array([[2, 0], [1, 1]]))
    assert_array_equal(chosen, [everything[0, [2, 0]], everything[1, [1, 1]]])


def test_word_pieces_are_counted_without_special_tokens(tiny_bert: Path) -> None:
    encoder = SentenceTransformer(str(tiny_bert), device="cpu")
    counts = count_words(encoder, ["find the FIND herring", "", "list"])
    assert counts.shape == (3, len(encoder.tokenizer))
    assert counts.dtype == np.float32
    place = {word: len(SPECIAL) + row for row, word in enumerate(WORDS)}
    unknown = SPECIAL.index("[UNK]")
    found = [set(row.nonzero()[0].tolist()) for row in counts.toarray()]
    assert found == [{unknown, place["the"], place["find"]}, set(), {place["list"]}]
    assert counts.toarray()[0, [place["find"], place["the"], unknown]].tolist() == [2.0, 1.0, 1.0]
    assert count_words(encoder, []).shape == counts[:0].shape


def test_words_that_the_encoder_cuts_off_are_not_counted(tiny_bert: Path) -> None:
    encoder = SentenceTransformer(str(tiny_bert), device="cpu")
    encoder.max_seq_length = 6
    cut = count_words(encoder, ["find " * 4 + "sort", "sort"])
    # [CLS] and [SEP] take two of the six places.
    assert cut.sum(axis=1).tolist() == [4.0, 1.0]
    assert cut[[0]].nnz == 1


def test_texts_are_counted_in_blocks(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = SentenceTransformer(str(tiny_bert), device="cpu")
    many = [" ".join(WORDS[i : i + 3]) for i in range(5)]
    whole = count_words(encoder, many)
    monkeypatch.setattr(words_module, "BLOCK", 2)
    assert (count_words(encoder, many) != whole).nnz == 0


def test_an_encoder_without_tokenizer_of_transformers_has_no_words() -> None:
    assert count_words(SentenceTransformer(modules=[BoW(vocab=["copy", "file"])]), ["copy"]) is None


# -------------------------------------------------------------------- the pieces of features


def make_head(
    names: list[str], queries: np.ndarray, documents: np.ndarray, pairs: list[tuple[int, int]]
) -> FeatureReader:
    vocabulary = VOCABULARY if set(names) & set(OF_WORDS) else 0
    head = FeatureReader(
        queries.shape[1], 0.05, names, len(queries), len(documents), len(pairs), vocabulary=vocabulary
    )
    head.remember(torch.from_numpy(queries), torch.from_numpy(documents), torch.tensor(pairs))
    return head


def read(head: FeatureReader, queries: np.ndarray, candidates: np.ndarray, **known: Any) -> np.ndarray:
    q, c = torch.from_numpy(queries), torch.from_numpy(candidates)
    return head.features(q, c, torch.einsum("nd,nkd->nk", q, c), CandidateFeatures(**known)).numpy()


@pytest.mark.parametrize("both", [True, False])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_base_is_the_cosine_before_the_maps(both: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    dim = 8

    def matrix() -> Tensor:
        """Return a matrix of condition number 4 at most."""
        left, right = (np.linalg.qr(rng.normal(size=(dim, dim)))[0] for _ in range(2))
        return torch.from_numpy(left @ np.diag(rng.uniform(0.5, 2, dim)) @ right).float()

    queries, documents = (normalized(rng.normal(size=(count, dim))) for count in (4, 9))
    labelled = LabelledQueries(queries, [np.array([i]) for i in range(4)])
    arguments = FitArguments(features=("mapped", "base"))
    mapped = Maps(matrix(), matrix() if both else None)
    space = fold_state(labelled, documents, mapped, arguments, None)
    rows = np.stack([rng.permutation(9)[:5] for _ in queries])
    found = space.gather(space.mapped(labelled), rows).numpy()
    assert_allclose(found[..., 1], np.einsum("nd,nkd->nk", queries, documents[rows]), atol=1e-4)
    after = mapped.map_queries(queries), mapped.map_documents(documents)
    assert_allclose(found[..., 0], np.einsum("nd,nkd->nk", after[0], after[1][rows]), atol=1e-5)
    assert not np.allclose(found[..., 0], found[..., 1], atol=1e-2)


def test_memory_is_the_answers_to_similar_queries() -> None:
    queries = np.eye(4, dtype=np.float32)[:2]
    documents = np.eye(4, dtype=np.float32)[1:]
    # The first query has two answers, the second one.
    head = make_head(["memory"], queries, documents, [(0, 0), (0, 1), (1, 2)])
    q = normalized(np.array([[1.0, 0.9, 0.3, 0.0]]))
    c = directions(1, 5, 4)
    share = softmax(q[0, :2] / MEMORY_TAU)
    answers = np.stack([documents[:2].mean(0), documents[2]])
    assert_allclose(read(head, q, c)[..., 0], c @ (share @ answers), atol=HALF)


def test_memory_asks_the_thirty_nearest_queries_alone() -> None:
    queries, documents = directions(50, DIM), directions(50, DIM, seed=1)
    head = make_head(["memory"], queries, documents, [(i, i) for i in range(50)])
    q, c = directions(3, DIM, seed=2), directions(3, 4, DIM, seed=3)
    expected = []
    for query, candidates in zip(q, c, strict=True):
        nearest = np.argsort(-(queries @ query))[:30]
        share = softmax(queries[nearest] @ query / MEMORY_TAU)
        expected.append(candidates @ (share @ documents[nearest]))
    assert_allclose(read(head, q, c)[..., 0], expected, atol=HALF)


def test_queries_are_similar_before_and_after_the_maps_together() -> None:
    rng = np.random.default_rng(0)
    queries, documents, q = directions(5, DIM), directions(5, DIM, seed=1), directions(3, DIM, seed=2)
    matrix = torch.from_numpy(np.eye(DIM) + 0.2 * rng.normal(size=(DIM, DIM))).float()
    mapped = Maps(matrix, None)
    labelled = LabelledQueries(queries, [np.array([i]) for i in range(5)])
    space = fold_state(labelled, documents, mapped, FitArguments(features=("memory",)), None)

    def both(x: np.ndarray) -> np.ndarray:
        return normalized(x + mapped.map_queries(x))

    share = softmax(both(q) @ both(queries).T / MEMORY_TAU, axis=1)
    asked = LabelledQueries(mapped.map_queries(q), labelled.positives[:3])
    found = space.gather(asked, np.tile(np.arange(5), (3, 1)))[..., 0]
    assert_allclose(found, share @ documents @ documents.T, atol=5 * HALF)


@pytest.mark.parametrize("count", [3, 40])
def test_hubness_is_the_cosine_of_the_nearest_queries_that_a_document_does_not_answer(count: int) -> None:
    queries, documents = directions(count, DIM), directions(6, DIM, seed=1)
    # Queries of several answers, documents of several queries; the last two documents answer none.
    pairs = [(i, i % 4) for i in range(count)] + [(i, (i + 1) % 4) for i in range(0, count, 2)]
    head = make_head(["hubness"], queries, documents[:4], pairs)
    expected = []
    for row, document in enumerate(documents):
        others = [i for i in range(count) if (i, row) not in pairs]
        nearest = np.sort(queries[others] @ document)[::-1][:HUB_QUERIES]
        expected.append(nearest.mean() if len(nearest) else 0.0)
    statics = head.document_statics(torch.from_numpy(documents))
    assert_allclose(statics[:, 0], expected, atol=HALF)
    assert_allclose(statics[:, 1], 1.0, rtol=1e-5)


def test_a_document_that_answers_every_query_is_no_hub() -> None:
    queries, documents = directions(5, DIM), directions(1, DIM, seed=1)
    head = make_head(["hubness"], queries, documents, [(i, 0) for i in range(5)])
    assert head.document_statics(torch.from_numpy(documents))[0, 0] == 0


def test_statics_do_not_depend_on_the_blocks_they_are_computed_in(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = torch.from_numpy(directions(20, DIM, seed=1))
    head = make_head(["hubness"], directions(15, DIM), documents[:15].numpy(), [(i, i) for i in range(15)])
    whole = head.document_statics(documents)
    monkeypatch.setattr("rrra_hf.models.features_rrra.BLOCK", 7)
    torch.testing.assert_close(head.document_statics(documents), whole)


def test_agreement_is_the_cosine_with_the_other_candidates_of_high_score() -> None:
    head = make_head(["agreement"], directions(2, DIM), directions(2, DIM), [(0, 0), (1, 1)])
    q, c = directions(3, DIM, seed=2), directions(3, 6, DIM, seed=3)
    share = softmax(np.einsum("nd,nkd->nk", q, c) / AGREEMENT_TAU, axis=1)
    cosines = np.einsum("nid,njd->nij", c, c)
    cosines[:, np.arange(6), np.arange(6)] = 0
    assert_allclose(read(head, q, c)[..., 0], np.einsum("nij,nj->ni", cosines, share), atol=1e-5)
    assert_allclose(read(head, q, c[:, :1])[..., 0], 0, atol=1e-6)


def test_statics_that_are_given_are_those_that_are_computed() -> None:
    queries, documents = directions(12, DIM), directions(8, DIM, seed=1)
    head = make_head(list(FEATURES), queries, documents, [(i, i % 8) for i in range(12)])
    q, rows = directions(3, DIM, seed=2), np.array([[0, 3, 4], [7, 1, 2], [5, 5, 6]])
    shared = torch.rand(3, 3, dtype=torch.float64)
    statics = head.document_statics(torch.from_numpy(documents))
    words = {"words": shared, "expansion": 1 - shared}
    computed = read(head, q, documents[rows], **words)
    given_ = read(head, q, documents[rows], **words, statics=statics[rows])
    assert_allclose(given_, computed, atol=1e-6)
    assert given_.dtype == np.float32
    for name, values in words.items():
        assert_allclose(given_[..., FEATURES.index(name)], values, rtol=1e-6)
    assert_allclose(given_[..., 0], np.einsum("nd,nkd->nk", q, documents[rows]), atol=1e-6)


def test_evidence_is_in_the_order_of_its_names() -> None:
    parts = directions(12, DIM), directions(12, DIM, seed=1), [(i, i) for i in range(12)]
    q, c = directions(2, DIM, seed=2), directions(2, 5, DIM, seed=3)
    everything = read(make_head(list(WORDLESS), *parts), q, c)
    backwards = read(make_head(list(WORDLESS)[::-1], *parts), q, c)
    assert_array_equal(backwards[..., ::-1], everything)


# -------------------------------------------------------------------- in context


def naive_context(x: np.ndarray) -> np.ndarray:
    rows = []
    for i in range(len(x)):
        others = np.delete(x, i, axis=0)
        before = (x[:, 0] > x[i, 0]).mean()
        rows.append([*x[i], *(x[i] - others.max(0)), *(x[i] - others.mean(0)), before])
    return np.array(rows)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6), st.booleans())
def test_context_is_how_a_candidate_stands_to_the_others(seed: int, k: int, ties: bool) -> None:
    x = np.random.default_rng(seed).normal(size=(2, k, 3)).astype(np.float32)
    x = np.round(x) if ties else x
    found = in_context(torch.from_numpy(x)).numpy()
    assert found.shape == (2, k, 10)
    assert_allclose(found, [naive_context(part) for part in x], atol=1e-5)


def test_context_of_one_candidate_and_of_none() -> None:
    assert in_context(torch.tensor([[[3.0, -2.0]]])).tolist() == [[[3.0, -2.0, 0, 0, 0, 0, 0]]]
    assert in_context(torch.zeros(2, 0, 3)).shape == (2, 0, 10)


def test_equals_at_the_top_are_no_distance_apart() -> None:
    found = in_context(torch.tensor([[[2.0], [2.0], [1.0]]]))[0]
    assert found[:, 1].tolist() == [0, 0, -1]
    assert found[:, 3].tolist() == pytest.approx([0, 0, 2 / 3])


def test_a_reader_standardises_and_reads_linearly_at_first() -> None:
    x = torch.randn(7, 5, 3) * torch.tensor([1.0, 20.0, 0.0]) + torch.tensor([0.0, 5.0, 2.0])
    reader = Reader(3, 4)
    assert (reader(x) == 0).all()
    reader.standardize(x)
    assert_allclose(reader.mean, x.flatten(0, 1).mean(0), rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        reader.linear.weight.copy_(torch.tensor([[1.0, 2.0, 0.0]]))
        reader.linear.bias.fill_(0.5)
    rows = x.flatten(0, 1)[:, :2]
    z = (x[..., :2] - rows.mean(0)) / rows.std(0, unbiased=False)
    torch.testing.assert_close(reader(x), z @ torch.tensor([1.0, 2.0]) + 0.5, rtol=1e-4, atol=1e-4)
    assert torch.isfinite(reader(x)).all()


# -------------------------------------------------------------------- the adapter that holds it


def make_adapter(names: list[str] | None = None, lambda_: float = 1.0, **changes: Any) -> RetrieverAdapter:
    """Return an adapter with an unfitted head that remembers twelve queries."""
    names = list(WORDLESS) if names is None else names
    sizes: dict[str, Any] = {"names": names, "queries": 12, "documents": 12, "pairs": 12}
    sizes |= {"vocabulary": VOCABULARY if set(names) & set(OF_WORDS) else 0, "entries": 0}
    adapter = RetrieverAdapter(
        AdapterConfig(embedding_dim=DIM, lambda_=lambda_, features={**sizes, **changes})
    )
    pairs = torch.arange(12)[:, None].expand(12, 2)
    adapter.features.remember(*(torch.from_numpy(directions(12, DIM, seed=s)) for s in (0, 1)), pairs)
    return adapter.eval()


def disturb(adapter: RetrieverAdapter) -> RetrieverAdapter:
    """Give the head random weights, as if it were fitted."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in adapter.features.parameters():
            parameter.add_(torch.randn_like(parameter))
    return adapter


def test_an_unfitted_head_changes_no_ranking_and_knows_nothing() -> None:
    adapter = make_adapter()
    queries, candidates = 3 * directions(4, DIM, seed=4), 2 * directions(4, 9, DIM, seed=5)
    cosines = np.einsum("nd,nkd->nk", normalized(queries), normalized(candidates))
    assert_allclose(adapter.rerank(queries, candidates), cosines / 0.05, rtol=1e-4, atol=1e-5)
    assert_array_equal(adapter.probability(queries, candidates), 0.5)


def test_correction_ranks_and_log_odds_make_the_probability() -> None:
    adapter = disturb(make_adapter(lambda_=0.25))
    adapter.config.temperature = 2.0
    q, c = directions(4, DIM, seed=4), directions(4, 9, DIM, seed=5)
    head, cosines = adapter.features, np.einsum("nd,nkd->nk", q, c)
    found = torch.from_numpy(read(head, q, c))
    with torch.no_grad():
        expected = cosines / 0.05 + 0.25 * head.ranking_head(found).numpy()
        odds = head.relevance_head(found).numpy() / 2.0
    assert_allclose(adapter.rerank(q, c), expected, rtol=1e-4, atol=1e-4)
    assert_allclose(adapter.probability(q, c), expit(odds), rtol=1e-4, atol=1e-6)
    assert np.ptp(odds) > 0
    shifted = adapter.rerank(q, c, scores=cosines + 1.0)
    assert not np.allclose(shifted, expected)

    adapter.shift_log_odds(3.0)
    assert_allclose(adapter.probability(q, c), expit(odds + 1.5), rtol=1e-4, atol=1e-6)
    assert_allclose(adapter.rerank(q, c), expected, rtol=1e-4, atol=1e-4)


def test_numpy_torch_and_read_only_arrays_are_read_alike() -> None:
    adapter = disturb(make_adapter())
    q, c = directions(2, DIM, seed=4), directions(2, 3, DIM, seed=5)
    expected = adapter.rerank(q, c)
    assert isinstance(adapter.rerank(torch.from_numpy(q), torch.from_numpy(c)), Tensor)
    assert_array_equal(adapter.rerank(torch.from_numpy(q), torch.from_numpy(c)).numpy(), expected)
    q.setflags(write=False)
    assert_array_equal(adapter.rerank(q, c.astype(np.float64)), expected)


def test_no_query_and_no_candidate_are_no_error() -> None:
    adapter = make_adapter()
    for n, k in ((0, 3), (2, 0), (2, 1)):
        q, c = np.ones((n, DIM), np.float32), np.ones((n, k, DIM), np.float32)
        assert adapter.rerank(q, c).shape == (n, k)
        assert adapter.probability(q, c).shape == (n, k)


def test_a_folder_keeps_memory_and_readers(tmp_path: Path) -> None:
    adapter = disturb(make_adapter(list(FEATURES)))
    adapter.features.idf.copy_(torch.rand(VOCABULARY))
    adapter.save_pretrained(tmp_path)
    loaded = RetrieverAdapter.from_pretrained(tmp_path)
    assert loaded.config == adapter.config
    assert loaded.features.sizes() == adapter.features.sizes() == adapter.config.features
    for name, value in adapter.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
        assert loaded.state_dict()[name].dtype == value.dtype, name
    pairs = directions(2, DIM, seed=4), directions(2, 3, DIM, seed=5)
    known = CandidateFeatures(words=torch.rand(2, 3), expansion=torch.rand(2, 3))
    for method in ("rerank", "probability"):
        assert_array_equal(
            getattr(loaded, method)(*pairs, features=known), getattr(adapter, method)(*pairs, features=known)
        )


@pytest.mark.parametrize(
    ("names", "vocabulary", "match"),
    [
        (["mapped", "colour"], 0, "features must be among mapped, base, .*; got mapped, colour"),
        ([], 0, "features must be among .*; got None"),
        (["words"], 0, "vocabulary must be positive with words and 0 without, got 0"),
        (["mapped"], 7, "vocabulary must be positive with words and 0 without, got 7"),
    ],
)
def test_heads_that_cannot_be_made_are_named(names: list[str], vocabulary: int, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        FeatureReader(DIM, 0.05, names, 1, 1, 1, vocabulary)
    sizes = {"names": names, "queries": 1, "documents": 1, "pairs": 1, "vocabulary": vocabulary}
    with pytest.raises(ValueError, match=match):
        RetrieverAdapter(AdapterConfig(embedding_dim=DIM, features=sizes))


def test_an_adapter_that_reads_words_needs_them() -> None:
    adapter = make_adapter(["mapped", "words"])
    pairs = directions(2, DIM), directions(2, 3, DIM)
    for method in (adapter.rerank, adapter.probability):
        with pytest.raises(ValueError, match="reads words: give those shared with the candidates"):
            method(*pairs)


def test_an_evidence_adapter_has_no_forward() -> None:
    with pytest.raises(ValueError, match=r"forward needs a residual adapter; .* call rerank instead"):
        make_adapter()(torch.ones(DIM), torch.ones(DIM))


def test_a_config_of_unknown_sizes_is_no_adapters(tmp_path: Path) -> None:
    make_adapter().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["features"]["colours"] = 3
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"config\.json of .* is no adapter's: .*colours"):
        RetrieverAdapter.from_pretrained(tmp_path)


def test_weights_of_another_size_are_refused(tmp_path: Path) -> None:
    make_adapter().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["features"]["queries"] = 13
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="don't fit its config"):
        RetrieverAdapter.from_pretrained(tmp_path)


# -------------------------------------------------------------------- features of documents


def test_evidence_of_documents_is_looked_up_by_row(tmp_path: Path) -> None:
    head, documents = make_adapter(list(FEATURES)).features, directions(9, DIM, seed=6)
    counts = counts_of([[i, i, i + 1] for i in range(9)])
    idf, length = word_statistics(counts)
    head.idf.copy_(torch.from_numpy(idf))
    head.mean_length.fill_(length)
    made = DocumentFeatures.of(head, [documents[:4], documents[4:]], counts)
    rows, queries = np.array([[8, 0], [3, 3]]), counts_of([[1, 8], [50]])
    q = torch.from_numpy(directions(2, DIM, seed=7))
    known = made.of_candidates(head, q, queries, rows)
    torch.testing.assert_close(known.statics, head.document_statics(torch.from_numpy(documents))[rows])
    assert_allclose(known.words, overlap(queries, weigh_words(counts, idf, length), idf, rows), rtol=1e-5)

    made.save(tmp_path / "features.safetensors")
    loaded = DocumentFeatures.load(tmp_path / "features.safetensors")
    assert_array_equal(loaded.statics, made.statics)
    for found, expected in zip(loaded.of_candidates(head, q, queries, rows), known, strict=True):
        assert_array_equal(found, expected)
    assert [path.name for path in tmp_path.iterdir()] == ["features.safetensors"]
    with pytest.raises(ValueError, match="reads words: give the queries' texts, not embeddings alone"):
        loaded.of_candidates(head, q, None, rows)


def test_expansion_is_the_cosine_with_the_mean_of_what_is_remembered() -> None:
    queries, documents = directions(2, DIM), directions(4, DIM, seed=1)
    counts = counts_of([[1, 2], [2, 3, 3], [4], [5, 1]])
    labelled = LabelledQueries(queries, [np.array([0, 1]), np.array([2])], counts_of([[7], [8]]))
    arguments = FitArguments(features=("mapped", "expansion"))
    space = fold_state(labelled, documents, None, arguments, counts)
    rows = np.tile(np.arange(4), (2, 1))
    found = space.gather(labelled, rows).numpy()[..., 1]
    idf, length = word_statistics(counts)
    weights = weigh_words(counts, idf, length).toarray()
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    answers = np.stack([weights[[0, 1]].mean(axis=0), weights[2]])
    recalled = softmax(queries @ queries.T / MEMORY_TAU, axis=1)
    assert_allclose(found, recalled @ answers @ weights.T, atol=5e-3)
    assert np.ptp(found) > 0.3


def test_evidence_without_words_is_kept_without(tmp_path: Path) -> None:
    head = make_adapter().features
    made = DocumentFeatures.of(head, [directions(3, DIM)], None)
    made.save(tmp_path / "e")
    loaded = DocumentFeatures.load(tmp_path / "e")
    assert loaded.words is None
    known = loaded.of_candidates(head, torch.ones(1, DIM), None, np.array([[0, 2]]))
    assert (known.words, known.expansion) == (None, None)


@pytest.mark.parametrize("vocabulary", [None, 5])
def test_words_of_another_vocabulary_are_refused(vocabulary: int | None) -> None:
    words = None if vocabulary is None else counts_of([[0], [1]], vocabulary)
    with pytest.raises(ValueError, match=f"vocabulary of {VOCABULARY}; got {vocabulary}"):
        DocumentFeatures.of(make_adapter(["words"]).features, [directions(2, DIM)], words)


def test_damaged_evidence_is_named(tmp_path: Path) -> None:
    path = tmp_path / "features.safetensors"
    with pytest.raises(ValueError, match=r"features\.safetensors is missing or damaged"):
        DocumentFeatures.load(path)
    head = make_adapter(list(FEATURES)).features
    DocumentFeatures.of(head, [directions(3, DIM)], counts_of([[0], [1], [2]])).save(path)
    whole = path.read_bytes()
    tensors = load_file(path)
    for size in (0, 7, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"features\.safetensors is missing or damaged"):
            DocumentFeatures.load(path)
    broken: list[dict[str, Any]] = [
        {"statics": None},
        {"words.ends": None},
        {"words.ends": tensors["words.ends"][:-1]},
        {"words.indices": tensors["words.indices"] + VOCABULARY},
    ]
    for change in broken:
        kept = {name: value for name, value in {**tensors, **change}.items() if value is not None}
        save_file(kept, path)
        with pytest.raises(ValueError, match=r"features\.safetensors is missing or damaged"):
            DocumentFeatures.load(path)


# -------------------------------------------------------------------- fitting


class Task:
    """Queries that point to their document after some axes are turned about, and share words with it."""

    def __init__(self, documents: int = DOCUMENTS, seed: int = 0):
        self.rng = np.random.default_rng(seed)
        self.documents = normalized(self.rng.normal(size=(documents, DIM)))
        self.bags = [self.rng.choice(VOCABULARY, 8, replace=False) for _ in range(documents)]
        self.words = counts_of([list(bag) for bag in self.bags])
        self.turn = np.diag(np.where(np.arange(DIM) < 4, -1.0, 1.0))

    def queries(self, count: int, answers: int = 1) -> LabelledQueries:
        rows = np.stack([self.rng.choice(len(self.documents), answers, replace=False) for _ in range(count)])
        noise = 0.15 * self.rng.normal(size=(count, DIM))
        embeddings = normalized(self.documents[rows].mean(1) @ self.turn + noise)
        texts = [
            [*self.rng.choice(self.bags[row[0]], 2, replace=False), self.rng.integers(VOCABULARY)]
            for row in rows
        ]
        return LabelledQueries(embeddings, list(rows), counts_of([list(map(int, t)) for t in texts]))


@pytest.fixture(scope="module")
def task() -> Task:
    return Task()


@pytest.fixture(scope="module")
def training(task: Task) -> LabelledQueries:
    return task.queries(200)


@pytest.fixture(scope="module")
def test_queries(task: Task, training: LabelledQueries) -> LabelledQueries:
    return task.queries(100)


def fit(task: Task, labelled: LabelledQueries, arguments: FitArguments, **given_: Any) -> RetrieverAdapter:
    given_ = {"query_words": labelled.words, "document_words": task.words, **given_}
    return fit_adapter(labelled.embeddings, task.documents, labelled.positives, arguments=arguments, **given_)


def quality(adapter: RetrieverAdapter, task: Task, test: LabelledQueries) -> tuple[float, float]:
    """nDCG@10 of queries: searched with the adapter's maps, and reranked."""
    documents = adapter.map_documents(task.documents)
    mapped = test._replace(embeddings=adapter.map_queries(test.embeddings))
    found = RetrievedCandidates.retrieve(mapped, documents, 30)
    known = DocumentFeatures.of(adapter.features, [documents], task.words)
    reading = read_candidates(adapter, found.queries, found.rows, documents, known, found.words)
    assert_allclose(reading.cosines, found.cosines, atol=1e-5)
    scores = adapter.combine(reading.cosines, reading.corrections).numpy()
    rankings = found.relevant, reorder(found.relevant, scores)
    return tuple(float(ndcg_per_query(ranking, found.num_relevant).mean()) for ranking in rankings)


def encoder_quality(task: Task, test: LabelledQueries) -> float:
    found = RetrievedCandidates.retrieve(test, task.documents, 30)
    return float(ndcg_per_query(found.relevant, found.num_relevant).mean())


@pytest.fixture(scope="module")
def fitted(task: Task, training: LabelledQueries) -> RetrieverAdapter:
    return fit(task, training, PRESET)


def test_unseen_queries_are_ranked_better_than_by_encoder_and_maps(
    task: Task, test_queries: LabelledQueries, fitted: RetrieverAdapter
) -> None:
    searched, reranked = quality(fitted, task, test_queries)
    assert searched > encoder_quality(task, test_queries) + 0.1
    assert reranked > searched + 0.05
    assert fitted.config.lambda_ in CORRECTION_LAMBDAS[1:]
    assert fitted.config.fit["maps"]["steps"] in maps.STOPS
    assert fitted.config.fit["arguments"]["features"] == list(FEATURES)
    measured = fitted.config.fit["development"]
    assert measured["nDCG@10"]["adapter"] > measured["nDCG@10"]["encoder"]
    assert measured["queries"] == 30
    assert not fitted.training


def test_probabilities_are_calibrated_on_unseen_queries(
    task: Task, test_queries: LabelledQueries, fitted: RetrieverAdapter
) -> None:
    mapped = test_queries._replace(embeddings=fitted.map_queries(test_queries.embeddings))
    found = RetrievedCandidates.retrieve(mapped, fitted.map_documents(task.documents), 30)
    probability = candidate_probabilities(
        fitted, test_queries.embeddings, found.rows, task.documents, test_queries.words, task.words
    )
    assert probability.mean() == pytest.approx(found.relevant.mean(), rel=0.3)
    assert average_precision_score(found.relevant.ravel(), probability.ravel()) > 0.5


def test_a_fitted_adapter_ranks_the_same_from_its_folder(
    task: Task, test_queries: LabelledQueries, fitted: RetrieverAdapter, tmp_path: Path
) -> None:
    fitted.save_pretrained(tmp_path)
    loaded = RetrieverAdapter.from_pretrained(tmp_path)
    rows = np.tile(np.arange(20), (100, 1))
    documents = fitted.map_documents(task.documents)
    assert_array_equal(loaded.map_documents(task.documents), documents)
    queries = loaded.map_queries(test_queries.embeddings)
    scores = []
    for adapter in (fitted, loaded):
        made = DocumentFeatures.of(adapter.features, [documents], task.words)
        known = made.of_candidates(adapter.features, torch.from_numpy(queries), test_queries.words, rows)
        scores.append(adapter.rerank(queries, documents[rows], features=known))
        scores.append(adapter.probability(queries, documents[rows], features=known))
    assert_array_equal(scores[0], scores[2])
    assert_array_equal(scores[1], scores[3])
    assert np.ptp(scores[1]) > 0.1
    # JSON makes lists of tuples.
    assert FitArguments(**loaded.config.fit["arguments"]) == PRESET


@pytest.mark.parametrize("stage1", ["none", "query", "both"])
@pytest.mark.parametrize("words", [True, False])
@pytest.mark.usefixtures("quick")
def test_every_stage_1_is_fitted_with_and_without_words(
    task: Task, training: LabelledQueries, test_queries: LabelledQueries, stage1: str, words: bool
) -> None:
    given_ = {} if words else {"query_words": None, "document_words": None}
    adapter = fit(task, training, replace(PRESET, stage1=stage1), **given_)
    assert adapter.features.names == list(FEATURES if words else WORDLESS)
    assert (adapter.query_map is not None) == (stage1 != "none")
    assert (adapter.document_map is not None) == (stage1 == "both")
    for side, linear_map in (("query", adapter.query_map), ("document", adapter.document_map)):
        inverse = getattr(adapter.features, f"{side}_inverse")
        if linear_map is None:
            assert torch.equal(inverse, torch.eye(DIM))
        else:
            torch.testing.assert_close(inverse @ linear_map.weight, torch.eye(DIM), rtol=0, atol=1e-4)
    searched, reranked = quality(adapter, task, test_queries)
    if stage1 == "none":
        assert searched == encoder_quality(task, test_queries)
    assert np.isfinite(reranked)


@pytest.mark.usefixtures("quick")
def test_labels_that_tell_nothing_do_no_harm_to_development_queries(task: Task) -> None:
    labelled = Task(seed=3).queries(60)
    labels = [labelled.positives[row] for row in np.random.default_rng(0).permutation(60)]
    development = task.queries(20)
    adapter = fit(task, labelled._replace(positives=labels), PRESET, development=development)
    measured = adapter.config.fit["development"]
    assert measured["queries"] == 20
    assert measured["nDCG@10"]["adapter"] >= measured["nDCG@10"]["encoder"]
    searched, reranked = quality(adapter, task, development)
    assert searched >= encoder_quality(task, development) - 1e-6
    assert reranked >= searched - 1e-6
    assert searched == pytest.approx(measured["nDCG@10"]["encoder"], abs=1e-6)
    assert reranked == pytest.approx(measured["nDCG@10"]["adapter"], abs=1e-6)


@pytest.mark.usefixtures("quick")
def test_same_seed_same_adapter_another_seed_another_and_the_global_state_is_left_alone(
    task: Task, training: LabelledQueries
) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = fit(task, training, PRESET)
    assert torch.equal(torch.rand(1), expected)
    second, other = (fit(task, training, replace(PRESET, seed=seed)) for seed in (0, 1))
    assert first.config == second.config
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    assert not torch.equal(
        first.features.ranking_head.hidden.weight, other.features.ranking_head.hidden.weight
    )


@pytest.mark.parametrize("kind", ["float16", "long vectors", "memory map"])
@pytest.mark.usefixtures("quick")
def test_embeddings_of_any_kind_are_taken(
    task: Task, training: LabelledQueries, kind: str, tmp_path: Path
) -> None:
    queries, documents = training.embeddings, task.documents
    expected = fit(task, training, PRESET)
    if kind == "float16":
        queries, documents = queries.astype(np.float16), documents.astype(np.float16)
    elif kind == "long vectors":
        queries, documents = 7 * queries, 4 * documents
    else:
        for name, values in (("queries", queries), ("documents", documents)):
            values.tofile(tmp_path / name)
        queries, documents = (
            np.memmap(tmp_path / name, dtype=np.float32, mode="r", shape=values.shape)
            for name, values in (("queries", queries), ("documents", documents))
        )
    adapter = fit_adapter(
        queries,
        documents,
        training.positives,
        arguments=PRESET,
        query_words=training.words,
        document_words=task.words,
    )
    if kind == "memory map":
        assert all(torch.equal(v, expected.state_dict()[k]) for k, v in adapter.state_dict().items())
    x = expected.map_queries(training.embeddings), adapter.map_queries(training.embeddings)
    assert (x[0] * x[1]).sum(1).min() > 0.99


@pytest.mark.usefixtures("quick")
def test_a_part_of_the_training_queries_is_held_out_and_not_remembered(
    task: Task, training: LabelledQueries
) -> None:
    held_out = fit(task, training, replace(PRESET, development_fraction=0.25))
    assert held_out.config.features["queries"] == 150
    assert held_out.config.fit["development"]["queries"] == 50
    everything = fit(task, training, PRESET, development=task.queries(10))
    assert everything.config.features["queries"] == 200


@pytest.mark.usefixtures("quick")
def test_queries_with_several_answers_are_remembered_with_their_mean(task: Task) -> None:
    labelled = task.queries(30, answers=3)
    adapter = fit(task, labelled, replace(PRESET, stage1="none"), development=task.queries(10))
    assert adapter.config.features["pairs"] == 90
    answers = np.stack([task.documents[rows].mean(0) for rows in labelled.positives])
    assert_allclose(adapter.features.memory_answers.float(), answers, atol=HALF)
    assert_allclose(adapter.features.memory_queries.float(), labelled.embeddings, atol=HALF)
    labelled_documents = np.unique(np.concatenate(labelled.positives))
    pairs = adapter.features.memory_pairs.numpy()
    assert_allclose(adapter.features.memory_documents.float(), task.documents[labelled_documents], atol=HALF)
    assert {(q, labelled_documents[d]) for q, d in pairs} == {
        (q, row) for q, rows in enumerate(labelled.positives) for row in rows
    }


@pytest.mark.usefixtures("quick")
def test_memory_is_capped(task: Task, training: LabelledQueries, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "MEMORY", 20)
    adapter = fit(task, training, replace(PRESET, stage1="none"), development=task.queries(10))
    head = adapter.features
    assert (len(head.memory_queries), len(head.memory_answers), len(head.memory_pairs)) == (20, 20, 20)
    # Each remembered query has its own answer still.
    cosines = head.memory_queries.float().numpy() @ training.embeddings.T
    remembered = cosines.argmax(1)
    assert len(np.unique(remembered)) == 20
    answers = task.documents[[training.positives[row][0] for row in remembered]]
    assert_allclose(head.memory_answers.float(), answers, atol=HALF)


@pytest.mark.usefixtures("quick")
def test_a_pool_gives_what_positives_give(task: Task, training: LabelledQueries) -> None:
    pool = mine_embeddings(training.embeddings, task.documents, training.positives, depth=30)
    by_pool = fit_adapter(
        training.embeddings,
        task.documents,
        pool=pool,
        arguments=PRESET,
        query_words=training.words,
        document_words=task.words,
    )
    by_positives = fit(task, training, PRESET)
    assert all(torch.equal(v, by_positives.state_dict()[k]) for k, v in by_pool.state_dict().items())


@pytest.mark.parametrize("count", [3, 4, 6])
@pytest.mark.usefixtures("quick")
def test_a_few_queries_and_fewer_documents_than_depth_are_enough(count: int) -> None:
    tiny = Task(documents=5)
    labelled = tiny.queries(count)
    adapter = fit(tiny, labelled, PRESET)
    assert np.isfinite(quality(adapter, tiny, labelled)).all()


@pytest.mark.usefixtures("quick")
def test_two_queries_are_too_few_and_said_to_be() -> None:
    tiny = Task(documents=5)
    with pytest.raises(ValueError, match="at least two training queries beside those held out, got 1"):
        fit(tiny, tiny.queries(2), PRESET)
    fit(tiny, tiny.queries(2), PRESET, development=tiny.queries(1))


@pytest.mark.usefixtures("quick")
def test_positives_that_are_never_found_teach_nothing_and_a_warning_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rng = np.random.default_rng(0)
    documents = normalized(rng.normal(size=(40, DIM)))
    queries = normalized(documents[:10] + 0.05 * rng.normal(size=(10, DIM)))
    # The labelled document is the farthest one.
    labels = [[row] for row in (queries @ documents.T).argmin(1)]
    arguments = FitArguments.preset("features", stage1="none", depth=5)
    adapter = fit_adapter(queries, documents, labels, arguments=arguments)
    assert "No training query has both a labelled and an unlabelled candidate" in caplog.text
    assert (adapter.features.ranking_head.linear.weight == 0).all()
    assert adapter.config.lambda_ == 0
    probability = adapter.probability(queries, np.stack([documents[:5]] * 10))
    assert (probability < 0.2).all()


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


def spy_on_spaces(monkeypatch: pytest.MonkeyPatch) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return the list of (queries that made maps, queries that are remembered, queries asked about)."""
    asked: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    taught: dict[int, np.ndarray] = {}
    spaces: dict[int, tuple[FoldState, np.ndarray, np.ndarray]] = {}
    refit, make, mapped = features.refit_maps, features.fold_state, FoldState.mapped

    def refit_spy(training: LabelledQueries, *rest: Any) -> Maps:
        made = refit(training, *rest)
        taught[id(made)] = training.embeddings
        return made

    def make_spy(training: LabelledQueries, documents: np.ndarray, maps_: Maps, *rest: Any) -> FoldState:
        space = make(training, documents, maps_, *rest)
        spaces[id(space)] = space, taught.get(id(maps_), training.embeddings), training.embeddings
        return space

    def mapped_spy(space: FoldState, queries: LabelledQueries) -> LabelledQueries:
        asked.append((*spaces[id(space)][1:], queries.embeddings))
        return mapped(space, queries)

    monkeypatch.setattr(features, "refit_maps", refit_spy)
    monkeypatch.setattr(features, "fold_state", make_spy)
    monkeypatch.setattr(FoldState, "mapped", mapped_spy)
    return asked


def assert_every_query_is_asked_once(
    asked: list[tuple[np.ndarray, np.ndarray, np.ndarray]], training: LabelledQueries
) -> None:
    def names(embeddings: np.ndarray) -> set[bytes]:
        return {row.tobytes() for row in embeddings}

    everything = names(training.embeddings)
    for mapped_by, remembered, queries in asked:
        assert names(mapped_by) == names(remembered) == everything - names(queries)
    assert sorted(row.tobytes() for *_, queries in asked for row in queries) == sorted(everything)


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


def test_what_was_asked_for_before_is_found_again_where_each_document_has_one_query() -> None:
    rng = np.random.default_rng(0)
    # In clusters, so that documents that were asked for stand beside others that were not.
    documents = normalized(np.tile(directions(60, DIM), (10, 1)) + 0.08 * rng.normal(size=(600, DIM)))

    def about(rows: np.ndarray) -> np.ndarray:
        return normalized(documents[rows] + 0.12 * rng.normal(size=(len(rows), DIM)))

    training, held_out = np.arange(400), np.arange(400, 480)
    development = LabelledQueries(about(held_out), [[row] for row in held_out])
    queries, again = about(training), about(training)
    found = np.argsort(-again @ documents.T, axis=1)[:, :30]
    first = {"encoder": (found[:, 0] == training).mean()}
    for even_odds in (True, False):
        adapter = fit_adapter(
            queries,
            documents,
            [[row] for row in training],
            development=development,
            arguments=replace(PRESET, stage1="none", features=WORDLESS, even_odds=even_odds),
        )
        scores = adapter.rerank(again, documents[found])
        first[even_odds] = (found[np.arange(400), scores.argmax(1)] == training).mean()
    assert first[True] >= first["encoder"] - 0.02
    assert first[True] > first[False] + 0.05


# -------------------------------------------------------------------- cross-fitting


def judge_pool(task: Task, pool: CandidatePool, labelled: LabelledQueries, **given_: Any) -> CandidatePool:
    given_ = {"arguments": PRESET, "query_words": labelled.words, "document_words": task.words, **given_}
    return cross_fit(pool, labelled.embeddings, task.documents, **given_)


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
    texts_ = [[int(w) for w in rng.choice(twins.bags[row], 2, replace=False)] for row in rows]
    labelled = LabelledQueries(embeddings, [np.array([row]) for row in rows], counts_of(texts_))
    pool = mine_embeddings(embeddings, twins.documents, labelled.positives, depth=100)
    judged = judge_pool(twins, pool, labelled, folds=3)
    hidden = pool.candidates == (rows + 150)[:, None]
    assert hidden.sum() > 150
    found = average_precision_score(hidden.ravel(), judged.probability.ravel())
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
    given_ = {} if words else {"query_words": None, "document_words": None}
    judged = judge_pool(small, pool, labelled, folds=3, **given_)
    probability = judged.probability
    assert probability.dtype == np.float32
    assert_array_equal(np.isnan(probability), pool.candidates < 0)
    known = probability[pool.candidates >= 0]
    assert ((known > 0) & (known < 1)).all()
    assert pool.probability is None
    again = judge_pool(small, pool, labelled, folds=3, **given_)
    assert_array_equal(again.probability, probability)
    other = judge_pool(small, pool, labelled, folds=3, arguments=replace(PRESET, seed=1), **given_)
    assert not np.array_equal(other.probability, probability, equal_nan=True)


@pytest.mark.usefixtures("quick")
def test_padding_teaches_nothing_wrong_and_a_query_without_candidates_is_no_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taught: list[tuple[Tensor, np.ndarray]] = []
    fitting = features.fit_relevance_head
    monkeypatch.setattr(
        features, "fit_relevance_head", lambda x, y, *rest: taught.append((x, y)) or fitting(x, y, *rest)
    )
    small = Task(documents=20)
    labelled = small.queries(12)
    candidates = np.full((12, 3), -1)
    for query, rows in enumerate(labelled.positives):
        candidates[query, : query % 3] = np.setdiff1d(np.arange(20), rows)[: query % 3]
    parts = labelled, candidates, small.documents, small.queries(4), PRESET, small.words
    probability = cross_fit_features(*parts, folds=2)
    assert_array_equal(np.isnan(probability), candidates < 0)
    for x, relevant in taught:
        # What is taught to be irrelevant is never the query's positive, which is the last one.
        same = (x == x[:, -1:]).all(-1).numpy()
        assert_array_equal(relevant, same)


@pytest.mark.usefixtures("quick")
def test_a_querys_own_fold_neither_maps_nor_remembers_it(
    task: Task, training: LabelledQueries, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = spy_on_spaces(monkeypatch)
    pool = mine_embeddings(training.embeddings, task.documents, training.positives, depth=10)
    judge_pool(task, pool, training, folds=4, development=task.queries(10))
    assert len(asked) == 4
    assert_every_query_is_asked_once(asked, training)


@pytest.mark.usefixtures("quick")
def test_the_recipe_of_the_maps_is_chosen_on_queries_that_did_not_train_them(
    task: Task, training: LabelledQueries, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[tuple[LabelledQueries, LabelledQueries]] = []
    choose = features.choose_maps

    def spy(part: LabelledQueries, documents: np.ndarray, development: LabelledQueries, *rest: Any) -> Any:
        chosen.append((part, development))
        return choose(part, documents, development, *rest)

    monkeypatch.setattr(features, "choose_maps", spy)
    pool = mine_embeddings(training.embeddings, task.documents, training.positives, depth=10)
    judge_pool(task, pool, training, folds=2)
    ((part, development),) = chosen
    taught, measured = ({row.tobytes() for row in queries.embeddings} for queries in (part, development))
    assert len(taught) == 170
    assert len(measured) == 30
    assert not taught & measured


@pytest.mark.usefixtures("quick")
def test_bad_input_to_cross_fitting_is_named(task: Task, training: LabelledQueries) -> None:
    pool = mine_embeddings(training.embeddings, task.documents, training.positives, depth=5)
    with pytest.raises(ValueError, match="folds must lie between 2 and the number of queries, 200; got 201"):
        judge_pool(task, pool, training, folds=201)
    with pytest.raises(ValueError, match="query_embeddings must have the pool's 200 rows, got 10"):
        judge_pool(task, pool, training.select(np.arange(10)))
    with pytest.raises(ValueError, match="both query_words and document_words"):
        judge_pool(task, pool, training, query_words=None)
    with pytest.raises(ValueError, match="query_words must have shape"):
        judge_pool(task, pool, training, query_words=training.words[:7])
    with pytest.raises(ValueError, match="development must have words"):
        judge_pool(task, pool, training, development=task.queries(3)._replace(words=None))
    broken = training.embeddings.copy()
    broken[0, 0] = np.nan
    with pytest.raises(ValueError, match="query_embeddings"):
        judge_pool(task, pool, training._replace(embeddings=broken))


# -------------------------------------------------------------------- models and retrievers


@pytest.fixture(scope="module")
def collection() -> Collection:
    return word_collection(30, train=40, dev=10, test=10)


@pytest.fixture(scope="module")
def shortened() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        yield


@pytest.fixture(scope="module")
def model(tiny_bert: Path, collection: Collection, shortened: None) -> RRRAModel:
    """An RRRAModel whose adapter was fitted and certainly reranks."""
    fitted_model = fit_model(RRRAModel.from_encoder(tiny_bert), collection, replace(PRESET, depth=20))
    return make_it_matter(fitted_model.adapter) and fitted_model


@pytest.fixture(scope="module")
def plain(tiny_bert: Path, collection: Collection, shortened: None) -> Retriever:
    """A plain encoder with an adapter that was fitted on its embeddings."""
    encoder = SentenceTransformer(str(tiny_bert), device="cpu")
    part = collection.split("train")
    embedded = embed_collection(part, encoder)
    adapter = fit_adapter(
        embedded.queries,
        embedded.documents,
        part.positive_rows,
        arguments=replace(PRESET, depth=20),
        query_words=count_words(encoder, part.query_texts),
        document_words=count_words(encoder, part.document_texts),
    )
    return Retriever(encoder, make_it_matter(adapter)).index(collection)


def make_it_matter(adapter: RetrieverAdapter) -> RetrieverAdapter:
    """Let the head contradict the encoder, whose weights are random, and be sure of it."""
    disturb(adapter)
    adapter.config.lambda_ = 1.0
    adapter.config.temperature = 1.0
    return adapter


@pytest.fixture(params=["model", "plain"])
def retriever(
    request: pytest.FixtureRequest, model: RRRAModel, plain: Retriever, collection: Collection
) -> Retriever:
    return plain if request.param == "plain" else Retriever(model).index(collection)


QUERIES = ["how do i copy files", "sort text", "find the old folder"]


def as_tuples(hits: list[Any]) -> list[Any]:
    return [[tuple(hit.values()) for hit in query_hits] for query_hits in hits]


def test_hits_are_scored_and_judged_as_the_adapter_does_by_itself(
    retriever: Retriever, tiny_bert: Path, collection: Collection
) -> None:
    adapter, encoder = retriever.adapter, SentenceTransformer(str(tiny_bert), device="cpu")
    hits = retriever.search(QUERIES, top_k=30, probabilities=True)
    queries = encode(encoder, QUERIES, task="query")
    documents = encode(encoder, collection.document_texts, task="document")
    mapped = adapter.map_queries(queries), adapter.map_documents(documents)
    candidates = np.argsort(-(mapped[0] @ mapped[1].T), axis=1, kind="stable")
    words = count_words(encoder, QUERIES), count_words(encoder, collection.document_texts)
    known = DocumentFeatures.of(adapter.features, [mapped[1]], words[1])
    of_candidates = known.of_candidates(adapter.features, torch.from_numpy(mapped[0]), words[0], candidates)
    scores = adapter.rerank(mapped[0], mapped[1][candidates], features=of_candidates)
    expected = [
        {collection.document_ids[row]: score for row, score in zip(*pair, strict=True)}
        for pair in zip(candidates, scores, strict=True)
    ]
    probability = candidate_probabilities(adapter, queries, candidates, documents, *words)
    judged = [
        {collection.document_ids[row]: p for row, p in zip(*pair, strict=True)}
        for pair in zip(candidates, probability, strict=True)
    ]
    for query, found in enumerate(hits):
        assert [hit["score"] for hit in found] == sorted((hit["score"] for hit in found), reverse=True)
        for hit in found:
            assert hit["score"] == pytest.approx(expected[query][hit["corpus_id"]], rel=1e-3, abs=1e-2)
            assert hit["probability"] == pytest.approx(judged[query][hit["corpus_id"]], rel=1e-2, abs=1e-3)
    plainly = retriever.search(QUERIES, top_k=30, rerank=False)
    ids = [[[hit["corpus_id"] for hit in found] for found in both] for both in (hits, plainly)]
    assert ids[0] != ids[1]
    assert ids[1] == [[collection.document_ids[row] for row in rows] for rows in candidates]


def test_hits_do_not_depend_on_how_many_are_asked_for(retriever: Retriever) -> None:
    for rerank in (True, False):
        options = {"rerank": rerank, "depth": 20, "probabilities": True}
        many = retriever.search(QUERIES, top_k=20, **options)
        few = retriever.search(QUERIES, top_k=3, **options)
        for query in range(len(QUERIES)):
            for short, long in zip(few[query], many[query][:3], strict=True):
                assert short["corpus_id"] == long["corpus_id"]
                assert short["score"] == pytest.approx(long["score"], rel=1e-5)
                assert short["probability"] == pytest.approx(long["probability"], rel=1e-4)


def test_queries_in_blocks_and_alone_find_the_same(
    retriever: Retriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = retriever.search(QUERIES, probabilities=True)
    monkeypatch.setattr("rrra_hf.retrieval.retriever.BLOCK_SIZE", 2)
    monkeypatch.setattr("rrra_hf.retrieval.reranking.PAIRS", 7)
    in_blocks = retriever.search(QUERIES, probabilities=True)
    for one, other in zip(as_tuples(together), as_tuples(in_blocks), strict=True):
        assert [hit[0] for hit in one] == [hit[0] for hit in other]
        assert_allclose([hit[1:] for hit in one], [hit[1:] for hit in other], rtol=1e-3, atol=1e-4)
    named = retriever.search({"q": QUERIES[1]})
    assert [hit["corpus_id"] for hit in named["q"]] == [hit["corpus_id"] for hit in together[1]]


def test_ranking_needs_no_index_and_agrees_with_searching(
    retriever: Retriever, collection: Collection
) -> None:
    ranked = Retriever(retriever.encoder, retriever._adapter).rank(QUERIES[0], collection.document_texts)
    searched = retriever.search(QUERIES[0], top_k=30)[0]
    assert [collection.document_ids[hit["corpus_id"]] for hit in ranked] == [
        hit["corpus_id"] for hit in searched
    ]
    assert_allclose([hit["score"] for hit in ranked], [hit["score"] for hit in searched], rtol=1e-4)
    assert len(retriever.rank(QUERIES[0], ["find files"])) == 1


def test_a_saved_retriever_finds_the_same(retriever: Retriever, tmp_path: Path) -> None:
    retriever.save_pretrained(tmp_path / "r")
    assert (tmp_path / "r/index/features.safetensors").exists()
    loaded = Retriever.from_pretrained(tmp_path / "r", device="cpu")
    expected = retriever.search(QUERIES, probabilities=True)
    for one, other in zip(
        as_tuples(loaded.search(QUERIES, probabilities=True)), as_tuples(expected), strict=True
    ):
        assert [hit[0] for hit in one] == [hit[0] for hit in other]
        assert_allclose([hit[1:] for hit in one], [hit[1:] for hit in other], rtol=1e-4, atol=1e-5)
    # Saved again, loaded again: nothing has changed that a fingerprint is made of.
    loaded.save_pretrained(tmp_path / "again")
    Retriever.from_pretrained(tmp_path / "again", device="cpu")


def test_embeddings_without_their_texts_are_refused_where_words_are_read(retriever: Retriever) -> None:
    embeddings = encode(retriever.encoder, QUERIES, task="query")
    for options in ({}, {"rerank": False, "probabilities": True}):
        with pytest.raises(ValueError, match="reads words: give the queries' texts, not embeddings alone"):
            retriever.search_embeddings(embeddings, **options)
    with pytest.raises(ValueError, match="query_texts must be of the 3 queries, got 2 texts"):
        retriever.search_embeddings(embeddings, query_texts=QUERIES[:2])
    found = retriever.search_embeddings(embeddings, query_texts=QUERIES)
    assert [[hit["corpus_id"] for hit in hits] for hits in found] == [
        [hit["corpus_id"] for hit in hits] for hits in retriever.search(QUERIES)
    ]
    assert len(retriever.search_embeddings(embeddings, rerank=False)) == 3


def test_evaluation_and_measuring_agree(
    retriever: Retriever, tiny_bert: Path, collection: Collection
) -> None:
    part = collection.split("test")
    evaluated = evaluate(retriever, part, ["nDCG@10", "R@1"], depth=20)
    assert set(evaluated.quality) == {"encoder", "adapter"}
    assert set(evaluated.milliseconds) == {"encode", "search", "rerank"}
    encoder = SentenceTransformer(str(tiny_bert), device="cpu")
    measured = measure(
        part,
        embed_collection(part, encoder),
        retriever.adapter,
        depth=20,
        query_words=count_words(encoder, part.query_texts),
        document_words=count_words(encoder, part.document_texts),
    )
    for name in ("nDCG@10", "R@1"):
        assert evaluated.quality["adapter"].mean[name] == pytest.approx(measured[name], abs=1e-6)


def spoil_evidence(folder: Path, how: str, retriever: Retriever) -> None:
    path = folder / "index/features.safetensors"
    if how == "missing":
        path.unlink()
    elif how == "damaged":
        path.write_bytes(path.read_bytes()[:-5])
    else:
        other = Retriever(retriever.encoder, retriever._adapter).index(["find files", "sort text"])
        other.corpus_index.features.save(path)


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ("missing", r"features\.safetensors is missing or damaged"),
        ("damaged", r"features\.safetensors is missing or damaged"),
        ("of another index", r"features\.safetensors is of 2 documents, not 30; index the corpus again"),
    ],
)
def test_evidence_that_is_not_the_indexs_is_named(
    plain: Retriever, tmp_path: Path, how: str, match: str
) -> None:
    plain.save_pretrained(tmp_path / "r")
    spoil_evidence(tmp_path / "r", how, plain)
    with pytest.raises(ValueError, match=match):
        Retriever.from_pretrained(tmp_path / "r", device="cpu")


def test_an_index_is_not_opened_with_another_memory(plain: Retriever, tmp_path: Path) -> None:
    plain.save_pretrained(tmp_path / "r")
    adapter = RetrieverAdapter.from_pretrained(tmp_path / "r/adapter")
    adapter.features.memory_queries.neg_()
    adapter.save_pretrained(tmp_path / "r/adapter")
    with pytest.raises(ValueError, match="was made by another model"):
        Retriever.from_pretrained(tmp_path / "r", device="cpu")
    changed = Retriever(plain.encoder, adapter)
    changed._corpus = plain.corpus_index
    with pytest.raises(ValueError, match="changed after the corpus was indexed"):
        changed.save_pretrained(tmp_path / "new")


def test_an_encoder_without_tokenizer_cannot_serve_an_adapter_that_reads_words() -> None:
    encoder = SentenceTransformer(modules=[BoW(vocab=["copy", "file", "sort", "list"])], device="cpu")
    sizes = {"queries": 1, "documents": 1, "pairs": 1}
    reads_words = AdapterConfig(
        embedding_dim=4, features={**sizes, "names": ["mapped", "words"], "vocabulary": 4}
    )
    with pytest.raises(ValueError, match="the encoder has no tokenizer of transformers"):
        Retriever(encoder, RetrieverAdapter(reads_words)).index(["copy a file"])
    wordless = AdapterConfig(embedding_dim=4, features={**sizes, "names": ["mapped", "hubness"]})
    retriever = Retriever(encoder, RetrieverAdapter(wordless)).index(["copy a file", "sort a list"])
    embeddings = encode(encoder, ["sort"], task="query")
    assert retriever.search_embeddings(embeddings)[0][0]["corpus_id"] == "1"


def test_every_loader_opens_a_model_with_evidence(
    model: RRRAModel, collection: Collection, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    assert (folder / "evidence_rrra.py").exists()
    expected = model.to_sentence_transformer()
    texts_ = collection.document_texts[:5]
    loaded = RRRAModel.from_pretrained(folder).eval(), AutoModel.from_pretrained(folder).eval()
    encoders = [
        *(m.to_sentence_transformer() for m in loaded),
        SentenceTransformer(str(folder), device="cpu"),
    ]
    for encoder in encoders:
        assert_allclose(encoder.encode_query(texts_), expected.encode_query(texts_), atol=1e-5)
        assert_allclose(encoder.encode_document(texts_), expected.encode_document(texts_), atol=1e-5)
    for other in (*loaded, encoders[-1][0].model):
        assert isinstance(other, RRRAModel)
        for name, value in model.adapter.state_dict().items():
            assert torch.equal(other.adapter.state_dict()[name].to(value.dtype), value), name
    adapter = RetrieverAdapter.from_pretrained(folder)
    # JSON makes lists of tuples, which the record of fitting has.
    assert replace(adapter.config, fit={}) == replace(model.adapter.config, fit={})


def test_a_model_is_fitted_on_its_own_words(model: RRRAModel, collection: Collection) -> None:
    adapter = model.adapter
    assert adapter.features.names == list(FEATURES)
    assert adapter.config.features["queries"] == 40
    assert adapter.config.fit["development"]["queries"] == 10
    counts = count_words(model.to_sentence_transformer(), collection.document_texts)
    idf, length = word_statistics(counts)
    assert_array_equal(adapter.features.idf, idf)
    assert float(adapter.features.mean_length) == pytest.approx(length)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_training_ends_with_an_adapter_that_reads_evidence(
    tiny_bert: Path, collection: Collection, tmp_path: Path
) -> None:
    arguments = TrainArguments(fit=replace(PRESET, depth=10), folds=2, batch_size=8)
    trained = train(collection, tiny_bert, tmp_path, arguments)
    assert trained.adapter.features.reads_words
    pool = CandidatePool.load(tmp_path / "stage2/pool")
    assert_array_equal(np.isnan(pool.probability), pool.candidates < 0)
    results = json.loads((tmp_path / "results.json").read_text())
    assert "adapter" in json.dumps(results)


# -------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"features": ("memory", "colour")}, "features must be among .*; got colour"),
        ({"features": ("memory",), "objective": "bce"}, "features needs objective='listwise' .* got 'bce'"),
        ({"features": ("memory",), "scoring": "product"}, "features needs .* got 'listwise' and 'product'"),
    ],
)
def test_settings_that_contradict_evidence_are_named(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        FitArguments(**changes)


def test_the_preset_reads_everything() -> None:
    assert FitArguments.preset("features") == FitArguments(stage1="both", features=FEATURES)
    assert FitArguments(features=["memory"]).features == ("memory",)
    arguments = json.loads(json.dumps(PRESET.to_dict()))
    assert FitArguments(**arguments) == PRESET


def test_words_of_a_wrong_shape_are_named(task: Task, training: LabelledQueries) -> None:
    with pytest.raises(ValueError, match="both query_words and document_words, or neither"):
        fit(task, training, PRESET, document_words=None)
    with pytest.raises(ValueError, match=r"query_words must have shape \(200, 80\), got \(3, 80\)"):
        fit(task, training, PRESET, query_words=training.words[:3])
    with pytest.raises(ValueError, match=r"query_words must have shape \(200, 80\), got \(200, 79\)"):
        fit(task, training, PRESET, query_words=training.words[:, :79])
    with pytest.raises(ValueError, match=r"document_words must have shape \(120, 80\), got \(119, 80\)"):
        fit(task, training, PRESET, document_words=task.words[:119])
    development = task.queries(4)
    with pytest.raises(ValueError, match=r"development must have words of shape \(4, 80\), got None"):
        fit(task, training, PRESET, development=development._replace(words=None))
    with pytest.raises(ValueError, match=r"development must have words of shape \(4, 80\), got \(3, 80\)"):
        fit(task, training, PRESET, development=development._replace(words=development.words[:3]))


@pytest.mark.parametrize("loss", [RRRALoss, CachedRRRALoss])
def test_losses_that_ask_the_adapter_refuse_evidence(loss: type, model: RRRAModel) -> None:
    encoder = model.to_sentence_transformer()
    for options in ({"live": True}, {"adapter_weight": 0.5}):
        with pytest.raises(ValueError, match="need a residual adapter, this one reads features"):
            loss(encoder, **options)


def test_losses_take_the_probabilities_of_a_pool(model: RRRAModel, collection: Collection) -> None:
    encoder, part = model.to_sentence_transformer(), collection.split("train")
    pool = mine_collection(part, embed_collection(part, encoder), 3)
    pool = replace(pool, probability=np.full(pool.candidates.shape, 0.2, np.float32))
    assert RRRALoss(encoder, pool=pool).pool is pool


def test_a_refresh_does_not_refit_an_adapter_that_reads_evidence(
    tiny_bert: Path, collection: Collection, tmp_path: Path
) -> None:
    part, development = collection.split("train"), collection.split("dev")
    encoder = SentenceTransformer(str(tiny_bert), device="cpu")
    pool = mine_collection(part, embed_collection(part, encoder), 3)
    pool = replace(pool, probability=np.full(pool.candidates.shape, 0.2, np.float32))
    resampler = Resampler(part, pool, num_negatives=2)
    options = {"every_steps": 1, "development": development}
    arguments = FitArguments(features=("memory", "hubness"), depth=5)
    with pytest.raises(ValueError, match=r"arguments\.features must be empty where refit_adapter is true"):
        Refresh(resampler, tmp_path, arguments=arguments, **options)
    assert Refresh(resampler, tmp_path, arguments=arguments, refit_adapter=False, **options)
