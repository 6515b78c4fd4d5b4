"""Candidates are the best unlabelled documents, and a pool is whole, checked and bound to its source."""

from __future__ import annotations

import dataclasses
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
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sentence_transformers import SentenceTransformer

from rrra_hf.candidates import CandidatePool, mine, mine_embeddings
from rrra_hf.candidates.exact import ExactSearch
from rrra_hf.data import Collection
from rrra_hf.embeddings import embed_collection, encoder_fingerprint, load_embeddings, save_embeddings
from rrra_hf.indexes import FlatIndex


@dataclasses.dataclass
class Case:
    queries: np.ndarray
    documents: np.ndarray
    positives: list[list[int]]
    excluded: list[list[int]]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    n, m = draw(st.integers(1, 12)), draw(st.integers(1, 25))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    row = st.integers(0, m - 1)
    return Case(
        queries=rng.standard_normal((n, 5)),
        documents=rng.standard_normal((m, 5)),
        positives=[draw(st.lists(row, min_size=1, max_size=m + 1)) for _ in range(n)],
        excluded=[draw(st.lists(row, max_size=m)) for _ in range(n)],
    )


def brute_force(case: Case, query: int) -> tuple[np.ndarray, np.ndarray]:
    """All candidates of a query and their cosines, best first."""
    q, d = case.queries[query], case.documents
    cosines = d @ q / np.linalg.norm(d, axis=1) / np.linalg.norm(q)
    removed = {*case.positives[query], *case.excluded[query]}
    order = [row for row in np.argsort(-cosines) if row not in removed]
    return np.array(order, dtype=int), cosines[order]


@given(cases(), st.integers(1, 30), st.integers(1, 13))
def test_mining_agrees_with_brute_force(case: Case, depth: int, block_size: int) -> None:
    pool = mine_embeddings(
        case.queries,
        case.documents,
        case.positives,
        depth=depth,
        excluded=case.excluded,
        block_size=block_size,
    )
    assert pool.candidates.shape == pool.scores.shape == (len(pool), depth)
    assert pool.candidates.dtype == np.int32 and pool.scores.dtype == np.float32
    for query, (rows, scores) in enumerate(zip(pool.candidates, pool.scores, strict=True)):
        expected_rows, expected_scores = brute_force(case, query)
        count = min(depth, len(expected_rows))
        assert_array_equal(rows[:count], expected_rows[:depth])
        assert_allclose(scores[:count], expected_scores[:depth], atol=1e-5)
        assert (rows[count:] == -1).all() and (scores[count:] == -np.inf).all()
        assert (np.diff(scores[:count]) <= 0).all()
        assert not set(rows) & {*case.positives[query], *case.excluded[query]}
        assert_array_equal(pool.positives[query], sorted(set(case.positives[query])))


@given(cases(), st.integers(1, 9))
def test_a_saved_pool_loads_equal(tmp_path_factory: pytest.TempPathFactory, case: Case, depth: int) -> None:
    pool = mine_embeddings(
        case.queries, case.documents, case.positives, depth=depth, fingerprint={"encoder": "a", "corpus": "b"}
    )
    probability = np.where(pool.candidates < 0, np.nan, np.abs(pool.scores))
    for given_pool in (pool, dataclasses.replace(pool, probability=probability)):
        folder = tmp_path_factory.mktemp("pools") / "deeper" / "pool"
        given_pool.save(folder)
        assert_same(CandidatePool.load(folder), given_pool)
        assert [path.name for path in folder.parent.iterdir()] == ["pool"]


def assert_same(ours: CandidatePool, theirs: CandidatePool) -> None:
    assert ours.query_ids == theirs.query_ids
    assert ours.document_ids == theirs.document_ids
    assert ours.positive_ids == theirs.positive_ids
    assert ours.fingerprint == theirs.fingerprint
    assert_array_equal(ours.candidates, theirs.candidates)
    assert_array_equal(ours.scores, theirs.scores)
    assert (ours.probability is None) == (theirs.probability is None)
    if ours.probability is not None and theirs.probability is not None:
        assert_array_equal(ours.probability, theirs.probability)
    for name in ("candidates", "scores", "probability"):
        values = [getattr(pool, name) for pool in (ours, theirs)]
        assert values[0] is None or values[0].dtype == values[1].dtype


