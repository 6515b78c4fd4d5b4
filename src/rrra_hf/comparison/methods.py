"""The registry of compared methods: each is a named function of a trial, and a row of a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from .arguments import CompareArguments
from .cells import Result
from .measures import DETECTION_MEASURES, RANKING_MEASURES
from .task import Task
from .trial import Trial


class Table(NamedTuple):
    """A table of methods that are compared with each other.

    Args:
        title: Its title.
        references: Baselines. The best of those that were run is the reference of paired differences.
        measures: Its measures by name; the first one is the main one.
    """

    title: str
    references: tuple[str, ...]
    measures: Mapping[str, Callable[..., Any]]


BASELINES = ("encoder", "bm25", "rrf", "mix", "query-map", "two-sided-map")
TABLES = {
    "systems": Table("Systems on the frozen encoder", BASELINES, RANKING_MEASURES),
    "strategies": Table("Strategies of choosing negatives", ("in-batch",), RANKING_MEASURES),
    "detection": Table("False-negative detection", ("similarity",), DETECTION_MEASURES),
    "ablations": Table("Ablations of the adapter", ("residual",), RANKING_MEASURES),
}


@dataclass(frozen=True)
class Method:
    """A compared method.

    Args:
        table: Table it belongs to, one of `TABLES`.
        name: Name in tables, files and on the command line.
        about: Description in one line.
        run: Fits and measures the method.
        settings: Names of the settings of `CompareArguments` that its result depends on.
        seeded: Whether the result depends on the seed. If not, the method is run once.
        needs: Field of `CompareArguments` that must be given; None if there is none.
    """

    table: str
    name: str
    about: str
    run: Callable[[Trial], Result]
    settings: tuple[str, ...] = ("fit",)
    seeded: bool = True
    needs: str | None = None

    def settings_of(self, task: Task, arguments: CompareArguments) -> dict[str, Any]:
        """Return everything that the result of a cell depends on, except its seed."""
        return {
            **arguments.settings(self.settings),
            "measures": list(TABLES[self.table].measures),
            "collection": task.fingerprint,
        }


REGISTRY: dict[tuple[str, str], Method] = {}


def register(method: Method) -> None:
    """Add a method to its table.

    Raises:
        ValueError: If there is no such table, or the table has a method of that name.
    """
    key = method.table, method.name
    if method.table not in TABLES or key in REGISTRY:
        raise ValueError(f"table must be one of {', '.join(TABLES)}, and a name new in it; got {key}.")
    REGISTRY[key] = method


def methods_of(table: str) -> dict[str, Method]:
    """Return the methods of a table by name, in the order of registration."""
    return {name: method for (where, name), method in REGISTRY.items() if where == table}


def choose_methods(table: str, names: Iterable[str] | None, arguments: CompareArguments) -> list[Method]:
    """Return the named methods, or all methods of a table that can be run.

    Args:
        table: The table.
        names: Names of methods; None for all whose needs are met.
        arguments: Settings.

    Raises:
        ValueError: If a name is unknown, or a named method needs a setting that isn't given.
    """
    known = methods_of(table)
    if names is None:
        return [m for m in known.values() if m.needs is None or getattr(arguments, m.needs) is not None]
    chosen = []
    for name in names:
        if name not in known:
            raise ValueError(f"methods must be among {', '.join(known)}; got {name!r}.")
        method = known[name]
        if method.needs is not None and getattr(arguments, method.needs) is None:
            raise ValueError(f"{method.needs} must be given for the method {name!r}.")
        chosen.append(method)
    return list(dict.fromkeys(chosen))
