"""Search equals brute force, reranking reorders as told, and a saved folder opens as it was or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sentence_transformers import SentenceTransformer, util

from alike import assert_alike
from retriever_models import CORPUS, RESIDUAL, make_adapter
from retrievers import QUERIES, TEXTS, ids, make_model, opposing_adapter, scores, vocabulary_encoder
from rrra_hf import RRRAModel
from rrra_hf.embeddings import encode
from rrra_hf.indexes import ApproximateIndex, FlatIndex, QuantizedIndex
from rrra_hf.retrieval import Retriever

# -------------------------------------------------------------------- searching


def test_search_equals_brute_force(encoder: SentenceTransformer) -> None:
    found = Retriever(encoder, adapter=None).index(CORPUS).search(QUERIES, top_k=4)
    cosines = encode(encoder, QUERIES, task="query") @ encode(encoder, TEXTS, task="document").T
    best = np.argsort(-cosines, axis=1, kind="stable")[:, :4]
    assert [ids(hits) for hits in found] == [[list(CORPUS)[row] for row in rows] for rows in best]
    assert_allclose([scores(hits) for hits in found], np.take_along_axis(cosines, best, axis=1), atol=1e-6)


def test_search_returns_what_semantic_search_does(encoder: SentenceTransformer) -> None:
    found = Retriever(encoder, adapter=None).index(TEXTS).search(QUERIES, top_k=3)
    expected = util.semantic_search(encoder.encode_query(QUERIES), encoder.encode_document(TEXTS), top_k=3)
    assert [[list(hit) for hit in hits] for hits in found] == [[["corpus_id", "score"]] * 3] * 3
    assert [list(map(int, ids(hits))) for hits in found] == [ids(hits) for hits in expected]
    assert_allclose([scores(h) for h in found], [scores(h) for h in expected], atol=1e-6)
    assert type(found[0][0]["score"]) is float


def test_one_query_is_a_list_of_one_and_a_dictionary_keeps_its_ids(retriever: Retriever) -> None:
    many = retriever.search(QUERIES)
    assert ids(retriever.search(QUERIES[1])[0]) == ids(many[1])
    assert len(retriever.search(QUERIES[1])) == 1
    named = retriever.search({f"q{i}": query for i, query in enumerate(QUERIES)})
    assert list(named) == ["q0", "q1", "q2"]
    assert [ids(hits) for hits in named.values()] == [ids(hits) for hits in many]
    assert retriever.search([]) == []
    assert retriever.search({}) == {}


def test_top_k_beyond_the_corpus_gives_every_document(retriever: Retriever) -> None:
    for rerank in (False, True):
        hits = retriever.search(QUERIES[0], top_k=1000, depth=1000, rerank=rerank)[0]
        assert sorted(ids(hits)) == sorted(CORPUS)
    single = Retriever(retriever.encoder).index({"only": "find files"})
    assert ids(single.search(QUERIES[0], top_k=10)[0]) == ["only"]


def test_long_text_is_indexed_searched_and_ranked(retriever: Retriever) -> None:
    text = ("sort the lines " * 7000)[:100_000]
    assert len(text) == 100_000
    assert len(retriever.rank(text, [text, "find files"])) == 2
    retriever = Retriever(retriever.encoder).index({"long": text, "short": "find files"})
    assert set(ids(retriever.search(text)[0])) == {"long", "short"}
    assert retriever.document("long")["text"] == text


def test_index_replaces_the_one_before(encoder: SentenceTransformer) -> None:
    retriever = Retriever(encoder).index(CORPUS)
    retriever.index(["find files"])
    assert ids(retriever.search(QUERIES[0])[0]) == ["0"]
    assert retriever.documents.num_rows == 1


@pytest.mark.parametrize("document_map", [False, True])
@pytest.mark.parametrize("kind", ["hnsw", "ivf-flat"])
def test_approximate_index_finds_scores_and_loads_as_the_exact_one(
    encoder: SentenceTransformer, tmp_path: Path, kind: str, document_map: bool
) -> None:
    """Among so few documents it looks at all candidates, so nothing is missed."""
    adapter = make_adapter(lambda_=0.5, document_map=document_map)
    exact = Retriever(encoder, adapter).index(CORPUS, kind="flat")
    built = Retriever(encoder, adapter).index(CORPUS, kind=kind)
    assert isinstance(built.corpus_index.index, ApproximateIndex)
    built.save_pretrained(tmp_path / "model")
    loaded = Retriever.from_pretrained(tmp_path / "model", device="cpu")
    assert isinstance(loaded.corpus_index.index, ApproximateIndex)
    assert loaded.corpus_index.index.kind == kind
    loaded.save_pretrained(tmp_path / "model")  # over the files that it has mapped
    again = Retriever.from_pretrained(tmp_path / "model", device="cpu")
    for options in ({}, {"rerank": False}, {"top_k": 3, "probabilities": True}):
        expected = exact.search(QUERIES, **options)
        for retriever in (built, loaded, again):
            found = retriever.search(QUERIES, **options)
            assert [ids(hits) for hits in found] == [ids(hits) for hits in expected]
            assert_allclose([scores(h) for h in found], [scores(h) for h in expected], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("storage", ["int8", "binary"])
def test_quantised_embeddings_are_searched_reranked_and_saved(
    encoder: SentenceTransformer, tmp_path: Path, storage: str
) -> None:
    adapter = make_adapter(lambda_=0.5, document_map=True)
    exact = Retriever(encoder, adapter).index(CORPUS)
    built = Retriever(encoder, adapter).index(CORPUS, storage=storage)
    built.save_pretrained(tmp_path / "model")
    loaded = Retriever.from_pretrained(tmp_path / "model", device="cpu")
    index = loaded.corpus_index.index
    assert isinstance(index, QuantizedIndex) and index.storage == storage
    assert isinstance(built.index(CORPUS).corpus_index.index, FlatIndex)
    for options in ({}, {"rerank": False}, {"top_k": 3, "probabilities": True}):
        expected, found = (retriever.search(QUERIES, **options) for retriever in (exact, loaded))
        assert [ids(hits) for hits in found] == [ids(hits) for hits in expected]
        assert_allclose([scores(h) for h in found], [scores(h) for h in expected], atol=0.02)
    loaded.save_pretrained(tmp_path / "model")  # over the files that it has mapped
    again = Retriever.from_pretrained(tmp_path / "model", device="cpu")
    assert again.search(QUERIES) == loaded.search(QUERIES)


def test_kind_of_index_depends_on_the_number_of_documents(
    encoder: SentenceTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(Retriever(encoder).index(CORPUS).corpus_index.index, FlatIndex)
    monkeypatch.setattr("rrra_hf.indexes.choose.RULES", [(5, "flat", "few"), (None, "hnsw", "many")])
    assert isinstance(Retriever(encoder).index(CORPUS).corpus_index.index, ApproximateIndex)
    with pytest.raises(ValueError, match=r"kind must be one of auto, flat, hnsw, .*, got 'tree'"):
        Retriever(encoder).index(CORPUS, kind="tree")
    with pytest.raises(ValueError, match=r"storage must be float32 with kind='hnsw'"):
        Retriever(encoder).index(CORPUS, kind="hnsw", storage="int8")


@pytest.mark.parametrize("name", ["candidates.faiss", "embeddings.arrow", "current.json"])
def test_damaged_approximate_index_is_refused(
    encoder: SentenceTransformer, tmp_path: Path, name: str
) -> None:
    Retriever(encoder).index(CORPUS, kind="hnsw").save_pretrained(tmp_path / "model")
    (path,) = (tmp_path / "model" / "index").rglob(name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match="damaged"):
        Retriever.from_pretrained(tmp_path / "model", device="cpu")


def test_search_works_across_blocks(retriever: Retriever, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = retriever.search(QUERIES, probabilities=True)
    monkeypatch.setattr("rrra_hf.retrieval.corpus_index.BLOCK_SIZE", 2)
    for pairs in (1, 4, 7):
        monkeypatch.setattr("rrra_hf.candidates.reading.PAIRS_PER_BLOCK", pairs)
        found = Retriever(retriever.encoder).index(CORPUS).search(QUERIES, probabilities=True)
        assert [ids(hits) for hits in found] == [ids(hits) for hits in expected]
        for key in ("score", "probability"):
            assert_allclose(
                [[hit[key] for hit in hits] for hits in found],
                [[hit[key] for hit in hits] for hits in expected],
                rtol=1e-5,
                atol=1e-5,
            )


# -------------------------------------------------------------------- reranking


def test_adapter_reorders_the_first_depth_and_leaves_the_rest() -> None:
    # Cosines with "copy file": 1, 1/sqrt(2), 1/2, 0.
    corpus = {"a": "copy file", "b": "copy", "c": "copy sort", "d": "list"}
    cosines = [1.0, 0.5**0.5, 0.5, 0.0]
    retriever = Retriever(vocabulary_encoder(), opposing_adapter(lambda_=3.0)).index(corpus)
    assert ids(retriever.search("copy file", rerank=False)[0]) == ["a", "b", "c", "d"]
    # The score is cos + 3 * -cos.
    hits = retriever.search("copy file")[0]
    assert ids(hits) == ["d", "c", "b", "a"]
    assert_allclose(scores(hits), [-2 * cosine for cosine in cosines[::-1]], atol=1e-6)
    # What is below top_k is reranked too.
    assert ids(retriever.search("copy file", top_k=1, depth=3)[0]) == ["c"]
    hits = retriever.search("copy file", depth=2)[0]
    assert ids(hits) == ["b", "a", "c", "d"]
    assert_allclose(scores(hits), [-2 * cosines[1], -2 * cosines[0], *cosines[2:]], atol=1e-6)


def test_probability_is_the_sigmoid_of_the_logit() -> None:
    retriever = Retriever(vocabulary_encoder(), opposing_adapter(lambda_=3.0)).index(["copy file", "copy"])
    for rerank in (False, True):
        hits = retriever.search("copy file", rerank=rerank, probabilities=True)[0]
        found = {hit["corpus_id"]: hit["probability"] for hit in hits}
        assert found == pytest.approx({"0": 1 / (1 + np.exp(1)), "1": 1 / (1 + np.exp(0.5**0.5))})


def test_hits_below_the_depth_have_a_probability_too(retriever: Retriever) -> None:
    deep = {hit["corpus_id"]: hit["probability"] for hit in retriever.search("sort", probabilities=True)[0]}
    hits = retriever.search("sort", top_k=6, depth=2, probabilities=True)[0]
    assert len(hits) == 6
    # The residual reader reads each document by itself.
    assert {hit["corpus_id"]: hit["probability"] for hit in hits} == pytest.approx(deep, abs=1e-6)


@pytest.mark.parametrize("scoring", ["log_odds", "product"])
def test_lambda_of_zero_keeps_the_ranking(tiny_bert: Path, scoring: str) -> None:
    corpus = TEXTS + TEXTS[::-1]  # with ties
    model = make_model(tiny_bert)
    model.adapter.reader.scoring = scoring
    retriever = Retriever(model).index(corpus)
    for found, expected in zip(
        retriever.search(QUERIES, top_k=12), retriever.search(QUERIES, top_k=12, rerank=False), strict=True
    ):
        assert ids(found) == ids(expected)


def test_untrained_adapter_changes_no_ranking(tiny_bert: Path, encoder: SentenceTransformer) -> None:
    model = RRRAModel.from_encoder(tiny_bert, adapter={"reader": RESIDUAL, "lambda_": 1.0})
    expected = Retriever(encoder, adapter=None).index(CORPUS).search(QUERIES)
    for retriever in (Retriever(model), Retriever(encoder, model.adapter)):
        assert [ids(h) for h in retriever.index(CORPUS).search(QUERIES)] == [ids(h) for h in expected]


def test_trained_adapter_changes_the_ranking(retriever: Retriever) -> None:
    found, plain = retriever.search(QUERIES), retriever.search(QUERIES, rerank=False)
    assert [ids(hits) for hits in found] != [ids(hits) for hits in plain]
    assert all(scores(hits) == sorted(scores(hits), reverse=True) for hits in found)


def test_search_of_embeddings_equals_search_of_their_queries(retriever: Retriever) -> None:
    embeddings = encode(retriever.encoder, QUERIES, task="query")
    for options in ({}, {"rerank": False}, {"top_k": 2, "depth": 3, "probabilities": True}):
        assert_alike(retriever.search_embeddings(embeddings, **options), retriever.search(QUERIES, **options))


def test_maps_are_applied_once(tiny_bert: Path, encoder: SentenceTransformer, tmp_path: Path) -> None:
    model = RRRAModel.from_encoder(
        tiny_bert, adapter={"reader": RESIDUAL, "query_map": True, "document_map": True}
    )
    adapter = make_adapter(query_map=True, document_map=True, lambda_=0.5)
    model.adapter.load_state_dict(adapter.state_dict())
    model.adapter.config.lambda_ = 0.5
    given = Retriever(encoder, adapter).index(CORPUS)
    queries = adapter.map_queries(encode(encoder, QUERIES, task="query"))
    documents = adapter.map_documents(encode(encoder, TEXTS, task="document"))
    hits = given.search(QUERIES, rerank=False)
    expected = -np.sort(-(queries @ documents.T), axis=1)
    assert_allclose([scores(h) for h in hits], expected, atol=1e-5)

    own = Retriever(model).index(CORPUS)
    own.save_pretrained(tmp_path / "own")
    given.save_pretrained(tmp_path / "given")
    loaded = [Retriever.from_pretrained(tmp_path / name, device="cpu") for name in ("own", "given")]
    for retriever in (own, *loaded):
        for rerank in (False, True):
            found, wanted = retriever.search(QUERIES, rerank=rerank), given.search(QUERIES, rerank=rerank)
            assert [ids(h) for h in found] == [ids(h) for h in wanted]
            assert_allclose([scores(h) for h in found], [scores(h) for h in wanted], atol=1e-4)


# -------------------------------------------------------------------- ranking


def test_rank_is_a_search_over_the_documents_given(retriever: Retriever) -> None:
    for query in QUERIES:
        hits = retriever.search(query, top_k=len(CORPUS))[0]
        ranked = retriever.rank(query, TEXTS, return_documents=True)
        assert [list(CORPUS)[document["corpus_id"]] for document in ranked] == ids(hits)
        assert_allclose(scores(ranked), scores(hits), atol=1e-4)
        assert [document["text"] for document in ranked] == [TEXTS[d["corpus_id"]] for d in ranked]
        assert [list(document) for document in ranked] == [["corpus_id", "score", "text"]] * len(TEXTS)


def test_rank_needs_no_index_and_cuts_at_top_k(tiny_bert: Path, encoder: SentenceTransformer) -> None:
    retriever = Retriever(encoder)
    ranked = retriever.rank(QUERIES[0], TEXTS)
    assert_alike(retriever.rank(QUERIES[0], TEXTS, top_k=2), ranked[:2])
    assert_alike(retriever.rank(QUERIES[0], TEXTS, top_k=100), ranked)
    assert retriever.rank(QUERIES[0], ["find files"])[0]["corpus_id"] == 0
    assert retriever.rank(QUERIES[0], []) == []
    assert list(ranked[0]) == ["corpus_id", "score"]
    assert scores(ranked) == sorted(scores(ranked), reverse=True)
