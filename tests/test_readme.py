"""The Python code of the README runs, on a small model and a small collection."""

import re
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from sentence_transformers import SentenceTransformer

from rrra_hf import CandidatePool, Retriever
from rrra_hf.data import Collection
from snippets import MODEL, ROOT, make_fits_quick, python_blocks

README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = python_blocks(ROOT / "README.md")


def snippet(marker: str, model: Path) -> str:
    [found] = [text for text in SNIPPETS if marker in text]
    return found.replace(MODEL, str(model))


@pytest.fixture
def my_collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Save a collection of 25 words, each with a query, as `my-collection` in the working directory."""
    monkeypatch.chdir(tmp_path)
    make_fits_quick(monkeypatch)
    words = np.random.default_rng(0).permutation([f"{a}{b}" for a in "bdfgk" for b in "aeiou"])
    ids = [str(i) for i in range(len(words))]
    Collection(
        name="tiny",
        corpus=Dataset.from_dict({"id": ids, "title": [""] * len(ids), "text": list(words)}),
        queries=Dataset.from_dict({"id": ids, "text": [f"find {word}" for word in words]}),
        qrels_by_split={"train": {i: {i: 1} for i in ids}},
    ).save("my-collection")


def test_every_snippet_is_short_and_has_a_test() -> None:
    assert len(SNIPPETS) == 5
    assert all(len(text.splitlines()) <= 15 for text in SNIPPETS)


def test_it_has_at_most_900_words() -> None:
    assert len(README.split()) <= 900


def test_first_screen(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    encoder = SentenceTransformer(str(tiny_bert), device="cpu")
    retriever = Retriever(encoder).index({name: f"the document {name}" for name in "abcd"})
    retriever.save_pretrained("demo/retriever")
    exec(snippet("demo/retriever", tiny_bert), {})
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if re.fullmatch(r"\d\.\d\d  [abcd]", line)]) == 6


@pytest.mark.usefixtures("my_collection")
def test_search_without_labels_then_with_a_fit(tiny_bert: Path) -> None:
    names: dict = {}
    exec(snippet("retrievers/mine", tiny_bert), names)
    assert len(names["hits"]) == 3
    saved = Retriever.from_pretrained("retrievers/mine")
    assert len(saved.documents) == 25
    assert saved.is_hybrid()

    exec(snippet("fit_model", tiny_bert), names)
    assert "unseen" in names["model"].adapter.config.fit
    assert len(names["retriever"].search("find ba", top_k=3)[0]) == 3


@pytest.mark.slow
@pytest.mark.usefixtures("my_collection")
def test_mining_and_training(tiny_bert: Path) -> None:
    names: dict = {"encoder": SentenceTransformer(str(tiny_bert), device="cpu")}
    exec(snippet("mine(training", tiny_bert), names)
    pool: CandidatePool = names["pool"]
    assert pool.probability is not None
    assert (np.isfinite(pool.probability) == (pool.candidates >= 0)).all()

    exec(snippet("RRRALoss", tiny_bert), names)
    negatives = [f"negative_{i}" for i in range(1, 5)]
    assert names["resampler"].dataset.column_names == ["query", "positive", *negatives, "labels"]
    changed = names["encoder"].state_dict()
    start = SentenceTransformer(str(tiny_bert), device="cpu").state_dict()
    assert any(not np.array_equal(changed[name].numpy(), start[name].numpy()) for name in start)
