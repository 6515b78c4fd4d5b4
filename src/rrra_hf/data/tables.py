"""Tables of records whose columns say what they hold: a corpus, or pairs, triplets and labelled pairs."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
from datasets import Dataset, IterableDataset

from .blocks import Block, one_by_one, with_first
from .builder import CollectionBuilder
from .pairs import DEFAULT_SPLIT, add_pairs
from .problems import Location, Record, brief
from .readers import read_arrow, read_dataset

logger = logging.getLogger(__name__)


def is_table(source: object) -> bool:
    """Whether a source is a dataset, a data frame, an Arrow table or a list of records."""
    if isinstance(source, (Dataset, IterableDataset)) or hasattr(source, "__arrow_c_stream__"):
        return True
    return isinstance(source, Sequence) and not isinstance(source, str) and _all_records(source)


def _all_records(source: Sequence[Any]) -> bool:
    return all(isinstance(record, Mapping) for record in source)


def read_table(name: str, source: Any) -> Iterator[Block]:
    """Yield the rows of a table in blocks. Rows are counted from 0.

    Raises:
        ValueError: If a column of a data frame has values of several types.
    """
    if isinstance(source, Dataset):
        return read_dataset(name, source)
    if hasattr(source, "__arrow_c_stream__") and not isinstance(source, IterableDataset):
        try:
            return read_arrow(name, _arrow(name, source))
        except UnicodeEncodeError:
            # Arrow holds no lone surrogates, data frames of pandas may. They are reported with their rows.
            source = source.astype(object).where(source.notna(), None).to_dict("records")
    records = ((Location(name, number, "row"), dict(record)) for number, record in enumerate(source))
    return iter([Block(records)])


def _arrow(name: str, frame: Any) -> pa.Table:
    try:
        pandas = type(frame).__module__.partition(".")[0] == "pandas"
        return pa.Table.from_pandas(frame, preserve_index=False) if pandas else pa.table(frame)
    except pa.ArrowException as error:
        raise ValueError(f"{name} has a column with values of several types: {error}") from error


def add_table(blocks: Iterable[Block], builder: CollectionBuilder, split: str = DEFAULT_SPLIT) -> None:
    """Add a corpus, or pairs with their documents, as the columns of the first record say.

    A column that no role names is taken for the query, the document or the text only if there is no other
    choice, and the log says so.

    Args:
        blocks: The records.
        builder: Gets documents, queries and judgements.
        split: Split of pairs that don't name one.

    Raises:
        ValueError: If it isn't clear what the columns hold. The message lists them.
    """
    first, blocks = with_first(blocks)
    if first is None:
        return
    if _holds_pairs(*first, builder):
        add_pairs(one_by_one(blocks), builder, split=split, alone=True)
    else:
        builder.add_documents(blocks)


def _holds_pairs(location: Location, record: Record, builder: CollectionBuilder) -> bool:
    """Whether the columns are those of pairs, not of a corpus."""
    if builder.named & {"query", "document", "text"} == {"text"}:
        return False
    has = {role for role, names in builder.columns.items() if any(name in record for name in names)}
    found = has & {"query", "document", "text"}
    if found == {"text"}:
        return False
    if found >= {"query", "document"}:
        return True
    unknown = [name for name, value in record.items() if name not in builder.names and isinstance(value, str)]
    guessed = _guess(has, len(unknown))
    if not guessed:
        raise ValueError(
            f"{location.source} has columns {brief(list(record))}, and it isn't clear what they hold. Name "
            "the columns of pairs, columns={'query': ..., 'document': ...}, or that of a corpus, "
            "columns={'text': ...} (--column query=... --column document=..., --column text=...)."
        )
    for role, name in zip(guessed, unknown, strict=True):
        logger.warning(
            "%s: column %r is read as the %s; columns={%r: ...} (--column %s=...) names another.",
            *(location.source, name, role, role, role),
        )
        builder.columns[role] = (name,)
    return guessed != ("text",)


def _guess(has: set[str], unknown: int) -> tuple[str, ...]:
    """Return the roles of the columns that have no usual name, none if that isn't clear."""
    missing = {("query",): ("document",), ("document",): ("query",), (): ("text",)}
    found = tuple(sorted(has & {"query", "document", "text"}))
    if unknown == 1:
        return missing.get(found, ())
    if unknown == 2 and not found and not has & {"id", "title"}:
        return ("query", "document")
    return ()