# ---------------------------------------------------------------- mining

IDENTITY = np.eye(4)


def test_one_document_gives_a_pool_without_candidates(tmp_path: Path) -> None:
    pool = mine_embeddings(np.ones((2, 3)), np.ones((1, 3)), [[0], [0]], depth=5)
    assert (pool.candidates == -1).all() and pool.candidate_ids == [[], []]
    pool.save(tmp_path / "pool")
    assert_same(CandidatePool.load(tmp_path / "pool"), pool)


def test_memory_mapped_embeddings_can_be_mined(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    documents = rng.standard_normal((30, 4)).astype(np.float32)
    save_embeddings(tmp_path / "d.arrow", documents)
    mapped = load_embeddings(tmp_path / "d.arrow")
    positives = [[row] for row in range(30)]
    assert_same(
        mine_embeddings(mapped, mapped, positives, depth=3),
        mine_embeddings(documents, documents, positives, depth=3),
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"query_embeddings": np.ones(4)}, r"query_embeddings must be numbers of shape \(n, dim\)"),
        ({"query_embeddings": np.ones((4, 4)) * np.nan}, "query_embeddings must be finite: 4 of 4 rows"),
        ({"document_embeddings": np.ones((4, 3))}, "document_embeddings must have dimension 4, got 3"),
        ({"document_embeddings": np.ones((0, 4))}, "document_embeddings must not be empty"),
        (
            {"document_embeddings": np.where(IDENTITY, np.inf, 0)},
            "document_embeddings must be finite: 4 of 4 rows",
        ),
        ({"positives": [[0], [1]]}, r"positives must have one entry a query \(4\), got 2"),
        ({"positives": [[0], [], [1], []]}, "2 of 4 have none, the first is '1'"),
        ({"positives": [[0], [1], [], [3]], "query_ids": list("abcd")}, "1 of 4 have none, the first is 'c'"),
        ({"positives": [[0], [1], [2], [4]]}, r"rows of the 4 documents, got \[4\] for query 3"),
        ({"positives": [[0], [-1], [2], [3]]}, r"got \[-1\] for query 1"),
        ({"positives": [[0], [1.5], [2], [3]]}, r"got \[1.5\] for query 1"),
        ({"excluded": [[], [], [7], []]}, r"excluded must hold rows .* got \[7\] for query 2"),
        ({"excluded": [[]]}, "excluded must have one entry a query"),
        ({"query_ids": ["a"]}, r"query_ids must have one entry an embedding \(4\), got 1"),
        ({"document_ids": ["a"]}, r"document_ids must have one entry an embedding \(4\), got 1"),
        ({"document_ids": ["a", "b", "a", "c"]}, "document_ids must be unique, 1 of 4 repeat"),
        ({"depth": 0}, "depth must be at least 1, got 0"),
    ],
)
def test_bad_arguments_are_named(changes: dict[str, Any], message: str) -> None:
    arguments = {
        "query_embeddings": IDENTITY,
        "document_embeddings": IDENTITY,
        "positives": [[0], [1], [2], [3]],
        **changes,
    }
    with pytest.raises(ValueError, match=message):
        mine_embeddings(**arguments)


def make_collection(qrels: dict[str, dict[str, int]] | None = None) -> Collection:
    texts = ["copy files", "sort text", "copy files", "find folder", "list files", "find line"]
    queries = ["how do i copy files", "how do i sort", "find a folder"]
    return Collection(
        name="tiny",
        corpus=Dataset.from_dict({"id": list("abcdef"), "title": [""] * 6, "text": texts}),
        queries=Dataset.from_dict({"id": ["q0", "q1", "q2"], "text": queries}),
        qrels_by_split={
            "train": {"q0": {"a": 1}, "q2": {"d": 1, "f": 2}} if qrels is None else qrels,
            "test": {"q1": {"b": 1}},
        },
    )


