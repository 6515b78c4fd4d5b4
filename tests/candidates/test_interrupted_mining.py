"""Interrupted mining goes on with the next block."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sentence_transformers import SentenceTransformer

from mined import assert_same, make_collection, random_case
from rrra_hf.candidates import CandidatePool, mine, mine_embeddings
from rrra_hf.embeddings import save_embeddings
from rrra_hf.indexes import search_flat


def count_searches(monkeypatch: pytest.MonkeyPatch, fail_after: int = 10**9) -> list[int]:
    """Record how many queries are really searched at a time; raise at the search after `fail_after`."""
    searched: list[int] = []

    def record(queries: np.ndarray, *arguments: object, **options: object) -> tuple[np.ndarray, np.ndarray]:
        if len(searched) == fail_after:
            raise KeyboardInterrupt
        searched.append(len(queries))
        return search_flat(queries, *arguments, **options)

    monkeypatch.setattr("rrra_hf.candidates.mining.search_flat", record)
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
