"""Collections go out as datasets and files of other tools, and come back the same."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from herrings import labels
from rrra_hf.data import Collection, load_collection

TRIPLETS = [
    {"anchor": "x", "positive": "A fish.", "negative_1": "A tree.", "negative_2": "A bush."},
    {"anchor": "x", "positive": "A whale.", "negative_1": "A tree.", "negative_2": None},
    {"anchor": "y", "positive": "A tree.", "negative_1": "A fish.", "negative_2": None},
    {"anchor": "z", "positive": "Grass.", "negative_1": None, "negative_2": None},
]
ROWS: dict[str, list[dict[str, Any]]] = {
    "pairs": [
        {"anchor": "x", "positive": "A fish."},
        {"anchor": "x", "positive": "A whale."},
        {"anchor": "y", "positive": "A tree."},
        {"anchor": "z", "positive": "Grass."},
    ],
    "triplets": [
        {"anchor": "x", "positive": "A fish.", "negative": "A tree."},
        {"anchor": "x", "positive": "A fish.", "negative": "A bush."},
        {"anchor": "x", "positive": "A whale.", "negative": "A tree."},
        {"anchor": "x", "positive": "A whale.", "negative": "A bush."},
        {"anchor": "y", "positive": "A tree.", "negative": "A fish."},
    ],
    "n-tuple": [
        {"anchor": "x", "positive": "A fish.", "negative_1": "A tree."},
        {"anchor": "x", "positive": "A whale.", "negative_1": "A tree."},
        {"anchor": "y", "positive": "A tree.", "negative_1": "A fish."},
    ],
    "labelled-pairs": [
        {"sentence1": "x", "sentence2": "A fish.", "label": 1},
        {"sentence1": "x", "sentence2": "A whale.", "label": 1},
        {"sentence1": "x", "sentence2": "A tree.", "label": 0},
        {"sentence1": "x", "sentence2": "A bush.", "label": 0},
        {"sentence1": "y", "sentence2": "A tree.", "label": 1},
        {"sentence1": "y", "sentence2": "A fish.", "label": 0},
        {"sentence1": "z", "sentence2": "Grass.", "label": 1},
    ],
}


@pytest.fixture
def collection() -> Collection:
    return load_collection(TRIPLETS)


@pytest.mark.parametrize("kind", ROWS)
def test_datasets_have_the_labels(collection: Collection, kind: str) -> None:
    assert collection.to_dataset(kind).to_list() == ROWS[kind]


def test_labelled_pairs_come_back_the_same(collection: Collection) -> None:
    assert labels(load_collection(collection.to_dataset("labelled-pairs"))) == labels(collection)


def test_what_a_dataset_leaves_out_is_told(collection: Collection, caplog: pytest.LogCaptureFixture) -> None:
    collection.to_dataset("n-tuple")
    assert "1 queries are left out: they have no known negative" in caplog.text
    assert "1 queries have more than 1 known negatives" in caplog.text


def test_datasets_that_cannot_be_are_refused(collection: Collection) -> None:
    with pytest.raises(ValueError, match="kind must be one of pairs, triplets, n-tuple, labelled-pairs"):
        collection.to_dataset("pair")
    with pytest.raises(ValueError, match="There are no labels for triplets: 1 queries have labels"):
        load_collection([{"query": "x", "positive": "A fish."}]).to_dataset("triplets")
    with pytest.raises(ValueError, match="There are no labels for pairs: 0 queries have labels"):
        load_collection([{"text": "A fish."}]).to_dataset()


def test_flag_embedding_comes_back_the_same(
    collection: Collection, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    collection.save_flag_embedding(tmp_path / "train.jsonl")
    assert labels(load_collection(tmp_path / "train.jsonl")) == labels(collection)


def test_collections_of_every_kind_are_saved(collection: Collection, tmp_path: Path) -> None:
    for name, made in {"labels": collection, "alone": load_collection([{"text": "A fish."}])}.items():
        made.save(tmp_path / name)
        again = load_collection(tmp_path / name)
        assert again.document_ids == made.document_ids
        assert (again.query_ids, again.qrels_by_split) == (made.query_ids, made.qrels_by_split)


def test_a_printed_collection_says_counts(collection: Collection) -> None:
    assert repr(collection) == (
        "Collection('dataset'; 5 documents; 3 queries; train: 3 queries, 4 relevant, 3 not relevant)"
    )
    assert repr(load_collection([{"text": "x"}])) == "Collection('dataset'; 1 documents; 0 queries)"


def test_logging_of_nothing_left_out(collection: Collection, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        collection.to_dataset("pairs")
    assert not caplog.records
