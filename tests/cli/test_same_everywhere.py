"""What was saved means the same in every command, from a folder or from the Hub."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from alike import assert_alike
from bad_input import fail, succeed, write_beir
from command_line import rrra
from retriever_models import CORPUS, QUERY, make_adapter
from rrra_hf import CandidatePool, Retriever, RetrieverAdapter, RRRAModel
from rrra_hf.data import load_collection
from rrra_hf.retrieval import evaluate

TEXTS = [text if isinstance(text, str) else f"{text['title']} {text['text']}" for text in CORPUS.values()]
LINES = "\n".join(TEXTS).encode()


@pytest.fixture(scope="module")
def beir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    documents = {f"d{i}": text for i, text in enumerate(TEXTS)}
    queries = {f"q{i}": " ".join(text.split()[:3]) for i, text in enumerate(TEXTS)}
    folder = tmp_path_factory.mktemp("data") / "beir"
    return write_beir(folder, documents, queries, {f"q{i}": f"d{i}" for i in range(len(TEXTS))})


@pytest.fixture(scope="module")
def beside(tiny_bert: Path, beir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A retriever of a plain encoder, with an adapter of its own beside it that was fitted, and an index."""
    adapter = make_adapter(lambda_=0.5, fit={"development": {"queries": 100}})
    folder = tmp_path_factory.mktemp("beside") / "retriever"
    encoder = SentenceTransformer(str(tiny_bert), device="cpu")
    Retriever(encoder, adapter).index(load_collection(str(beir))).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def without(tiny_bert: Path, beir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A retriever that was indexed without an adapter."""
    folder = tmp_path_factory.mktemp("without") / "retriever"
    succeed("index", tiny_bert, beir, "--out", folder, "--no-adapter")
    return folder


@pytest.fixture(params=["beside", "without"])
def retriever(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue(request.param)
    return folder


def test_rerank_ranks_as_the_retriever(retriever: Path) -> None:
    """A retriever's folder was opened as a bare encoder: other scores, in another order."""
    expected = Retriever.from_pretrained(retriever).rank(QUERY, TEXTS)
    ranked = succeed("rerank", retriever, QUERY, "-", "--json", stdin=LINES).json
    assert [hit["corpus_id"] for hit in ranked] == [hit["corpus_id"] for hit in expected]
    scores = [hit["score"] for hit in ranked]
    np.testing.assert_allclose(scores, [hit["score"] for hit in expected], atol=1e-5)


def test_evaluate_measures_the_retriever(retriever: Path, beir: Path) -> None:
    collection = load_collection(str(beir))
    expected = evaluate(Retriever.from_pretrained(retriever), collection.split("test")).quality
    found = succeed("evaluate", retriever, beir, "--json").json["quality"]["all"]
    assert found == {name: system.mean for name, system in expected.items()}


def test_index_keeps_the_adapter(retriever: Path, beir: Path, tmp_path: Path) -> None:
    succeed("index", retriever, beir, "--out", tmp_path / "again")
    old, new = (Retriever.from_pretrained(folder) for folder in (retriever, tmp_path / "again"))
    assert new.search(QUERY) == old.search(QUERY)
    assert (new.adapter is None) == (old.adapter is None)


def test_no_adapter_means_none_for_a_retriever(beside: Path) -> None:
    ranked = succeed("rerank", beside, QUERY, "-", "--no-adapter", "--json", stdin=LINES).json
    assert ranked == Retriever.from_pretrained(beside, adapter=None).rank(QUERY, TEXTS, return_documents=True)


def test_the_length_of_a_retriever_is_fixed(beside: Path) -> None:
    failed = rrra("rerank", beside, QUERY, "-", "--max-length", 7, stdin=LINES)
    assert failed.status == 2
    assert "fixed length" in failed.message


@pytest.mark.parametrize("command", ["rerank", "index", "evaluate", "mine", "fit", "search", "serve", "app"])
def test_an_adapter_alone_is_refused_with_the_reason(beir: Path, tmp_path: Path, command: str) -> None:
    if command == "app":
        pytest.importorskip("gradio")
    adapter = tmp_path / "adapter"
    RetrieverAdapter.pretrained(32).save_pretrained(adapter)
    arguments = {
        "rerank": (adapter, QUERY, "-"),
        "index": (adapter, beir, "--out", tmp_path / "out"),
        "evaluate": (adapter, beir),
        "mine": (beir, "--model", adapter, "--out", tmp_path / "out"),
        "fit": (beir, "--model", adapter, "--out", tmp_path / "out"),
        "search": (adapter, QUERY),
    }
    message = fail(command, *arguments.get(command, (adapter,)), stdin=LINES)
    alone = f"{adapter} holds an adapter alone; give a model or a retriever, with its encoder."
    no_index = f"{adapter} has no index; make one with `rrra index`."
    assert message == f"error: {no_index if command in ('search', 'serve', 'app') else alone}\n"


def test_mining_leaves_the_adapter_of_the_model_out(
    beside: Path, tiny_bert: Path, beir: Path, tmp_path: Path
) -> None:
    """It was fitted on these labels: its probabilities of them would be too sure."""
    for model, out in ((beside, "beside"), (tiny_bert, "encoder")):
        succeed("mine", beir, "--model", model, "--out", tmp_path / out, "--depth", 3)
    ours, theirs = (CandidatePool.load(tmp_path / out) for out in ("beside", "encoder"))
    np.testing.assert_array_equal(ours.probability, theirs.probability)


def test_a_model_in_the_plain_form_is_the_same_model(tiny_bert: Path, beir: Path, tmp_path: Path) -> None:
    model = RRRAModel.from_encoder(tiny_bert)
    model.adapter = make_adapter(lambda_=0.5, fit={"development": {"queries": 100}}, query_map=True)
    hits, pools = [], []
    for form in ("full", "plain"):
        model.save_pretrained(tmp_path / form, form=form)
        hits.append(succeed("rerank", tmp_path / form, QUERY, "-", "--json", stdin=LINES).json)
        succeed("mine", beir, "--model", tmp_path / form, "--out", tmp_path / f"{form}-pool", "--depth", 3)
        pools.append(CandidatePool.load(tmp_path / f"{form}-pool"))
    assert_alike(hits[1], hits[0])
    np.testing.assert_array_equal(pools[1].candidates, pools[0].candidates)


# -------------------------------------------------------------------- options of opening


def test_the_data_type_may_be_chosen(tiny_bert: Path, beir: Path, tmp_path: Path) -> None:
    succeed("index", tiny_bert, beir, "--out", tmp_path / "half", "--dtype", "bfloat16")
    inside = Retriever.from_pretrained(tmp_path / "half").encoder[0].model
    assert str(inside.encoder.dtype) == "torch.bfloat16"
    # Retrievers take it too. Embeddings of another precision are not those of the index.
    assert "made by another model" in fail("search", tmp_path / "half", QUERY, "--dtype", "float32")
    succeed("search", tmp_path / "half", QUERY, "--dtype", "bfloat16")


def test_every_command_that_opens_a_model_has_the_same_options() -> None:
    for command in ("mine", "fit", "train", "index", "search", "rerank", "serve", "app", "evaluate"):
        shown = rrra(command, "--help").message
        for option in ("--revision", "--trust", "--cache-folder", "--dtype"):
            assert option in shown, (command, option)
