"""The ranker for the `rerankers` package returns the results of the retriever."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from retriever_models import QUERY, make_retriever
from rrra_hf.retrieval import Retriever

pytest.importorskip("rerankers")

from rerankers import Document, Reranker

from rrra_hf.integrations.rerankers import RRRARanker

TEXTS = ["sort text", "copy files", "find a folder"]


@pytest.fixture(scope="module")
def ours(tiny_bert: Path) -> Retriever:
    return make_retriever(tiny_bert)


def test_ranking_is_the_retrievers(ours: Retriever) -> None:
    ranker = RRRARanker(ours)
    ranked = ranker.rank(QUERY, TEXTS, doc_ids=["a", "b", "c"], metadata=[{"page": i} for i in range(3)])
    expected = ours.rank(QUERY, TEXTS, return_documents=True)
    assert [(result.text, result.score) for result in ranked] == [
        (hit["text"], hit["score"]) for hit in expected
    ]
    assert [result.doc_id for result in ranked] == ["abc"[hit["corpus_id"]] for hit in expected]
    assert [result.document.metadata["page"] for result in ranked] == [hit["corpus_id"] for hit in expected]
    assert [result.rank for result in ranked] == [1, 2, 3]
    assert [result.doc_id for result in ranked.top_k(2)] == [result.doc_id for result in ranked][:2]
    assert ranked.query == QUERY
    assert asyncio.run(ranker.rank_async(QUERY, TEXTS)).results_count() == 3


def test_documents_of_every_form_are_ranked(ours: Retriever) -> None:
    ranker = RRRARanker(ours)
    documents = [Document(text, doc_id=i) for i, text in enumerate([*TEXTS, " "])]
    assert [result.text for result in ranker.rank(QUERY, documents)] == [
        r.text for r in ranker.rank(QUERY, TEXTS)
    ]
    score = ours.rank(QUERY, ["copy files"])[0]["score"]
    assert [result.score for result in ranker.rank(QUERY, "copy files")] == [score]
    assert ranker.score(QUERY, "copy files") == score
    assert ranker.rank(QUERY, []).results == []
    with pytest.raises(ValueError, match="queries must not be empty"):
        ranker.rank("", TEXTS)


def test_reranker_of_the_package_makes_one(ours: Retriever, tmp_path: Path) -> None:
    ours.save_pretrained(tmp_path / "model")
    ranker = Reranker(str(tmp_path / "model"), model_type="RRRARanker", device="cpu", verbose=0)
    assert isinstance(ranker, RRRARanker)
    ranked, expected = ranker.rank(QUERY, TEXTS), RRRARanker(ours).rank(QUERY, TEXTS)
    assert [(r.doc_id, r.score) for r in ranked] == [(r.doc_id, r.score) for r in expected]
