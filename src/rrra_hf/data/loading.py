"""Load collections from folders, files, datasets and the Hub."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .beir import is_beir, read_beir
from .blocks import one_by_one
from .builder import CollectionBuilder
from .collection import Collection
from .hub import load_parts
from .llama_index import add_json
from .pairs import DEFAULT_SPLIT, add_pairs
from .problems import Problems, brief
from .python_docs import python_docs
from .readers import FORMATS, format_of, read_file
from .tables import add_table, is_table, read_table
from .trec import read_qrels, split_of

PYTHON_DOCS = "python-docs"
JSON = ".json"


def load_collection(
    source: Any,
    split: str | None = None,
    *,
    pairs: str | os.PathLike[str] | None = None,
    queries: str | os.PathLike[str] | None = None,
    qrels: str | os.PathLike[str] | None = None,
    columns: Mapping[str, str] | None = None,
    skip_bad: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Collection:
    """Load a collection and validate every record.

    Args:
        source: One of

            * a folder of BEIR: `corpus.jsonl`, `queries.jsonl`, and `qrels/<split>.tsv` or `qrels.tsv`;
            * a file (JSONL, CSV, TSV, Parquet): a corpus, with columns text and perhaps id and title; or
              pairs, triplets or labelled pairs, with columns query, positive, and perhaps negative and label,
              whose documents become the corpus. All but Parquet may be compressed, `.gz` or `.zst`. TSV needs
              no header: collections and triples of MS MARCO have none;
            * a JSON file: a list of such records, or an `EmbeddingQAFinetuneDataset` of LlamaIndex;
            * a dataset, a data frame of pandas or polars, or a list of dictionaries, with the same columns;
            * such tables by split, for example a `DatasetDict`;
            * `{"corpus": table, "queries": table, "qrels": table or {split: table}}`;
            * the name of a Hub dataset, or a local folder with its layout: pairs, or the configurations
              `corpus`, `queries`, and `qrels` or `default`;
            * `"python-docs"`: the documentation of the Python packages installed on this machine.

            Queries and judgements may be missing. What needs labels says so.
        split: Return only this split, see `Collection.split`.
        pairs: File of pairs for a corpus file. It has a column with the query text, a column with the
            document id or the exact document text, and optionally a column with the split, by default
            `"train"`.
        queries: File of queries for a corpus file, with columns id and text.
        qrels: File of judgements for `queries`, of TREC or BEIR. Its split is the one that its name has, as
            `qrels.dev.txt`, by default `"train"`.
        columns: Column names in your files or datasets, if they differ from the usual ones, for example
            `{"id": "pid", "query": "frage"}`. Keys: id, title, text, query, document_id, document, negative,
            label, query-id, corpus-id, score, split. A column with another name is taken for the query, the
            document or the text if there is no other choice; the log says so.
        skip_bad: Skip bad records. They are counted in `Collection.skipped` and in the log.
        cache_dir: Cache folder for `"python-docs"` and Hub datasets.

    Raises:
        FileNotFoundError: If the source doesn't exist.
        ValueError: If a record is bad (duplicate id, unknown id, empty text, undecodable bytes, malformed
            line, contradicting grades), with the file, the line and the problem. Also if it isn't clear what
            the columns hold, nothing is left of documents, queries or judgements, or the split doesn't exist.
        TypeError: If the source has another type.

    Example:
        >>> load_collection([{"anchor": "what is a herring", "positive": "A fish."}]).qrels
        {'6b94eb9fdf8671c9': {'94c96f6ab861a9f1': 1}}
    """
    collection = _load(
        source, {"pairs": pairs, "queries": queries, "qrels": qrels}, columns, skip_bad, cache_dir
    )
    return collection if split is None else collection.split(split)


def _load(
    source: Any,
    files: Mapping[str, str | os.PathLike[str] | None],
    columns: Mapping[str, str] | None,
    skip_bad: bool,
    cache_dir: str | os.PathLike[str] | None,
) -> Collection:
    problems = Problems(skip_bad)
    beside = {name: Path(path) for name, path in files.items() if path is not None}
    if beside and not (isinstance(source, (str, os.PathLike)) and _is_file(Path(source))):
        raise ValueError(
            f"{' and '.join(beside)} needs a corpus file ({', '.join(FORMATS)}) as source, "
            f"got {source!r:.80}."
        )
    if is_table(source):
        builder = CollectionBuilder("dataset", problems, columns)
        add_table(read_table(builder.name, source), builder)
        return builder.build()
    if isinstance(source, Mapping):
        return _from_mapping(source, CollectionBuilder("datasets", problems, columns))
    if not isinstance(source, (str, os.PathLike)):
        raise TypeError(
            "source must be a path, a name, a dataset, a data frame, a list of records or a mapping, got "
            f"{type(source).__name__}."
        )
    return _from_path(source, beside, columns, problems, cache_dir)


def _from_path(
    source: str | os.PathLike[str],
    beside: dict[str, Path],
    columns: Mapping[str, str] | None,
    problems: Problems,
    cache_dir: str | os.PathLike[str] | None,
) -> Collection:
    path = Path(source)
    if columns and (is_beir(path) or source == PYTHON_DOCS):
        raise ValueError(
            f"columns needs a file or dataset as source; {str(source)!r} has fixed column names."
        )
    if source == PYTHON_DOCS:
        return python_docs(cache_dir=cache_dir)
    if is_beir(path):
        return read_beir(path, skip_bad=problems.skip_bad)
    builder = CollectionBuilder(path.name.partition(".")[0], problems, columns)
    if not _is_file(path):
        builder.name = path.name
        return _from_mapping(load_parts(str(source), cache_dir), builder)
    if path.suffix == JSON:
        add_json(path, builder)
    elif beside:
        _add_files(path, beside, builder)
    else:
        add_table(read_file(path, problems, builder.names), builder)
    return builder.build()


def _is_file(path: Path) -> bool:
    return path.is_file() or path.suffix == JSON or format_of(path) is not None


def _add_files(corpus: Path, beside: dict[str, Path], builder: CollectionBuilder) -> None:
    """Add a corpus file, and the files of pairs, or of queries and judgements, that belong to it."""
    if "qrels" in beside and "queries" not in beside:
        raise ValueError("qrels needs the file of their queries, queries=...; got none.")
    problems = builder.problems
    builder.add_documents(read_file(corpus, problems, builder.names))
    if "queries" in beside:
        builder.add_queries(one_by_one(read_file(beside["queries"], problems, builder.names)))
    if "qrels" in beside:
        builder.add_judgements(split_of(beside["qrels"]), read_qrels(beside["qrels"], problems))
    if "pairs" in beside:
        add_pairs(one_by_one(read_file(beside["pairs"], problems, builder.names)), builder)


def _from_mapping(source: Mapping[str, Any], builder: CollectionBuilder) -> Collection:
    """Build a collection of a corpus with queries and qrels, or of tables by split."""
    if "corpus" in source:
        return _from_parts(source, builder)
    unfit = [split for split, table in source.items() if not is_table(table)]
    if unfit or not source:
        raise ValueError(
            "source must have the keys corpus, and perhaps queries and qrels, or be tables by split; got "
            f"{brief(list(source))}."
        )
    for split, table in source.items():
        add_table(read_table(split, table), builder, split)
    return builder.build()


def _from_parts(source: Mapping[str, Any], builder: CollectionBuilder) -> Collection:
    if "qrels" in source and "queries" not in source:
        raise ValueError(f"source has qrels, and must have the key queries too; got {list(source)}.")
    builder.add_documents(read_table("corpus", source["corpus"]))
    if "queries" in source:
        builder.add_queries(one_by_one(read_table("queries", source["queries"])))
    qrels = source.get("qrels", {})
    for split, table in ({DEFAULT_SPLIT: qrels} if is_table(qrels) else qrels).items():
        builder.add_judgements(split, one_by_one(read_table(f"qrels[{split!r}]", table)))
    return builder.build()
