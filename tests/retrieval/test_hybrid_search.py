"""Documents are found by words too, and reranked by the adapter that comes trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from mmap import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from sentence_transformers import SentenceTransformer

from retriever_models import CORPUS
from retrievers import QUERIES, TEXTS, ids, make_collection, make_model, scores, vocabulary_encoder
from rrra_hf import RetrieverAdapter, RRRAModel
from rrra_hf.candidates import DEPTH
from rrra_hf.embeddings import encode
from rrra_hf.retrieval import Hit, Retriever, evaluate
from rrra_hf.retrieval.fingerprints import embeddings_fingerprint

# Of these documents, the encoder knows the words copy, file, sort and list only.
MANY = {f"cp{i}": f"copy file number{i}" for i in range(20)} | {"tar": "sort an archive"}


@pytest.fixture(scope="module")
def hybrid() -> Retriever:
    return Retriever(vocabulary_encoder()).index(MANY)


# -------------------------------------------------------------------- the adapter


def test_any_encoder_gets_the_adapter_that_comes_trained(encoder: SentenceTransformer) -> None:
    adapter = Retriever(encoder).adapter
    expected = RetrieverAdapter.pretrained(32)
    assert adapter.config == expected.config
    for name, weight in expected.state_dict().items():
        assert (adapter.state_dict()[name] == weight).all()
    assert adapter.reads_words
    assert Retriever(encoder, adapter=None).adapter is None


def test_a_model_brings_its_own_adapter_or_none(tiny_bert: Path) -> None:
    model = make_model(tiny_bert, lambda_=0.5)
    assert Retriever(model).adapter is model.adapter
    plain = Retriever(model, adapter=None).index(CORPUS)
    assert plain.adapter is None
    expected = Retriever(model).index(CORPUS).search(QUERIES, rerank=False)
    assert plain.search(QUERIES) == expected


def test_probabilities_and_scores_of_the_trained_adapter(hybrid: Retriever) -> None:
    (hits,) = hybrid.search("sort an archive", probabilities=True)
    assert hits[0]["corpus_id"] == "tar"
    assert scores(hits) == sorted(scores(hits), reverse=True)
    assert all(0 <= hit["probability"] <= 1 for hit in hits)
    assert hits[0]["probability"] == max(hit["probability"] for hit in hits)


# -------------------------------------------------------------------- searching by words


def test_a_document_that_only_its_words_find_is_found(hybrid: Retriever) -> None:
    query = "copy file archive"
    assert "tar" not in ids(hybrid.search(query, depth=5, mode="dense")[0])
    for found in (hybrid.search(query, depth=5), hybrid.search(query, depth=5, mode="hybrid")):
        assert "tar" in ids(found[0])[:5]


def test_below_the_candidates_follow_the_others_by_cosine(hybrid: Retriever) -> None:
    (hits,) = hybrid.search("copy file archive", top_k=15, depth=5)
    (dense,) = hybrid.search("copy file archive", top_k=15, mode="dense", rerank=False)
    assert len(set(ids(hits))) == 15
    rest = [hit for hit in dense if hit["corpus_id"] not in ids(hits)[:5]]
    assert hits[5:] == rest[:10]


def test_hits_do_not_depend_on_other_queries_or_on_top_k(hybrid: Retriever) -> None:
    queries = ["copy file archive", "sort number3", "unheard", "list"]
    together = hybrid.search(queries, top_k=21, probabilities=True)
    for query, expected in zip(queries, together, strict=True):
        (alone,) = hybrid.search(query, top_k=4, probabilities=True)
        assert ids(alone) == ids(expected)[:4]
        assert_allclose(scores(alone), scores(expected)[:4], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", [None, "hybrid", "dense"])
def test_a_document_has_one_probability(hybrid: Retriever, mode: str | None) -> None:
    queries, options = ["copy file archive", "unheard"], {"mode": mode, "depth": 6, "probabilities": True}

    def judged(hits: list[Hit]) -> dict[str, float]:
        return {hit["corpus_id"]: hit["probability"] for hit in hits}

    reranked, plain, many = (
        [judged(hits) for hits in hybrid.search(queries, **settings, **options)]
        for settings in ({"top_k": 6}, {"top_k": 6, "rerank": False}, {"top_k": 21})
    )
    for first, second, all_hits in zip(reranked, plain, many, strict=True):
        assert first.keys() & second.keys() and first.keys() < all_hits.keys()
        for document in first:
            assert all_hits[document] == first[document]
            assert second.get(document, first[document]) == first[document]


@pytest.mark.parametrize("query", ["unheard of", "the", "copy file"])
def test_queries_without_known_words_search_by_embeddings(query: str, tiny_bert: Path) -> None:
    encoder = SentenceTransformer(str(tiny_bert), device="cpu")
    retriever = Retriever(encoder).index(["sort a text", "old folder", "list lines"], language="english")
    assert not retriever.corpus_index.words.count([query]).nnz
    assert_allclose(
        scores(retriever.search(query)[0]), scores(retriever.search(query, mode="dense")[0]), atol=1e-6
    )
    for rerank in (True, False):
        hybrid, dense = (retriever.search(query, rerank=rerank, mode=mode)[0] for mode in ("hybrid", "dense"))
        assert ids(hybrid) == ids(dense)


def test_few_documents_are_all_found(encoder: SentenceTransformer) -> None:
    retriever = Retriever(encoder).index(TEXTS[:3])
    for options in ({}, {"mode": "dense"}, {"mode": "hybrid", "rerank": False}, {"depth": 1}):
        found = retriever.search(["copy files", "unheard of"], top_k=DEPTH, probabilities=True, **options)
        for hits in found:
            assert sorted(ids(hits)) == ["0", "1", "2"]
            assert np.isfinite(scores(hits)).all()


def test_reciprocal_rank_fusion_by_hand() -> None:
    corpus = {"a": "copy file", "b": "copy archive", "c": "copy sort list", "d": "old archive archive"}
    retriever = Retriever(vocabulary_encoder(), adapter=None).index(corpus, language="none")
    query = "copy file archive"
    assert ids(retriever.search(query)[0]) == ["a", "b", "c", "d"]  # by cosine: 1, .71, .41, 0
    counts = retriever.corpus_index.words.count([query])
    _, by_words = retriever.corpus_index.words.search(counts, 4)
    assert by_words[0].tolist() == [0, 1, 3, 2]
    expected = {"a": 1 / 61 + 1 / 61, "b": 1 / 62 + 1 / 62, "c": 1 / 63 + 1 / 64, "d": 1 / 64 + 1 / 63}
    (hits,) = retriever.search(query, mode="hybrid")
    # Of equal scores, the first by cosine is first.
    assert ids(hits) == ["a", "b", "c", "d"]
    assert_allclose(scores(hits), [expected[name] for name in ids(hits)], rtol=1e-6)
    assert retriever.search(query, top_k=2, mode="hybrid")[0] == hits[:2]


def test_fusion_has_documents_that_one_search_alone_finds(hybrid: Retriever) -> None:
    (hits,) = hybrid.search("copy file archive", top_k=5, depth=5, rerank=False, mode="hybrid")
    # The first by words is the only one that is not in both.
    assert ids(hits) == ["cp0", "cp1", "cp2", "cp3", "tar"]
    assert_allclose(hits[4]["score"], 1 / 61, rtol=1e-6)


def test_embeddings_are_searched_by_words_if_the_texts_are_given(hybrid: Retriever) -> None:
    query = "copy file archive"
    embeddings = encode(hybrid.encoder, [query], task="query")
    assert hybrid.search_embeddings(embeddings, depth=5, query_texts=[query]) == hybrid.search(query, depth=5)
    assert "tar" not in ids(hybrid.search_embeddings(embeddings, depth=5)[0])
    with pytest.raises(ValueError, match="mode must be 'dense' or None without query_texts, got 'hybrid'"):
        hybrid.search_embeddings(embeddings, mode="hybrid")


def test_other_modes_are_refused(hybrid: Retriever) -> None:
    for call in (hybrid.search, lambda query, mode: hybrid.search_embeddings(np.ones((1, 4)), mode=mode)):
        with pytest.raises(ValueError, match="mode must be one of hybrid, dense or None, got 'sparse'"):
            call("copy", mode="sparse")


def test_language_of_the_words(encoder: SentenceTransformer) -> None:
    texts = {"one": "the horses", "two": "a file"}
    english = Retriever(encoder).index(texts, language="english").corpus_index.words
    assert english.language == "english"
    assert english.count(["horse", "the"]).sum(axis=1).tolist() == [1, 0]
    plain = Retriever(encoder).index(texts, language="none").corpus_index.words
    assert plain.count(["horse", "the"]).sum(axis=1).tolist() == [0, 1]
    with pytest.raises(ValueError, match=r"language must be one of auto, .*; got 'klingon'"):
        Retriever(encoder).index(texts, language="klingon")


# -------------------------------------------------------------------- ranking and measuring


def test_rank_reads_the_words_of_the_documents(hybrid: Retriever) -> None:
    # The encoder knows none of the words that tell these apart.
    documents = ["copy whale", "copy herring", "copy pike"]
    found = hybrid.rank("copy herring", documents)
    assert found[0]["corpus_id"] == 1 and found[0]["score"] > found[1]["score"]
    plain = Retriever(hybrid.encoder, adapter=None).rank("copy herring", documents)
    assert len(set(scores(plain))) == 1


@pytest.mark.parametrize("kind", [tuple, np.array, lambda texts: pd.Series(texts, index=[7, 3, 5])])
def test_rank_takes_any_sequence_of_texts(hybrid: Retriever, kind: Callable[[list[str]], Any]) -> None:
    documents = ["copy whale", "copy herring", "copy pike"]
    found = hybrid.rank("copy herring", kind(documents), return_documents=True)
    assert found == hybrid.rank("copy herring", documents, return_documents=True)
    assert found[0]["text"] == "copy herring"
    assert hybrid.rank("copy herring", kind(documents)[:0]) == []


def test_rank_and_search_agree(hybrid: Retriever) -> None:
    for query in ("copy file archive", "sort number3"):
        ranked = hybrid.rank(query, list(MANY.values()), probabilities=True)
        (hits,) = hybrid.search(query, top_k=len(MANY), probabilities=True)
        assert [list(MANY)[document["corpus_id"]] for document in ranked] == ids(hits)
        assert_allclose(scores(ranked), scores(hits), rtol=1e-5)
        expected = [hit["probability"] for hit in hits]
        assert_allclose([document["probability"] for document in ranked], expected, rtol=1e-5)


def test_evaluation_reranks_the_hybrid_candidates() -> None:
    corpus = {"id": list(MANY), "title": [""] * len(MANY), "text": list(MANY.values())}
    collection = make_collection()
    collection = make_collection(
        corpus=type(collection.corpus).from_dict(corpus),
        queries=type(collection.queries).from_dict({"id": ["q"], "text": ["copy file archive"]}),
        qrels_by_split={"test": {"q": {"tar": 1}}},
    )
    retriever = Retriever(vocabulary_encoder()).index(collection)
    quality, milliseconds = evaluate(retriever, collection, ["R@5"], depth=5)
    assert {name: system.mean["R@5"] for name, system in quality.items()} == {"encoder": 0.0, "adapter": 1.0}
    assert set(milliseconds) == {"encode", "search", "rerank"}


# -------------------------------------------------------------------- saving


def is_memory_mapped(array: np.ndarray) -> bool:
    while isinstance(array, np.ndarray):
        array = array.base
    return isinstance(array, mmap)


def test_words_are_saved_and_mapped_and_find_the_same(tiny_bert: Path, tmp_path: Path) -> None:
    retriever = Retriever(SentenceTransformer(str(tiny_bert), device="cpu")).index(CORPUS)
    retriever.save_pretrained(tmp_path / "r")
    assert json.loads((tmp_path / "r/index/meta.json").read_text())["format_version"] == 4
    assert not (tmp_path / "r/index/features.safetensors").exists()
    loaded = Retriever.from_pretrained(tmp_path / "r", device="cpu")
    words = loaded.corpus_index.words
    for array in (words.documents.data, words.lengths, words._postings.weights):
        assert is_memory_mapped(array)
    for options in ({}, {"mode": "dense"}, {"mode": "hybrid", "rerank": False}):
        options = {"probabilities": True, **options}
        assert loaded.search(QUERIES, **options) == retriever.search(QUERIES, **options)
    loaded.save_pretrained(tmp_path / "r")  # over the files that it has mapped
    again = Retriever.from_pretrained(tmp_path / "r", device="cpu")
    assert again.search(QUERIES) == retriever.search(QUERIES)
    shutil.rmtree(tmp_path / "r/index/words")
    with pytest.raises(ValueError, match=r"words\.json is missing or damaged"):
        Retriever.from_pretrained(tmp_path / "r", device="cpu")


def test_words_of_another_index_are_refused(encoder: SentenceTransformer, tmp_path: Path) -> None:
    Retriever(encoder).index(CORPUS).save_pretrained(tmp_path / "r")
    Retriever(encoder).index(TEXTS[:2]).corpus_index.words.save(tmp_path / "r/index/words")
    with pytest.raises(ValueError, match="words holds words of 2 documents, not 6; index the corpus again"):
        Retriever.from_pretrained(tmp_path / "r", device="cpu")


def test_a_retriever_without_adapter_stays_so(tiny_bert: Path, tmp_path: Path) -> None:
    for encoder in (SentenceTransformer(str(tiny_bert), device="cpu"), make_model(tiny_bert, lambda_=0.5)):
        retriever = Retriever(encoder, adapter=None).index(CORPUS)
        retriever.save_pretrained(tmp_path / "r")
        loaded = Retriever.from_pretrained(tmp_path / "r", device="cpu")
        assert loaded.adapter is None
        assert loaded.search(QUERIES) == retriever.search(QUERIES)
        found = loaded.search(QUERIES, mode="hybrid")
        assert found == retriever.search(QUERIES, mode="hybrid")


def test_an_adapter_can_be_given_to_a_saved_index(encoder: SentenceTransformer, tmp_path: Path) -> None:
    Retriever(encoder, adapter=None).index(CORPUS).save_pretrained(tmp_path / "r")
    given = Retriever.from_pretrained(tmp_path / "r", adapter=RetrieverAdapter.pretrained(), device="cpu")
    assert given.search(QUERIES) == Retriever(encoder).index(CORPUS).search(QUERIES)
    given.save_pretrained(tmp_path / "r")
    assert Retriever.from_pretrained(tmp_path / "r", device="cpu").search(QUERIES) == given.search(QUERIES)
    off = Retriever.from_pretrained(tmp_path / "r", adapter=None, device="cpu")
    assert off.search(QUERIES) == Retriever(encoder, adapter=None).index(CORPUS).search(QUERIES)


def as_version_3(folder: Path, encoder: SentenceTransformer) -> None:
    """Make an index that holds no features one of format version 3."""
    path = folder / "index/meta.json"
    meta = json.loads(path.read_text())
    kept = {name: meta[name] for name in ("documents", "dim", "corpus")}
    fingerprint = embeddings_fingerprint(encoder, None)
    path.write_text(json.dumps({"format_version": 3, **kept, "encoder": fingerprint, "features": False}))
    shutil.rmtree(folder / "index/words")


def test_an_index_of_version_3_opens_without_words(encoder: SentenceTransformer, tmp_path: Path) -> None:
    plain = Retriever(encoder, adapter=None).index(CORPUS)
    plain.save_pretrained(tmp_path / "r")
    as_version_3(tmp_path / "r", encoder)
    loaded = Retriever.from_pretrained(tmp_path / "r", device="cpu")
    assert loaded.adapter is None and loaded.corpus_index.words is None
    assert loaded.search(QUERIES) == plain.search(QUERIES)
    with pytest.raises(ValueError, match="mode must be 'dense' or None, got 'hybrid': index or adapter"):
        loaded.search(QUERIES, mode="hybrid")
    given = Retriever.from_pretrained(tmp_path / "r", adapter=RetrieverAdapter.pretrained(), device="cpu")
    assert not given.is_hybrid()
    given.save_pretrained(tmp_path / "r")
    again = Retriever.from_pretrained(tmp_path / "r", device="cpu")
    assert again.search(QUERIES) == given.search(QUERIES)


def test_a_model_made_from_an_encoder_searches_as_the_encoder_does(tiny_bert: Path) -> None:
    model = Retriever(RRRAModel.from_encoder(tiny_bert)).index(CORPUS)
    encoder = Retriever(SentenceTransformer(str(tiny_bert), device="cpu")).index(CORPUS)
    for one, other in zip(model.search(QUERIES), encoder.search(QUERIES), strict=True):
        assert ids(one) == ids(other)
        assert_allclose(scores(one), scores(other), rtol=1e-4, atol=1e-4)
