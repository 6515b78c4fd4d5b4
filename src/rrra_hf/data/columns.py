"""Documents as columns in which nothing is wrong but, perhaps, ids that occur twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from .metadata import metadata_json

# Characters at the beginning of a text, one of which must not be space.
HEAD = 16


def document_columns(table: pa.Table, columns: Mapping[str, Sequence[str]]) -> pa.Table | None:
    """Return the columns id, title, text and metadata of documents, or None if one of them may be bad.

    Ids are texts or integers. Texts and titles are texts. A title may be missing. No id is only space, and no
    title with its text. Metadata become JSON texts.

    Args:
        table: Records as columns.
        columns: Names of columns per role. The first of them that is there has the role.
    """
    found = {role: _column(table, columns[role]) for role in ("id", "title", "text")}
    integers = pa.types.is_int64(found["id"].type)
    if not (integers or _holds_texts(found["id"])) or not _holds_texts(found["text"]):
        return None
    if not (pa.types.is_null(found["title"].type) or _holds_texts(found["title"])):
        return None
    if found["id"].null_count or found["text"].null_count:
        return None
    try:
        texts = {role: column.cast(pa.string()).combine_chunks() for role, column in found.items()}
    except pa.ArrowException:  # texts of more than 2 GB
        return None
    texts["title"] = pc.fill_null(texts["title"], "")
    metadata = _metadata(_column(table, columns["metadata"]))
    if metadata is None or not _is_clean(**texts):
        return None
    return pa.table({**texts, "metadata": metadata})


def _metadata(column: pa.ChunkedArray) -> pa.Array | None:
    """Return metadata as JSON texts, or None if they may say something else than the records."""
    if pa.types.is_null(column.type) or (pa.types.is_struct(column.type) and not column.type.num_fields):
        return pa.array([""] * len(column), pa.string())
    if any(map(_says_less, column.chunks)):
        return None
    try:
        return pa.array(map(metadata_json, column.to_pylist()), pa.string())
    except ValueError:
        return None


def _says_less(column: pa.Array, level: int = 0) -> bool:
    """Whether integers may be floats, or dictionaries in dictionaries may have got the keys of others."""
    if pa.types.is_floating(column.type):
        return pc.any(pc.equal(pc.floor(column), column)).as_py() is True
    if not pa.types.is_nested(column.type):
        return False
    parts = column.flatten()
    inner = parts if isinstance(parts, list) else [parts]
    nested = pa.types.is_struct(column.type) and level > 0
    return nested or any(_says_less(part, level + 1) for part in inner)


def _column(table: pa.Table, names: Sequence[str]) -> pa.ChunkedArray:
    """Return the first of these columns that is there, or one of nothing."""
    name = next((name for name in names if name in table.column_names), None)
    return pa.chunked_array([pa.nulls(table.num_rows)]) if name is None else table[name]


def _holds_texts(column: pa.ChunkedArray) -> bool:
    values = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    return pa.types.is_string(values) or pa.types.is_large_string(values)


def _is_clean(id: pa.Array, title: pa.Array, text: pa.Array) -> bool:
    if not all(map(str.strip, id.to_pylist())):
        return False
    texts = _heads(text)
    return all(texts) or all(head or begin for head, begin in zip(texts, _heads(title), strict=True))


def _heads(column: pa.Array) -> list[str]:
    return [head.strip() for head in pc.utf8_slice_codeunits(column, 0, HEAD).to_pylist()]
