"""From the command line, documents go to Milvus, and are searched, mined, audited and changed there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bad_input import fail, succeed, write_words
from command_line import rrra
from rrra_hf import CandidatePool

pytest.importorskip("pymilvus")


@pytest.fixture(scope="module")
def beir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_words(tmp_path_factory.mktemp("beir") / "words")


def test_what_is_indexed_there_is_found_there(beir: Path, tiny_bert: Path, tmp_path: Path) -> None:
    out, uri = tmp_path / "retriever", tmp_path / "documents.db"
    place = ["--kind", "milvus", "--uri", uri, "--collection-name", "words"]
    assert "40 documents" in succeed("index", tiny_bert, beir, "--out", out, *place).out
    assert json.loads((out / "index/milvus.json").read_text())["uri"] == str(uri)
    hits = succeed("search", out, "copy a file", "--json").json
    assert len(str(hits)) > 10
    mined = succeed("mine", beir, "--index", out, "--out", tmp_path / "pool", "--depth", 8, "--json").json
    assert (mined["documents"], mined["candidates"]) == (40, 8 * mined["queries"])
    succeed("mine", beir, "--model", tiny_bert, "--out", tmp_path / "other", "--depth", 8)
    pools = [CandidatePool.load(tmp_path / name) for name in ("pool", "other")]
    assert pools[0].document_ids == pools[1].document_ids
    first = succeed("audit", beir, "--index", out, "--out", tmp_path / "audit", "--depth", 8, "--json").json
    again = succeed("audit", beir, "--index", out, "--out", tmp_path / "audit", "--depth", 8, "--json").json
    assert first["suspects"] == again["suspects"]
    assert first["settings"]["index"] == str(out)
    changed = succeed("update", out, "--delete", first["suspects"][0]["document_id"], "--json").json
    assert (changed["deleted"], changed["documents"]) == (1, 39)


def test_options_that_do_not_go_together_are_refused(beir: Path, tiny_bert: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for arguments, message in (
        (["index", tiny_bert, beir, "--uri", "documents.db"], "--collection-name need --kind milvus"),
        (["mine", beir, "--index", "r", "--model", tiny_bert], "--max-length can't go with --index"),
    ):
        refused = rrra(*arguments, "--out", out)
        assert refused.status == 2 and message in refused.message
    assert "has no index" in fail("mine", beir, "--index", tiny_bert, "--out", out)
