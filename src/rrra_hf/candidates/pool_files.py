"""Read and write the files of a candidate pool: Parquet, and JSON with metadata."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..data.parquet_files import allowed_bytes, read_columns
from ..indexes.checksums import ENTRY, check_files, checksums
from ..models.files_rrra import read_meta, write_json

META_NAME = "pool.json"
DOCUMENTS_NAME = "documents.parquet"
QUERIES_NAME = "queries.parquet"
FILE_NAMES = (META_NAME, DOCUMENTS_NAME, QUERIES_NAME)
FORMAT_VERSION = 4
# Name of the column with probabilities, and number of columns, per format version.
PROBABILITY_COLUMN = {1: "false_negative_probability", 2: "probability", 3: "probability", 4: "probability"}
NUM_COLUMNS = {1: 5, 2: 5, 3: 7, 4: 8}
# Columns that may be empty.
OPTIONAL = {*PROBABILITY_COLUMN.values(), "ranking_scores"}
DOCUMENTS_SCHEMA = pa.schema({"document_id": pa.large_string()})
QUERIES_SCHEMA = pa.schema(
    {
        "query_id": pa.large_string(),
        "positive_ids": pa.large_list(pa.large_string()),
        "candidate_ids": pa.large_list(pa.large_string()),
        "scores": pa.large_list(pa.float32()),
        "probability": pa.large_list(pa.float32()),
        "negative_ids": pa.large_list(pa.large_string()),
        "excluded_ids": pa.large_list(pa.large_string()),
        "ranking_scores": pa.large_list(pa.float32()),
    }
)
# Queries written at a time.
BLOCK_SIZE = 4096


def write_pool(
    folder: Path,
    *,
    query_ids: list[str],
    document_ids: list[str],
    positives: list[np.ndarray],
    candidates: np.ndarray,
    scores: np.ndarray,
    probability: np.ndarray | None,
    fingerprint: dict[str, str],
    negatives: list[np.ndarray],
    excluded: list[np.ndarray],
    ranking_scores: np.ndarray | None,
) -> None:
    """Write the fields of a `CandidatePool` to a new folder."""
    folder.mkdir(parents=True)
    ids = _strings(document_ids)
    pq.write_table(pa.table({"document_id": ids}), folder / DOCUMENTS_NAME)
    with pq.ParquetWriter(folder / QUERIES_NAME, QUERIES_SCHEMA) as writer:
        # Block by block, because the ids of all candidates take more memory than the pool.
        for start in range(0, len(query_ids), BLOCK_SIZE):
            block = slice(start, start + BLOCK_SIZE)
            kept = candidates[block] >= 0
            offsets = _offsets(kept.sum(axis=1))
            columns = [
                _strings(query_ids[block]),
                _id_lists(positives[block], ids),
                pa.LargeListArray.from_arrays(offsets, ids.take(pa.array(candidates[block][kept]))),
                _number_lists(scores, block, kept),
                _number_lists(probability, block, kept),
                _id_lists(negatives[block], ids),
                _id_lists(excluded[block], ids),
                _number_lists(ranking_scores, block, kept),
            ]
            writer.write_table(pa.table(columns, schema=QUERIES_SCHEMA))
    meta = {
        "format_version": FORMAT_VERSION,
        "queries": len(query_ids),
        "documents": len(document_ids),
        "depth": candidates.shape[1],
        "fingerprint": fingerprint,
        ENTRY: checksums(folder),
    }
    write_json(folder / META_NAME, meta)


def read_pool(folder: Path) -> dict[str, Any]:
    """Return the fields of the `CandidatePool` in a folder.

    Raises:
        ValueError: If a file is missing or damaged. The message names the file.
    """
    names = ("format_version", "queries", "documents", "depth", "fingerprint")
    meta = read_meta(folder / META_NAME, PROBABILITY_COLUMN.keys(), names)
    check_files(folder / META_NAME)
    fingerprint = meta["fingerprint"]
    if not isinstance(fingerprint, dict) or not all(isinstance(value, str) for value in fingerprint.values()):
        raise ValueError(f"{folder / META_NAME} is damaged: fingerprint must be texts by name.")
    documents = _read_table(folder / DOCUMENTS_NAME, DOCUMENTS_SCHEMA, meta["documents"])
    queries = _read_table(folder / QUERIES_NAME, _schema(meta["format_version"]), meta["queries"])
    allowed = allowed_bytes(folder / QUERIES_NAME)
    if type(meta["depth"]) is not int or not 0 <= meta["depth"] * queries.num_rows <= allowed:
        raise ValueError(f"{folder / META_NAME} is damaged: depth is {meta['depth']!r:.80}.")
    try:
        return _fields(meta, documents["document_id"].combine_chunks(), queries)
    except ValueError as error:
        raise ValueError(f"{folder / QUERIES_NAME} has no candidate pool: {error}") from error


def _schema(version: int) -> pa.Schema:
    """Return the columns of `queries.parquet` in a format version."""
    columns = list(QUERIES_SCHEMA)
    place = QUERIES_SCHEMA.get_field_index("probability")
    columns[place] = columns[place].with_name(PROBABILITY_COLUMN[version])
    return pa.schema(columns[: NUM_COLUMNS[version]])


def _fields(meta: dict[str, Any], document_ids: pa.Array, queries: pa.Table) -> dict[str, Any]:
    columns = {name: queries[name].combine_chunks() for name in queries.column_names}
    candidates = columns["candidate_ids"]
    filled = np.arange(meta["depth"]) < _lengths(candidates)[:, None]

    def numbers(name: str, empty: float) -> np.ndarray | None:
        lists = columns.get(name)
        if lists is None or lists.null_count == len(lists):
            return None
        same = pc.equal(lists.value_lengths(), candidates.value_lengths())
        if pc.all(same).as_py() is False:
            raise ValueError(f"{name} must have as many values as candidate_ids in each row")
        return _scatter(lists.flatten().to_numpy(zero_copy_only=False), filled, empty)

    scores = numbers("scores", -np.inf)
    return {
        "query_ids": columns["query_id"].to_pylist(),
        "document_ids": document_ids.to_pylist(),
        "positives": _row_lists(columns["positive_ids"], document_ids),
        "candidates": _scatter(_rows(candidates, document_ids), filled, -1),
        "scores": np.empty(filled.shape, dtype=np.float32) if scores is None else scores,
        "probability": numbers(PROBABILITY_COLUMN[meta["format_version"]], np.nan),
        "fingerprint": meta["fingerprint"],
        **{
            name: _row_lists(columns[column], document_ids)
            for name, column in (("negatives", "negative_ids"), ("excluded", "excluded_ids"))
            if column in columns
        },
        "ranking_scores": numbers("ranking_scores", -np.inf),
    }


def _read_table(path: Path, schema: pa.Schema, count: int) -> pa.Table:
    try:
        table = read_columns(path, schema)
    except OSError as error:
        raise ValueError(f"{path} is missing or damaged: {error}") from error
    if table.num_rows != count:
        raise ValueError(f"{path} is damaged: it has {table.num_rows} rows instead of {count}.")
    if any(table[name].null_count for name in table.column_names if name not in OPTIONAL):
        raise ValueError(f"{path} is damaged: values are missing.")
    return table


def _strings(values: Sequence[str]) -> pa.Array:
    return pa.array(values, type=pa.large_string())


def _offsets(lengths: Sequence[int] | np.ndarray) -> pa.Array:
    return pa.array(np.cumsum([0, *lengths]), type=pa.int64())


def _number_lists(values: np.ndarray | None, block: slice, kept: np.ndarray) -> pa.Array:
    """Return a list of numbers per query, without its empty places; nothing if there are no numbers."""
    if values is None:
        return pa.nulls(len(kept), pa.large_list(pa.float32()))
    return pa.LargeListArray.from_arrays(_offsets(kept.sum(axis=1)), pa.array(values[block][kept]))


def _id_lists(row_lists: list[np.ndarray], document_ids: pa.Array) -> pa.Array:
    rows = np.concatenate(row_lists)
    return pa.LargeListArray.from_arrays(
        _offsets([len(rows) for rows in row_lists]), document_ids.take(pa.array(rows))
    )


def _lengths(lists: pa.Array) -> np.ndarray:
    return lists.value_lengths().to_numpy()


def _row_lists(id_lists: pa.Array, document_ids: pa.Array) -> list[np.ndarray]:
    """Return the rows of the documents in each list."""
    return np.split(_rows(id_lists, document_ids), np.cumsum(_lengths(id_lists)))[:-1]


def _rows(id_lists: pa.Array, document_ids: pa.Array) -> np.ndarray:
    """Return the rows of the documents in all lists, concatenated."""
    rows = pc.index_in(id_lists.flatten(), value_set=document_ids)
    if rows.null_count:
        raise ValueError(f"{rows.null_count} document ids are not in {DOCUMENTS_NAME}")
    return rows.to_numpy()


def _scatter(values: np.ndarray, filled: np.ndarray, empty: float) -> np.ndarray:
    """Return a matrix with `values`, row by row, where `filled` is true, and `empty` elsewhere."""
    if len(values) != filled.sum():
        raise ValueError(f"{len(values)} values for {filled.sum()} candidates")
    matrix = np.full(filled.shape, empty, dtype=values.dtype)
    matrix[filled] = values
    return matrix
