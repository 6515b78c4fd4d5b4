"""LangChain classes return the results of the retriever."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from retriever_models import CORPUS, QUERY, make_retriever
from rrra_hf.retrieval import Retriever

pytest.importorskip("langchain_core")

from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda

from rrra_hf.integrations.langchain import RRRACompressor, RRRARetriever


@pytest.fixture(scope="module")
def ours(tiny_bert: Path) -> Retriever:
    return make_retriever(tiny_bert).index(CORPUS)


def test_retriever_returns_the_hits_as_documents(ours: Retriever) -> None:
    found = RRRARetriever(retriever=ours, top_k=3).invoke(QUERY)
    hits = ours.search(QUERY, top_k=3, probabilities=True)[0]
    assert [document.id for document in found] == [hit["corpus_id"] for hit in hits]
    for document, hit in zip(found, hits, strict=True):
        source = ours.document(document.id)
        assert document.page_content == source["text"]
        expected = {"relevance_score": hit["score"], "probability": hit["probability"]}
        assert document.metadata == expected | ({"title": source["title"]} if source["title"] else {})


def test_retriever_runs_in_batches_in_chains_and_asynchronously(ours: Retriever) -> None:
    retriever = RRRARetriever(retriever=ours, top_k=2)
    expected = retriever.invoke(QUERY)
    chain = retriever | RunnableLambda(lambda documents: [document.id for document in documents])
    assert chain.invoke(QUERY) == [document.id for document in expected]
    assert retriever.batch([QUERY, "sort text"])[0] == expected
    assert asyncio.run(retriever.ainvoke(QUERY)) == expected


def test_compressor_ranks_as_the_retriever_does(ours: Retriever) -> None:
    texts = ["sort text", "copy files", " ", "find a folder"]
    documents = [Document(text, id=str(i), metadata={"page": i}) for i, text in enumerate(texts)]
    compressor = RRRACompressor(retriever=ours, top_k=2)
    found = compressor.compress_documents(documents, QUERY)
    expected = ours.rank(QUERY, [text for text in texts if text.strip()], top_k=2, return_documents=True)
    assert [document.page_content for document in found] == [hit["text"] for hit in expected]
    assert [document.metadata["relevance_score"] for document in found] == [hit["score"] for hit in expected]
    for document in found:
        assert document.metadata["page"] == int(document.id)
    assert all("relevance_score" not in document.metadata for document in documents)
    assert asyncio.run(compressor.acompress_documents(documents, QUERY)) == found
    assert compressor.compress_documents([], QUERY) == []
    assert len(RRRACompressor(retriever=ours, top_k=None).compress_documents(documents, QUERY)) == 3


def test_numbers_below_one_and_other_retrievers_are_refused(ours: Retriever) -> None:
    for make in (RRRARetriever, RRRACompressor):
        with pytest.raises(ValueError, match="top_k"):
            make(retriever=ours, top_k=0)
        with pytest.raises(ValueError, match="instance of Retriever"):
            make(retriever="a folder")
