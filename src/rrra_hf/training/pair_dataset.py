"""A dataset of pairs whose texts are looked up when a row is read, also in what is made of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from datasets import Dataset, DatasetDict, Features

logger = logging.getLogger(__name__)

# Numbers of columns. Those of negatives follow.
LABELS, QUERY, POSITIVE, NEGATIVE = range(4)
CELL = pa.struct({"pair": pa.int64(), "column": pa.int32()})
# A column that sorted rows have for a moment.
ROW = "row of the pair dataset"
HINT = "drawn() returns a dataset of the texts as they are now, whose negatives stay."
FEATURE = Features.from_arrow_schema(pa.schema({"cell": CELL}))["cell"]


class Source(Protocol):
    """Knows what the cells of a dataset stand for."""

    def value(self, pair: int, column: int) -> Any:
        """Return what a pair has in the column with this number."""


class PairDataset(Dataset):
    """A dataset that reads its cells from a source: a cell holds the numbers of its pair and its column.

    Datasets that are made of it by selecting, shuffling, sorting, splitting, filtering, renaming, or by `map`
    read their cells from the source, too. Data frames and files that are made of it hold what its rows have
    at that time, as `drawn` returns it. What can't be done with cells is refused.

    Example:
        >>> class Numbers:
        ...     def value(self, pair: int, column: int) -> str:
        ...         return f"query {pair}"
        >>> dataset = PairDataset.of(Numbers(), 2, {"query": QUERY})
        >>> dataset.rename_column("query", "anchor")[1]
        {'anchor': 'query 1'}
        >>> dataset.to_list()
        [{'query': 'query 0'}, {'query': 'query 1'}]
    """

    @classmethod
    def of(cls, source: Source, pairs: int, columns: Mapping[str, int]) -> PairDataset:
        """Return the dataset of a source.

        Args:
            source: What the cells stand for. datasets pickles it here.
            pairs: Number of pairs.
            columns: Number of each column.
        """
        numbers = pa.array(np.arange(pairs))
        cells = {
            name: pa.StructArray.from_arrays(
                [numbers, pa.array(np.full(pairs, column, np.int32))], fields=list(CELL)
            )
            for name, column in columns.items()
        }
        return cls(pa.table(cells)).with_transform(LookUp(source))

    def drawn(self) -> Dataset:
        """Return a dataset of texts and labels as they are now. Its negatives aren't drawn again."""
        logger.info("The negatives that are drawn now are copied, and not drawn again.")
        return Dataset.from_dict(self[:])

    def map(self, *args: Any, **kwargs: Any) -> PairDataset:
        """Apply a function to all rows, as `Dataset.map` does. Queries, positives and new columns may change.

        Raises:
            ValueError: If the function changes negatives or labels.
        """
        mapped: PairDataset = _paired(super().map(*args, **kwargs))
        changed = [
            name
            for name in self.column_names
            if self._is_drawn(name) and mapped.features.get(name, FEATURE) != FEATURE
        ]
        if changed:
            raise ValueError(
                f"map must not change {', '.join(changed)}: negatives and their labels are drawn again in "
                f"each epoch. Change the documents of the collection. {HINT}"
            )
        return mapped

    def sort(self, *args: Any, **kwargs: Any) -> PairDataset:
        """Sort by the texts of columns, as `Dataset.sort` does."""
        numbered = self.drawn().add_column(ROW, np.arange(len(self)))
        return self.select(numbered.sort(*args, **kwargs)[ROW])

    def flatten_indices(self, *args: Any, **kwargs: Any) -> PairDataset:
        """Return the dataset: its texts are looked up in any order."""
        return self

    def _is_drawn(self, name: str) -> bool:
        if self.features[name] != FEATURE or not len(self):
            return False
        return self.data.column(name)[0].as_py()["column"] not in (QUERY, POSITIVE)

    def set_format(self, type: str | None = None, *args: Any, **options: Any) -> None:
        """Refuse other formats than the one that reads the source.

        Raises:
            ValueError: If it is another one.
        """
        transform = options.get("format_kwargs", options).get("transform")
        # datasets copies cells in the format arrow.
        if type != "arrow" and not isinstance(transform, LookUp):
            raise ValueError(f"The format must not be {type!r}: texts are looked up by a format, too. {HINT}")
        super().set_format(type, *args, **options)


class LookUp:
    """The format of the dataset: it puts values in the place of cells. Its copies share one source.

    datasets deep-copies the format for every dataset that it derives from another. The no-duplicates sampler
    of sentence-transformers, for example, derives one without labels. All of them must see the same epoch and
    the same negatives.
    """

    def __init__(self, source: Source):
        self.source = source

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
        """Return a batch with values in the place of cells."""
        return {
            name: [self.source.value(**cell) for cell in values] if _are_cells(values) else values
            for name, values in batch.items()
        }

    def __deepcopy__(self, memo: dict[int, Any]) -> LookUp:
        return LookUp(self.source)


def _are_cells(values: Sequence[Any]) -> bool:
    """Whether a column holds cells. `map` may have put texts in their place, and added columns."""
    return len(values) > 0 and isinstance(values[0], dict) and values[0].keys() == FEATURE.keys()


def _paired(made: Any) -> Any:
    """Let datasets that were derived be of this class; datasets returns its own."""
    for dataset in made.values() if isinstance(made, DatasetDict) else [made]:
        dataset.__class__ = PairDataset
    return made


def _derived(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def derived(self: PairDataset, *args: Any, **kwargs: Any) -> Any:
        return _paired(method(self, *args, **kwargs))

    return derived


def _of_drawn(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def of_drawn(self: PairDataset, *args: Any, **kwargs: Any) -> Any:
        return method(self.drawn(), *args, **kwargs)

    return of_drawn


def _refused(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def refused(self: PairDataset, *args: Any, **kwargs: Any) -> Any:
        raise ValueError(f"{method.__name__} needs texts, which are looked up when a row is read. {HINT}")

    return refused


METHODS = {
    _derived: "select shuffle filter shard take skip repeat train_test_split add_column",
    _of_drawn: "to_dict to_list to_pandas to_polars to_csv to_json to_parquet to_sql to_iterable_dataset "
    "to_tf_dataset save_to_disk push_to_hub unique flatten",
    _refused: "add_item cast cast_column class_encode_column align_labels_with_mapping",
}
for _wrapped, _names in METHODS.items():
    for _name in _names.split():
        setattr(PairDataset, _name, _wrapped(getattr(Dataset, _name)))
