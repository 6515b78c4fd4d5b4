"""Bad input, end to end: a message that says what is wrong and where, and nothing half-written."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from transformers.utils import logging as transformers_logging

from command_line import Outcome, rrra
from rrra_hf import AdapterConfig, CandidatePool, Retriever, RetrieverAdapter, RRRAModel, load_collection

WORDS = ["list", "copy", "find", "files", "folder", "sort", "text", "line", "query", "passage", "old", "new"]

SHORT = ["--stage1-steps", 1, "--stage3-steps", 1, "--fit-steps", 2]


def succeed(*arguments: object, stdin: bytes = b"") -> Outcome:
    outcome = rrra(*arguments, stdin=stdin)
    assert outcome.status == 0, outcome.err
    return outcome


def fail(*arguments: object, stdin: bytes = b"") -> str:
    """Run a command that must fail in the usual way, and return its message."""
    failed = rrra(*arguments, stdin=stdin)
    assert (failed.status, failed.out) == (1, "")
    assert failed.err.startswith("error: ") and "Traceback" not in failed.err
    return failed.err


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Every file and folder below a folder, hidden ones too, with the contents."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture(scope="module", autouse=True)
def logging_as_before() -> Iterator[None]:
    """The command quietens transformers for its process, which here is that of all tests."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    yield
    transformers_logging.set_verbosity(verbosity)
    if bars:
        transformers_logging.enable_progress_bar()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test works in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_beir(
    folder: Path, documents: dict[str, str], queries: dict[str, str], qrels: dict[str, str]
) -> Path:
    """Write a BEIR folder with the splits train, dev and test, all of the same judgements."""
    (folder / "qrels").mkdir(parents=True)
    for name, texts in (("corpus", documents), ("queries", queries)):
        lines = [json.dumps({"_id": key, "text": text}) + "\n" for key, text in texts.items()]
        (folder / f"{name}.jsonl").write_text("".join(lines))
    for split in ("train", "dev", "test"):
        rows = [f"{query}\t{document}\t1\n" for query, document in qrels.items()]
        (folder / f"qrels/{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(rows))
    return folder


@pytest.fixture(scope="module")
def made(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `beir`, and what commands made of it: `pool`, `model`, `retriever`. To be copied."""
    folder = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(0)
    documents = {f"d{i}": " ".join(rng.choice(WORDS, 5, replace=False)) for i in range(20)}
    queries = {f"q{i}": " ".join(documents[f"d{i}"].split()[:2]) for i in range(20)}
    beir = write_beir(folder / "beir", documents, queries, {f"q{i}": f"d{i}" for i in range(20)})
    model = ["--model", tiny_bert]
    succeed("mine", beir, "--out", folder / "pool", *model, "--depth", 5)
    succeed("fit", beir, "--out", folder / "model", *model, "--preset", "default", "--max-steps", 4)
    succeed("index", folder / "model", beir, "--out", folder / "retriever")
    return folder


@pytest.fixture
def world(made: Path, tiny_bert: Path, here: Path) -> Path:
    """A copy of it all, with the encoder as `encoder`, in the working directory."""
    shutil.copytree(made, here, dirs_exist_ok=True)
    shutil.copytree(tiny_bert, here / "encoder")
    return here


def truncate(path: Path, kept: float = 0.5) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])


# -------------------------------------------------------------------- names that lead nowhere


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("index nosuch beir --out out", "Can't load an encoder named 'nosuch'"),
        ("index nosuch/model beir --out out", "Can't load an encoder named 'nosuch/model'"),
        ("mine beir --model nosuch --out out", "Can't load an encoder named 'nosuch'"),
        ("fit beir --model nosuch --out out", "Can't load an encoder named 'nosuch'"),
        ("train beir --model nosuch --out out", "Can't load an encoder named 'nosuch'"),
        ("train beir --model model --out out", "model is an RRRAModel already"),
        ("evaluate nosuch beir", "Can't load an encoder named 'nosuch'"),
        ("rerank nosuch query beir/corpus.jsonl", "Can't load an encoder named 'nosuch'"),
        ("search nosuch query", "nosuch is no folder with an index; make one with `rrra index`"),
        ("search model query", "model is no folder with an index; make one with `rrra index`"),
        ("index model nosuch --out out", "There is no collection 'nosuch'"),
        ("index model nosuch.jsonl --pairs pairs.jsonl --out out", "There is no file nosuch.jsonl"),
        ("fit beir --model encoder --pool nosuch --out out", "No candidate pool at nosuch"),
        ("evaluate model beir --split nosuch", "no split 'nosuch'; there are ['dev', 'test', 'train']"),
        ("index model beir --column text=body --out out", "columns of 'beir' have fixed names"),
        ("index model beir --pairs pairs.jsonl --out out", "pairs goes with a corpus file"),
        ("mine beir --model encoder --max-length 65 --out out", "must be at most 64 for encoder, got 65"),
    ],
)
def test_what_is_nowhere_or_not_legal_is_named(world: Path, command: str, message: str) -> None:
    before = snapshot(world)
    assert message in fail(*command.split())
    assert snapshot(world) == before


# -------------------------------------------------------------------- folders and files in each other's place


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("index model beir --out beir/corpus.jsonl", "--out must be a folder, beir/corpus.jsonl is a file"),
        ("fit beir --out beir/corpus.jsonl", "--out must be a folder, beir/corpus.jsonl is a file"),
        ("mine beir --out beir/corpus.jsonl", "--out must be a folder, beir/corpus.jsonl is a file"),
        ("train beir --model encoder --out beir/corpus.jsonl", "beir/corpus.jsonl is a file"),
        ("index beir/corpus.jsonl beir --out out", "beir/corpus.jsonl"),
        ("search beir/corpus.jsonl query", "beir/corpus.jsonl is no folder with an index"),
        ("fit beir --model encoder --pool beir/corpus.jsonl --out out", "No candidate pool at beir/corpus.j"),
        ("fit beir --model encoder --pool beir --out out", "beir/pool.json is missing"),
        ("index model folder.jsonl --pairs beir/corpus.jsonl --out out", "There is no file folder.jsonl"),
        ("index model beir/corpus.jsonl --pairs folder.jsonl --out out", "There is no file folder.jsonl"),
    ],
)
def test_folder_for_a_file_and_file_for_a_folder_are_named(world: Path, command: str, message: str) -> None:
    (world / "folder.jsonl").mkdir()
    corpus = (world / "beir/corpus.jsonl").read_text().replace("_id", "id")
    (world / "beir/corpus.jsonl").write_text(corpus)
    before = snapshot(world)
    assert message in fail(*command.split())
    assert snapshot(world) == before


def test_folder_of_documents_to_rerank_is_a_bad_argument(world: Path) -> None:
    failed = rrra("rerank", "model", "query", "beir")
    assert failed.status == 2
    assert "Is a directory" in failed.err


@pytest.mark.parametrize(
    "command",
    [
        "mine beir --model encoder --out thesis",
        "fit beir --model encoder --out thesis",
        "index model beir --out thesis",
        "train beir --model encoder --out thesis",
        "mine beir --model encoder --out model",
        "fit beir --model encoder --out pool",
        "index model beir --out beir",
        "train beir --model encoder --out retriever",
    ],
)
def test_folder_with_other_things_is_not_written_to(
    world: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (world / "thesis").mkdir()
    (world / "thesis/thesis.tex").write_text("precious")
    before = snapshot(world)

    def encode(*_: object, **__: object) -> None:
        raise AssertionError("encoded a corpus before looking at --out")

    monkeypatch.setattr(SentenceTransformer, "encode", encode)
    message = fail(*command.split())
    assert command.split()[-1] in message
    assert "holds other files" in message or "is no training run's folder" in message
    assert snapshot(world) == before


def test_empty_folder_and_earlier_result_may_be_written_to(world: Path) -> None:
    (world / "out").mkdir()
    for _ in range(2):
        succeed("index", "model", "beir", "--out", "out")
    succeed("index", "model", "beir", "--out", "model")
    succeed("mine", "beir", "--model", "encoder", "--out", "pool", "--depth", 3)
    assert CandidatePool.load("pool").depth == 3
    assert [hit["corpus_id"] for hit in Retriever.from_pretrained("model").search("sort", 1)[0]]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder_is_named(world: Path) -> None:
    (world / "closed").mkdir(mode=0o555)
    assert "closed" in fail("index", "model", "beir", "--out", "closed/out")
    assert list((world / "closed").iterdir()) == []


def test_run_of_other_arguments_is_refused(world: Path) -> None:
    command = ["train", "beir", "--model", "encoder", "--out", "run", *SHORT]
    succeed(*command, "--folds", 2)
    before = snapshot(world)
    message = fail(*command, "--folds", 3, "--gamma", 2)
    assert "run was started with other settings" in message
    assert "arguments.folds was 2, now 3; arguments.gamma was 1.0, now 2.0" in message
    assert snapshot(world) == before


# -------------------------------------------------------------------- collections


def test_missing_column_is_named_with_those_there_are(world: Path) -> None:
    (world / "corpus.csv").write_text("id,body\n1,sort text\n")
    (world / "pairs.csv").write_text("query,document_id\nsort,1\n")
    before = snapshot(world)
    command = ["index", "model", "corpus.csv", "--pairs", "pairs.csv", "--out", "out"]
    assert "corpus.csv, line 2: no column 'text'; there are ['id', 'body']" in fail(*command)
    assert "no column 'prose'" in fail(*command, "--column", "text=prose")
    assert "columns names ['txt']; it may name ['id', 'title'," in fail(*command, "--column", "txt=body")
    assert snapshot(world) == before
    assert succeed(*command, "--column", "text=body", "--json").json["documents"] == 1


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("corpus.jsonl", b"", "beir/qrels/dev.tsv, line 2: document 'd0' is not in the corpus"),
        ("queries.jsonl", b"", "beir/qrels/dev.tsv, line 2: query 'q0' is not among the queries"),
        ("qrels/train.tsv", b"q0\td99\t1\n", "qrels/train.tsv, line 1: document 'd99' is not in the corpus"),
        ("qrels/train.tsv", b"q99\td0\t1\n", "qrels/train.tsv, line 1: query 'q99' is not among the queries"),
        ("qrels/train.tsv", b"q0\td0\tgood\n", "the grade (score) of query 'q0' must be an integer"),
        ("qrels/train.tsv", b"q0\td0\t0\n", "beir has no split 'train'; there are ['dev', 'test']"),
        ("qrels/train.tsv", b"", "beir has no split 'train'; there are ['dev', 'test']"),
        ("corpus.jsonl", b'{"_id": "a", "text": "caf\xe9"}\n', "corpus.jsonl, line 1: not UTF-8 (byte 0xe9"),
        ("corpus.jsonl", b'{"_id": "a"', "beir/corpus.jsonl, line 1: not JSON"),
        (
            "corpus.jsonl",
            b'{"_id": "a", "text": "x"}\n{"_id": "a", "text": "y"}\n',
            "corpus.jsonl, line 2: document id 'a' is there already, at beir/corpus.jsonl, line 1",
        ),
    ],
)
def test_bad_collection_is_an_error_with_file_and_line(
    world: Path, file: str, content: bytes, message: str
) -> None:
    (world / "beir" / file).write_bytes(content)
    before = snapshot(world)
    assert message in fail("mine", "beir", "--model", "encoder", "--out", "out", "--cache-dir", "cache")
    assert snapshot(world) == before


def test_empty_corpus_file_is_an_error(world: Path) -> None:
    (world / "corpus.jsonl").write_bytes(b"")
    (world / "pairs.jsonl").write_bytes(b"")
    message = fail("index", "model", "corpus.jsonl", "--pairs", "pairs.jsonl", "--out", "out")
    assert "corpus has no documents" in message
    assert not (world / "out").exists()


def test_no_positives_at_all_is_an_error(world: Path) -> None:
    for path in (world / "beir/qrels").iterdir():
        path.write_text("query-id\tcorpus-id\tscore\nq0\td0\t0\n")
    for command in ("mine beir --out out", "fit beir --out out", "evaluate model beir"):
        assert "beir has no relevant documents (qrels)" in fail(*command.split())
    assert not (world / "out").exists()


def test_queries_without_positives_are_passed_over(world: Path) -> None:
    qrels = world / "beir/qrels/train.tsv"
    qrels.write_text(qrels.read_text().replace("q0\td0\t1", "q0\td0\t0"))
    with (world / "beir/queries.jsonl").open("a") as file:
        file.write('{"_id": "unjudged", "text": "old text"}\n')
    mined = succeed("mine", "beir", "--model", "encoder", "--out", "out", "--json").json
    assert mined["queries"] == 19
    assert not {"q0", "unjudged"} & set(CandidatePool.load("out").query_ids)


def test_bad_records_are_dropped_and_counted_on_request(
    world: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (world / "beir/corpus.jsonl").open("ab") as file:
        file.write(
            b'{"_id": "d0", "text": "again"}\n{"_id": "d90", "text": ""}\n{"_id": "d91", "text": "\xff"}\n'
        )
    with (world / "beir/qrels/train.tsv").open("a") as file:
        file.write("q0\td91\t1\n")
    caplog.set_level(logging.WARNING)
    mined = succeed("mine", "beir", "--model", "encoder", "--out", "out", "--skip-bad", "--json").json
    assert (mined["queries"], mined["documents"]) == (20, 20)
    counts = {"duplicate id": 1, "empty text": 1, "undecodable bytes": 1, "unknown document": 1}
    assert f"beir: skipped bad records: {counts}" in caplog.text
    assert load_collection("beir", skip_bad=True).skipped == counts


def test_standard_input_that_is_not_utf8_is_an_error(world: Path) -> None:
    message = fail("rerank", "model", "sort", stdin=b"sort text\ncaf\xe9\n")
    assert "FILE must be UTF-8" in message and "0xe9" in message
    (world / "documents.txt").write_bytes(b"caf\xe9\n")
    assert "FILE must be UTF-8" in fail("rerank", "model", "sort", "documents.txt")


# -------------------------------------------------------------------- small, deep and long


def test_collection_of_one_document_goes_all_the_way(world: Path) -> None:
    queries = {"q0": "sort", "q1": "sort text", "q2": "text"}
    write_beir(world / "one", {"d0": "sort text"}, queries, dict.fromkeys(queries, "d0"))
    mined = succeed("mine", "one", "--model", "encoder", "--out", "mined", "--json").json
    assert (mined["documents"], mined["candidates"]) == (1, 0)
    succeed(
        "fit",
        "one",
        "--model",
        "encoder",
        "--out",
        "fitted",
        "--pool",
        "mined",
        "--preset",
        "default",
        "--max-steps",
        2,
    )
    succeed("index", "fitted", "one", "--out", "indexed")
    (found,) = succeed("search", "indexed", "line", "--json").json
    assert [hit["corpus_id"] for hit in found["hits"]] == ["d0"]
    assert 0 <= found["hits"][0]["probability"] <= 1
    quality = succeed("evaluate", "fitted", "one", "--json").json["quality"]["all"]
    assert quality["encoder"]["R@1"] == quality["adapter"]["R@1"] == 1
    # With nothing to tell from, there is nothing to draw.
    options = ["--model", "encoder", "--out", "run", "--folds", 2, *SHORT]
    assert "No training query has a candidate" in fail("train", "one", *options)
    assert not (world / "run/results.json").exists()


def test_more_documents_than_there_are_give_all(world: Path) -> None:
    hits = succeed("search", "retriever", "sort", "-k", 1000, "--depth", 1000, "--json").json[0]["hits"]
    assert {hit["corpus_id"] for hit in hits} == {f"d{i}" for i in range(20)}
    mined = succeed("mine", "beir", "--model", "encoder", "--out", "out", "--depth", 1000, "--json").json
    assert mined["candidates"] == 20 * 19
    lines = b"sort\ntext\n"
    assert len(succeed("rerank", "model", "sort", "-k", 9, "--json", stdin=lines).json) == 2
    assert succeed("evaluate", "model", "beir", "--depth", 500, "--json").json["quality"]["all"]["encoder"]


def test_texts_of_100_000_characters_are_cut_by_the_model(world: Path) -> None:
    long = "sort text " * 10_000
    with (world / "beir/corpus.jsonl").open("a") as file:
        file.write(json.dumps({"_id": "long", "text": long}) + "\n")
        file.write(json.dumps({"_id": "one word", "text": "s" * 100_000}) + "\n")
    assert succeed("index", "model", "beir", "--out", "out", "--json").json["documents"] == 22
    hits = succeed("search", "out", long, "--no-rerank", "--json").json[0]["hits"]
    assert hits[0]["corpus_id"] == "long"
    assert hits[0]["score"] == pytest.approx(1, abs=1e-5)
    ranked = succeed("rerank", "model", long, "--json", stdin=f"folder\n{long}\n".encode()).json
    assert {document["text"] for document in ranked} == {"folder", long.strip()}


# -------------------------------------------------------------------- embeddings and dimensions


def test_model_that_gives_nan_is_refused(world: Path) -> None:
    path = world / "encoder/model.safetensors"
    weights = load_file(path)
    weights["embeddings.LayerNorm.bias"][0] = torch.nan
    save_file(weights, path, metadata={"format": "pt"})
    before = snapshot(world)
    for command in ("index encoder beir --out out", "mine beir --model encoder --out out"):
        assert "The model gave NaN or infinite values for 20 of 20 texts" in fail(*command.split())
    assert snapshot(world) == before
    fail("mine", "beir", "--model", "encoder", "--out", "out", "--cache-dir", "cache")
    # A lock is no data: it stays until the cache is complete.
    assert {path.suffix for path in (world / "cache").rglob("*") if path.is_file()} <= {".lock"}


def test_adapter_of_another_dimension_is_refused(world: Path) -> None:
    encoder = SentenceTransformer("encoder", device="cpu")
    adapter = RetrieverAdapter(AdapterConfig(embedding_dim=32))
    Retriever(encoder, adapter).index({"a": "sort"}).save_pretrained("mixed")
    RetrieverAdapter(AdapterConfig(embedding_dim=16)).save_pretrained("mixed/adapter")
    assert "adapter must be of dimension 32, got 16" in fail("search", "mixed", "sort")


def test_index_of_another_model_is_refused(world: Path) -> None:
    model = RRRAModel.from_pretrained("model")
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(1.1)
    model.save_pretrained("other")
    succeed("index", "other", "beir", "--out", "others")
    shutil.rmtree("retriever/index")
    shutil.copytree("others/index", "retriever/index")
    message = fail("search", "retriever", "sort")
    assert "retriever/index was made by another model" in message
    assert "index the corpus again" in message


# -------------------------------------------------------------------- damaged files


DAMAGE: dict[str, Callable[[Path], None]] = {
    "truncated": truncate,
    "empty": lambda path: truncate(path, 0),
    "a list": lambda path: path.write_text("[1]") and None,
}
USES = {
    "encoder": "index encoder beir --out out",
    "model": "index model beir --out out",
    "retriever": "search retriever sort",
}


@pytest.mark.parametrize("kept", [0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("folder", USES)
def test_truncated_weights_are_named(world: Path, folder: str, kept: float) -> None:
    truncate(world / folder / "model.safetensors", kept)
    before = snapshot(world)
    assert f"{folder}/model.safetensors is damaged" in fail(*USES[folder].split())
    assert snapshot(world) == before


@pytest.mark.parametrize(
    ("folder", "file", "damage"),
    [
        (folder, file, damage)
        for folder in USES
        for file in ("config.json", "modules.json", "tokenizer.json")
        for damage in DAMAGE
        # A retriever's list of modules is read by sentence-transformers alone.
        if (folder, file, damage) != ("retriever", "modules.json", "a list")
    ],
)
def test_damaged_json_is_an_error_that_names_the_model(
    world: Path, folder: str, file: str, damage: str
) -> None:
    DAMAGE[damage](world / folder / file)
    before = snapshot(world)
    assert folder in fail(*USES[folder].split())
    assert snapshot(world) == before


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_damaged_adapter_is_an_error_that_names_the_file(here: Path, file: str, damage: str) -> None:
    RetrieverAdapter(AdapterConfig(embedding_dim=8, hidden_size=4)).save_pretrained("adapter")
    DAMAGE[damage](here / "adapter" / file)
    with pytest.raises(ValueError, match=rf"adapter/{file}"):
        RetrieverAdapter.from_pretrained("adapter")


def test_adapter_weights_that_do_not_fit_their_config_are_refused(here: Path) -> None:
    RetrieverAdapter(AdapterConfig(embedding_dim=8, hidden_size=4)).save_pretrained("adapter")
    config = here / "adapter/config.json"
    config.write_text(config.read_text().replace('"embedding_dim": 8', '"embedding_dim": 9'))
    with pytest.raises(ValueError, match=r"(?s)weights of adapter don't fit its config: .*size mismatch"):
        RetrieverAdapter.from_pretrained("adapter")
    config.write_text('{"model_type": "rrra_adapter"}')
    with pytest.raises(ValueError, match=r"config\.json of adapter is no adapter's: .*embedding_dim"):
        RetrieverAdapter.from_pretrained("adapter")


@pytest.mark.parametrize("file", ["pool.json", "documents.parquet", "queries.parquet"])
def test_truncated_pool_is_named(world: Path, file: str) -> None:
    truncate(world / "pool" / file)
    before = snapshot(world)
    message = fail(*["fit", "beir", "--model", "encoder", "--pool", "pool", "--out", "out"])
    assert f"pool/{file} is missing or damaged" in message
    assert snapshot(world) == before


@pytest.mark.parametrize("file", ["vectors.faiss", "documents.parquet", "meta.json"])
def test_truncated_index_is_named(world: Path, file: str) -> None:
    truncate(world / "retriever/index" / file)
    message = fail("search", "retriever", "sort")
    assert f"retriever/index/{file} is" in message and "damaged" in message


def test_damaged_cache_is_noticed_and_made_again(world: Path) -> None:
    command = ["mine", "beir", "--model", "encoder", "--cache-dir", "cache", "--depth", "5", "--out"]
    succeed(*command, "first")
    whole = snapshot(world / "cache")
    files = [path for path in (world / "cache").rglob("*") if path.is_file()]
    assert {path.name for path in files} == {"embeddings.arrow", "meta.json"}
    for path in files:
        truncate(path)
    succeed(*command, "second")
    assert snapshot(world / "cache") == whole
    assert snapshot(world / "first") == snapshot(world / "second")


# -------------------------------------------------------------------- a disk that is full


def full_disk(owner: object, name: str, monkeypatch: pytest.MonkeyPatch, path_at: int | None) -> None:
    """Let a writer write the beginning of its file, and then fail."""

    def write(*arguments: Any, **_: Any) -> None:
        if path_at is not None:
            Path(str(arguments[path_at])).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(owner, name, write)


@pytest.mark.parametrize("out", ["new", "earlier"])
@pytest.mark.parametrize(
    ("command", "writer", "path_at"),
    [
        ("mine beir --model encoder", "rrra_hf.candidates.pool:pq.write_table", 1),
        (
            "fit beir --model encoder --preset default --max-steps 2",
            "transformers.modeling_utils:safe_save_file",
            1,
        ),
        (
            "fit beir --model encoder --preset default --max-steps 2",
            "rrra_hf.models.modeling_rrra:write_side_files",
            None,
        ),
        ("index model beir", "rrra_hf.indexes.flat:faiss.write_index", 1),
        ("index model beir", "rrra_hf.retrieval.corpus_index:pq.write_table", 1),
        ("index model beir", "transformers.modeling_utils:safe_save_file", 1),
    ],
)
def test_full_disk_leaves_what_was_there_before_and_nothing_else(
    world: Path,
    command: str,
    writer: str,
    path_at: int | None,
    out: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if out == "earlier":
        earlier = {"mine": "pool", "fit": "model", "index": "retriever"}[command.split()[0]]
        shutil.copytree(earlier, out)
    before = snapshot(world)
    module, names = writer.split(":")
    owner: Any = sys.modules[module]
    *path, name = names.split(".")
    for part in path:
        owner = getattr(owner, part)
    full_disk(owner, name, monkeypatch, path_at)
    assert "No space left on device" in fail(*command.split(), "--out", out)
    assert snapshot(world) == before


@pytest.mark.parametrize("earlier", [False, True])
def test_adapter_survives_a_full_disk(here: Path, earlier: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if earlier:
        RetrieverAdapter(AdapterConfig(embedding_dim=8)).save_pretrained("adapter")
    before = snapshot(here)
    full_disk(sys.modules["rrra_hf.models.adapter_rrra"], "save_file", monkeypatch, 1)
    with pytest.raises(OSError, match="No space left"):
        RetrieverAdapter(AdapterConfig(embedding_dim=4)).save_pretrained("adapter")
    assert snapshot(here) == before


def test_full_disk_leaves_no_half_cache_and_the_next_run_ends_well(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["mine", "beir", "--model", "encoder", "--depth", "5", "--cache-dir", "cache", "--out"]
    with monkeypatch.context() as patch:
        full_disk(sys.modules["pyarrow"].RecordBatchFileWriter, "write_batch", patch, None)
        assert "No space left on device" in fail(*command, "out")
    assert not (world / "out").exists()
    # A lock is no data: it stays until the cache is complete.
    assert {path.suffix for path in (world / "cache").rglob("*") if path.is_file()} <= {".lock"}
    succeed(*command, "out")
    assert CandidatePool.load("out").candidate_ids == CandidatePool.load("pool").candidate_ids
