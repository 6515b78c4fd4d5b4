"""A pool is whole, checked, and replaced as one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal

from forgery import forge
from mined import assert_same, make_pool
from rrra_hf.candidates import CandidatePool, mine_embeddings

SAVED_BY_VERSION_1 = Path(__file__).parents[1] / "data" / "saved_by_version_1"


def test_a_pool_reads_as_ids() -> None:
    pool = make_pool()
    assert (len(pool), pool.depth) == (2, 2)
    assert pool.candidate_ids == [["c", "b"], ["a"]]
    assert pool.positive_ids == [["a"], ["b", "c"]]


def test_some_queries_can_be_selected() -> None:
    pool = make_pool().select([1])
    assert (pool.query_ids, pool.candidate_ids, pool.positive_ids) == (["q1"], [["a"]], [["b", "c"]])
    assert_array_equal(pool.scores, np.array([[0.7, -np.inf]], dtype=np.float32))
    assert_array_equal(pool.probability, np.array([[0.125, np.nan]], dtype=np.float32))
    assert pool.fingerprint == {"encoder": "e", "corpus": "c"}
    assert len(make_pool().select([])) == 0
    for rows in ([2], [-1]):
        with pytest.raises(ValueError, match=r"query_rows must be in \[0, 2\)"):
            make_pool().select(rows)
    with pytest.raises(ValueError, match="query_ids must be unique, 1 of 2 repeat"):
        make_pool().select([1, 1])


def test_a_pool_without_fingerprints_is_not_refused() -> None:
    make_pool(fingerprint={}).require({"encoder": "x"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"query_ids": ["q", "q"]}, "query_ids must be unique"),
        ({"positives": [[0]]}, r"positives must have one entry per query \(2\), got 1"),
        ({"positives": [[0], [3]]}, "positives must hold rows of the 3 documents, got 0 to 3"),
        ({"positives": [[0], [-1]]}, "positives must hold rows of the 3 documents, got -1 to 0"),
        ({"candidates": np.array([2, 1])}, r"candidates must have shape \(2, depth\), got \(2,\)"),
        ({"candidates": np.array([[3, 1], [0, -1]])}, "candidates must hold rows .* got -1 to 3"),
        ({"candidates": np.array([[2, 1], [-1, 0]])}, "candidates must have -1 only at the end"),
        ({"scores": np.ones((2, 3))}, r"scores must have shape \(2, 2\), got \(2, 3\)"),
        ({"probability": np.ones(2)}, r"probability must have shape \(2, 2\)"),
        ({"probability": np.full((2, 2), 7.0)}, r"probability must be in \[0, 1\]"),
        ({"probability": np.full((2, 2), np.nan)}, r"probability must be in \[0, 1\]"),
        ({"ranking_scores": np.zeros(2)}, r"ranking_scores must have shape \(2, 2\), got \(2,\)"),
        ({"ranking_scores": np.zeros((2, 2))}, "ranking_scores must be numbers, and -inf where"),
        ({"ranking_scores": np.array([[np.nan, 0], [0, -np.inf]])}, "ranking_scores must be numbers"),
        ({"ranking_scores": np.array([[np.inf, 0], [0, -np.inf]])}, "ranking_scores must be numbers"),
        ({"scores": np.array([[0.9, np.nan], [0.7, -np.inf]])}, "scores must be finite, and -inf where"),
        ({"scores": np.array([[0.9, 0.5], [0.7, 0.5]])}, "scores must be finite, and -inf where"),
        (
            {"candidates": np.array([[2, 2], [0, -1]])},
            "candidates must not repeat, those of .* 'q0' do",
        ),
        (
            {"candidates": np.array([[2, 1], [2, -1]])},
            "candidates must not be positives, one of .* 'q1'",
        ),
    ],
)
def test_an_inconsistent_pool_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_pool(**changes)


RANKED = np.array([[1.5, -np.inf], [-0.5, -np.inf]])


def test_ranking_scores_are_kept(tmp_path: Path) -> None:
    pool = make_pool(ranking_scores=RANKED)
    pool.save(tmp_path / "pool")
    loaded = CandidatePool.load(tmp_path / "pool")
    assert_same(loaded, pool)
    assert loaded.select([1]).ranking_scores is not None
    assert loaded.select([1]).ranking_scores.tolist() == [[-0.5, -np.inf]]


def test_a_known_negative_is_ranked_below_everything() -> None:
    pool = make_pool(ranking_scores=np.array([[1.5, 2.5], [-0.5, -np.inf]]), negatives=[[1], [0]])
    assert pool.ranking_scores is not None
    assert pool.ranking_scores.tolist() == [[1.5, -np.inf], [-np.inf, -np.inf]]
    assert pool.suspects().tolist() == [[True, False], [False, False]]


def test_suspects_are_probable_or_ranked_above_a_labelled_document() -> None:
    assert make_pool().suspects(0.2).tolist() == [[True, True], [False, False]]
    assert make_pool(ranking_scores=RANKED).suspects(0.4).tolist() == [[True, True], [False, False]]
    assert make_pool(ranking_scores=RANKED).suspects(0.6).tolist() == [[True, False], [False, False]]
    with pytest.raises(ValueError, match="pool must have probabilities"):
        make_pool(probability=None).suspects()


def test_the_files_of_a_pool_can_be_read_by_others(tmp_path: Path) -> None:
    make_pool().save(tmp_path / "pool")
    assert pq.read_table(tmp_path / "pool" / "queries.parquet").to_pylist()[0] == {
        "query_id": "q0",
        "positive_ids": ["a"],
        "candidate_ids": ["c", "b"],
        "scores": [np.float32(0.9), 0.5],
        "probability": [0.25, 0.5],
        "negative_ids": [],
        "excluded_ids": [],
        "ranking_scores": None,
    }
    assert pq.read_table(tmp_path / "pool" / "documents.parquet")["document_id"].to_pylist() == list("abc")
    assert json.loads((tmp_path / "pool" / "pool.json").read_text())["depth"] == 2


def test_a_pool_of_format_version_1_opens() -> None:
    assert_same(CandidatePool.load(SAVED_BY_VERSION_1 / "pool"), make_pool())


def test_an_empty_pool_can_be_saved(tmp_path: Path) -> None:
    make_pool(probability=None).select([]).save(tmp_path / "pool")
    assert len(CandidatePool.load(tmp_path / "pool")) == 0


def test_a_pool_replaces_a_pool_and_nothing_else(tmp_path: Path) -> None:
    make_pool().save(tmp_path / "pool")
    make_pool(query_ids=["x", "y"]).save(tmp_path / "pool")
    assert CandidatePool.load(tmp_path / "pool").query_ids == ["x", "y"]
    (tmp_path / "pool" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds other files \(notes\.txt\)"):
        make_pool().save(tmp_path / "pool")
    assert (tmp_path / "pool" / "notes.txt").exists()


def test_a_failed_save_leaves_the_old_pool_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_pool().save(tmp_path / "pool")

    def fail(*arguments: object, **options: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(json, "dumps", fail)
    with pytest.raises(OSError, match="disk full"):
        make_pool(query_ids=["x", "y"]).save(tmp_path / "pool")
    assert [path.name for path in tmp_path.iterdir()] == ["pool"]
    assert_same(CandidatePool.load(tmp_path / "pool"), make_pool())


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def lose(path: Path) -> None:
    path.unlink()


def drop_row(path: Path) -> None:
    table = pq.read_table(path)
    pq.write_table(table.slice(1), path)


@pytest.mark.parametrize("name", ["pool.json", "documents.parquet", "queries.parquet"])
@pytest.mark.parametrize("damage", [truncate, lose, drop_row])
def test_a_damaged_file_is_named(tmp_path: Path, name: str, damage: Callable[[Path], None]) -> None:
    if damage is drop_row and name == "pool.json":
        damage = truncate
    make_pool().save(tmp_path)
    damage(tmp_path / name)
    with pytest.raises(ValueError, match=rf"{name} is (missing or )?damaged"):
        CandidatePool.load(tmp_path)


def test_a_pool_of_another_version_or_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="No candidate pool at"):
        CandidatePool.load(tmp_path / "none")
    make_pool().save(tmp_path)
    (tmp_path / "pool.json").write_text('{"format_version": 9}')
    with pytest.raises(ValueError, match=r"pool\.json .* format version 9, this package reads 1"):
        CandidatePool.load(tmp_path)


FORGED = {
    "no scores": lambda table: table.drop_columns(["scores"]),
    "scores of another type": lambda table: table.set_column(3, "scores", pa.array([["a"], ["b"]])),
    "too few scores": lambda table: set_lists(table, "scores", [[0.5], [0.5]]),
    "scores in the wrong rows": lambda table: set_lists(table, "scores", [[0.5], [0.5, 0.5]]),
    "scores that are none": lambda table: set_lists(table, "scores", [[0.5, np.nan], [0.5]]),
    "endless scores": lambda table: set_lists(table, "scores", [[0.5, np.inf], [0.5]]),
    "missing scores": lambda table: set_lists(table, "scores", [[0.5, None], [0.5]]),
    "no row of scores": lambda table: set_lists(table, "scores", [[0.5, 0.4], None]),
    "probabilities above 1": lambda table: set_lists(table, "probability", [[7.0, 0.5], [0.5]]),
    "probabilities below 0": lambda table: set_lists(table, "probability", [[0.5, -0.1], [0.5]]),
    "probabilities that are none": lambda table: set_lists(table, "probability", [[0.5, np.nan], [0.5]]),
    "a row without probabilities": lambda table: set_lists(table, "probability", [[0.5, 0.5], None]),
    "probabilities in the wrong rows": lambda table: set_lists(table, "probability", [[0.5], [0.5, 0.5]]),
    "an unknown candidate": lambda table: set_lists(table, "candidate_ids", [["c", "z"], ["a"]]),
    "a missing candidate": lambda table: set_lists(table, "candidate_ids", [["c", None], ["a"]]),
    "too many candidates": lambda table: set_lists(table, "candidate_ids", [["c", "b", "a"], []]),
    "a candidate twice": lambda table: set_lists(table, "candidate_ids", [["c", "c"], ["a"]]),
    "a positive among the candidates": lambda table: set_lists(table, "candidate_ids", [["c", "b"], ["c"]]),
    "an unknown positive": lambda table: set_lists(table, "positive_ids", [["z"], ["b"]]),
    "no row of positives": lambda table: set_lists(table, "positive_ids", [["a"], None]),
    "a query twice": lambda table: table.set_column(0, "query_id", pa.array(["q0", "q0"], pa.large_string())),
    "a missing query": lambda table: table.set_column(
        0, "query_id", pa.array(["q0", None], pa.large_string())
    ),
}


def set_lists(table: pa.Table, name: str, lists: list[Any]) -> pa.Table:
    place = table.column_names.index(name)
    return table.set_column(place, name, pa.array(lists, table.schema.field(name).type))


@pytest.mark.parametrize("how", FORGED)
def test_a_forged_pool_is_refused(tmp_path: Path, how: str) -> None:
    make_pool().save(tmp_path)
    path = tmp_path / "queries.parquet"
    pq.write_table(FORGED[how](pq.read_table(path)), path)
    with pytest.raises(ValueError, match=r"queries\.parquet is damaged: it isn't the file that was saved"):
        CandidatePool.load(tmp_path)
    forge(tmp_path / "pool.json")
    with pytest.raises(ValueError, match=r"queries\.parquet (has no candidate pool|is damaged)"):
        CandidatePool.load(tmp_path)


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        *((entry, value) for entry in ("queries", "documents") for value in (10**9, -1, "2", None, [2])),
        *(("depth", value) for value in (1, 0, -1, 10**8, 10**30, "2", None, 2.0)),
        *(("fingerprint", value) for value in (None, "e", ["e"], {"encoder": 7})),
    ],
)
def test_forged_metadata_are_refused(tmp_path: Path, entry: str, value: object) -> None:
    make_pool().save(tmp_path)
    forge(tmp_path / "pool.json", **{entry: value})
    with pytest.raises(ValueError, match=r"(pool\.json|\w+\.parquet) (is damaged|has no)"):
        CandidatePool.load(tmp_path)


def test_what_an_interruption_at_the_very_end_left_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents, positives = np.eye(6, dtype=np.float32), [[row] for row in range(4)]
    work = partial(mine_embeddings, documents[:4], documents, positives, folder=tmp_path / "pool")
    with monkeypatch.context() as patch:
        patch.setattr(
            "rrra_hf.candidates.unfinished.shutil.rmtree", interrupt_after_the_pool(tmp_path / "pool")
        )
        with pytest.raises(KeyboardInterrupt):
            work()
    assert len(list(tmp_path.iterdir())) == 2
    assert_array_equal(work().candidates, CandidatePool.load(tmp_path / "pool").candidates)
    assert [path.name for path in tmp_path.iterdir()] == ["pool"]


def interrupt_after_the_pool(folder: Path) -> Callable[..., None]:
    """Return what stands for `rmtree`, and interrupts where the pool is in its place."""
    original = shutil.rmtree

    def remove(path: Path, **options: Any) -> None:
        if folder.exists():
            raise KeyboardInterrupt
        original(path, **options)

    return remove
