"""The command compares, resumes, and refuses what it cannot compare."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer

from command_line import rrra
from rrra_hf import RetrieverAdapter
from rrra_hf.comparison import prepare


def test_the_command_compares_and_resumes(folder, tiny_bert, tmp_path):
    out = tmp_path / "out"
    options = ["--model", tiny_bert, "--seeds", 2, "--fit-steps", 5, "--out", out]
    arguments = [folder, "--methods", "encoder, query-map,residual,bm25", *options]
    outcome = rrra("compare", *arguments, "--markdown", tmp_path / "docs" / "results.md")
    assert outcome.status == 0, outcome.message
    assert "query-map" in outcome.out and "report:" in outcome.out
    assert "…" not in outcome.out  # nothing is cut where there is no terminal
    for name in ("results.json", "results.md", "report.html"):
        assert (out / name).is_file()
    assert (tmp_path / "docs/results.md").read_text() == (out / "results.md").read_text()
    assert list((out / "plots").glob("*.svg"))
    written = {path: path.stat().st_mtime_ns for path in (out / "cells").rglob("*.json")}
    assert len(written) == 6  # two of the four don't depend on the seed
    again = rrra("compare", *arguments, "--json")
    assert again.status == 0
    assert [row["method"] for row in again.json["tables"][0]["rows"]] == [
        "encoder",
        "query-map",
        "residual",
        "bm25",
    ]
    assert written == {path: path.stat().st_mtime_ns for path in (out / "cells").rglob("*.json")}


def test_a_run_killed_while_encoding_continues(folder, tiny_bert, tmp_path, monkeypatch):
    out = tmp_path / "out"
    arguments = ["compare", folder, "--model", tiny_bert, "--methods", "encoder", "--out", out]
    with monkeypatch.context() as patch:
        patch.setattr("rrra_hf.comparison.run_cells", lambda *_: (_ for _ in ()).throw(OSError("killed")))
        assert rrra(*arguments).status == 1
    assert {path.name for path in out.iterdir()} == {"cells", "embeddings"}
    assert rrra(*arguments).status == 0


def test_the_command_detects_and_trains_strategies(folder, tiny_bert, tmp_path):
    options = ["--seeds", 1, "--fit-steps", 5, "--train-steps", 2, "--train-batch-size", 8, "--json"]
    judge = tmp_path / "judge"
    RetrieverAdapter.pretrained(32).save_pretrained(judge)
    outcome = rrra(
        "compare",
        folder,
        *("--model", tiny_bert),
        *("--methods", "in-batch,top-k,drop,oracle,encoder"),
        *("--judge", judge),
        "--detect",
        *options,
        *("--out", tmp_path / "out"),
    )
    assert outcome.status == 0, outcome.message
    tables = {table["table"]: table for table in outcome.json["tables"]}
    assert set(tables) == {"strategies", "systems", "detection"}
    assert tables["strategies"]["reference"] == "in-batch"
    assert tables["detection"]["protocol"] == "injected"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--methods", "colbert"], "--methods must be among systems, strategies, encoder"),
        (["--methods", "cross-encoder"], "--cross-encoder must be given for the method 'cross-encoder'"),
        (["--train", "half"], "--train must be one of none, lora, full"),
        (["--seeds", "0"], "--seeds must be at least 1"),
        (["--train-steps", "0"], "--train-steps must be at least 1"),
        (["--train-batch-size", "1"], "--train-batch-size must be at least 2"),
        (["--fit-steps", "0"], "--fit-steps must be at least 1"),
        (["--judge", "nowhere"], "--judge must be the folder of a saved adapter, got 'nowhere'"),
        (["--reference", "oracle"], "--reference must be one of the methods, encoder"),
    ],
)
def test_bad_options_are_usage_errors(folder, tmp_path, options, message):
    outcome = rrra("compare", folder, "--out", tmp_path / "out", *options)
    assert outcome.status == 2
    assert message in outcome.message
    assert not (tmp_path / "out").exists()


def test_a_folder_of_other_things_is_refused(folder, tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    outcome = rrra("compare", folder, "--out", tmp_path)
    assert outcome.status == 1 and "holds other files but no cells" in outcome.message


def test_a_collection_without_a_test_split_is_refused(folder, tiny_bert, tmp_path):
    import shutil

    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "qrels/test.tsv").unlink()
    outcome = rrra("compare", copy, "--model", tiny_bert, "--out", tmp_path / "out")
    assert outcome.status == 1 and "no split 'test'" in outcome.message


def test_too_few_queries_are_refused(collection, tiny_bert):
    qrels = {**collection.qrels_by_split, "test": {"test0": {"d1": 1}}}
    small = replace(collection, qrels_by_split=qrels)
    with pytest.raises(ValueError, match=r"'test' of words must have at least 2 queries .* it has 1"):
        prepare(small, SentenceTransformer(str(tiny_bert), device="cpu"))


def test_missing_extras_are_named(monkeypatch, folder, tmp_path):
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    outcome = rrra("compare", folder, "--out", tmp_path / "out")
    assert outcome.status == 1 and "pip install 'rrra-hf[compare]'" in outcome.message


def test_help_has_an_example():
    outcome = rrra("compare", "--help")
    assert outcome.status == 0 and "rrra compare data/scifact" in outcome.message


def test_results_hold_no_absolute_paths(folder, tiny_bert, tmp_path):
    """What is published in `results.md` says nothing of the machine's folders."""
    out = tmp_path / "out"
    rrra("compare", folder, "--model", tiny_bert, "--methods", "encoder,bm25", "--out", out)
    text = (out / "results.md").read_text().replace(str(tiny_bert), "")
    assert str(Path(folder).parent) not in text
