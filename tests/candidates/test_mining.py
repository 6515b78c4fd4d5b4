"""Candidates are the best unlabelled documents, and a pool is whole, checked and bound to its source."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sentence_transformers import SentenceTransformer

from feature_task import Task
from mined import assert_same, make_collection, random_case
from rrra_hf import RetrieverAdapter
from rrra_hf.candidates import CandidatePool, mine, mine_collection, mine_embeddings
from rrra_hf.candidates.reading import with_probability
from rrra_hf.embeddings import embed_collection, encoder_fingerprint, load_embeddings, save_embeddings
from rrra_hf.indexes import FlatIndex, WordIndex


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
        ({"positives": [[0], [1]]}, r"positives must have one entry per query \(4\), got 2"),
        ({"positives": [[0], [], [1], []]}, "2 of 4 have none, the first is '1'"),
        ({"positives": [[0], [1], [], [3]], "query_ids": list("abcd")}, "1 of 4 have none, the first is 'c'"),
        ({"positives": [[0], [1], [2], [4]]}, r"rows of the 4 documents, got \[4\] for query 3"),
        ({"positives": [[0], [-1], [2], [3]]}, r"got \[-1\] for query 1"),
        ({"positives": [[0], [1.5], [2], [3]]}, r"got \[1.5\] for query 1"),
        ({"excluded": [[], [], [7], []]}, r"excluded must hold rows .* got \[7\] for query 2"),
        ({"excluded": [[]]}, "excluded must have one entry per query"),
        ({"query_ids": ["a"]}, r"query_ids must have one entry per embedding \(4\), got 1"),
        ({"document_ids": ["a"]}, r"document_ids must have one entry per embedding \(4\), got 1"),
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
    # Embeddings of both, and the words of the corpus.
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("block_size", [1, 7, 100])
def test_words_find_half_of_the_candidates(block_size: int, tmp_path: Path) -> None:
    task = Task()
    labelled = task.queries(30)
    excluded = [[(rows[0] + 1) % 120] for rows in labelled.positives]
    case: dict[str, Any] = {
        "query_embeddings": 3 * labelled.embeddings,
        "document_embeddings": 2 * task.documents,
        "positives": labelled.positives,
        "excluded": excluded,
        "query_words": labelled.words,
        "document_words": task.words,
    }
    pool = mine_embeddings(**case, depth=10, block_size=block_size)
    cosines = labelled.embeddings @ task.documents.T
    found = task.words.search(labelled.words, 120)[1]
    for query, (rows, kept) in enumerate(zip(pool.candidates, pool.scores, strict=True)):
        removed = {int(labelled.positives[query][0]), *excluded[query]}
        dense = [row for row in np.argsort(-cosines[query]) if row not in removed]
        by_words = [row for row in found[query] if row >= 0 and row not in removed]
        merged: list[int] = []
        for place in range(10):
            merged += [ranking[place] for ranking in (dense, by_words) if place < len(ranking)]
        expected = list(dict.fromkeys(merged))[:10]
        assert set(rows) == set(expected)
        assert_allclose(kept, cosines[query, rows], atol=1e-5)
        assert (np.diff(kept) <= 0).all()
    folder = tmp_path / "pool"
    saved = mine_embeddings(**case, depth=10, block_size=block_size, folder=folder)
    assert_array_equal(saved.candidates, pool.candidates)
    # Another word of a query makes another pool.
    other = {**case, "query_words": task.queries(30).words}
    again = mine_embeddings(**other, depth=10, block_size=block_size, folder=folder)
    assert not np.array_equal(again.candidates, pool.candidates)


def test_words_find_too_few_in_a_small_corpus() -> None:
    small = Task(documents=4)
    labelled = small.queries(3)
    words = {"query_words": labelled.words, "document_words": small.words}
    given = labelled.embeddings, small.documents, labelled.positives
    pool = mine_embeddings(*given, depth=6, **words)
    expected = mine_embeddings(*given, depth=6)
    assert_array_equal(pool.candidates, expected.candidates)
    assert_allclose(pool.scores, expected.scores, atol=1e-6)


@pytest.mark.parametrize("given", ["by default", "an adapter", None])
def test_mined_candidates_have_the_probability_of_the_trained_adapter(
    encoder: SentenceTransformer, given: str | None, tmp_path: Path
) -> None:
    collection = make_collection()
    part = collection.split("train")
    options: dict[str, Any] = {} if given == "by default" else {"adapter": None}
    if given == "an adapter":
        options = {"adapter": RetrieverAdapter.pretrained()}
    pool = mine(collection, encoder, depth=10, folder=tmp_path / "pool", **options)
    words = WordIndex.of(part.document_texts)
    embeddings = embed_collection(part, encoder)
    expected = mine_collection(part, embeddings, 10, words=words)
    assert_array_equal(pool.candidates, expected.candidates)
    if given is None:
        assert pool.probability is None
    else:
        counts = words.count(part.query_texts)
        trained = RetrieverAdapter.pretrained()
        probability = with_probability(expected, trained, embeddings, counts, words).probability
        assert_allclose(pool.probability, probability, rtol=1e-5)
        assert_array_equal(np.isnan(pool.probability), pool.candidates < 0)
    saved = CandidatePool.load(tmp_path / "pool").probability
    assert saved is None if given is None else np.array_equal(saved, pool.probability, equal_nan=True)


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
    with pytest.raises(
        ValueError, match="adapter must be a RetrieverAdapter, 'pretrained' or None, got 'no'"
    ):
        mine(make_collection(), encoder, adapter="no")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="collection must have queries, got none"):
        mine(make_collection({}), encoder)


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
    with pytest.raises(ValueError, match=r"index must have documents of shape \(400, 6\), got \(0, 6\)"):
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
