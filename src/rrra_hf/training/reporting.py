"""Where a trainer sends its logs besides the folder of the run."""

from __future__ import annotations

from pathlib import Path

from transformers import Trainer
from transformers.integrations import (
    INTEGRATION_TO_CALLBACK,
    TensorBoardCallback,
    get_available_reporting_integrations,
)

NONE = "none"


def check_report_to(names: str | list[str]) -> None:
    """Raise unless all names are of integrations of transformers whose packages are installed.

    Args:
        names: One name or several; `"none"` stands alone.

    Raises:
        ValueError: If a name is unknown.
        ImportError: If its package isn't installed.

    Example:
        >>> check_report_to("none")
        >>> check_report_to("paper")
        Traceback (most recent call last):
        ValueError: report_to must be none or among ..., got 'paper'.
    """
    if names == NONE:
        return
    available = get_available_reporting_integrations()
    for name in [names] if isinstance(names, str) else names:
        if name not in INTEGRATION_TO_CALLBACK:
            legal = ", ".join(sorted(INTEGRATION_TO_CALLBACK))
            raise ValueError(f"report_to must be {NONE} or among {legal}, got {name!r}.")
        if name not in available:
            raise ImportError(f"report_to={name!r} needs a package that isn't installed: pip install {name}")


def write_tensorboard_to(folder: Path, trainer: Trainer) -> None:
    """Let TensorBoard's files be written to a folder, unless `TENSORBOARD_LOGGING_DIR` names another.

    By default they would be beside the checkpoints, which are deleted at the end.
    """
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
            callback.logging_dir = str(folder)
