"""The `rrra` command end to end: output, files and exit status."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from sentence_transformers import SentenceTransformer

import forked
from alike import assert_alike
from command_line import Outcome, rrra
from rrra_hf import CandidatePool, Retriever, RRRAModel
from rrra_hf.cli import main
from rrra_hf.data import Collection
from rrra_hf.evaluation import DEFAULT_MEASURES

TEXT = "how do i list copy find files folder sort text line query passage old new"
TRAIN = (
    "--stage1-steps 3 --stage3-steps 2 --train-batch-size 8 --preset residual --fit-steps 10 --folds 2 "
    "--save-steps 2 --save-total-limit 1 --eval-steps 2 --gradient-checkpointing"
)


def succeed(*arguments: object, stdin: bytes = b"") -> Outcome:
    """Run a command that must succeed without warnings or progress bars."""
    outcome = rrra(*arguments, stdin=stdin)
    assert (outcome.status, outcome.err) == (0, "")
    return outcome


@pytest.fixture(scope="module")
def beir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 documents, and 60 queries with three of their words: train 36, test 14 (4 unseen), dev 10."""
    rng = np.random.default_rng(0)
    documents = [" ".join(rng.choice(TEXT.split(), 6, replace=False)) for _ in range(40)]
    queries = [" ".join(rng.choice(documents[i % 40].split(), 3, replace=False)) for i in range(60)]
    bounds = {"train": (0, 36), "test": (36, 50), "dev": (50, 60)}
    folder = tmp_path_factory.mktemp("beir") / "tiny"
    Collection(
        name="tiny",
        corpus=Dataset.from_dict({"id": [f"d{i}" for i in range(40)], "title": [""] * 40, "text": documents}),
        queries=Dataset.from_dict({"id": [f"q{i}" for i in range(60)], "text": queries}),
        qrels_by_split={
            name: {f"q{i}": {f"d{i % 40}": 1} for i in range(*bound)} for name, bound in bounds.items()
        },
    ).save(folder)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder for the results of commands, each of which uses those of the previous one."""
    return tmp_path_factory.mktemp("place")


@pytest.fixture(scope="module")
def mined(beir: Path, tiny_bert: Path, place: Path) -> Outcome:
    options = ["--depth", "10", "--json"]
    return succeed(
        "mine", beir, "--out", place / "pool", "-m", tiny_bert, "--cache-dir", place / "cache", *options
    )


@pytest.fixture(scope="module")
def fitted(mined: Outcome, beir: Path, tiny_bert: Path, place: Path) -> Outcome:
    options = ["--model", tiny_bert, "--pool", place / "pool", "--cache-dir", place / "cache"]
    return succeed(
        "fit", beir, "--out", place / "model", *options, "--preset", "residual", "--max-steps", 20, "--json"
    )


@pytest.fixture(scope="module")
def indexed(fitted: Outcome, beir: Path, place: Path) -> Outcome:
    return succeed("index", place / "model", beir, "--out", place / "retriever", "--json")


@pytest.fixture(scope="module")
def trained(beir: Path, tiny_bert: Path, place: Path) -> Outcome:
    return succeed("train", beir, "--out", place / "run", "--model", tiny_bert, *TRAIN.split(), "--json")


# -------------------------------------------------------------------- each command, on what the last one made


def test_mine_writes_a_pool_with_probabilities(mined: Outcome, place: Path) -> None:
    pool = CandidatePool.load(place / "pool")
    assert pool.probability is not None
    assert mined.json == {
        "pool": str(place / "pool"),
        "queries": 36,
        "documents": 40,
        "candidates": 360,
        "probable_false_negatives": int((pool.probability >= 0.5).sum()),
    }
    assert (len(pool), pool.depth) == (36, 10)


def test_mine_without_probabilities_says_so_in_words(beir: Path, tiny_bert: Path, tmp_path: Path) -> None:
    options = ["--model", tiny_bert, "--split", "dev", "--no-adapter"]
    found = succeed("mine", beir, "--out", tmp_path / "pool", *options)
    assert found.out.splitlines()[1:] == ["queries: 10", "documents: 40", "candidates: 390"]
    assert CandidatePool.load(tmp_path / "pool").probability is None


def test_fit_writes_a_model_that_every_loader_opens(fitted: Outcome, place: Path) -> None:
    assert list(fitted.json) == ["model", "seconds", "development", "notes"]
    model = RRRAModel.from_pretrained(place / "model")
    assert fitted.json["development"] == model.adapter.config.fit["development"]
    assert fitted.json["development"]["queries"] == 10
    expected = model.to_sentence_transformer().encode(["sort text"])
    found = SentenceTransformer(str(place / "model"), device="cpu").encode(["sort text"])
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_fit_may_add_maps_and_prints_what_it_measured(beir: Path, tiny_bert: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    options = ["--max-steps", 4, "--maps", "both", "--preset", "paper", "--objective", "bce"]
    found = succeed("fit", beir, "--out", out, "--model", tiny_bert, *options)
    assert "nDCG@10 on 10 development queries" in found.out
    adapter = RRRAModel.from_pretrained(out).adapter
    assert adapter.query_map is not None and adapter.document_map is not None
    assert adapter.config.reader["scoring"] == "product"
    assert adapter.config.fit["arguments"]["objective"] == "bce"


@pytest.mark.usefixtures("quick")
def test_fit_tells_what_unseen_queries_say(beir: Path, tiny_bert: Path, tmp_path: Path) -> None:
    command = ["fit", beir, "--out", tmp_path / "model", "--model", tiny_bert]
    assert "nDCG@10 on " in succeed(*command).out
    found = succeed(*command, "--json").json
    fit = RRRAModel.from_pretrained(tmp_path / "model").adapter.config.fit
    assert found["unseen"] == fit["unseen"]
    assert found["unseen"]["queries"] > 0


def test_index_writes_a_retriever(indexed: Outcome, place: Path) -> None:
    assert indexed.json == {"retriever": str(place / "retriever"), "documents": 40}
    assert Retriever.from_pretrained(place / "retriever").documents.num_rows == 40


def test_index_of_an_encoder_has_the_adapter_that_comes_trained(
    beir: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    found = succeed("index", tiny_bert, beir, "--out", tmp_path / "retriever", "--max-length", 8)
    assert found.out.startswith("40 documents in ")
    retriever = Retriever.from_pretrained(tmp_path / "retriever")
    assert retriever.encoder.max_seq_length == 8
    assert retriever.is_hybrid()
    (found,) = succeed("search", tmp_path / "retriever", "copy files", "--json").json
    assert found["hits"] == retriever.search("copy files", probabilities=True)[0]
    options = ["--mode", "dense", "--json"]
    (found,) = succeed("search", tmp_path / "retriever", "copy files", *options).json
    assert found["hits"] == retriever.search("copy files", mode="dense", probabilities=True)[0]
    refused = rrra("search", tmp_path / "retriever", "copy files", "--mode", "sparse")
    assert refused.status == 2
    assert "--mode must be one of hybrid, dense or None, got 'sparse'" in refused.message


def test_no_adapter_turns_the_adapter_off(beir: Path, tiny_bert: Path, tmp_path: Path) -> None:
    options = ["--out", tmp_path / "retriever", "--no-adapter", "--language", "english"]
    succeed("index", tiny_bert, beir, *options)
    retriever = Retriever.from_pretrained(tmp_path / "retriever")
    assert retriever.adapter is None and retriever.corpus_index.words.language == "english"
    (found,) = succeed("search", tmp_path / "retriever", "copy files", "--json").json
    assert found["hits"] == retriever.search("copy files")[0]
    measured = succeed("evaluate", tiny_bert, beir, "--no-adapter", "--json").json
    assert list(measured["quality"]["all"]) == ["encoder"]
    command = ["rerank", tiny_bert, "copy", "--no-adapter", "--json"]
    ranked = succeed(*command, stdin=b"copy files\nsort text\n").json
    assert ranked == retriever.rank("copy", ["copy files", "sort text"], return_documents=True)
    refused = rrra("index", tiny_bert, beir, "--out", tmp_path / "new", "--language", "klingon")
    assert refused.status == 2
    assert "--language must be one of auto, " in refused.message


def test_search_finds_what_the_retriever_finds(indexed: Outcome, place: Path) -> None:
    retriever = Retriever.from_pretrained(place / "retriever")
    queries = ["copy files", "sort"]
    found = succeed("search", place / "retriever", *queries, "--top-k", 3, "--json").json
    assert [list(result) for result in found] == [["query", "hits"]] * 2
    assert [result["query"] for result in found] == queries
    assert [result["hits"] for result in found] == retriever.search(queries, 3, probabilities=True)
    assert list(found[0]["hits"][0]) == ["corpus_id", "score", "probability"]
    plain = succeed("search", place / "retriever", "sort", "-k", 3, "--no-rerank", "--json").json
    assert [hit["score"] for hit in plain[0]["hits"]] == [
        hit["score"] for hit in retriever.search("sort", 3, rerank=False)[0]
    ]


def test_search_prints_texts_as_they_are(fitted: Outcome, place: Path, tmp_path: Path) -> None:
    text = "sort [/b] text [red]old[/red] :smile:"
    (tmp_path / "corpus.jsonl").write_text(json.dumps({"id": "a", "text": text}))
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"query": "sort", "document_id": "a"}))
    retriever = tmp_path / "[/i]"
    corpus = [tmp_path / "corpus.jsonl", "--pairs", tmp_path / "pairs.jsonl"]
    assert str(retriever) in succeed("index", place / "model", *corpus, "--out", retriever).out
    found = succeed("search", retriever, "a [/b] query")
    assert "a [/b] query" in found.out
    assert text in found.out


def test_search_shows_ids_beside_titles_and_texts(fitted: Outcome, place: Path, tmp_path: Path) -> None:
    documents = [
        {"id": "pandas.read_csv", "title": "Read a file", "text": "Comma-separated\n\nvalues."},
        {"id": "sort", "title": "", "text": "Sort text."},
    ]
    lines = {"titled": documents, "plain": [{**document, "title": ""} for document in documents]}
    for name, rows in lines.items():
        corpus = tmp_path / f"{name}.jsonl"
        corpus.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        succeed("index", place / "model", corpus, "--out", tmp_path / name)
    found = {name: succeed("search", tmp_path / name, "read a file").out for name in lines}
    assert re.search(r"│ pandas\.read_csv │ Read a file +│ Comma-separated values\.", found["titled"])
    assert re.search(r"score .* p .* id .* title .* text", found["titled"])
    assert "│ pandas.read_csv │ Comma-separated values." in found["plain"]
    assert "title" not in found["plain"]


def test_rerank_reads_a_file_or_standard_input(fitted: Outcome, place: Path, tmp_path: Path) -> None:
    lines = "list files\n\n  sort é \nold text\n".encode()
    (tmp_path / "documents.txt").write_bytes(lines)
    from_file = succeed("rerank", place / "model", "sort", tmp_path / "documents.txt", "--json").json
    expected = Retriever(RRRAModel.from_pretrained(place / "model")).rank(
        "sort", ["list files", "sort é", "old text"], return_documents=True, probabilities=True
    )
    assert from_file == expected
    assert list(from_file[0]) == ["corpus_id", "score", "probability", "text"]
    for arguments in (["--json"], ["-", "--json"]):
        assert succeed("rerank", place / "model", "sort", *arguments, stdin=lines).json == expected
    printed = succeed("rerank", place / "model", "sort", "--top-k", 2, stdin=b"sort [/b]\nold\nnew\n").out
    for line in printed.splitlines():
        assert re.fullmatch(r" *-?\d+\.\d{3}  [01]\.\d\d  (sort \[/b\]|old|new)", line)
    assert len(printed.splitlines()) == 2
    assert "sort [/b]" in printed
    without = succeed("rerank", place / "model", "sort", "--no-adapter", stdin=b"sort\n").out
    assert re.fullmatch(r" *-?\d+\.\d{3}  sort\n", without)


def test_evaluate_tells_seen_from_unseen_documents(fitted: Outcome, beir: Path, place: Path) -> None:
    found = succeed("evaluate", place / "model", beir, "--json").json
    assert list(found) == ["split", "queries", "quality", "milliseconds"]
    assert found["split"] == "test"
    assert found["queries"] == {"all": 14, "unseen": 4, "seen": 10}
    assert list(found["milliseconds"]) == ["encode", "search", "rerank"]
    quality = found["quality"]
    assert list(quality) == ["all", "unseen", "seen"]
    for system in ("encoder", "adapter"):
        assert list(quality["all"][system]) == list(DEFAULT_MEASURES)
        for measure, value in quality["all"][system].items():
            parts = 4 * quality["unseen"][system][measure] + 10 * quality["seen"][system][measure]
            assert value == pytest.approx(parts / 14)


def test_evaluate_prints_a_table_a_group(fitted: Outcome, beir: Path, place: Path) -> None:
    out = succeed("evaluate", place / "model", beir, "--measure", "RR@5").out
    for title in ("14 queries", "4 queries with unseen documents only", "10 queries with a seen document"):
        assert f"tiny, test: {title}" in out
    assert "RR@5" in out and "R@100" not in out
    training = succeed("evaluate", place / "model", beir, "--split", "train", "--json").json
    assert training["queries"] == {"all": 36}


def test_train_leaves_a_run_and_a_model(trained: Outcome, place: Path) -> None:
    results = trained.json
    assert results == json.loads((place / "run/results.json").read_text())
    assert list(results) == ["stage1", "stage2", "stage3", "comparison", "final"]
    assert (results["stage1"]["steps"], results["stage3"]["steps"]) == (3, 2)
    lora = RRRAModel.from_pretrained(place / "run/model").config.lora
    assert bool(lora) == (results["comparison"]["encoder"] != "frozen")
    assert any(
        "eval_dev_cosine_ndcg@10" in entry
        for entry in json.loads((place / "run/stage1/history.json").read_text())
    )


def test_train_of_a_finished_run_prints_a_table(
    trained: Outcome, beir: Path, tiny_bert: Path, place: Path
) -> None:
    out = succeed("train", beir, "--out", place / "run", "--model", tiny_bert, *TRAIN.split()).out
    assert "frozen: + adapter" in out and "stage3: + adapter" in out
    assert " ".join(trained.json["comparison"]["sentence"].split()) in " ".join(out.split())
    assert f"model: {place / 'run/model'}" in out


def test_train_continues_an_interrupted_run_to_the_same_results(
    trained: Outcome, beir: Path, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["train", beir, "--out", tmp_path / "run", "--model", tiny_bert, *TRAIN.split(), "--json"]
    with monkeypatch.context() as patch:

        def fail(*_: object, **__: object) -> None:
            raise OSError("No space left on device")

        patch.setattr("rrra_hf.training.stages.cross_fit", fail)
        failed = rrra(*command)
    named = f"{tmp_path / 'run'}: the disk is full; make room, and run the command again"
    assert failed == Outcome(1, "", f"error: {named}: it continues from what is finished.\n")
    assert not (tmp_path / "run/results.json").exists()
    results = succeed(*command).json
    expected = trained.json
    for stage in results:
        del results[stage]["seconds"], expected[stage]["seconds"]
    assert_alike(results, expected)


def test_corpus_files_with_pairs_and_named_columns(
    fitted: Outcome, place: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    (tmp_path / "corpus.csv").write_text('pid,body\n1,"sort text"\n2,"copy, old files"\n3,find a folder\n')
    (tmp_path / "pairs.csv").write_text(
        "question,pid,split\nsort,1,train\ncopy,2,train\nfind,3,train\nold,2,test\n"
    )
    corpus = [tmp_path / "corpus.csv", "--pairs", tmp_path / "pairs.csv"]
    columns = [
        part
        for column in ("id=pid", "text=body", "query=question", "document_id=pid")
        for part in ("--column", column)
    ]
    found = succeed("evaluate", place / "model", *corpus, *columns, "--json").json
    assert found["queries"] == {"all": 1}
    out = tmp_path / "pool"
    mined = succeed("mine", *corpus, *columns, "--out", out, "--model", tiny_bert, "--json").json
    assert (mined["queries"], mined["documents"], mined["candidates"]) == (3, 3, 6)
    assert CandidatePool.load(out).positive_ids == [["1"], ["2"], ["3"]]


# -------------------------------------------------------------------- exit status


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("", "Usage: rrra"),
        ("nosuch", "No such command 'nosuch'"),
        ("mine data", "Missing option '--out'"),
        ("search folder", "Missing argument"),
        ("search folder query --top-k 0", "--top-k"),
        ("index model data -o out --max-length 0", "--max-length"),
        ("index model data -o out --batch-size x", "--batch-size"),
        ("mine data -o out --depth 0", "--depth"),
        ("mine data -o out --column query", "--column must be NAME=COLUMN, got 'query'"),
        ("index model data -o out --kind x", "--kind must be one of auto, flat, hnsw, "),
        ("index model data -o out --storage x", "--storage must be one of float32, int8, binary, got 'x'"),
        ("fit data -o out --maps x", "--maps must be one of none, query, both, got 'x'"),
        (
            "fit data -o out --preset residual --objective x",
            "--objective must be one of listwise, bce, four_class, got 'x'",
        ),
        ("fit data -o out --objective bce", "--objective is a setting of ResidualFitArguments (presets"),
        ("fit data -o out --preset x", "--preset must be one of default, residual, paper, got 'x'"),
        ("fit data -o out --preset paper --max-steps 0", "--max-steps must be at least 1, got 0"),
        ("train data -o out --mode x", "--mode must be one of lora, full, got 'x'"),
        ("train data -o out --maps x", "--maps must be one of none, query, both, got 'x'"),
        ("train data -o out --preset residual --fit-steps 0", "--fit-steps must be at least 1, got 0"),
        ("train data -o out --fit-steps 9", "--fit-steps is a setting of ResidualFitArguments (presets"),
        ("train data -o out --preset x", "--preset must be one of default, residual, paper, got 'x'"),
        ("train data -o out --train-batch-size 1", "--train-batch-size must be at least 2, got 1"),
        ("train data -o out --stage1-steps 0", "--stage1-steps must be at least 1, got 0"),
        ("train data -o out --stage3-steps 0", "--stage3-steps must be at least 1, got 0"),
        ("train data -o out --gamma -1", "--gamma must not be negative, got -1.0"),
        (
            "train data -o out --targets weights --drop-above-positive --gamma 0",
            "--drop-above-positive needs gamma above 0, got 0",
        ),
        ("train data -o out --learning-rate 0", "--learning-rate must be positive, got 0.0"),
        ("train data -o out --seed -1", "--seed"),
        ("evaluate model data --measure R", "--measure must be a name such as nDCG@10"),
        ("evaluate model data --measure nosuch@3", "--measure must be a name such as nDCG@10"),
        ("rerank model query nosuch.txt", "'nosuch.txt': No such file or directory"),
        ("demo --documents 5", "--documents"),
    ],
)
def test_bad_arguments_end_with_status_2_before_any_work(
    command: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")
    failed = rrra(*command.split())
    assert failed.status == 2
    assert message in failed.message
    assert "Traceback" not in failed.err
    assert list(tmp_path.iterdir()) == []


def test_rerank_needs_documents(fitted: Outcome, place: Path) -> None:
    failed = rrra("rerank", place / "model", "sort", stdin=b"\n \n")
    assert failed.status == 2
    assert "there are no documents to rank" in failed.message


def test_length_of_a_saved_model_is_fixed(fitted: Outcome, place: Path) -> None:
    failed = rrra("rerank", place / "model", "sort", "--max-length", 8, stdin=b"sort\n")
    assert failed.status == 2
    assert "--max-length is for encoders only" in failed.message
    assert "has a fixed length of 32, got 8" in failed.message
    succeed("rerank", place / "model", "sort", "--max-length", 32, stdin=b"sort\n")


def test_failure_ends_with_status_1_and_one_message(fitted: Outcome, beir: Path, place: Path) -> None:
    failed = rrra("evaluate", place / "model", beir, "--split", "nosuch", "--json")
    assert failed == Outcome(
        1, "", "error: tiny has no split 'nosuch'; there are ['dev', 'test', 'train'].\n"
    )


def test_pool_of_another_model_is_refused(
    mined: Outcome, beir: Path, place: Path, encoder_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    other = encoder_folder("xlm-roberta")
    failed = rrra("fit", beir, "--out", tmp_path / "model", "--model", other, "--pool", place / "pool")
    assert (failed.status, failed.out) == (1, "")
    assert "The pool was mined with another encoder" in failed.err
    assert not (tmp_path / "model").exists()


# -------------------------------------------------------------------- processes of their own


def main_with(arguments: list[str]) -> None:
    sys.argv = ["rrra", *arguments]
    main()


def process(*arguments: object) -> forked.Done:
    return forked.run(main_with, list(map(str, arguments)))


def test_process_prints_json_alone_and_no_progress_bar(indexed: Outcome, place: Path) -> None:
    done = process("search", place / "retriever", "sort", "-k", 1, "--json")
    assert (done.statuses, done.err) == ([0], "")
    assert len(json.loads(done.out)[0]["hits"]) == 1


def test_process_fails_with_status_1_and_no_traceback(tmp_path: Path) -> None:
    done = process("search", tmp_path / "nosuch", "sort")
    assert (done.statuses, done.out) == ([1], "")
    place = tmp_path / "nosuch"
    assert done.err == f"error: There is no folder {place}, and no model on the Hub has such a name.\n"
