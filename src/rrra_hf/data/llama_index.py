"""Read JSON files: an `EmbeddingQAFinetuneDataset` of LlamaIndex, or a list of records."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .blocks import Block, Records
from .builder import CollectionBuilder
from .problems import Location
from .tables import add_table

PARTS = ("queries", "corpus", "relevant_docs")


def add_json(path: Path, builder: CollectionBuilder) -> None:
    """Add what a JSON file holds.

    Args:
        path: The file: an object with queries and corpus, texts by id, and relevant_docs, lists of document
            ids by query id; or a list of records, as `add_table` takes.
        builder: Gets documents, queries and judgements.

    Raises:
        ValueError: If the file isn't JSON, or holds something else.
    """
    source = str(path)
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if isinstance(content, list) and all(isinstance(record, Mapping) for record in content):
        records = ((Location(source, number, "record"), record) for number, record in enumerate(content, 1))
        add_table([Block(records)], builder)
        return
    if not isinstance(content, Mapping) or not all(isinstance(content.get(part), Mapping) for part in PARTS):
        raise ValueError(
            f"{path} must hold a list of records, or an object with the objects {', '.join(PARTS)}."
        )
    _add_parts(source, content, builder)


def _add_parts(source: str, content: Mapping[str, Any], builder: CollectionBuilder) -> None:
    builder.add_documents([Block(_texts(source, content, "corpus"))])
    builder.add_queries(_texts(source, content, "queries"))
    builder.add_judgements(
        "train",
        (
            (
                Location(source, number, "relevant_docs entry"),
                {"query-id": query_id, "corpus-id": name, "score": 1},
            )
            for number, (query_id, names) in enumerate(content["relevant_docs"].items(), 1)
            for name in (names if isinstance(names, list) else [names])
        ),
    )


def _texts(source: str, content: Mapping[str, Any], part: str) -> Records:
    for number, (name, text) in enumerate(content[part].items(), 1):
        yield Location(source, number, f"{part} entry"), {"id": name, "text": text}
