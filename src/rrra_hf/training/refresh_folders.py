"""The folders of the refreshes of one run, and which of them are still needed."""

from __future__ import annotations

import shutil
from pathlib import Path

from accelerate import PartialState

from ..models.files_rrra import leftovers, remove


class RefreshFolders:
    """Folders `step-<n>`, one per refresh.

    Args:
        path: Folder that holds them.

    Example:
        >>> RefreshFolders(Path("refreshes")).folder(8).name
        'step-8'
    """

    def __init__(self, path: Path):
        self.path = path

    def folder(self, step: int) -> Path:
        """Return the folder of a step's refresh."""
        return self.path / f"step-{step}"

    def pool(self, step: int) -> Path:
        """Return the folder of a step's pool."""
        return self.folder(step) / "pool"

    def adapter(self, step: int) -> Path:
        """Return the folder of a step's adapter."""
        return self.folder(step) / "adapter"

    def draws(self, step: int) -> Path:
        """Return the file of the negatives that this process had drawn in the epoch of a step."""
        return self.folder(step) / f"draws-{PartialState().process_index}.safetensors"

    def steps(self) -> list[int]:
        """Return the steps of the refreshes that exist, in order."""
        return _numbered(self.path, "step-")

    def delete_after(self, step: int) -> None:
        """Delete refreshes of later steps, which will be made again, and leftovers of a killed process."""
        unwanted = [self.folder(number) for number in self.steps() if number > step]
        unfinished = leftovers(self.path / "*") if self.path.is_dir() else []
        for folder in [*unwanted, *unfinished]:
            remove(folder)

    def delete_unneeded(self, checkpoints: Path) -> None:
        """Delete all refreshes but the last one, and the last one before each checkpoint.

        Args:
            checkpoints: Folder of the trainer's checkpoints.
        """
        steps = self.steps()
        needed = {steps[-1]}
        for checkpoint in _numbered(checkpoints, "checkpoint-"):
            needed |= set([step for step in steps if step <= checkpoint][-1:])
        for step in set(steps) - needed:
            shutil.rmtree(self.folder(step))


def _numbered(folder: Path, prefix: str) -> list[int]:
    numbers = [path.name.removeprefix(prefix) for path in folder.glob(f"{prefix}*")]
    return sorted(int(number) for number in numbers if number.isdigit())
