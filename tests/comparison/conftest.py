"""What tests of the comparison share: a task, its trial, a store of cells, results."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import BertConfig, BertForSequenceClassification

from comparison_task import QUICK, collection_of, make_task, systems
from rrra_hf.comparison import CellStore, Trial, choose_methods, prepare, run_cells
from tiny import SIZE, WORDS, make_tokenizer


@pytest.fixture(scope="module")
def task():
    return make_task()


@pytest.fixture
def trial(task):
    return Trial(task, 0, QUICK)


@pytest.fixture
def store(tmp_path):
    return CellStore(tmp_path / "cells")


@pytest.fixture(scope="module")
def collection():
    """Texts in which a query shares words with its one document."""
    rng = np.random.default_rng(0)
    documents = {f"d{i}": " ".join(rng.choice(WORDS, 6, replace=False)) for i in range(40)}
    queries, qrels = {}, {"train": {}, "test": {}}
    for split, count in (("train", 24), ("test", 12)):
        for i in range(count):
            row = int(rng.integers(40))
            queries[f"{split}{i}"] = " ".join(documents[f"d{row}"].split()[:4])
            qrels[split][f"{split}{i}"] = {f"d{row}": 1}
    return collection_of(qrels, documents, queries, "words")


@pytest.fixture(scope="module")
def words(collection, tiny_bert):
    """A task with an encoder, and one positive a query."""
    return prepare(collection, SentenceTransformer(str(tiny_bert), device="cpu"), encoder_name=str(tiny_bert))


# -------------------------------------------------------------------- models of others


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory):
    """Path of a tiny cross-encoder with random weights."""
    folder = tmp_path_factory.mktemp("cross") / "cross-encoder"
    torch.manual_seed(0)
    size = {**SIZE, "hidden_size": 16, "num_hidden_layers": 1, "num_labels": 1}
    BertForSequenceClassification(BertConfig(**size, initializer_range=1.0)).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


# -------------------------------------------------------------------- tables and reports


@pytest.fixture(scope="module")
def results(task, tmp_path_factory):
    """A comparison of systems and of detectors, and its cells on disk."""
    store = CellStore(tmp_path_factory.mktemp("comparison") / "cells")
    detectors = [
        "pretrained",
        "residual",
        "similarity",
        "margin-to-positive",
        "perc-pos",
        "similarity-to-positive",
    ]
    methods = [*systems("encoder", "bm25", "query-map", "two-sided-map", "residual")]
    methods += choose_methods("detection", detectors, QUICK)
    return store, run_cells([task], methods, QUICK, store)


# -------------------------------------------------------------------- command line


@pytest.fixture(scope="module")
def folder(collection, tmp_path_factory):
    path = tmp_path_factory.mktemp("collections") / "words"
    collection.save(path)
    return path
