"""A corpus in Milvus is searched as one in this process, and changes as it does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from rrra_hf import Retriever, RRRAModel
from rrra_hf.data import Collection
from rrra_hf.data.python_docs import python_docs
from rrra_hf.embeddings import encode
from rrra_hf.retrieval import evaluate, milvus_corpus
from tiny import static_encoder

pytest.importorskip("pymilvus")

SEARCHES: list[dict[str, Any]] = [
    {"probabilities": True},
    {"mode": "dense", "probabilities": True},
    {"mode": "hybrid", "rerank": False},
    {"rerank": False},
    {"filter": {"size": {"$gte": 2}}, "probabilities": True, "return_documents": True},
    {"filter": {"$or": [{"module": "linalg"}, {"size": {"$lt": 1}}]}, "top_k": 200, "depth": 60},
    {"top_k": 40, "depth": 10, "probabilities": True},
]


def documents_of(collection: Collection) -> dict[str, dict[str, Any]]:
    return {
        row["id"]: {
            "title": row["title"],
            "text": row["text"],
            "metadata": {"size": len(row["text"]) // 200, "module": row["id"].split(".")[-2]},
        }
        for row in collection.corpus
    }


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    return python_docs(["numpy"], 300, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def encoder(collection: Collection) -> SentenceTransformer:
    return static_encoder(" ".join(collection.document_texts).lower().split())


@pytest.fixture(scope="module")
def documents(collection: Collection) -> dict[str, dict[str, Any]]:
    return documents_of(collection)


@pytest.fixture(scope="module")
def queries(collection: Collection) -> list[str]:
    return [*collection.query_texts[:40], "qqqq wwww"]


def in_milvus(folder: Path, encoder: SentenceTransformer, documents: Any, **options: Any) -> Retriever:
    options = {"index_type": "FLAT", "language": "english", **options}
    return Retriever(encoder).index(documents, kind="milvus", uri=folder / "documents.db", **options)


@pytest.fixture(scope="module")
def stored(
    encoder: SentenceTransformer, documents: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Retriever]:
    retriever = in_milvus(tmp_path_factory.mktemp("milvus"), encoder, documents)
    yield retriever
    retriever.corpus.stored.close()


def assert_same(found: Any, expected: Any, tolerance: float = 1e-4) -> None:
    """Ids are equal but for documents of equal scores, and so are scores and documents."""
    for some, others in zip(found, expected, strict=True):
        assert len(some) == len(others)
        scores = np.array([hit["score"] for hit in others])
        np.testing.assert_allclose([hit["score"] for hit in some], scores, rtol=1e-5, atol=tolerance)
        by_id = {hit["corpus_id"]: hit for hit in some}
        for hit in others:
            tied = (np.abs(scores - hit["score"]) < tolerance).sum() > 1
            if hit["corpus_id"] not in by_id:
                assert tied
                continue
            other = by_id[hit["corpus_id"]]
            assert other["score"] == pytest.approx(hit["score"], rel=1e-5, abs=tolerance)
            assert other.get("probability") == pytest.approx(hit.get("probability"), abs=tolerance)
            assert [other.get(name) for name in ("title", "text", "metadata")] == [
                hit.get(name) for name in ("title", "text", "metadata")
            ]


def test_hits_are_those_of_a_flat_index(
    encoder: SentenceTransformer, stored: Retriever, documents: Any, queries: list[str]
) -> None:
    flat = Retriever(encoder).index(documents, kind="flat", language="english")
    for options in SEARCHES:
        assert_same(stored.search(queries, **options), flat.search(queries, **options))
    name = next(iter(documents))
    assert stored.document(name) == flat.document(name)
    embeddings = encode(encoder, queries, task="query")
    assert_same(stored.search_embeddings(embeddings), flat.search_embeddings(embeddings))
    assert stored.search(queries, filter={"size": -1}) == [[] for _ in queries]
    assert stored.rank("copy a file", ["copies files", "sorts lists"]) == flat.rank(
        "copy a file", ["copies files", "sorts lists"]
    )


def test_the_quality_is_that_of_a_flat_index(
    encoder: SentenceTransformer, stored: Retriever, documents: Any, collection: Collection
) -> None:
    flat = Retriever(encoder).index(documents, kind="flat", language="english")
    found, expected = (evaluate(each, collection, ["nDCG@10", "R@100"]).quality for each in (stored, flat))
    assert list(found) == list(expected) == ["encoder", "adapter"]
    for system, quality in expected.items():
        assert found[system].mean == pytest.approx(quality.mean, abs=1e-3)
    fewer = {name: text for name, text in documents.items() if name != next(iter(documents))}
    with pytest.raises(ValueError, match="of another corpus"):
        evaluate(Retriever(encoder).index(fewer), collection)
    others = replace(collection, corpus=collection.corpus.select(range(5)))
    with pytest.raises(ValueError, match="of another corpus"):
        evaluate(stored, others)


def test_nothing_of_the_documents_is_in_this_process(stored: Retriever) -> None:
    kept = vars(stored.corpus)
    assert set(kept) == {"stored", "statistics", "encoder", "memory", "adapter"}
    words = len(stored.corpus.statistics.dimensions)
    assert len(stored.corpus.statistics.frequencies) == words
    with pytest.raises(ValueError, match="The documents are in Milvus"):
        _ = stored.documents
    with pytest.raises(KeyError, match="No document 'unknown'"):
        stored.document("unknown")


def test_few_queries_are_searched_at_a_time(
    stored: Retriever, queries: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    together = stored.search(queries, probabilities=True)
    monkeypatch.setattr(milvus_corpus, "QUERIES", 7)
    assert_same(stored.search(queries, probabilities=True), together)


def test_changes_are_those_of_a_flat_index(
    encoder: SentenceTransformer, documents: Any, queries: list[str], tmp_path: Path
) -> None:
    names = list(documents)
    first = {name: documents[name] for name in names[:150]}
    later = {name: documents[name] for name in names[150:250]}
    changed = {name: documents[names[-1 - place]] for place, name in enumerate(names[100:130])}
    flat = Retriever(encoder).index(first, kind="flat", language="english")
    stored = in_milvus(tmp_path, encoder, first)
    for retriever in (flat, stored):
        retriever.add(later).update(changed)
        assert retriever.delete([*names[:20], "unknown"]) == 20
        with pytest.raises(ValueError, match=f"2 are indexed, the first is '{names[30]}'"):
            retriever.add({name: documents[name] for name in (names[30], names[31], names[260])})
    assert len(stored.corpus) == len(flat.corpus) == 230
    # All that is found by words is read, so that it doesn't matter which documents are the last.
    for options in (SEARCHES[0], SEARCHES[1], SEARCHES[3]):
        assert_same(stored.search(queries, depth=230, **options), flat.search(queries, depth=230, **options))
    told = stored.corpus.statistics
    stored.corpus.recount()
    assert (told.documents, told.words) == (
        stored.corpus.statistics.documents,
        stored.corpus.statistics.words,
    )
    np.testing.assert_array_equal(told.dimensions, stored.corpus.statistics.dimensions)
    np.testing.assert_array_equal(told.frequencies, stored.corpus.statistics.frequencies)
    stored.corpus.stored.close()


def test_a_saved_retriever_connects_again(
    encoder: SentenceTransformer,
    documents: Any,
    queries: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stored = in_milvus(tmp_path, encoder, documents, token="secret")
    expected = stored.search(queries, probabilities=True)
    stored.save_pretrained(tmp_path / "retriever")
    files = sorted(path.name for path in (tmp_path / "retriever/index").rglob("*") if path.is_file())
    assert files == ["dimensions.npy", "frequencies.npy", "milvus.json", "words.json"]
    assert "secret" not in (tmp_path / "retriever/index/milvus.json").read_text()
    stored.corpus.stored.close()
    again = Retriever.from_pretrained(tmp_path / "retriever", device="cpu")
    assert_same(again.search(queries, probabilities=True), expected, 1e-6)
    again.delete(list(documents)[:10])
    frequencies = again.corpus.statistics.frequencies
    again.corpus.stored.close()
    # The folder wasn't saved again, and yet its statistics follow.
    third = Retriever.from_pretrained(tmp_path / "retriever", device="cpu")
    np.testing.assert_array_equal(third.corpus.statistics.frequencies, frequencies)
    # An index of another kind takes the place of this one in the folder.
    third.index(dict(list(documents.items())[:9])).save_pretrained(tmp_path / "retriever")
    assert not (tmp_path / "retriever/index/milvus.json").exists()
    assert Retriever.from_pretrained(tmp_path / "retriever", device="cpu").documents.num_rows == 9


def test_an_adapter_with_a_memory_reads_documents_in_milvus(
    feature_model: RRRAModel, feature_collection: Collection, tmp_path: Path
) -> None:
    model = feature_model
    flat = Retriever(model).index(feature_collection, kind="flat")
    stored = Retriever(model).index(
        feature_collection, kind="milvus", uri=tmp_path / "documents.db", index_type="FLAT"
    )
    queries = feature_collection.query_texts[:8]
    assert_same(stored.search(queries, probabilities=True), flat.search(queries, probabilities=True))
    stored.corpus.stored.close()


def test_damaged_and_missing_parts_are_named(
    encoder: SentenceTransformer, documents: Any, tmp_path: Path
) -> None:
    stored = in_milvus(tmp_path, encoder, dict(list(documents.items())[:5]))
    stored.save_pretrained(tmp_path / "retriever")
    stored.corpus.stored.close()
    meta = tmp_path / "retriever/index/milvus.json"
    content = json.loads(meta.read_text())
    for entries, message in (
        ({"dim": "32"}, "dim must be of type int"),
        ({"uri": str(tmp_path / "other.db")}, r"other\.db, which isn't there"),
        ({"uri": "documents"}, "uri must be a file ending in"),
        ({"encoder": "another"}, "was made by another model"),
    ):
        meta.write_text(json.dumps(content | entries))
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            Retriever.from_pretrained(tmp_path / "retriever", device="cpu")


def test_arguments_are_checked(
    encoder: SentenceTransformer, stored: Retriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="uri must be given with kind='milvus' only, got kind='flat'"):
        Retriever(encoder).index(["text"], kind="flat", uri="documents.db")
    with pytest.raises(ValueError, match=r"kind must be one of auto, flat, .*milvus, got 'other'"):
        Retriever(encoder).index(["text"], kind="other")
    with pytest.raises(ValueError, match="ids must have no control characters"):
        Retriever(encoder).index({"a\nb": "text"}, kind="milvus")
    with pytest.raises(ValueError, match="with_index must be False for documents in Milvus"):
        stored.push_to_hub("me/mine", with_index=True)
