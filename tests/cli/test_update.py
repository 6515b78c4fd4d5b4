"""`rrra update` and filters on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bad_input import succeed
from command_line import rrra
from rrra_hf import Retriever

DOCUMENTS = [
    {"_id": "cp", "text": "copy the files", "metadata": {"section": 1}},
    {"_id": "ls", "text": "list files", "metadata": {"section": 2}},
    {"_id": "sort", "text": "sort a text"},
]


def write(path: Path, records: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture
def retriever(tiny_bert: Path, tmp_path: Path) -> Path:
    corpus = write(tmp_path / "corpus.jsonl", DOCUMENTS)
    succeed("index", tiny_bert, corpus, "--out", tmp_path / "retriever")
    return tmp_path / "retriever"


def test_documents_of_a_saved_retriever_are_changed(retriever: Path, tmp_path: Path) -> None:
    new = [{"_id": "ls", "text": "list the old folder"}, {"_id": "mv", "text": "move files"}]
    changed = succeed("update", retriever, write(tmp_path / "new.jsonl", new), "--delete", "cp")
    assert changed.out.splitlines() == [f"1 documents deleted, 2 updated or added; 3 in {retriever}"]
    opened = Retriever.from_pretrained(retriever)
    assert opened.documents["id"].to_pylist() == ["sort", "ls", "mv"]
    again = succeed("update", retriever, "--delete", "cp", "--delete", "mv", "--json").json
    assert again == {"retriever": str(retriever), "deleted": 1, "updated": 0, "documents": 2}


def test_bad_changes_leave_the_folder_as_it_is(retriever: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in retriever.rglob("*") if path.is_file()}
    nothing = rrra("update", retriever)
    assert nothing.status == 2 and "COLLECTION or --delete must be given" in nothing.message
    bad = rrra("update", retriever, write(tmp_path / "new.jsonl", [{"_id": "x", "text": ""}]))
    assert bad.status == 1 and "new.jsonl, line 1" in bad.message
    everything = rrra("update", retriever, "--delete", "cp", "--delete", "ls", "--delete", "sort")
    assert everything.status == 1 and "must keep a document" in everything.message
    absent = rrra("update", tmp_path / "none", "--delete", "cp")
    assert absent.status == 1 and "none" in absent.message and not (tmp_path / "none").exists()
    assert {path: path.read_bytes() for path in retriever.rglob("*") if path.is_file()} == before


def test_a_search_is_filtered(retriever: Path) -> None:
    (found,) = succeed("search", retriever, "files", "--filter", '{"section": {"$gte": 2}}', "--json").json
    assert [hit["corpus_id"] for hit in found["hits"]] == ["ls"]
    for text, message in [
        ("section=2", "--filter must be JSON, got 'section=2'"),
        ('{"section": {"$near": 2}}', "operators of 'section'"),
    ]:
        refused = rrra("search", retriever, "files", "--filter", text)
        assert refused.status == 2 and message in refused.message
