"""LlamaIndex classes return the results of the retriever, also in a query engine."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from retriever_models import CORPUS, QUERY, make_retriever
from retriever_threads import threads_of
from rrra_hf.retrieval import Retriever

pytest.importorskip("llama_index.core")

from llama_index.core import VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import CompactAndRefine
from llama_index.core.schema import MetadataMode, NodeWithScore, TextNode

from rrra_hf.integrations.llama_index import RRRAEmbedding, RRRARerank, RRRARetriever


@pytest.fixture(scope="module")
def ours(tiny_bert: Path) -> Retriever:
    return make_retriever(tiny_bert).index(CORPUS)


def test_retriever_returns_the_hits_as_nodes(ours: Retriever) -> None:
    found = RRRARetriever(ours, top_k=3).retrieve(QUERY)
    hits = ours.search(QUERY, top_k=3, probabilities=True)[0]
    assert [(node.node_id, node.score) for node in found] == [
        (hit["corpus_id"], hit["score"]) for hit in hits
    ]
    for node, hit in zip(found, hits, strict=True):
        source = ours.document(node.node_id)
        assert node.text == source["text"]
        assert node.metadata["probability"] == hit["probability"]
        assert node.metadata.get("title", "") == source["title"]
        for mode in (MetadataMode.EMBED, MetadataMode.LLM):
            assert "probability" not in node.get_content(mode)
    assert asyncio.run(RRRARetriever(ours, top_k=3).aretrieve(QUERY)) == found


def test_only_documents_of_the_filter_are_returned(ours: Retriever) -> None:
    assert RRRARetriever(ours, filter={"year": 2020}).retrieve(QUERY) == []
    assert len(RRRARetriever(ours, filter={"year": {"$ne": 2020}}).retrieve(QUERY)) == len(CORPUS)


def test_searches_do_not_block_the_event_loop(ours: Retriever, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = threads_of("search", monkeypatch)
    asyncio.run(RRRARetriever(ours).aretrieve(QUERY))
    assert threads == ["another"]
    threads = threads_of("map_queries", monkeypatch)
    asyncio.run(RRRAEmbedding(ours).aget_query_embedding(QUERY))
    assert threads == ["another"]


def test_a_store_of_embeddings_finds_what_a_dense_search_finds(mapped: Retriever) -> None:
    nodes = [
        TextNode(id_=row["id"], text=f"{row['title']} {row['text']}".strip())
        for row in mapped.documents.to_pylist()
    ]
    hits = mapped.search(QUERY, top_k=4, rerank=False, mode="dense")[0]
    for use_async in (False, True):
        index = VectorStoreIndex(nodes, embed_model=RRRAEmbedding(mapped), use_async=use_async)
        found = index.as_retriever(similarity_top_k=4).retrieve(QUERY)
        assert [node.node_id for node in found] == [hit["corpus_id"] for hit in hits]
        assert [node.score for node in found] == pytest.approx([hit["score"] for hit in hits], abs=1e-5)
    assert RRRAEmbedding.class_name() == "RRRAEmbedding"


def test_postprocessor_ranks_as_the_retriever_does(ours: Retriever) -> None:
    texts = ["sort text", "copy files", "", "find a folder"]
    nodes = [NodeWithScore(node=TextNode(text=text), score=0.5) for text in texts]
    found = RRRARerank(ours, top_n=2).postprocess_nodes(nodes, query_str=QUERY)
    expected = ours.rank(QUERY, [text for text in texts if text], top_k=2, return_documents=True)
    assert [(node.text, node.score) for node in found] == [(hit["text"], hit["score"]) for hit in expected]
    assert [node.score for node in nodes] == [0.5] * 4
    assert asyncio.run(RRRARerank(ours, top_n=2).apostprocess_nodes(nodes, query_str=QUERY)) == found
    assert RRRARerank(ours).postprocess_nodes([], query_str=QUERY) == []


def test_postprocessor_reads_the_title(ours: Retriever) -> None:
    node = TextNode(text="files in the folder", metadata={"title": "copy"})
    (found,) = RRRARerank(ours).postprocess_nodes([NodeWithScore(node=node)], query_str=QUERY)
    assert found.score == ours.rank(QUERY, ["title: copy\n\nfiles in the folder"])[0]["score"]


def test_both_work_in_a_query_engine(ours: Retriever) -> None:
    engine = RetrieverQueryEngine(
        RRRARetriever(ours, top_k=4),
        response_synthesizer=CompactAndRefine(llm=MockLLM()),
        node_postprocessors=[RRRARerank(ours, top_n=2)],
    )
    sources = engine.query(QUERY).source_nodes
    retrieved = RRRARetriever(ours, top_k=4).retrieve(QUERY)
    expected = RRRARerank(ours, top_n=2).postprocess_nodes(retrieved, query_str=QUERY)
    assert [(node.node_id, node.score) for node in sources] == [(n.node_id, n.score) for n in expected]


def test_bad_arguments_are_refused(ours: Retriever) -> None:
    with pytest.raises(ValueError, match="query_str must be given"):
        RRRARerank(ours).postprocess_nodes([])
    with pytest.raises(ValueError, match="top_n"):
        RRRARerank(ours, top_n=0)
    with pytest.raises(ValueError, match="top_k must be at least 1, got 0"):
        RRRARetriever(ours, top_k=0).retrieve(QUERY)
    assert RRRARerank.class_name() == "RRRARerank"