@pytest.fixture(scope="module")
def encoder(tiny_bert: Path) -> SentenceTransformer:
    return SentenceTransformer(str(tiny_bert), device="cpu")


def test_a_collection_is_mined_without_positives_and_documents_of_their_text(
    encoder: SentenceTransformer, tmp_path: Path
) -> None:
    collection = make_collection()
    pool = mine(collection, encoder, depth=10, cache_dir=tmp_path)
    assert pool.query_ids == ["q0", "q2"]
    assert pool.positive_ids == [["a"], ["d", "f"]]
    # c is no positive of q0, but it has the text of one.
    assert [sorted(ids) for ids in pool.candidate_ids] == [list("bdef"), list("abce")]
    queries = encoder.encode_query(["how do i copy files", "find a folder"])
    cosines = queries @ encoder.encode_document(collection.document_texts).T
    for row in range(2):
        found = pool.candidates[row, :4]
        assert_allclose(pool.scores[row, :4], cosines[row, found], atol=1e-5)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_mined_pool_knows_what_it_was_mined_with(encoder: SentenceTransformer) -> None:
    collection = make_collection()
    pool = mine(collection, encoder, depth=2)
    assert pool.fingerprint["encoder"] == encoder_fingerprint(encoder)
    pool.require(embed_collection(collection.split("train"), encoder).fingerprint)
    with pytest.raises(ValueError, match="other queries"):
        pool.require(embed_collection(collection, encoder).fingerprint)
    pool.select([1, 0]).require(embed_collection(collection, encoder).fingerprint)
    with pytest.raises(ValueError, match="another corpus"):
        pool.select([0]).require({**pool.fingerprint, "corpus": "b"})
    with pytest.raises(ValueError, match=r"another encoder \(.*, not b\)"):
        pool.require({**pool.fingerprint, "encoder": "b"})


def test_a_collection_that_cannot_be_mined_is_refused(encoder: SentenceTransformer) -> None:
    with pytest.raises(ValueError, match="1 of 2 have none, the first is 'q2'"):
        mine(make_collection({"q0": {"a": 1}, "q2": {}}), encoder)
    with pytest.raises(ValueError, match="no split 'dev'"):
        mine(make_collection(), encoder, split="dev")
    with pytest.raises(ValueError, match="depth must be at least 1, got -1"):
        mine(make_collection(), encoder, depth=-1)
    with pytest.raises(ValueError, match="collection must have queries, got none"):
        mine(make_collection({}), encoder)


# ---------------------------------------------------------------- blocks, indexes, folders


def random_case(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "query_embeddings": rng.standard_normal((50, 6)),
        "document_embeddings": rng.standard_normal((400, 6)),
        "positives": [[row, 2 * row + 9] for row in range(50)],
        "depth": 7,
    }


@pytest.mark.parametrize("max_memory", [1, 500, 10_000, 2**25])
@pytest.mark.parametrize("block_size", [1, 13, 64])
def test_neither_blocks_nor_tiles_change_the_pool(max_memory: int, block_size: int) -> None:
    expected = mine_embeddings(**random_case())
    found = mine_embeddings(**random_case(), max_memory=max_memory, block_size=block_size)
    assert_array_equal(found.candidates, expected.candidates)
    assert_allclose(found.scores, expected.scores, atol=1e-6)


def test_several_threads_mine_the_same() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        found = mine_embeddings(**random_case(), block_size=8)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert_array_equal(found.candidates, mine_embeddings(**random_case()).candidates)


