"""Haystack components return the results of the retriever, and their pipelines can be saved."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from retriever_models import CORPUS, QUERY, make_retriever
from rrra_hf.retrieval import Retriever

os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")
pytest.importorskip("haystack")

from haystack import Document, Pipeline
from haystack.core.serialization import component_from_dict, component_to_dict

from rrra_hf.integrations.haystack import RRRARanker, RRRARetriever

OPTIONS = {"device": "cpu"}


@pytest.fixture(scope="module")
def folder(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("haystack") / "retriever"
    make_retriever(tiny_bert).index(CORPUS).save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def ours(folder: str) -> Retriever:
    return Retriever.from_pretrained(folder, device="cpu")


def test_retriever_returns_the_hits_as_documents(folder: str, ours: Retriever) -> None:
    found = RRRARetriever(folder, top_k=3, options=OPTIONS).run(query=QUERY)["documents"]
    hits = ours.search(QUERY, top_k=3, probabilities=True)[0]
    assert [(document.id, document.score) for document in found] == [
        (hit["corpus_id"], hit["score"]) for hit in hits
    ]
    for document, hit in zip(found, hits, strict=True):
        source = ours.document(document.id)
        assert document.content == source["text"]
        assert document.meta["probability"] == hit["probability"]
        assert document.meta.get("title", "") == source["title"]


def test_only_documents_of_the_filter_are_returned(folder: str) -> None:
    retriever = RRRARetriever(folder, options=OPTIONS)
    assert retriever.run(query=QUERY, filter={"year": 2020}) == {"documents": []}
    found = retriever.run(query=QUERY, filter={"year": {"$exists": False}})
    assert len(found["documents"]) == len(CORPUS)


def test_ranker_ranks_as_the_retriever_does(folder: str, ours: Retriever) -> None:
    texts = ["sort text", "copy files", None, "find a folder"]
    documents = [Document(content=text, meta={"page": i}) for i, text in enumerate(texts)]
    found = RRRARanker(folder, top_k=2, options=OPTIONS).run(query=QUERY, documents=documents)["documents"]
    expected = ours.rank(QUERY, [text for text in texts if text], top_k=2, return_documents=True)
    assert [(document.content, document.score) for document in found] == [
        (hit["text"], hit["score"]) for hit in expected
    ]
    for document in found:
        source = documents[document.meta["page"]]
        assert (document.id, document.content) == (source.id, source.content)
        assert source.score is None
    assert RRRARanker(folder, options=OPTIONS).run(query=QUERY, documents=[]) == {"documents": []}


def test_pipeline_gives_the_same_after_yaml(folder: str, ours: Retriever) -> None:
    pipeline = Pipeline()
    pipeline.add_component("retriever", RRRARetriever(folder, top_k=4, depth=5, options=OPTIONS))
    pipeline.add_component("ranker", RRRARanker(folder, top_k=3, options=OPTIONS))
    pipeline.connect("retriever.documents", "ranker.documents")
    data = {"retriever": {"query": QUERY}, "ranker": {"query": QUERY, "top_k": 2}}
    found = pipeline.run(data)["ranker"]["documents"]
    retrieved = {
        hit["corpus_id"]: ours.document(hit["corpus_id"])["text"] for hit in ours.search(QUERY, 4)[0]
    }
    expected = ours.rank(QUERY, list(retrieved.values()), top_k=2)
    assert [(document.id, document.score) for document in found] == [
        (list(retrieved)[hit["corpus_id"]], hit["score"]) for hit in expected
    ]

    loaded = Pipeline.loads(pipeline.dumps(), allowed_modules=["rrra_hf.*"])
    assert loaded.to_dict() == pipeline.to_dict()
    assert loaded.run(data)["ranker"]["documents"] == found


@pytest.mark.parametrize("component", [RRRARetriever("a/b", 3, 7, OPTIONS), RRRARanker("a/b", 3, OPTIONS)])
def test_dictionaries_hold_every_argument(component: RRRARetriever | RRRARanker) -> None:
    data = component_to_dict(component, "name")
    assert data["init_parameters"]["options"] == OPTIONS
    assert data["init_parameters"]["top_k"] == 3
    assert data["init_parameters"].get("depth", 7) == 7
    assert component_to_dict(component_from_dict(type(component), data, "name"), "name") == data
    assert type(component).from_dict(component.to_dict()).to_dict() == data


@pytest.mark.parametrize("component", [RRRARetriever, RRRARanker])
def test_a_token_is_not_saved(component: type[RRRARetriever] | type[RRRARanker]) -> None:
    with pytest.raises(ValueError, match=r"must not hold a token .* set HF_TOKEN"):
        component("a/b", options={"token": "hf_secret"}).to_dict()


def test_model_is_loaded_once(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for component, data in ((RRRARetriever(folder), {}), (RRRARanker(folder), {"documents": []})):
        component.warm_up()
        with monkeypatch.context() as patch:
            patch.setattr(Retriever, "from_pretrained", None)
            component.warm_up()
            component.run(query=QUERY, **data)


def test_bad_input_is_refused(folder: str, tiny_bert: Path) -> None:
    with pytest.raises(ValueError, match="no index yet"):
        RRRARetriever(str(tiny_bert), options=OPTIONS).run(query=QUERY)
    with pytest.raises(OSError, match="no-such-model"):
        RRRARanker("rrra-hf-tests/no-such-model").warm_up()
    with pytest.raises(ValueError, match="top_k must be at least 1"):
        RRRARetriever(folder, options=OPTIONS).run(query=QUERY, top_k=0)
    with pytest.raises(ValueError, match="top_k must be at least 1"):
        RRRARanker(folder, options=OPTIONS).run(query=QUERY, documents=[Document(content="a")], top_k=0)
