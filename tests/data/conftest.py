"""Fixtures of the collection tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from herrings import DOCUMENTS, QUERIES, TEST, TRAIN, write_jsonl


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    (folder / "qrels").mkdir(parents=True)
    write_jsonl(folder / "corpus.jsonl", DOCUMENTS)
    write_jsonl(folder / "queries.jsonl", QUERIES)
    (folder / "qrels" / "train.tsv").write_text(TRAIN)
    (folder / "qrels" / "test.tsv").write_text(TEST)
    return folder