def test_an_index_is_searched_in_place_of_the_documents() -> None:
    case = random_case()
    index = FlatIndex(6)
    index.add(case["document_embeddings"])
    found = mine_embeddings(**case, index=index)
    expected = mine_embeddings(**case)
    assert_array_equal(found.candidates, expected.candidates)
    assert_allclose(found.scores, expected.scores, atol=1e-6)
    with pytest.raises(ValueError, match=r"index must hold documents of shape \(400, 6\), got \(0, 6\)"):
        mine_embeddings(**case, index=FlatIndex(6))


class FewHits(FlatIndex):
    """Finds three documents and fills up with -1, as approximate indexes do."""

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        scores, rows = super().search(queries, k)
        scores[:, 3:], rows[:, 3:] = -np.inf, -1
        return scores, rows


def test_an_approximate_index_may_find_too_few(tmp_path: Path) -> None:
    case = random_case()
    index = FewHits(6)
    index.add(case["document_embeddings"])
    # Half of the queries have their nearest document for a positive.
    _, nearest = FlatIndex.search(index, case["query_embeddings"], 400)
    case["positives"] = [[rows[0 if query % 2 else -1]] for query, rows in enumerate(nearest)]
    pool = mine_embeddings(**case, index=index, folder=tmp_path / "pool")
    expected = mine_embeddings(**case).candidates
    kept = (pool.candidates >= 0).sum(axis=1)
    assert kept.tolist() == [3, 2] * 25
    for row, count in enumerate(kept):
        assert_array_equal(pool.candidates[row, :count], expected[row, :count])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block_size": 0}, "block_size must be at least 1, got 0"),
        ({"max_memory": -1}, "max_memory must be at least 1, got -1"),
    ],
)
def test_sizes_are_checked(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mine_embeddings(**random_case(), **options)


def count_searches(monkeypatch: pytest.MonkeyPatch, fail_after: int = 10**9) -> list[slice]:
    """Record the blocks that are really searched for; raise when it would be more than `fail_after`."""
    searched: list[slice] = []
    original = ExactSearch.search

    def record(self: ExactSearch, block: slice) -> tuple[np.ndarray, np.ndarray]:
        if len(searched) == fail_after:
            raise KeyboardInterrupt
        searched.append(block)
        return original(self, block)

    monkeypatch.setattr(ExactSearch, "search", record)
    return searched


def test_interrupted_mining_goes_on_with_the_next_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**random_case(), "block_size": 5, "folder": tmp_path / "pool"}
    count_searches(monkeypatch, fail_after=6)
    with pytest.raises(KeyboardInterrupt):
        mine_embeddings(**options)
    monkeypatch.undo()
    shards = list(tmp_path.glob(".pool.*/*.arrow"))
    assert len(shards) == 6
    searched = count_searches(monkeypatch)
    pool = mine_embeddings(**options)
    assert len(searched) == 4
    assert_array_equal(pool.candidates, mine_embeddings(**random_case()).candidates)
    assert [path.name for path in tmp_path.iterdir()] == ["pool"]
    assert_same(CandidatePool.load(tmp_path / "pool"), pool)


def test_damaged_blocks_are_mined_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    options = {**random_case(), "block_size": 5, "folder": tmp_path / "pool"}
    count_searches(monkeypatch, fail_after=6)
    with pytest.raises(KeyboardInterrupt):
        mine_embeddings(**options)
    monkeypatch.undo()
    cut, foreign, *_ = sorted(tmp_path.glob(".pool.*/*.arrow"))
    cut.write_bytes(cut.read_bytes()[:-50])
    save_embeddings(foreign, np.ones((5, 7)))
    searched = count_searches(monkeypatch)
    pool = mine_embeddings(**options)
    assert len(searched) == 6
    assert str(cut) in caplog.text and "mining again" in caplog.text
    assert_array_equal(pool.candidates, mine_embeddings(**random_case()).candidates)


