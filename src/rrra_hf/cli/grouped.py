"""Options that several commands share, as one parameter of each."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

Command = Callable[..., None]


def grouped(place: str, group: type) -> Callable[[Command], Command]:
    """Return a decorator that gives a command the fields of a dataclass as options.

    Args:
        place: The command's parameter that gets the dataclass. The options take its place in the help.
        group: The dataclass; its fields are annotated as parameters of a command are.
    """
    options = inspect.signature(group, eval_str=True).parameters.values()

    def decorate(command: Command) -> Command:
        shown: list[inspect.Parameter] = []
        for parameter in inspect.signature(command, eval_str=True).parameters.values():
            shown += options if parameter.name == place else [parameter]

        @wraps(command)
        def run(**given: Any) -> None:
            found = group(**{option.name: given.pop(option.name) for option in options})
            command(**{place: found}, **given)

        run.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
        # Typer evaluates annotations that are strings, which takes time at each start.
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
        return run

    return decorate
