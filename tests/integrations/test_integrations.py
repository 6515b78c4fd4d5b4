"""Integrations are imported on demand, and name the package to install if it is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import forked
from retriever_models import CORPUS, QUERY, make_retriever
from rrra_hf.integrations.hits import find, rank_texts
from rrra_hf.retrieval import Retriever

PACKAGES = {
    "haystack": "haystack",
    "langchain": "langchain_core",
    "llama_index": "llama_index",
    "mteb": "mteb",
    "rerankers": "rerankers",
}
SCRIPT = """
import importlib, json, sys
for package in [*packages.values(), "pymilvus"]:
    sys.modules[package] = None  # as if it were not installed
import rrra_hf
for name in rrra_hf.__all__:
    getattr(rrra_hf, name)
loaded = [name for name in sys.modules if name.startswith("rrra_hf.integrations")]
errors = {}
for module in packages:
    try:
        importlib.import_module(f"rrra_hf.integrations.{module}")
    except ImportError as error:
        errors[module] = str(error)
import rrra_hf.integrations.sentence_transformers, rrra_hf.retrieval.vectors
print(json.dumps([loaded, errors]))
"""


def test_package_loads_no_integration_and_each_says_what_to_install() -> None:
    done = forked.run(exec, SCRIPT, {"packages": PACKAGES})
    assert done.statuses == [0], done.err
    loaded, errors = json.loads(done.out.splitlines()[-1])
    assert loaded == []
    assert list(errors) == list(PACKAGES)
    for module, message in errors.items():
        assert f"pip install 'rrra-hf[{module.replace('_', '-')}]'" in message


@pytest.fixture(scope="module")
def retriever(tiny_bert: Path) -> Retriever:
    return make_retriever(tiny_bert).index(CORPUS)


def test_found_documents_are_the_hits_with_their_texts(retriever: Retriever) -> None:
    found = find(retriever, QUERY, top_k=6, depth=100)
    hits = retriever.search(QUERY, probabilities=True)[0]
    assert [(hit.id, hit.score, hit.metadata["probability"]) for hit in found] == [
        (hit["corpus_id"], hit["score"], hit["probability"]) for hit in hits
    ]
    texts = {hit.id: hit.text for hit in found}
    assert texts["cp"] == "copy files to the new folder"
    assert texts["mv"] == "old files in the new folder"
    assert {hit.id: hit.metadata.get("title") for hit in found}["cp"] == "copy"
    assert "title" not in {hit.id: hit.metadata for hit in found}["mv"]


def test_all_that_is_found_is_reranked(retriever: Retriever) -> None:
    assert find(retriever, QUERY, top_k=6, depth=1) == find(retriever, QUERY, top_k=6, depth=6)


def test_without_an_adapter_there_is_no_probability(retriever: Retriever, tiny_bert: Path) -> None:
    plain = Retriever.from_pretrained(tiny_bert, adapter=None, device="cpu").index(["copy files"])
    (hit,) = find(plain, QUERY, top_k=1, depth=1)
    assert hit.metadata == {}


def test_ranking_of_texts_keeps_their_positions_and_leaves_out_the_blank(retriever: Retriever) -> None:
    texts = ["copy files", "", "sort text", None, "find a folder", "  "]
    ranked = rank_texts(retriever, QUERY, texts)
    expected = retriever.rank(QUERY, ["copy files", "sort text", "find a folder"])
    assert ranked == [([0, 2, 4][hit["corpus_id"]], hit["score"]) for hit in expected]
    assert rank_texts(retriever, QUERY, texts, 2) == ranked[:2]
    assert rank_texts(retriever, QUERY, [None, ""]) == []
    with pytest.raises(ValueError, match="queries must not be empty"):
        rank_texts(retriever, " ", texts)
