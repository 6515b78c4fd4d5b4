"""Run commands that must succeed or fail, and write files to damage."""

from __future__ import annotations

import json
from pathlib import Path

from command_line import Outcome, rrra
from tiny import word_collection

WORDS = ["list", "copy", "find", "files", "folder", "sort", "text", "line", "query", "passage", "old", "new"]


SHORT = ["--stage1-steps", 1, "--stage3-steps", 1, "--preset", "residual", "--fit-steps", 2]


def succeed(*arguments: object, stdin: bytes = b"") -> Outcome:
    outcome = rrra(*arguments, stdin=stdin)
    assert outcome.status == 0, outcome.err
    return outcome


def fail(*arguments: object, stdin: bytes = b"") -> str:
    """Run a command that must fail, and return its message."""
    failed = rrra(*arguments, stdin=stdin)
    assert (failed.status, failed.out) == (1, "")
    assert failed.err.startswith("error: ") and "Traceback" not in failed.err
    return failed.err


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Return all files and folders below a folder, including hidden ones, with their contents."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def write_beir(
    folder: Path, documents: dict[str, str], queries: dict[str, str], qrels: dict[str, str]
) -> Path:
    """Write a BEIR folder with splits train, dev and test that share their judgements."""
    (folder / "qrels").mkdir(parents=True)
    for name, texts in (("corpus", documents), ("queries", queries)):
        lines = [json.dumps({"_id": key, "text": text}) + "\n" for key, text in texts.items()]
        (folder / f"{name}.jsonl").write_text("".join(lines))
    for split in ("train", "dev", "test"):
        rows = [f"{query}\t{document}\t1\n" for query, document in qrels.items()]
        (folder / f"qrels/{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(rows))
    return folder


def write_words(folder: Path) -> Path:
    """Write a BEIR folder of 40 documents of words, of which 30 queries have one each."""
    collection = word_collection(40, train=30)
    texts = dict(zip(collection.query_ids, collection.query_texts, strict=True))
    documents = dict(zip(collection.document_ids, collection.document_texts, strict=True))
    labels = {query: next(iter(grades)) for query, grades in collection.split("train").qrels.items()}
    return write_beir(folder, documents, texts, labels)


def truncate(path: Path, kept: float = 0.5) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