def test_a_finished_pool_is_read_and_another_one_replaces_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "pool"
    first = mine_embeddings(**random_case(), folder=folder)
    searched = count_searches(monkeypatch)
    assert_same(mine_embeddings(**random_case(), folder=folder), first)
    assert searched == []
    changed = random_case()
    changed["positives"][3] = [1]
    for case in (random_case(1), changed, {**random_case(), "depth": 4}):
        searched.clear()
        pool = mine_embeddings(**case, folder=folder)
        assert len(searched) == 1
        assert_same(CandidatePool.load(folder), pool)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds other files \(notes\.txt\)"):
        mine_embeddings(**random_case(), folder=folder)


def test_a_collection_is_mined_into_a_folder(encoder: SentenceTransformer, tmp_path: Path) -> None:
    pool = mine(make_collection(), encoder, depth=3, folder=tmp_path / "pool")
    expected = mine(make_collection(), encoder, depth=3)
    assert pool.candidate_ids == expected.candidate_ids
    assert pool.fingerprint == {**expected.fingerprint, "mining": pool.fingerprint["mining"]}


# ---------------------------------------------------------------- the pool


def make_pool(**changes: Any) -> CandidatePool:
    fields = {
        "query_ids": ["q0", "q1"],
        "document_ids": ["a", "b", "c"],
        "positives": [np.array([0]), np.array([1, 2])],
        "candidates": np.array([[2, 1], [0, -1]]),
        "scores": np.array([[0.9, 0.5], [0.7, -np.inf]]),
        "probability": np.array([[0.25, 0.5], [0.125, np.nan]]),
        "fingerprint": {"encoder": "e", "corpus": "c", "queries": "q"},
    }
    return CandidatePool(**{**fields, **changes})


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
        ({"positives": [[0]]}, r"positives must have one entry a query \(2\), got 1"),
        ({"positives": [[0], [3]]}, "positives must hold rows of the 3 documents, got 0 to 3"),
        ({"positives": [[0], [-1]]}, "positives must hold rows of the 3 documents, got -1 to 0"),
        ({"candidates": np.array([2, 1])}, r"candidates must have shape \(2, depth\), got \(2,\)"),
        ({"candidates": np.array([[3, 1], [0, -1]])}, "candidates must hold rows .* got -1 to 3"),
        ({"candidates": np.array([[2, 1], [-1, 0]])}, "candidates must have -1 only at the end"),
        ({"scores": np.ones((2, 3))}, r"scores must have shape \(2, 2\), got \(2, 3\)"),
        ({"probability": np.ones(2)}, r"probability must have shape \(2, 2\)"),
    ],
)
def test_an_inconsistent_pool_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_pool(**changes)


def test_the_files_of_a_pool_can_be_read_by_others(tmp_path: Path) -> None:
    make_pool().save(tmp_path / "pool")
    assert pq.read_table(tmp_path / "pool" / "queries.parquet").to_pylist()[0] == {
        "query_id": "q0",
        "positive_ids": ["a"],
        "candidate_ids": ["c", "b"],
        "scores": [np.float32(0.9), 0.5],
        "probability": [0.25, 0.5],
    }
    assert pq.read_table(tmp_path / "pool" / "documents.parquet")["document_id"].to_pylist() == list("abc")
    assert json.loads((tmp_path / "pool" / "pool.json").read_text())["depth"] == 2


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
    queries = pq.read_table(tmp_path / "queries.parquet")
    for table in (
        queries.drop_columns(["scores"]),
        queries.set_column(3, "scores", pa.array([[0.5], [0.5]])),
        queries.set_column(2, "candidate_ids", pa.array([["c", "z"], ["a"]])),
        queries.set_column(2, "candidate_ids", pa.array([["c", "b", "a"], []])),
    ):
        pq.write_table(table, tmp_path / "queries.parquet")
        with pytest.raises(ValueError, match=r"queries\.parquet does not hold a candidate pool"):
            CandidatePool.load(tmp_path)
    (tmp_path / "pool.json").write_text('{"format_version": 9}')
    with pytest.raises(ValueError, match=r"pool\.json .* format version 9, this package reads 1"):
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
