"""Approximate search agrees with exact search nearly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from forgery import forge
from rrra_hf.indexes import ApproximateIndex, FlatIndex, choose, load_index, recall_report
from small_indexes import APPROXIMATE, clustered, cosines, make_approximate, make_index


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_an_approximate_index_finds_most_with_exact_cosines(kind: str) -> None:
    documents, queries = clustered(3000), clustered(50, seed=1)
    index = make_approximate(kind, documents, oversample=4)
    assert not index.is_exact
    scores, rows = index.search(queries, 10)
    assert scores.shape == rows.shape == (50, 10)
    assert scores.dtype == np.float32 and rows.dtype == np.int64
    expected = cosines(queries, documents)
    assert_allclose(scores, np.take_along_axis(expected, rows, axis=1), atol=1e-5)
    assert (np.diff(scores) <= 0).all()
    assert all(len(set(row)) == 10 for row in rows)
    nearest = np.argsort(-expected, axis=1)[:, :10]
    assert np.mean([len(set(a) & set(b)) for a, b in zip(nearest, rows, strict=True)]) >= 9
    exact_scores, exact_rows = index.search_exactly(queries, 10)
    assert_array_equal(exact_rows, nearest)
    assert_allclose(exact_scores, -np.sort(-expected)[:, :10], atol=1e-5)
    unit = documents / np.linalg.norm(documents, axis=1, keepdims=True)
    assert_allclose(index.reconstruct(rows), unit[rows], atol=1e-6)


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_every_query_gets_k_documents_however_little_effort_is_made(kind: str) -> None:
    documents = clustered(1000)
    index = make_approximate(kind, documents, oversample=1, effort=1e-3)
    for k in (1, 300, 1000, 5000):
        scores, rows = index.search(documents[:5], k)
        assert scores.shape == rows.shape == (5, min(k, 1000))
        assert all(len(set(row)) == len(row) and min(row) >= 0 for row in rows.tolist())
        assert np.isfinite(scores).all()


def test_more_effort_and_more_candidates_miss_less() -> None:
    documents, queries = clustered(3000, dim=32), clustered(50, dim=32, seed=1)

    def recall(kind: str, **settings: float) -> float:
        index = make_approximate(kind, documents, **settings)
        return recall_report(index, queries, 50).recall

    assert recall("ivf-flat", effort=0.01) < recall("ivf-flat", effort=0.1) < recall("ivf-flat", effort=4)
    assert recall("ivf-flat", effort=1000) == 1
    assert recall("ivf-pq", oversample=1, effort=1000) < recall("ivf-pq", oversample=8, effort=1000)


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_ties_of_an_approximate_index_are_sorted_by_row(kind: str) -> None:
    index = make_approximate(kind, np.tile([[1.0, 0.0], [0.0, 1.0]], (150, 1)))
    _, rows = index.search(np.array([[1.0, 0.0]]), k=300)
    assert_array_equal(rows[0], [*range(0, 300, 2), *range(1, 300, 2)])


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_an_approximate_index_is_exact_until_it_is_trained_in_blocks_or_at_once(kind: str) -> None:
    documents, queries = clustered(600), clustered(20, seed=1)
    blocks = ApproximateIndex(16, kind, 600)
    for start in range(0, 600, 100):
        blocks.add(documents[start : start + 100])
        if blocks.is_exact:
            for ours, theirs in zip(
                blocks.search(queries, 7), blocks.search_exactly(queries, 7), strict=True
            ):
                assert_array_equal(ours, theirs)
    assert len(blocks) == 600 and not blocks.is_exact
    if kind != "hnsw":  # whose graph may depend on the threads' timing
        _, rows = blocks.search(queries, 7)
        assert_array_equal(rows, make_approximate(kind, documents).search(queries, 7)[1])


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_a_saved_approximate_index_is_mapped_finds_the_same_and_grows(kind: str, tmp_path: Path) -> None:
    documents, queries = clustered(600), clustered(20, seed=1)
    index = make_approximate(kind, documents[:500], effort=2, seed=3)
    index.save(tmp_path / "index")
    loaded = load_index(tmp_path / "index")
    assert isinstance(loaded, ApproximateIndex)
    assert (len(loaded), loaded.dim, loaded.kind, loaded.effort, loaded.seed) == (500, 16, kind, 2, 3)
    for ours, theirs in zip(index.search(queries, 5), loaded.search(queries, 5), strict=True):
        assert_array_equal(ours, theirs)
    # The files may be replaced while they are mapped.
    index.save(tmp_path / "index")
    loaded.add(documents[500:])
    assert_array_equal(loaded.search(documents[490:510], 1)[1][:, 0], range(490, 510))
    loaded.save(tmp_path / "index")
    again = load_index(tmp_path / "index")
    assert len(again) == 600
    assert_array_equal(again.reconstruct(np.arange(600)), loaded.reconstruct(np.arange(600)))
    assert sorted(path.name for path in (tmp_path / "index").iterdir() if path.is_file()) == ["current.json"]
    assert len([path for path in (tmp_path / "index").iterdir() if path.is_dir()]) == 1


def test_an_untrained_or_empty_approximate_index_can_be_saved(tmp_path: Path) -> None:
    index = ApproximateIndex(4, "ivf-flat", 1000)
    index.save(tmp_path / "index")
    loaded = load_index(tmp_path / "index")
    assert len(loaded) == 0
    with pytest.raises(ValueError, match="index is empty"):
        loaded.search(np.ones((1, 4)), 1)
    loaded.add(np.eye(4))
    loaded.save(tmp_path / "index")
    assert load_index(tmp_path / "index").search(np.eye(4), 1)[1].tolist() == [[0], [1], [2], [3]]


def test_a_save_that_fails_leaves_the_index_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_approximate("ivf-flat", np.eye(4)).save(tmp_path / "index")
    other = make_approximate("ivf-flat", np.ones((9, 4)))
    monkeypatch.setattr(
        "rrra_hf.indexes.vectors.save_embeddings", lambda *_: (_ for _ in ()).throw(OSError("full"))
    )
    with pytest.raises(OSError, match="full"):
        other.save(tmp_path / "index")
    assert len(load_index(tmp_path / "index")) == 4
    assert len([path for path in (tmp_path / "index").iterdir() if path.is_dir()]) == 1


@pytest.mark.parametrize("name", ["candidates.faiss", "embeddings.arrow", "meta.json"])
def test_a_damaged_approximate_index_is_refused(name: str, tmp_path: Path) -> None:
    make_approximate("hnsw", clustered(50)).save(tmp_path / "index")
    path = next((tmp_path / "index").glob(f"*/{name}"))
    whole = path.read_bytes()
    for kept in (0, 5, len(whole) // 2):
        path.write_bytes(whole[:kept])
        with pytest.raises(ValueError, match="damaged"):
            ApproximateIndex.load(tmp_path / "index")
    path.unlink()
    with pytest.raises(ValueError, match="damaged"):
        ApproximateIndex.load(tmp_path / "index")
    with pytest.raises(FileNotFoundError, match="No index at"):
        ApproximateIndex.load(tmp_path / "none")


def test_files_of_two_indexes_are_not_mixed(tmp_path: Path) -> None:
    for name, count in (("a", 50), ("b", 60)):
        make_approximate("hnsw", clustered(count)).save(tmp_path / name)
    ours, theirs = (next((tmp_path / name).glob("*/embeddings.arrow")) for name in "ab")
    theirs.replace(ours)
    with pytest.raises(ValueError, match=r"embeddings\.arrow is damaged: it isn't the file that was saved"):
        ApproximateIndex.load(tmp_path / "a")
    forge(ours.parent / "meta.json")
    with pytest.raises(ValueError, match=r"have \(60, 16\) embeddings and .*vectors=50\), not \(50, 16\)"):
        load_index(tmp_path / "a")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "flat"}, "kind must be one of hnsw, ivf-flat, ivf-sq8, ivf-pq, got 'flat'"),
        ({"dim": 0}, "dim must be at least 1, got 0"),
        ({"count": 0}, "count must be at least 1, got 0"),
        ({"oversample": 0}, "oversample must be at least 1, got 0"),
        ({"effort": 0.0}, "effort must be greater than 0, got 0.0"),
    ],
)
def test_bad_settings_of_an_approximate_index_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ApproximateIndex(**{"dim": 4, "kind": "hnsw", "count": 10, **arguments})


def test_bad_calls_of_an_approximate_index_are_refused() -> None:
    index = make_approximate("hnsw", np.ones((4, 2)))
    with pytest.raises(ValueError, match="embeddings must be finite"):
        index.add(np.array([[np.nan, 0.0]]))
    assert len(index) == 4
    for row in (-1, 4):
        with pytest.raises(ValueError, match=r"rows must be in \[0, 4\)"):
            index.reconstruct(np.array([0, row]))
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        index.search(np.ones((1, 2)), 0)
    with pytest.raises(ValueError, match="queries must have dimension 2, got 3"):
        index.search_exactly(np.ones((1, 3)), 1)


def test_the_index_is_chosen_by_size_and_the_reason_logged(caplog: pytest.LogCaptureFixture) -> None:
    kinds = {10**4: "flat", 10**6: "hnsw", 10**7: "ivf-sq8", 10**8: "ivf-pq"}
    for count, kind in kinds.items():
        with caplog.at_level("INFO", logger="rrra_hf.indexes"):
            index = choose.make_index(8, count)
        assert kind in caplog.text and f"{count} documents" in caplog.text
        assert isinstance(index, FlatIndex) if kind == "flat" else index.kind == kind
        caplog.clear()
    assert choose.make_index(8, 10, "ivf-pq").kind == "ivf-pq"
    with pytest.raises(
        ValueError, match="kind must be one of auto, flat, hnsw, ivf-flat, ivf-sq8, ivf-pq, got 'lsh'"
    ):
        choose.make_index(8, 10, "lsh")
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        choose.make_index(8, 0)


def test_an_index_of_any_kind_is_loaded(tmp_path: Path) -> None:
    make_index(np.eye(3)).save(tmp_path / "flat")
    assert isinstance(load_index(tmp_path / "flat"), FlatIndex)
    with pytest.raises(FileNotFoundError, match="No index at"):
        load_index(tmp_path / "none")


def test_a_recall_report_counts_what_is_missed() -> None:
    documents = np.eye(4)
    exact, shuffled = make_index(documents), make_index(documents[[1, 0, 2, 3]])
    report = recall_report(shuffled, documents, 1, exact)
    assert (report.recall, report.worst_recall, report.documents, report.queries, report.k) == (
        0.5,
        0,
        4,
        4,
        1,
    )
    assert 0 < report.p50_ms <= report.p95_ms <= report.p99_ms
    assert report.to_dict()["recall"] == 0.5
    assert recall_report(shuffled, documents, 1, exact=3 * documents).recall == 0.5
    assert recall_report(exact, documents, 9, exact).recall == 1
    with pytest.raises(ValueError, match="must have the same documents, got 4 and 1 documents"):
        recall_report(exact, documents, 1, documents[:1])
    with pytest.raises(ValueError, match="exact must be given to compare an index of type FlatIndex with"):
        recall_report(exact, documents, 1)
