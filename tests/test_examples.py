"""The examples, run as a user runs them: as processes of their own, at small size."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from accelerate.commands.launch import launch_command_parser
from sentence_transformers import SentenceTransformer

import forked
from forked import WAIT
from rrra_hf import CandidatePool, RetrieverAdapter, RRRAModel
from tiny import word_collection

EXAMPLES = Path(__file__).parent.parent / "examples"
TRAINING = {
    "--max-steps": 4,
    "--batch-size": 4,
    "--num-negatives": 2,
    "--depth": 10,
    "--max-length": 32,
    "--learning-rate": 0.01,
}


def run(
    *command: object, status: int = 0, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command with this Python's scripts first on the path, and check its exit status."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = {**os.environ, "PATH": path, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    variables.update(environment or {})
    done = subprocess.run(
        [str(part) for part in command], env=variables, capture_output=True, text=True, timeout=WAIT
    )
    assert done.returncode == status, done.stderr
    return done


def as_main(script: Path, *arguments: object) -> None:
    sys.argv = [str(part) for part in (script, *arguments)]
    runpy.run_path(sys.argv[0], run_name="__main__")


def run_script(script: Path, *arguments: object) -> str:
    """Run a script in a process of its own, and return what it printed."""
    done = forked.run(as_main, script, *arguments)
    assert done.statuses == [0], done.err
    return done.out


def options(values: dict[str, object]) -> list[object]:
    return [part for pair in values.items() for part in pair]


# -------------------------------------------------------------------- embeddings


SCRIPT = EXAMPLES / "fit_on_your_embeddings.py"


@pytest.mark.slow
def test_the_adapter_learns_what_the_sample_hides_and_reranks(tmp_path: Path) -> None:
    out = tmp_path / "adapter"
    printed = run_script(SCRIPT, "--make-sample", tmp_path / "made", "--out", out, "--maps", "query")
    found = re.search(r"held-out queries: (\d\.\d+) before, (\d\.\d+) after", printed)
    assert found, printed
    assert float(found[2]) > float(found[1]) + 0.2
    assert RetrieverAdapter.from_pretrained(out).config.embedding_dim == 64

    hits = re.findall(r"^  d\d+, was (\d+), probability (\d\.\d\d)", printed, flags=re.MULTILINE)
    assert len(hits) == len({place for place, _ in hits}) == 5
    assert all(0 <= float(probability) <= 1 for _, probability in hits)


def write_embeddings(path: Path, embeddings: list[list[float]]) -> None:
    table = pa.table({"id": ["a", "b", "c"][: len(embeddings)], "embedding": embeddings})
    if path.suffix == ".parquet":
        pq.write_table(table, path)
        return
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)


def test_embeddings_are_read_from_parquet_arrow_and_numpy(tmp_path: Path) -> None:
    read = runpy.run_path(str(SCRIPT))["read_embeddings"]
    embeddings = [[1.0, 0.5], [0.0, 2.0], [0.25, 4.0]]
    for name in ("vectors.parquet", "vectors.arrow"):
        write_embeddings(tmp_path / name, embeddings)
        ids, found = read(tmp_path / name)
        assert (ids, found.tolist()) == (["a", "b", "c"], embeddings)
    np.save(tmp_path / "vectors.npy", np.array(embeddings))
    ids, found = read(tmp_path / "vectors.npy")
    assert (ids, found.tolist()) == (["0", "1", "2"], embeddings)
    assert isinstance(found, np.memmap)


def test_bad_embeddings_and_pairs_are_told_with_file_and_line(tmp_path: Path) -> None:
    script = runpy.run_path(str(SCRIPT))
    write_embeddings(tmp_path / "uneven.parquet", [[1.0], [0.0, 1.0]])
    with pytest.raises(
        SystemExit, match=r"uneven\.parquet: embeddings must all .* same length, got \[1, 2\]"
    ):
        script["read_embeddings"](tmp_path / "uneven.parquet")

    pairs = tmp_path / "pairs.jsonl"
    good = '{"query": "a", "document": 7}\n'
    for bad in ('{"query": "a", "document": "elsewhere"}', '{"query": "a"}', "[1]", "no JSON"):
        pairs.write_text(good + bad)
        with pytest.raises(SystemExit, match=r"pairs\.jsonl, line 2: not a pair of known ids"):
            script["read_pairs"](pairs, ["a"], ["6", "7"])
    pairs.write_text(good * 2)
    assert {row: rows.tolist() for row, rows in script["read_pairs"](pairs, ["a"], ["6", "7"]).items()} == {
        0: [1]
    }


def test_files_or_a_sample_must_be_given(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--queries", "queries.npy"])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert "pass --queries, --documents and --pairs, or --make-sample" in capsys.readouterr().err


# -------------------------------------------------------------------- training


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BEIR folder: 40 documents of six words, 60 queries of three words of their document."""
    folder = tmp_path_factory.mktemp("collection") / "tiny"
    word_collection(40, train=48, test=12).save(folder)
    return folder


