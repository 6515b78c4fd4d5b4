"""Damaged inputs are refused, or give exactly what undamaged ones give; nothing else happens.

`FUZZ=20 pytest tests/security/test_fuzz.py` tries twenty times as many inputs as CI does.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import traceback
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

import forked
from damage import damage
from fuzzed import FORMATS, Format

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="memory and time are limited by Linux"),
]

FACTOR = int(os.environ.get("FUZZ", "1"))
SECONDS = 60
MEMORY = 2**30


def test_there_are_enough_inputs() -> None:
    assert sum(format_.inputs for format_ in FORMATS.values()) >= 2000


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_inputs(name: str, tiny_bert: Path, tmp_path: Path) -> None:
    # In a process of its own, which a signal or the limits may end.
    done = forked.run(attack, name, tiny_bert, tmp_path)
    last = (tmp_path / "last").read_text() if (tmp_path / "last").exists() else "none"
    assert done.statuses == [0], f"ended by {done.statuses} at: {last}\n{done.err[-3000:]}"
    failures = json.loads((tmp_path / "failures.json").read_text())
    assert not failures, f"{len(failures)} failures\n" + "\n\n".join(failures[:5])


def attack(name: str, model: Path, place: Path) -> None:
    """Damage the files of a format again and again, and write what went wrong to `failures.json`."""
    format_, whole, folder = FORMATS[name], place / "whole", place / "damaged"
    whole.mkdir()
    format_.make(whole, model)
    shutil.copytree(whole, folder)
    expected = contents(format_.read(folder))
    assert format_.repairs or snapshot(folder) == snapshot(whole)
    shutil.rmtree(folder)
    shutil.copytree(whole, folder)
    limit_memory()
    files = sorted(
        path.relative_to(whole) for path in whole.rglob("*") if path.suffix != ".lock" and path.is_file()
    )
    failures = []
    for number in range(format_.inputs * FACTOR):
        random = Random(f"{name} {number}")
        file = random.choice(files)
        (place / "last").write_text(f"{number}, {file}")
        replace(folder / file, damage((whole / file).read_bytes(), file.name, random))
        problem = try_to_read(format_, folder, expected)
        if problem is None and not format_.repairs:
            replace(folder / file, (whole / file).read_bytes())
            if snapshot(folder) != snapshot(whole):
                problem = "reading it changed other files"
        if problem is not None:
            failures.append(f"{name}, input {number}, {file}: {problem}")
        if problem is not None or format_.repairs:
            shutil.rmtree(folder)
            shutil.copytree(whole, folder)
    (place / "failures.json").write_text(json.dumps(failures))


def try_to_read(format_: Format, folder: Path, expected: Any) -> str | None:
    """Read a damaged folder, and return what is wrong with what happens, or None."""
    # Its default action, which no library can delay, ends the process.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(SECONDS)
    try:
        found = contents(format_.read(folder))
    except (ValueError, OSError) as error:
        return None if str(error) else "an error without a message"
    except BaseException:
        return traceback.format_exc(limit=-4)
    finally:
        signal.alarm(0)
    if format_.exact and found != expected:
        return "a wrong result"
    return None


def replace(path: Path, content: bytes) -> None:
    """Write another file of the same name: the old one may be mapped into memory."""
    path.unlink()
    path.write_bytes(content)


def limit_memory() -> None:
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    size = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


def snapshot(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def contents(value: Any) -> Any:
    """Return a result in a form that can be compared, bit for bit."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, dict):
        return {key: contents(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [contents(entry) for entry in value]
    return value
