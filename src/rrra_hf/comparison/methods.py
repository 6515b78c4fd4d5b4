"""What is compared: methods by name, each a function of a trial."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from .arguments import CompareArguments
from .cells import Result
from .task import Task
from .trial import Trial

TABLES = {
    "systems": "Systems on the frozen encoder",
    "training": "Strategies of choosing negatives",
    "detection": "False-negative detection",
    "ablations": "Ablations of the adapter",
    "gradients": "Gradients of the negatives",
}


@dataclass(frozen=True)
class Method:
    """A method, as a row of a table.

    Args:
        table: Table it belongs to, one of `TABLES`.
        name: Name in tables, files and on the command line.
        about: What it is, in a line.
        run: Fits and measures it.
        settings: Names of the fields of `CompareArguments` that decide its result.
        seeded: Whether the seed matters; if not, it is run once.
        needs: Field of `CompareArguments` without which it can't be run; None for nothing.
    """

    table: str
    name: str
    about: str
    run: Callable[[Trial], Result]
    settings: tuple[str, ...] = ("fit",)
    seeded: bool = True
    needs: str | None = None

    def settings_of(self, task: Task, arguments: CompareArguments) -> dict[str, Any]:
        """Return everything that decides a cell's result, but for its seed."""
        return {**arguments.settings(self.settings), "collection": task.fingerprint}


REGISTRY: dict[tuple[str, str], Method] = {}


def register(method: Method) -> None:
    """Add a method to its table; its name must be new there."""
    key = method.table, method.name
    if method.table not in TABLES or key in REGISTRY:
        raise ValueError(f"table must be one of {', '.join(TABLES)}, and a name new in it; got {key}.")
    REGISTRY[key] = method


def methods_of(table: str) -> dict[str, Method]:
    """Return the methods of a table by name, in the order of their registration."""
    return {name: method for (where, name), method in REGISTRY.items() if where == table}


def choose_methods(table: str, names: Iterable[str] | None, arguments: CompareArguments) -> list[Method]:
    """Return the methods named, or all of a table that can be run.

    Args:
        table: The table.
        names: Names; None for all whose needs are met.
        arguments: Settings.

    Raises:
        ValueError: If a name is unknown, or a method named needs a setting that is not given.
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
