"""Mining in an index finds what mining in the collection finds, wherever the documents are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from datasets import Dataset
from numpy.testing import assert_allclose, assert_array_equal
from sentence_transformers import SentenceTransformer

from rrra_hf import CandidatePool, Retriever, mine
from rrra_hf.candidates.indexed import with_documents
from rrra_hf.data import Collection
from rrra_hf.data.python_docs import python_docs
from rrra_hf.labels import Audit, audit
from rrra_hf.retrieval import milvus_corpus
from tiny import static_encoder

DEPTH = 12
# The last of documents with equal scores, by its row and by its id.
COPY = "~copy of a labelled document"


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """Return documents with queries, some of which are documents, or have a copy of a labelled document."""
    docs = python_docs(["numpy"], 250, tmp_path_factory.mktemp("cache"))
    rows = [dict(row) for row in docs.corpus]
    qrels = docs.qrels_by_split["train"]
    queries = [name for name in docs.query_ids if name in qrels]
    labelled = {row["id"]: row for row in rows}[next(iter(qrels[queries[0]]))]
    texts = dict(zip(docs.query_ids, docs.query_texts, strict=True))
    rows += [
        {**labelled, "id": COPY},
        {"id": queries[1], "title": "", "text": "something else"},
        {"id": "a query", "title": "", "text": f"  {texts[queries[2]].upper()}"},
    ]
    qrels[queries[3]] = {**qrels[queries[3]], rows[0]["id"]: 0, rows[1]["id"]: 1}
    return replace(
        docs, corpus=Dataset.from_list(rows, features=docs.corpus.features), qrels_by_split={"train": qrels}
    )


@pytest.fixture(scope="module")
def encoder(collection: Collection) -> SentenceTransformer:
    return static_encoder(" ".join([*collection.document_texts, *collection.query_texts]).lower().split())


@pytest.fixture(scope="module")
def mined(collection: Collection, encoder: SentenceTransformer) -> CandidatePool:
    return mine(collection, encoder, DEPTH)


@pytest.fixture(scope="module")
def flat(collection: Collection, encoder: SentenceTransformer) -> Retriever:
    return Retriever(encoder).index(collection, kind="flat")


@pytest.fixture(scope="module")
def stored(
    collection: Collection, encoder: SentenceTransformer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Retriever]:
    pytest.importorskip("pymilvus")
    uri = tmp_path_factory.mktemp("milvus") / "documents.db"
    retriever = Retriever(encoder).index(collection, kind="milvus", uri=uri, index_type="FLAT")
    yield retriever
    retriever.corpus.stored.close()


@pytest.fixture(params=["flat", "stored"])
def index(request: pytest.FixtureRequest) -> Retriever:
    return request.getfixturevalue(request.param)


def assert_same_candidates(found: CandidatePool, expected: CandidatePool) -> None:
    assert found.query_ids == expected.query_ids
    assert found.positive_ids == expected.positive_ids
    assert_allclose(found.scores, expected.scores, atol=1e-5)
    for query in range(len(found)):
        ours, theirs = (
            {
                name: (pool.probability[query, place], pool.ranking_scores[query, place])
                for place, name in enumerate(pool.candidate_ids[query])
            }
            for pool in (found, expected)
        )
        assert ours.keys() == theirs.keys()
        for name, values in theirs.items():
            assert_allclose(ours[name], values, rtol=1e-4, atol=1e-4, err_msg=name)


def test_candidates_are_those_of_the_collection(
    collection: Collection, mined: CandidatePool, index: Retriever, tmp_path: Path
) -> None:
    found = mine(collection, depth=DEPTH, index=index, folder=tmp_path / "pool")
    assert_same_candidates(found, mined)
    assert found.document_ids == mined.document_ids
    assert found.fingerprint == mined.fingerprint
    for rows, others in zip(found.negatives, mined.negatives, strict=True):
        assert_array_equal(rows, others)
    left_out = {
        (query, found.document_ids[row])
        for query, rows in zip(found.query_ids, found.excluded, strict=True)
        for row in rows
    }
    assert left_out >= {
        (found.query_ids[0], COPY),
        (found.query_ids[1], found.query_ids[1]),
        (found.query_ids[2], "a query"),
    }
    assert CandidatePool.load(tmp_path / "pool").candidate_ids == found.candidate_ids
    kept = mine(collection, depth=DEPTH, index=index, adapter=None, exclude_self=False)
    assert kept.probability is None
    assert "a query" in kept.candidate_ids[2] and COPY not in kept.candidate_ids[0]


def test_few_queries_at_a_time_find_the_same(
    collection: Collection, mined: CandidatePool, stored: Retriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(milvus_corpus, "QUERIES", 7)
    assert_same_candidates(mine(collection, depth=DEPTH, index=stored), mined)


@pytest.fixture(scope="module")
def labelled(collection: Collection) -> Collection:
    """Return the collection without documents that have no label."""
    named = {name for judged in collection.qrels.values() for name in judged}
    return replace(collection, corpus=collection.corpus.filter(lambda row: row["id"] in named))


def test_only_labelled_documents_need_to_be_in_the_collection(
    collection: Collection, labelled: Collection, mined: CandidatePool, index: Retriever
) -> None:
    found = mine(labelled, depth=DEPTH, index=index)
    assert_same_candidates(found, mined)
    own = len(labelled.document_ids)
    assert found.document_ids[:own] == labelled.document_ids
    assert own < len(found.document_ids) <= len(mined.document_ids)
    assert "corpus" not in found.fingerprint
    whole = with_documents(labelled, index, found)
    assert whole.document_ids == found.document_ids
    texts = dict(zip(collection.document_ids, collection.document_texts, strict=True))
    assert whole.document_texts == [texts[name] for name in whole.document_ids]
    with pytest.raises(ValueError, match="The pool is of another collection"):
        with_documents(replace(labelled, corpus=labelled.corpus.select(range(1, own))), index, found)


def test_an_audit_has_the_texts_of_what_the_index_found(
    collection: Collection,
    labelled: Collection,
    encoder: SentenceTransformer,
    index: Retriever,
    tmp_path: Path,
) -> None:
    expected = audit(collection, encoder, depth=DEPTH)
    found = audit(labelled, depth=DEPTH, index=index)
    assert [suspect[:2] for suspect in found.suspects(10)] == [
        suspect[:2] for suspect in expected.suspects(10)
    ]
    assert found.missing().expected == pytest.approx(expected.missing().expected, rel=1e-3)
    found.save(tmp_path / "audit")
    again = Audit.load(tmp_path / "audit", labelled, index)
    assert again.suspects(5) == found.suspects(5)
    with pytest.raises(ValueError, match="is the audit of another collection"):
        Audit.load(tmp_path / "audit", labelled)


def test_what_cannot_be_mined_is_refused(
    collection: Collection, encoder: SentenceTransformer, flat: Retriever
) -> None:
    for options in ({}, {"encoder": encoder, "index": flat}):
        with pytest.raises(ValueError, match="encoder must be given, or index"):
            mine(collection, **options)
    fewer = Retriever(encoder).index({"d": "text"})
    with pytest.raises(
        ValueError, match=r"index must have the labelled documents, .* are missing, the first is"
    ):
        mine(collection, index=fewer)
    with pytest.raises(ValueError, match="There is no index yet"):
        mine(collection, index=Retriever(encoder))