def check_trained(out: Path, printed: str, encoder: Path) -> None:
    """Check what was printed and saved, and that the encoder has learnt."""
    assert re.search(r"nDCG@10 before: 0\.\d{3}\n", printed)
    assert re.search(r"nDCG@10 after:  0\.\d{3}, ", printed)
    assert CandidatePool.load(out / "pool").probability is not None
    texts = ["list files in folder", "copy text"]
    trained = SentenceTransformer(str(out / "model"), device="cpu").encode(texts)
    assert np.isfinite(trained).all()
    assert np.abs(trained - SentenceTransformer(str(encoder), device="cpu").encode(texts)).max() > 1e-3
    assert RRRAModel.from_pretrained(out / "model").config.lora
    assert not [path for path in out.rglob("*") if path.suffix in (".bin", ".pt", ".pkl", ".npy")]


@pytest.mark.slow
def test_the_trainer_script_runs_in_one_process(tiny_bert: Path, collection: Path, tmp_path: Path) -> None:
    where = {"--model": tiny_bert, "--collection": collection, "--out": tmp_path / "run"}
    printed = run_script(EXAMPLES / "train_with_trainer.py", *options({**TRAINING, **where}))
    assert printed.startswith("process 1 of 1 on ")
    check_trained(tmp_path / "run", printed, tiny_bert)


@pytest.mark.slow
def test_the_same_script_runs_in_two_processes(tiny_bert: Path, collection: Path, tmp_path: Path) -> None:
    where = {"--model": tiny_bert, "--collection": collection, "--out": tmp_path / "run"}
    done = run("bash", EXAMPLES / "train_accelerate.sh", "cpu", *options({**TRAINING, **where}))
    assert set(re.findall(r"process (\d) of (\d)", done.stdout)) == {("1", "2"), ("2", "2")}
    assert done.stdout.count("nDCG@10 after") == 1
    check_trained(tmp_path / "run", done.stdout, tiny_bert)


@pytest.mark.parametrize("arguments", [[], ["tpu"]])
def test_the_launcher_tells_its_usage(arguments: list[str]) -> None:
    done = run("bash", EXAMPLES / "train_accelerate.sh", *arguments, status=2)
    assert "usage:" in done.stderr
    assert "cpu|gpus|fsdp|nodes" in done.stderr


@pytest.mark.parametrize("how", ["gpus", "fsdp", "nodes"])
def test_launch_lines_without_hardware_have_options_that_accelerate_knows(how: str, tmp_path: Path) -> None:
    # In place of accelerate, a script that prints its arguments, for accelerate's own parser.
    (tmp_path / "accelerate").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "accelerate").chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "MACHINES": "3",
        "MACHINE": "1",
        "MAIN": "10.0.0.1",
        "PROCESSES": "4",
    }
    launcher = EXAMPLES / "train_accelerate.sh"
    done = run("bash", launcher, how, "--max-steps", 7, environment=environment)
    command, *arguments = done.stdout.splitlines()
    assert command == "launch"
    parsed = vars(launch_command_parser().parse_known_args(arguments)[0])
    assert parsed["training_script"].endswith("train_with_trainer.py")
    assert parsed["training_script_args"] == ["--max-steps", "7"]
    assert parsed["num_processes"] == (12 if how == "nodes" else 4)
    assert parsed["use_fsdp"] == (how == "fsdp")
    assert parsed["multi_gpu"] == (how != "fsdp")


def run_notebook(name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Run the cells of a notebook, and return what they print here and what the notebook shows."""
    cells = json.loads((EXAMPLES / name).read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    shown = ["".join(output.get("text", "")) for cell in cells for output in cell.get("outputs", ())]
    monkeypatch.setenv("MPLBACKEND", "agg")
    done = forked.run(exec, "\n\n".join(code), {"__name__": "__main__"})
    assert done.statuses == [0], done.err
    return done.out, "".join(shown)


@pytest.mark.slow
def test_the_notebook_of_missing_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cells run, and it holds their output."""
    missing = r"Labels that are probably missing: (\d+)"
    (here,), (there,) = (
        re.findall(missing, text) for text in run_notebook("missing_labels.ipynb", monkeypatch)
    )
    assert int(here) == pytest.approx(int(there), rel=0.1)


@pytest.mark.slow
def test_the_notebook_of_fine_tuning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cells run, both trainings improve the encoder, and it holds their output."""
    here, there = (
        [float(value) for value in re.findall(r"nDCG@10 (0\.\d+)", text)]
        for text in run_notebook("fine_tune_without_false_negatives.ipynb", monkeypatch)
    )
    assert len(here) == 3 and min(here[1:]) > here[0] + 0.1
    assert here == pytest.approx(there, abs=0.05)
