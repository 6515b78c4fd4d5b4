"""The README's Python runs as printed, on small stand-ins for the model and the collection."""

import re

import numpy as np
import pytest
from datasets import Dataset
from sentence_transformers import SentenceTransformer

from rrra_hf import AdapterConfig, Retriever, RetrieverAdapter
from rrra_hf.data import Collection
from snippets import ROOT, python_blocks

SNIPPETS = python_blocks(ROOT / "README.md")


def snippet(marker):
    [found] = [text for text in SNIPPETS if marker in text]
    return found


def test_there_is_no_snippet_without_a_test():
    assert len(SNIPPETS) == 3
    assert all(len(text.splitlines()) <= 15 for text in SNIPPETS)


def test_first_screen(tiny_bert, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    encoder = SentenceTransformer(str(tiny_bert), device="cpu")
    adapter = RetrieverAdapter(AdapterConfig(embedding_dim=encoder.get_embedding_dimension()))
    retriever = Retriever(encoder, adapter).index({name: f"the document {name}" for name in "abcd"})
    retriever.save_pretrained("demo/retriever")
    exec(snippet("demo/retriever"), {})
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if re.fullmatch(r"\d\.\d\d  [abcd]", line)]) == 6


def test_embeddings_you_already_have(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(snippet("my-adapter"), names)
    assert names["scores"].shape == (2, 3)
    assert names["scores"].argmax(axis=1).tolist() == [0, 1]


@pytest.mark.slow
def test_your_own_training_script(tiny_bert, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = np.random.default_rng(0).permutation([f"{a}{b}" for a in "bdfgk" for b in "aeiou"])
    ids = [str(i) for i in range(len(words))]
    Collection(
        name="tiny",
        corpus=Dataset.from_dict({"id": ids, "title": [""] * len(ids), "text": list(words)}),
        queries=Dataset.from_dict({"id": ids, "text": [f"find {word}" for word in words]}),
        qrels_by_split={"train": {i: {i: 1} for i in ids}},
    ).save("my-collection")
    text = snippet("RRRALoss").replace("sentence-transformers/all-MiniLM-L6-v2", str(tiny_bert))
    names = {}
    exec(text, names)
    assert names["resampler"].dataset.column_names == [
        "query",
        "positive",
        *(f"negative_{i}" for i in range(1, 5)),
        "scores",
    ]
    changed = names["encoder"].state_dict()
    start = SentenceTransformer(str(tiny_bert), device="cpu").state_dict()
    assert any(not np.array_equal(changed[name].numpy(), start[name].numpy()) for name in start)
