"""What people do with a dataset works with one whose negatives are drawn when it is read, or is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict, Value, load_from_disk
from torch.utils.data import DataLoader

from rrra_hf.training.pair_dataset import PairDataset
from test_resampler import make

Rows = list[dict[str, Any]]


def renamed(rows: Rows, old: str, new: str) -> Rows:
    return [{new if name == old else name: value for name, value in row.items()} for row in rows]


def prefixed(row: dict[str, Any]) -> dict[str, str]:
    return {"query": "Q: " + row["query"]}


def prefixed_batch(rows: dict[str, list[Any]]) -> dict[str, list[str]]:
    return {"query": ["Q: " + query for query in rows["query"]]}


def with_prefix(rows: Rows) -> Rows:
    return [{**row, **prefixed(row)} for row in rows]


def with_length(row: dict[str, Any]) -> dict[str, int]:
    return {"length": len(row["query"])}


# What is made of the dataset, and of its rows.
DERIVED: dict[str, tuple[Callable[[PairDataset], Dataset], Callable[[Rows], Rows]]] = {
    "rename_column": (
        lambda data: data.rename_column("query", "anchor"),
        lambda rows: renamed(rows, "query", "anchor"),
    ),
    "rename a negative": (
        lambda data: data.rename_columns({"negative_1": "hard"}),
        lambda rows: renamed(rows, "negative_1", "hard"),
    ),
    "remove_columns": (
        lambda data: data.remove_columns("scores"),
        lambda rows: [{name: row[name] for name in row if name != "scores"} for row in rows],
    ),
    "map": (lambda data: data.map(prefixed), with_prefix),
    "map batches": (lambda data: data.map(prefixed_batch, batched=True), with_prefix),
    "map by processes": (lambda data: data.map(prefixed, num_proc=2), with_prefix),
    "map a new column": (
        lambda data: data.map(with_length),
        lambda rows: [{**row, **with_length(row)} for row in rows],
    ),
    "map and rename": (
        lambda data: data.map(prefixed).rename_column("query", "anchor").select([7, 2]),
        lambda rows: [renamed(with_prefix(rows), "query", "anchor")[row] for row in (7, 2)],
    ),
    "filter": (
        lambda data: data.filter(lambda row: row["query"] > "query 2"),
        lambda rows: [row for row in rows if row["query"] > "query 2"],
    ),
    "select": (lambda data: data.select([3, 1]), lambda rows: [rows[3], rows[1]]),
    "take and skip": (lambda data: data.take(5).skip(3), lambda rows: rows[3:5]),
    "shard": (lambda data: data.shard(2, 1), lambda rows: rows[21:]),
    "repeat": (lambda data: data.repeat(2), lambda rows: rows * 2),
    "sort": (
        lambda data: data.sort("query", reverse=True),
        lambda rows: sorted(rows, key=lambda row: row["query"], reverse=True),
    ),
    "add_column": (
        lambda data: data.add_column("number", list(range(41))),
        lambda rows: [{**row, "number": number} for number, row in enumerate(rows)],
    ),
    "flatten_indices": (lambda data: data.select([3, 1]).flatten_indices(), lambda rows: [rows[3], rows[1]]),
    "dictionary": (
        lambda data: DatasetDict({"train": data}).rename_column("query", "anchor")["train"],
        lambda rows: renamed(rows, "query", "anchor"),
    ),
}


@pytest.mark.parametrize("name", DERIVED)
def test_what_is_made_of_it_draws_again_in_each_epoch(name: str) -> None:
    resampler = make()
    derive, expected = DERIVED[name]
    derived = derive(resampler.dataset)
    assert isinstance(derived, PairDataset)
    for epoch in (0, 1):
        resampler.epoch = epoch
        assert list(derived) == expected(list(resampler.dataset))


def test_shuffled_parts_draw_again_in_each_epoch() -> None:
    resampler = make()
    parts = resampler.dataset.shuffle(seed=0).train_test_split(0.2, seed=0)
    for epoch in (0, 1):
        resampler.epoch = epoch
        rows = [*parts["train"], *parts["test"]]
        assert sorted(rows, key=str) == sorted(resampler.dataset, key=str) and rows != list(resampler.dataset)
    assert len(parts["train"].to_pandas()) == 32


@pytest.mark.parametrize("workers", [0, 2])
def test_data_loaders_read_texts(workers: int) -> None:
    dataset = make(labels=None).dataset.rename_column("query", "anchor")
    batches = list(DataLoader(dataset, batch_size=3, num_workers=workers))
    assert [text for batch in batches for text in batch["negative_1"]] == list(dataset["negative_1"])


# What leaves the dataset, read back as rows.
COPIES: dict[str, Callable[[PairDataset, Path], Rows]] = {
    "to_list": lambda data, path: data.to_list(),
    "to_dict": lambda data, path: Dataset.from_dict(data.to_dict()).to_list(),
    "to_pandas": lambda data, path: Dataset.from_pandas(data.to_pandas()).to_list(),
    "to_polars": lambda data, path: data.to_polars().to_dicts(),
    "to_parquet": lambda data, path: data.to_parquet(path) and Dataset.from_parquet(str(path)).to_list(),
    "to_json": lambda data, path: data.to_json(path) and Dataset.from_json(str(path)).to_list(),
    "save_to_disk": lambda data, path: data.save_to_disk(path) or load_from_disk(path).to_list(),
    "to_iterable_dataset": lambda data, path: list(data.to_iterable_dataset()),
    "shuffled": lambda data, path: sorted(data.shuffle(seed=0).to_list(), key=lambda row: row["query"]),
}


@pytest.mark.parametrize("name", COPIES)
def test_copies_hold_texts_of_the_epoch(name: str, tmp_path: Path) -> None:
    resampler = make(labels="rows")
    resampler.epoch = 3
    # The first query has two pairs, whose order sorting by queries leaves open.
    data = resampler.dataset.select(range(2, 12)).sort("query")
    assert COPIES[name](data, tmp_path / "copy") == list(data)


def test_unique_tells_texts() -> None:
    assert make().dataset.unique("query")[:3] == ["query 0", "query 1", "query 2"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda data: data.map(lambda row: {"negative_1": "x"}), "map must not change negative_1: negatives"),
        (lambda data: data.map(lambda row: {"scores": [1.0]}), "map must not change scores: negatives"),
        (lambda data: data.with_format("torch"), "The format must not be 'torch'"),
        (lambda data: data.with_format(None), "The format must not be None"),
        (lambda data: data.with_transform(lambda batch: batch), "The format must not be 'custom'"),
        (lambda data: data.cast_column("query", Value("string")), "cast_column needs texts"),
        (lambda data: data.shuffle().class_encode_column("query"), "class_encode_column needs texts"),
        (lambda data: data.add_item({"query": "x"}), "add_item needs texts"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_way_out(
    call: Callable[[PairDataset], object], message: str
) -> None:
    with pytest.raises(ValueError, match=rf"{message}.*drawn\(\) returns a dataset of the texts"):
        call(make().dataset)


def test_drawn_negatives_stay() -> None:
    resampler = make()
    drawn, before = resampler.dataset.drawn(), list(resampler.dataset)
    resampler.epoch = 1
    assert list(drawn) == before != list(resampler.dataset)
    assert drawn.map(lambda row: {"negative_1": "x"}).with_format("numpy")[0]["negative_1"] == "x"
