"""How a large collection is done, at a small size: two processes encode, Milvus holds, mining streams."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from forked import WAIT
from rrra_hf import CandidatePool, Retriever
from rrra_hf.embeddings import encode
from tiny import static_encoder

pytestmark = pytest.mark.slow
pytest.importorskip("pymilvus")

SCRIPT = Path(__file__).parents[2] / "examples/index_in_milvus.py"
DOCUMENTS, QUERIES, VOCABULARY, DEPTH = 30_000, 32, 6_000, 10
LAUNCH = [
    *("--multi_gpu", "--num_processes", "2", "--num_machines", "1"),
    *("--mixed_precision", "no", "--dynamo_backend", "no"),
]


def words_of(numbers: np.ndarray) -> str:
    return " ".join(f"word{number}x" for number in numbers)


@pytest.fixture
def drawn() -> np.ndarray:
    """Words of the documents. The query of one is half of it."""
    return np.random.default_rng(0).integers(0, VOCABULARY, (DOCUMENTS, 4))


def save(folder: Path, drawn: np.ndarray) -> None:
    """Write a collection, of whose queries each has one labelled document, and an encoder."""
    folder.mkdir()
    with (folder / "corpus.jsonl").open("w") as file:
        file.writelines(
            json.dumps({"_id": f"d{row}", "text": words_of(words)}) + "\n" for row, words in enumerate(drawn)
        )
    with (folder / "queries.jsonl").open("w") as file:
        file.writelines(
            json.dumps({"_id": f"q{row}", "text": words_of(drawn[row][:2])}) + "\n" for row in range(QUERIES)
        )
    (folder / "qrels").mkdir()
    labels = [f"q{row}\td{row}\t1\n" for row in range(QUERIES)]
    (folder / "qrels/train.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(labels))
    static_encoder(words_of(np.arange(VOCABULARY)).split(), dim=16).save_pretrained(str(folder / "encoder"))


def test_two_processes_encode_what_milvus_holds_and_mining_finds(tmp_path: Path, drawn: np.ndarray) -> None:
    folder = tmp_path / "collection"
    save(folder, drawn)
    options = {
        "--collection": folder,
        "--model": folder / "encoder",
        "--uri": tmp_path / "documents.db",
        "--index-type": "FLAT",
        "--cache": tmp_path / "cache",
        "--shard": 16_000,
        "--depth": DEPTH,
        "--out": tmp_path / "out",
    }
    launch = [str(Path(sys.executable).parent / "accelerate"), "launch", *LAUNCH, str(SCRIPT)]
    done = subprocess.run(
        [*launch, *(str(part) for pair in options.items() for part in pair)],
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=WAIT,
    )
    assert done.returncode == 0, done.stderr
    assert f"{DOCUMENTS:,} documents" in done.stdout
    assert set(re.findall(r"process (\d) of 2 encoded", done.stdout)) == {"0", "1"}
    assert done.stdout.count("candidates of 32 queries") == 1

    pool = CandidatePool.load(tmp_path / "out/pool")
    assert pool.document_ids == [f"d{row}" for row in range(DOCUMENTS)]
    retriever = Retriever.from_pretrained(tmp_path / "out/retriever", device="cpu")
    # Half of the candidates have the highest cosines of all documents but the labelled one.
    texts = [words_of(words) for words in drawn]
    documents = encode(retriever.encoder, texts, task="document", cache_dir=tmp_path / "cache")
    queries = encode(retriever.encoder, [words_of(words[:2]) for words in drawn[:QUERIES]], task="query")
    cosines = queries @ documents[:].T
    cosines[np.arange(QUERIES), np.arange(QUERIES)] = -1
    best = np.argsort(-cosines, axis=1)[:, : DEPTH // 2]
    for rows, candidates in zip(best, pool.candidates, strict=True):
        assert set(rows) <= set(candidates)
    # The others are found by words.
    for query, candidates in enumerate(pool.candidates):
        shared = np.isin(drawn[candidates], drawn[query, :2]).any(axis=1)
        assert shared.sum() >= DEPTH // 2
    hits = retriever.search([words_of(words) for words in drawn[5:7]], top_k=1)
    assert [found[0]["corpus_id"] for found in hits] == ["d5", "d6"]
    retriever.corpus.stored.close()
