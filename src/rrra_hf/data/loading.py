"""Load collections from folders, files, datasets and the Hub."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, load_dataset

from .beir import read_beir
from .builder import CollectionBuilder
from .collection import CORPUS_NAME, QRELS_NAME, QUERIES_NAME, Collection
from .pairs import DEFAULT_SPLIT, add_pairs
from .problems import Problems
from .python_docs import python_docs
from .readers import FORMATS, read_dataset, read_records

logger = logging.getLogger(__name__)

PYTHON_DOCS = "python-docs"


def load_collection(
    source: str | os.PathLike[str] | Dataset | Mapping[str, Any],
    split: str | None = None,
    *,
    pairs: str | os.PathLike[str] | None = None,
    columns: Mapping[str, str] | None = None,
    skip_bad: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Collection:
    """Load a collection and validate every record.

    Args:
        source: One of

            * a BEIR folder with `corpus.jsonl`, `queries.jsonl`, `qrels/<split>.tsv`;
            * a corpus file (JSONL, CSV, TSV, Parquet) with columns id, title and text; it needs `pairs`;
            * `{"corpus": dataset, "queries": dataset, "qrels": dataset or {split: dataset}}`;
            * a `datasets.Dataset` of pairs with columns query or anchor, and positive. Other columns are
              ignored. The distinct positives become the corpus;
            * the name of a Hub dataset with configurations `corpus`, `queries` and `default` (the qrels), or
            a
              local folder with this layout;
            * `"python-docs"`: the documentation of the Python packages installed on this machine.
        split: Return only this split, see `Collection.split`.
        pairs: File of labelled pairs for a corpus file. It has a column with the query text, a column with
            the document id or the exact document text, and optionally a column with the split, by default
            `"train"`.
        columns: Column names in your files or datasets, if they differ from the usual ones, for example
            `{"id": "pid", "query": "question"}`. Keys: id, title, text, query, document_id, document,
            query-id, corpus-id, score, split.
        skip_bad: Skip bad records. They are counted in `Collection.skipped` and in the log.
        cache_dir: Cache folder for `"python-docs"` and Hub datasets.

    Raises:
        FileNotFoundError: If the source doesn't exist.
        ValueError: If a record is bad (duplicate id, unknown id, empty text, undecodable bytes, malformed
            line), with the file, the line and the problem. Also if there are no documents, queries or qrels,
            or the split doesn't exist.
        TypeError: If the source has another type.

    Example:
        >>> pairs = Dataset.from_dict({"anchor": ["what is a herring"], "positive": ["A fish."]})
        >>> load_collection(pairs).qrels
        {'6b94eb9fdf8671c9': {'94c96f6ab861a9f1': 1}}
    """
    collection = _load(source, pairs, columns, skip_bad, cache_dir)
    return collection if split is None else collection.split(split)


def _load(
    source: Any,
    pairs: str | os.PathLike[str] | None,
    columns: Mapping[str, str] | None,
    skip_bad: bool,
    cache_dir: str | os.PathLike[str] | None,
) -> Collection:
    problems = Problems(skip_bad)
    if pairs is not None and Path(str(source)).suffix not in FORMATS and not Path(str(source)).is_file():
        raise ValueError(f"pairs needs a corpus file ({', '.join(FORMATS)}) as source, got {source!r:.80}.")
    if isinstance(source, Dataset):
        builder = CollectionBuilder("dataset", problems, columns)
        add_pairs(read_dataset(builder.name, source), builder, alone=True)
        return builder.build()
    if isinstance(source, Mapping):
        return _from_datasets(source, CollectionBuilder("datasets", problems, columns))
    if not isinstance(source, (str, os.PathLike)):
        raise TypeError(
            f"source must be a path, a name, a Dataset or a mapping, got {type(source).__name__}."
        )
    path = Path(source)
    is_beir = any((path / name).exists() for name in (CORPUS_NAME, QUERIES_NAME, QRELS_NAME))
    if columns and (is_beir or source == PYTHON_DOCS):
        raise ValueError(
            f"columns needs a file or dataset as source; {str(source)!r} has fixed column names."
        )
    if source == PYTHON_DOCS:
        return python_docs(cache_dir=cache_dir)
    if is_beir:
        return read_beir(path, skip_bad=skip_bad)
    if path.is_file() or path.suffix in FORMATS:
        builder = CollectionBuilder(path.stem, problems, columns)
        return _from_files(path, pairs, builder)
    return _from_hub(str(source), CollectionBuilder(path.name, problems, columns), cache_dir)


def _from_files(corpus: Path, pairs: str | os.PathLike[str] | None, builder: CollectionBuilder) -> Collection:
    builder.add_documents(read_records(corpus, builder.problems))
    if pairs is None:
        raise ValueError(
            f"{corpus} has documents only; pairs must be a file with queries and their documents."
        )
    add_pairs(read_records(Path(pairs), builder.problems), builder)
    return builder.build()


def _from_datasets(source: Mapping[str, Any], builder: CollectionBuilder) -> Collection:
    missing = [name for name in ("corpus", "queries", "qrels") if name not in source]
    if missing:
        raise ValueError(
            f"source must have the keys corpus, queries and qrels; {missing} are missing, got {list(source)}."
        )
    builder.add_documents(read_dataset("corpus", source["corpus"]))
    builder.add_queries(read_dataset("queries", source["queries"]))
    qrels = source["qrels"]
    by_split = {DEFAULT_SPLIT: qrels} if isinstance(qrels, Dataset) else qrels
    for split, dataset in by_split.items():
        builder.add_judgements(split, read_dataset(f"qrels[{split!r}]", dataset))
    return builder.build()


def _from_hub(name: str, builder: CollectionBuilder, cache_dir: str | os.PathLike[str] | None) -> Collection:
    loaded: dict[str, DatasetDict] = {}
    for configuration in ("corpus", "queries", "default"):
        try:
            loaded[configuration] = load_dataset(name, configuration, cache_dir=cache_dir)
        except Exception as error:
            raise FileNotFoundError(
                f"There is no collection {name!r}: it isn't a BEIR folder, a file or {PYTHON_DOCS!r}, and "
                f"load_dataset({name!r}, {configuration!r}) raised {type(error).__name__}: {error}"
            ) from error
    corpus, queries = (next(iter(loaded[configuration].values())) for configuration in ("corpus", "queries"))
    return _from_datasets({"corpus": corpus, "queries": queries, "qrels": loaded["default"]}, builder)
