"""Read BEIR folders: `corpus.jsonl`, `queries.jsonl`, `qrels/<split>.tsv`."""

from __future__ import annotations

from pathlib import Path

from .blocks import one_by_one
from .builder import CollectionBuilder
from .collection import CORPUS_NAME, QRELS_NAME, QUERIES_NAME, SIBLINGS_NAME, Collection
from .problems import Location, Problems
from .readers import read_file
from .text_files import COMPRESSIONS
from .trec import read_qrels, split_of

QRELS_SUFFIXES = (".tsv", ".txt", ".trec", ".qrels")


def is_beir(folder: Path) -> bool:
    """Whether a folder has one of the files of the layout."""
    parts = any(_part(folder, name) for name in (CORPUS_NAME, QUERIES_NAME))
    return parts or any(map(_is_qrels, (folder / QRELS_NAME).glob("*")))


def read_beir(folder: Path, *, name: str | None = None, skip_bad: bool = False) -> Collection:
    """Read and validate a BEIR folder, including `siblings.json` if `Collection.save` wrote one.

    Judgements are files in `qrels`, named after their splits, or files beside the corpus such as `qrels.tsv`
    or `qrels.dev.txt`, in the format of BEIR or of TREC. Without any, the queries have no labels. A folder
    may have the corpus alone. All files may be compressed, with the suffix `.gz` or `.zst`.

    Args:
        folder: The folder.
        name: Name of the collection, by default the name of the folder.
        skip_bad: Skip, name and count bad records instead of raising.

    Raises:
        FileNotFoundError: If there is no corpus, or there are judgements without queries.
        ValueError: If a record is bad. The message has the file, the line and the problem.
    """
    corpus, queries = (_part(folder, part) for part in (CORPUS_NAME, QUERIES_NAME))
    judgements = _judgements(folder)
    if corpus is None:
        raise FileNotFoundError(f"{folder} has no {CORPUS_NAME}.")
    if queries is None and judgements:
        raise FileNotFoundError(f"{folder} has no {QUERIES_NAME}.")
    problems = Problems(skip_bad)
    builder = CollectionBuilder(name or folder.resolve().name, problems)
    builder.add_documents(read_file(corpus, problems))
    if queries is not None:
        builder.add_queries(one_by_one(read_file(queries, problems)))
    for split, path in judgements.items():
        builder.add_judgements(split, read_qrels(path, problems))
    siblings = folder / SIBLINGS_NAME
    if siblings.exists():
        builder.add_siblings(Location(str(siblings), 1), siblings.read_bytes())
    return builder.build()


def _part(folder: Path, name: str) -> Path | None:
    """Return the file with this name, compressed or not."""
    paths = (folder / f"{name}{suffix}" for suffix in ("", *COMPRESSIONS))
    return next((path for path in paths if path.is_file()), None)


def _judgements(folder: Path) -> dict[str, Path]:
    """Return the files of judgements by split."""
    inside = {_stem(path): path for path in sorted((folder / QRELS_NAME).glob("*")) if _is_qrels(path)}
    if not inside and (folder / QRELS_NAME).is_dir():
        raise FileNotFoundError(f"{folder} has no {QRELS_NAME}/<split>.tsv.")
    beside = [path for path in sorted(folder.glob(f"{QRELS_NAME}*")) if path.is_file() and _is_qrels(path)]
    found = {**{split_of(path): path for path in beside}, **inside}
    if len(found) < len(beside) + len(inside):
        raise ValueError(f"{folder} has several files of judgements of one split: {sorted(found)} are read.")
    return found


def _is_qrels(path: Path) -> bool:
    return any(path.name.removesuffix(end).endswith(QRELS_SUFFIXES) for end in ("", *COMPRESSIONS))


def _stem(path: Path) -> str:
    return Path(path.stem).stem if path.suffix in COMPRESSIONS else path.stem
