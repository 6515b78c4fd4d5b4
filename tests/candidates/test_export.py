"""Pools go out as runs of TREC and as JSONL of FlagEmbedding."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mined import make_collection
from rrra_hf.candidates import CandidatePool
from rrra_hf.candidates.export import pool_run, write_pool_flag_embedding
from rrra_hf.data import load_collection, read_run, write_run


@pytest.fixture
def pool() -> CandidatePool:
    return CandidatePool(
        query_ids=["q0", "q2"],
        document_ids=list("abcdef"),
        positives=[np.array([0]), np.array([3, 5])],
        candidates=np.array([[1, 2], [4, -1]]),
        scores=np.array([[0.75, 0.5], [0.25, -np.inf]]),
        probability=np.array([[0.25, 1.0], [0.125, np.nan]]),
    )


def test_pools_are_runs(pool: CandidatePool, tmp_path: Path) -> None:
    write_run(tmp_path / "pool.run", pool_run(pool))
    assert read_run(tmp_path / "pool.run") == {
        "q0": [{"corpus_id": "b", "score": 0.75}, {"corpus_id": "c", "score": 0.5}],
        "q2": [{"corpus_id": "e", "score": 0.25}],
    }


def test_pools_are_written_for_flag_embedding(pool: CandidatePool, tmp_path: Path) -> None:
    path = tmp_path / "pool.jsonl"
    write_pool_flag_embedding(path, pool, make_collection())
    first, second = map(json.loads, path.read_text().splitlines())
    assert first == {
        "query": "how do i copy files",
        "pos": ["copy files"],
        "neg": ["sort text", "copy files"],
        "pos_scores": [1.0],
        "neg_scores": [0.25, 1.0],
    }
    assert (second["pos"], second["neg"]) == (["find folder", "find line"], ["list files"])
    write_pool_flag_embedding(path, replace(pool, probability=None), make_collection())
    assert set(json.loads(path.read_text().splitlines()[0])) == {"query", "pos", "neg"}


def test_probable_positives_are_relabelled(pool: CandidatePool, tmp_path: Path) -> None:
    path = tmp_path / "pool.jsonl"
    write_pool_flag_embedding(path, pool, make_collection(), relabel_from=0.9)
    first = json.loads(path.read_text().splitlines()[0])
    assert (first["pos"], first["pos_scores"]) == (["copy files", "copy files"], [1.0, 1.0])
    assert (first["neg"], first["neg_scores"]) == (["sort text"], [0.25])
    assert len(load_collection(path).query_ids) == 2


def test_pools_that_cannot_be_written_are_refused(pool: CandidatePool, tmp_path: Path) -> None:
    path, collection = tmp_path / "pool.jsonl", make_collection()
    with pytest.raises(ValueError, match=r"relabel_from must be in \(0, 1\], got 0"):
        write_pool_flag_embedding(path, pool, collection, relabel_from=0)
    with pytest.raises(ValueError, match="relabel_from needs a pool with probabilities"):
        write_pool_flag_embedding(path, replace(pool, probability=None), collection, relabel_from=0.5)
    with pytest.raises(ValueError, match="mined from another collection than tiny"):
        write_pool_flag_embedding(path, pool, replace(collection, corpus=collection.corpus.select([0])))
    assert not path.exists()
