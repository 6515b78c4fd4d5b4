"""A retriever with an adapter that reads features, from its words to its folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import BoW

from feature_task import PRESET, QUERIES, as_tuples, keep_everything, make_it_matter, shorten
from forgery import forge
from rrra_hf import AdapterConfig, Retriever, RetrieverAdapter, RRRAModel
from rrra_hf.candidates import DocumentFeatures, add_words, judge_candidates
from rrra_hf.data import Collection
from rrra_hf.embeddings import embed_collection, encode
from rrra_hf.fitting import fit_adapter
from rrra_hf.indexes import WordIndex
from rrra_hf.retrieval import evaluate, evaluate_embeddings


@pytest.fixture(scope="module")
def plain(tiny_bert: Path, feature_collection: Collection) -> Retriever:
    """A plain encoder with an adapter that was fitted on its embeddings."""
    encoder = SentenceTransformer(str(tiny_bert), device="cpu")
    part = feature_collection.split("train")
    embedded = embed_collection(part, encoder)
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        keep_everything(patch)
        words = WordIndex.of(part.document_texts)
        adapter = fit_adapter(
            embedded.queries,
            embedded.documents,
            part.positive_rows,
            arguments=replace(PRESET, depth=20),
            query_words=words.count(part.query_texts),
            document_words=words,
        )
    return Retriever(encoder, make_it_matter(adapter)).index(feature_collection)


@pytest.fixture(params=["model", "plain"])
def retriever(
    request: pytest.FixtureRequest, feature_model: RRRAModel, plain: Retriever, feature_collection: Collection
) -> Retriever:
    return plain if request.param == "plain" else Retriever(feature_model).index(feature_collection)


def test_hits_are_scored_and_judged_as_the_adapter_does_by_itself(
    retriever: Retriever, tiny_bert: Path, feature_collection: Collection
) -> None:
    adapter, encoder = retriever.adapter, SentenceTransformer(str(tiny_bert), device="cpu")
    hits = retriever.search(QUERIES, top_k=30, probabilities=True)
    queries = encode(encoder, QUERIES, task="query")
    documents = encode(encoder, feature_collection.document_texts, task="document")
    mapped = adapter.map_queries(queries), adapter.map_documents(documents)
    by_cosine = np.argsort(-(mapped[0] @ mapped[1].T), axis=1, kind="stable")
    words = WordIndex.of(feature_collection.document_texts)
    counts = words.count(QUERIES)
    # Documents with equal BM25 scores rank in the order of the candidates.
    candidates = add_words(by_cosine, words, counts, depth=30)
    known = DocumentFeatures.of(adapter.reader, [mapped[1]], words)
    of_candidates = known.of_candidates(adapter.reader, torch.from_numpy(mapped[0]), counts, candidates)
    scores = adapter.rerank(mapped[0], mapped[1][candidates], features=of_candidates)
    expected = [
        {feature_collection.document_ids[row]: score for row, score in zip(*pair, strict=True)}
        for pair in zip(candidates, scores, strict=True)
    ]
    probability = judge_candidates(adapter, queries, candidates, documents, counts, words).probability
    judged = [
        {feature_collection.document_ids[row]: p for row, p in zip(*pair, strict=True)}
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
    assert ids[1] == [[feature_collection.document_ids[row] for row in rows] for rows in by_cosine]


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
    monkeypatch.setattr("rrra_hf.retrieval.corpus_index.BLOCK_SIZE", 2)
    monkeypatch.setattr("rrra_hf.candidates.reading.PAIRS_PER_BLOCK", 7)
    in_blocks = retriever.search(QUERIES, probabilities=True)
    for one, other in zip(as_tuples(together), as_tuples(in_blocks), strict=True):
        assert [hit[0] for hit in one] == [hit[0] for hit in other]
        assert_allclose([hit[1:] for hit in one], [hit[1:] for hit in other], rtol=1e-3, atol=1e-4)
    named = retriever.search({"q": QUERIES[1]})
    assert [hit["corpus_id"] for hit in named["q"]] == [hit["corpus_id"] for hit in together[1]]


def test_ranking_needs_no_index_and_agrees_with_searching(
    retriever: Retriever, feature_collection: Collection
) -> None:
    ranked = Retriever(retriever.encoder, retriever._adapter or "pretrained").rank(
        QUERIES[0], feature_collection.document_texts
    )
    searched = retriever.search(QUERIES[0], top_k=30)[0]
    assert [feature_collection.document_ids[hit["corpus_id"]] for hit in ranked] == [
        hit["corpus_id"] for hit in searched
    ]
    assert_allclose([hit["score"] for hit in ranked], [hit["score"] for hit in searched], rtol=1e-4)
    assert len(retriever.rank(QUERIES[0], ["find files"])) == 1


def test_documents_may_be_encoded_before_they_are_ranked(
    retriever: Retriever, feature_collection: Collection
) -> None:
    texts = feature_collection.document_texts
    embeddings = encode(retriever.encoder, texts, task="document")
    ranked = retriever.rank(QUERIES[0], texts, document_embeddings=embeddings)
    assert ranked == retriever.rank(QUERIES[0], texts)


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


def test_words_are_read_if_the_texts_are_given(retriever: Retriever) -> None:
    embeddings = encode(retriever.encoder, QUERIES, task="query")
    without = retriever.search_embeddings(embeddings)
    assert [len(hits) for hits in without] == [10] * 3
    assert without != retriever.search_embeddings(embeddings, query_texts=QUERIES)
    with pytest.raises(ValueError, match="query_texts must be of the 3 queries, got 2 texts"):
        retriever.search_embeddings(embeddings, query_texts=QUERIES[:2])
    found = retriever.search_embeddings(embeddings, query_texts=QUERIES)
    assert [[hit["corpus_id"] for hit in hits] for hits in found] == [
        [hit["corpus_id"] for hit in hits] for hits in retriever.search(QUERIES)
    ]
    assert len(retriever.search_embeddings(embeddings, rerank=False)) == 3


def test_evaluation_and_measuring_agree(
    retriever: Retriever, tiny_bert: Path, feature_collection: Collection
) -> None:
    part = feature_collection.split("test")
    evaluated = evaluate(retriever, part, ["nDCG@10", "R@1"], depth=20)
    assert set(evaluated.quality) == {"maps", "adapter"}
    assert set(evaluated.milliseconds) == {"encode", "search", "rerank"}
    encoder = SentenceTransformer(str(tiny_bert), device="cpu")
    words = WordIndex.of(part.document_texts)
    measured = evaluate_embeddings(
        part,
        embed_collection(part, encoder),
        retriever.adapter,
        depth=20,
        query_words=words.count(part.query_texts),
        document_words=words,
    )
    assert list(measured) == ["encoder", "maps", "adapter"]
    for system in ("maps", "adapter"):
        for name, values in evaluated.quality[system].per_query.items():
            assert_allclose(values, measured[system].per_query[name], atol=1e-6)


def spoil_features(folder: Path, how: str, retriever: Retriever) -> None:
    path = folder / "index/features.safetensors"
    forge(folder / "index/meta.json")
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
        ("of another index", r"features\.safetensors holds features of 2 documents, not 30; index the"),
    ],
)
def test_features_that_are_not_the_indexs_are_named(
    plain: Retriever, tmp_path: Path, how: str, match: str
) -> None:
    plain.save_pretrained(tmp_path / "r")
    spoil_features(tmp_path / "r", how, plain)
    with pytest.raises(ValueError, match=match):
        Retriever.from_pretrained(tmp_path / "r", device="cpu")


def test_features_of_another_memory_are_computed_anew(
    plain: Retriever, feature_collection: Collection, tmp_path: Path
) -> None:
    plain.save_pretrained(tmp_path / "r")
    adapter = RetrieverAdapter.from_pretrained(tmp_path / "r/adapter")
    adapter.reader.memory.queries.neg_()
    adapter.save_pretrained(tmp_path / "r/adapter")
    loaded = Retriever.from_pretrained(tmp_path / "r", device="cpu")
    expected = Retriever(plain.encoder, adapter).index(feature_collection)
    before, statics, after = (r.corpus_index.features.statics for r in (plain, loaded, expected))
    assert_allclose(statics, after, atol=1e-6)
    assert abs(statics - before).max() > 1e-3
    given = Retriever.from_pretrained(tmp_path / "r", adapter=plain.adapter, device="cpu")
    assert_allclose(given.corpus_index.features.statics, before, atol=1e-6)
    changed = Retriever(plain.encoder, adapter)
    changed._corpus = plain.corpus_index
    with pytest.raises(ValueError, match="changed after the corpus was indexed"):
        changed.save_pretrained(tmp_path / "new")


def test_an_encoder_without_tokenizer_cannot_serve_an_adapter_that_reads_word_pieces() -> None:
    encoder = SentenceTransformer(modules=[BoW(vocab=["copy", "file", "sort", "list"])], device="cpu")
    sizes = {"kind": "features_v2", "queries": 1, "documents": 1, "pairs": 1}
    reads_words = AdapterConfig(
        embedding_dim=4, lambda_=0.5, reader={**sizes, "names": ["mapped", "words"], "vocabulary": 4}
    )
    with pytest.raises(ValueError, match="the encoder has no tokenizer of transformers"):
        Retriever(encoder, RetrieverAdapter(reads_words)).index(["copy a file"])
    wordless = AdapterConfig(embedding_dim=4, reader={**sizes, "names": ["mapped", "hubness"]})
    retriever = Retriever(encoder, RetrieverAdapter(wordless)).index(["copy a file", "sort a list"])
    embeddings = encode(encoder, ["sort"], task="query")
    assert retriever.search_embeddings(embeddings)[0][0]["corpus_id"] == "1"
