"""LangChain classes return the results of the retriever."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from retriever_models import CORPUS, QUERY, make_retriever
from retriever_threads import threads_of
from rrra_hf.retrieval import Retriever

pytest.importorskip("langchain_core")

from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda
from langchain_core.vectorstores import InMemoryVectorStore

from rrra_hf.integrations.langchain import RRRACompressor, RRRAEmbeddings, RRRARetriever


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


def test_the_filter_is_an_argument_of_retriever_and_search(tiny_bert: Path) -> None:
    corpus = {
        name: {"text": text, "metadata": {"year": 2019 + number}}
        for number, (name, text) in enumerate({"cp": "copy files", "ls": "list files", "mv": "move"}.items())
    }
    ours = make_retriever(tiny_bert).index(corpus)
    retriever = RRRARetriever(retriever=ours, filter={"year": {"$gt": 2019}})
    found = retriever.invoke("files")
    assert {document.id: document.metadata["year"] for document in found} == {"ls": 2020, "mv": 2021}
    assert [document.id for document in retriever.invoke("files", filter={"year": 2019})] == ["cp"]
    later = asyncio.run(retriever.ainvoke("files", filter={"year": {"$in": [2020, 2030]}}))
    assert [document.id for document in later] == ["ls"]


def test_retriever_runs_in_batches_in_chains_and_asynchronously(ours: Retriever) -> None:
    retriever = RRRARetriever(retriever=ours, top_k=2)
    expected = retriever.invoke(QUERY)
    chain = retriever | RunnableLambda(lambda documents: [document.id for document in documents])
    assert chain.invoke(QUERY) == [document.id for document in expected]
    assert retriever.batch([QUERY, "sort text"])[0] == expected
    assert asyncio.run(retriever.ainvoke(QUERY)) == expected


@pytest.mark.parametrize("name", ["k", "top_k"])
def test_number_of_documents_is_that_of_the_search_or_else_of_the_retriever(
    ours: Retriever, name: str
) -> None:
    retriever = RRRARetriever(retriever=ours, **{name: 4})
    expected = [hit["corpus_id"] for hit in ours.search(QUERY, top_k=4)[0]]

    def ids(documents: list[Document]) -> list[str | None]:
        return [document.id for document in documents]

    assert ids(retriever.invoke(QUERY)) == expected
    assert ids(retriever.invoke(QUERY, **{name: 2})) == expected[:2]
    assert ids(asyncio.run(retriever.ainvoke(QUERY, **{name: 2}))) == expected[:2]
    assert ids(retriever.bind(**{name: 3}).invoke(QUERY)) == expected[:3]
    with pytest.raises(ValueError, match="top_k must be at least 1, got 0"):
        retriever.invoke(QUERY, **{name: 0})


def test_arguments_that_would_be_ignored_are_refused(ours: Retriever) -> None:
    with pytest.raises(ValueError, match=r"limit\n.*not permitted"):
        RRRARetriever(retriever=ours, limit=3)
    with pytest.raises(ValueError, match=r"k\n.*not permitted"):
        RRRARetriever(retriever=ours, k=3, top_k=3)
    retriever = RRRARetriever(retriever=ours)
    with pytest.raises(TypeError, match="limit"):
        retriever.invoke(QUERY, limit=3)
    with pytest.raises(ValueError, match="give one of them, got 2 and 3"):
        retriever.invoke(QUERY, k=2, top_k=3)


def test_searches_do_not_block_the_event_loop(ours: Retriever, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = threads_of("search", monkeypatch)
    asyncio.run(RRRARetriever(retriever=ours).ainvoke(QUERY))
    assert threads == ["another"]


def test_a_store_of_embeddings_finds_what_a_dense_search_finds(mapped: Retriever) -> None:
    embeddings = RRRAEmbeddings(mapped)
    texts = {row["id"]: f"{row['title']} {row['text']}".strip() for row in mapped.documents.to_pylist()}
    store = InMemoryVectorStore.from_texts(list(texts.values()), embeddings, ids=list(texts))
    found = store.similarity_search_with_score(QUERY, k=4)
    hits = mapped.search(QUERY, top_k=4, rerank=False, mode="dense")[0]
    assert [document.id for document, _ in found] == [hit["corpus_id"] for hit in hits]
    assert [score for _, score in found] == pytest.approx([hit["score"] for hit in hits], abs=1e-5)
    assert asyncio.run(embeddings.aembed_query(QUERY)) == embeddings.embed_query(QUERY)
    assert embeddings.embed_documents([]) == []
    with pytest.raises(ValueError, match="texts must be strings, got int at position 1"):
        embeddings.embed_documents(["copy", 1])


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
