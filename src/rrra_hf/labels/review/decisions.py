"""Decisions about unlabelled pairs, in a file that only grows."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from ...data.problems import Location, brief
from ...embeddings.folder_lock import only_writer
from ...models.files_rrra import write_aside

PERSON = "person"
JUDGE = "judge:"
ADAPTER = "adapter"

Pair = tuple[str, str]
"""Query id and document id."""


@dataclass(frozen=True)
class Decision:
    """Whether a document is relevant to a query, and who says so.

    Args:
        query_id: Id of the query.
        document_id: Id of the document.
        relevant: Whether the document is relevant.
        by: "person", "judge:NAME" or "adapter".
        probability: Probability of relevance that the adapter gave the pair when this was decided.

    Raises:
        ValueError: If a field has another type or value.

    Example:
        >>> Decision("q1", "d1", True, "somebody", 0.5)
        Traceback (most recent call last):
        ValueError: by must be 'person', 'judge:NAME' or 'adapter', got 'somebody'.
    """

    query_id: str
    document_id: str
    relevant: bool
    by: str
    probability: float

    def __post_init__(self) -> None:
        for name in ("query_id", "document_id", "by"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} must be a string, got {brief(getattr(self, name))}.")
        if not isinstance(self.relevant, bool):
            raise ValueError(f"relevant must be true or false, got {brief(self.relevant)}.")
        if self.by not in (PERSON, ADAPTER) and not (self.by.startswith(JUDGE) and self.by != JUDGE):
            raise ValueError(f"by must be 'person', 'judge:NAME' or 'adapter', got {brief(self.by)}.")
        number = isinstance(self.probability, (int, float)) and not isinstance(self.probability, bool)
        if not number or not 0 <= self.probability <= 1:
            raise ValueError(f"probability must be in [0, 1], got {brief(self.probability)}.")

    @property
    def pair(self) -> Pair:
        """Query id and document id."""
        return self.query_id, self.document_id


class Decisions:
    """Decisions in the order in which they were made.

    A pair may be decided several times. What a person says counts before what a judge says, and that before
    what the adapter says; of the same rank, the last counts.

    Those opened with `Decisions.open` are saved: a decision is on the disk when `add` returns. Others are
    kept in memory.

    Example:
        >>> decisions = Decisions()
        >>> decisions.add(Decision("q1", "d1", True, "judge:small", 0.5))
        >>> decisions.add(Decision("q1", "d1", False, "person", 0.5))
        >>> decisions["q1", "d1"].relevant, len(decisions)
        (False, 1)
        >>> decisions.undo(decisions.made[-1])
        >>> decisions["q1", "d1"].by
        'judge:small'
    """

    def __init__(self) -> None:
        self._made: list[Decision] = []
        self._counting: dict[Pair, Decision] = {}
        self._file: _GrowingFile | None = None

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Decisions:
        """Read saved decisions. What is added to them is not saved.

        Args:
            path: The JSONL file. One that doesn't exist holds no decisions.

        Raises:
            ValueError: If a line is damaged; the message names it. A last line without its end is one that a
                killed process was writing. It is left out.
        """
        return _read(Path(path))[0]

    @classmethod
    @contextmanager
    def open(cls, path: str | os.PathLike[str]) -> Iterator[Decisions]:
        """Read saved decisions, and save what is added while the block runs.

        Args:
            path: The JSONL file. It is made if needed.

        Raises:
            BlockingIOError: If another process has it open.
            ValueError: If a line is damaged; the message names it.

        Example:
            >>> import tempfile
            >>> path = Path(tempfile.mkdtemp()) / "decisions.jsonl"
            >>> with Decisions.open(path) as decisions:
            ...     decisions.add(Decision("q1", "d1", True, "person", 0.75))
            >>> print(path.read_text(), end="")
            {"query_id": "q1", "document_id": "d1", "relevant": true, "by": "person", "probability": 0.75}
            >>> len(Decisions.read(path))
            1
        """
        with only_writer(Path(path)):
            decisions, size = _read(Path(path))
            if not Path(path).exists():
                with write_aside(path) as new:
                    new.touch()
            decisions._file = _GrowingFile(Path(path), size)
            try:
                yield decisions
            finally:
                decisions._file.close()

    @property
    def made(self) -> tuple[Decision, ...]:
        """All decisions in the order in which they were made, without those that were taken back."""
        return tuple(self._made)

    def __len__(self) -> int:
        return len(self._counting)

    def __iter__(self) -> Iterator[Decision]:
        """The decisions that count, one for each pair."""
        return iter(self._counting.values())

    def __contains__(self, pair: Pair) -> bool:
        return pair in self._counting

    def __getitem__(self, pair: Pair) -> Decision:
        return self._counting[pair]

    def get(self, pair: Pair) -> Decision | None:
        """Return the decision about a pair that counts, None if there is none.

        Args:
            pair: Query id and document id.
        """
        return self._counting.get(pair)

    def add(self, decision: Decision) -> None:
        """Add a decision. If they are saved, it is on the disk when this returns.

        Args:
            decision: The decision.

        Raises:
            OSError: If it can't be saved. It isn't added then.
        """
        self._save(asdict(decision))
        self._add(decision)

    def undo(self, decision: Decision) -> None:
        """Take a decision back. Saved decisions get a line that says so.

        Args:
            decision: One of `made`. If it was made several times, the last is taken back.

        Raises:
            ValueError: If there is no such decision.
            OSError: If this can't be saved. The decision stays then.
        """
        if decision not in self._made:
            raise ValueError(f"decision must be one that was made, got {decision}.")
        self._save({"undo": asdict(decision)})
        self._take_back(decision)

    def _add(self, decision: Decision) -> None:
        self._made.append(decision)
        counting = self._counting.get(decision.pair)
        if counting is None or _rank(decision) >= _rank(counting):
            self._counting[decision.pair] = decision

    def _take_back(self, decision: Decision) -> None:
        place = len(self._made) - 1 - self._made[::-1].index(decision)
        del self._made[place]
        self._counting.pop(decision.pair)
        others = [made for made in self._made if made.pair == decision.pair]
        if others:
            best = max(map(_rank, others))
            self._counting[decision.pair] = [made for made in others if _rank(made) == best][-1]

    def _save(self, record: dict[str, object]) -> None:
        if self._file is not None:
            self._file.append(json.dumps(record) + "\n")


def _rank(decision: Decision) -> int:
    return {ADAPTER: 0, PERSON: 2}.get(decision.by, 1)


def _read(path: Path) -> tuple[Decisions, int]:
    """Return the decisions in a file, and how many of its bytes hold them."""
    decisions = Decisions()
    content = path.read_bytes() if path.exists() else b""
    lines = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            _replay(decisions, json.loads(line))
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                return decisions, len(content) - len(line)
            raise ValueError(
                f"{Location(str(path), number)}: not a decision ({error}): {brief(line)}"
            ) from None
    return decisions, len(content)


def _replay(decisions: Decisions, record: object) -> None:
    """Repeat what a line tells of."""
    if isinstance(record, dict) and record.keys() == {"undo"}:
        undone = _decision(record["undo"])
        if undone not in decisions._made:
            raise ValueError("it takes back what wasn't decided")
        decisions._take_back(undone)
    else:
        decisions._add(_decision(record))


def _decision(record: object) -> Decision:
    names = [field.name for field in fields(Decision)]
    if not isinstance(record, dict) or record.keys() != set(names):
        raise ValueError(f"it must be an object with the fields {', '.join(names)}")
    return Decision(**record)


class _GrowingFile:
    """A file to which lines are appended, each of them whole or not at all.

    Args:
        path: The file.
        size: Number of bytes to keep.
    """

    def __init__(self, path: Path, size: int):
        self._file = path.open("a+b", buffering=0)
        self._size = size
        self._file.truncate(size)
        # An editor may have left out the end of the last line.
        self._file.seek(max(size - 1, 0))
        if self._file.read() not in (b"", b"\n"):
            self.append("\n")

    def append(self, line: str) -> None:
        data = line.encode()
        try:
            # On a full disk, a part may be written without an error.
            if self._file.write(data) != len(data):
                raise OSError(f"{self._file.name}: a decision could not be written; make room on the disk.")
            os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(self._size)
            raise
        self._size += len(data)

    def close(self) -> None:
        self._file.close()
