"""A fault of the machine ends a command with one line: the place, what is needed, and what comes then."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

import forked
from command_line import rrra
from rrra_hf.cli.output import MachineFaultError, faults_named
from tiny import word_collection

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="limits are set for forked processes")

SHORT = "--stage1-steps 2 --stage3-steps 2 --save-steps 1 --train-batch-size 4 --folds 2"
COMMANDS = {
    "mine": "mine beir --model encoder --depth 5 --cache-dir cache",
    "fit": "fit beir --model encoder --preset residual --max-steps 2 --cache-dir cache",
    "index": "index encoder beir --cache-dir cache",
    "train": f"train beir --model encoder --preset residual --fit-steps 2 {SHORT}",
}


@pytest.fixture(scope="module")
def world(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    word_collection(60, train=60, dev=10, test=10).save(folder / "beir")
    shutil.copytree(tiny_bert, folder / "encoder")
    return folder


def limit_file_size(size: int) -> None:
    """Let no file be larger, as on a disk that is almost full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def limit_open_files(more: int) -> None:
    opened = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").is_dir() else 20
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened + more, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def fail(world: Path, command: str, limit: Callable[[int], None], value: int, expected: str) -> None:
    """Run a command under a limit, and check its only line; then run it again without one."""
    os.chdir(world)
    before = resource.getrlimit(resource.RLIMIT_FSIZE), resource.getrlimit(resource.RLIMIT_NOFILE)
    limit(value)
    failed = rrra(*command.split())
    resource.setrlimit(resource.RLIMIT_FSIZE, before[0])
    resource.setrlimit(resource.RLIMIT_NOFILE, before[1])
    lines = [line for line in failed.err.splitlines() if line.startswith("error:")]
    assert failed.status == 1 and failed.out == "" and len(lines) == 1, failed.err
    assert "Traceback" not in failed.err and expected in lines[0] and "run the command again" in lines[0], (
        lines
    )
    assert ".tmp" not in lines[0]
    again = rrra(*command.split())
    assert again.status == 0, again.err
    assert not [path for path in Path().rglob("*.tmp") if path.is_dir()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "size"),
    [
        (command, size)
        for command in COMMANDS
        for size in (100, 3_000, 30_000)
        if command != "mine" or size < 30_000
    ],
)
def test_files_that_cannot_be_written(world: Path, tmp_path: Path, command: str, size: int) -> None:
    shutil.copytree(world, tmp_path, dirs_exist_ok=True)
    line = f"{COMMANDS[command]} --out out"
    done = forked.run(fail, tmp_path, line, limit_file_size, size, "a file would be larger than is allowed")
    assert done.statuses == [0], done.err


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_too_many_open_files(world: Path, tmp_path: Path, command: str) -> None:
    shutil.copytree(world, tmp_path, dirs_exist_ok=True)
    line = f"{COMMANDS[command]} --out out"
    done = forked.run(fail, tmp_path, line, limit_open_files, 3, "too many files are open")
    assert done.statuses == [0], done.err


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            OSError(28, "No space left on device", "out/.model.0123abcd.tmp/a/b"),
            "out: the disk is full; make room",
        ),
        (OSError("524288 requested and 123 written"), "runs/a: the disk is full; make room"),
        (
            RuntimeError("I/O error: No space left on device (os error 28)"),
            "runs/a: the disk is full; make room",
        ),
        (RuntimeError("write error in x: 500 != 1000 (No space left on device)"), "runs/a: the disk is full"),
        (
            RuntimeError("PytorchStreamWriter failed writing file: file write failed"),
            "runs/a: the disk is full",
        ),
        (
            PermissionError(13, "Permission denied", "corpus.jsonl"),
            "corpus.jsonl: there is no permission; get it",
        ),
        (
            OSError(30, "Read-only file system", "/ro/out"),
            "/ro/out: the disk is read-only; choose another folder",
        ),
    ],
)
def test_faults_are_named_by_place_and_need(error: Exception, message: str) -> None:
    named = pytest.raises(MachineFaultError, match=f"^{message}.*, and run the command again: it continues.$")
    with named, faults_named(Path("runs/a"), "it continues"):
        raise error


@pytest.mark.parametrize("error", [ValueError("28"), FileNotFoundError(2, "No such file", "x"), OSError("x")])
def test_other_errors_stay_what_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, faults_named(Path("out")):
        raise error
    assert raised.value is error


# ---------------------------------------------------------------- two processes, one folder


def train_and_tell(folder: Path) -> None:
    os.chdir(folder)
    outcome = rrra(*COMMANDS["train"].split(), "--out", "out")
    Path(f"{os.getpid()}.err").write_text(outcome.err)
    os._exit(outcome.status)


@pytest.mark.slow
def test_two_trainings_in_one_folder(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world, tmp_path, dirs_exist_ok=True)
    processes = [forked.Process(train_and_tell, tmp_path) for _ in range(2)]
    statuses = [process.wait() for process in processes]
    assert sorted(statuses) == [0, 1]
    refused = (tmp_path / f"{processes[statuses.index(1)].process.pid}.err").read_text()
    assert "out is being written by another process" in refused and "Traceback" not in refused
    assert (tmp_path / "out/results.json").exists()


@pytest.mark.parametrize("command", ["mine", "fit", "index"])
def test_commands_refuse_a_folder_that_another_process_writes(
    world: Path, tmp_path: Path, command: str
) -> None:
    holder = forked.Process(hold, tmp_path / "out")
    while not (tmp_path / "held").exists():
        assert holder.process.is_alive(), holder.err
        time.sleep(0.01)
    refused = forked.run(refuse, world, [*COMMANDS[command].split(), "--out", str(tmp_path / "out")])
    assert refused.statuses == [0], refused.err
    holder.kill()


def hold(folder: Path) -> None:
    from rrra_hf.embeddings.folder_lock import only_writer

    with only_writer(folder):
        (folder.parent / "held").touch()
        signal.pause()


def refuse(world: Path, command: list[str]) -> None:
    os.chdir(world)
    failed = rrra(*command)
    assert failed.status == 1 and "out is being written by another process" in failed.err
    assert len(failed.err.splitlines()) == 1


# ---------------------------------------------------------------- permissions


def without_permission(world: Path, command: list[str]) -> None:
    os.chdir(world)
    if os.geteuid() == 0:
        # Nobody, because nothing is forbidden to root.
        os.setuid(65534)
    failed = rrra(*command)
    assert failed.status == 1 and len(failed.err.splitlines()) == 1, failed.err
    assert "there is no permission; get it, or choose another folder" in failed.err, failed.err


@pytest.mark.parametrize("command", COMMANDS)
def test_no_permission(world: Path, command: str) -> None:
    with TemporaryDirectory() as place:
        # pytest's own folders are closed to others.
        Path(place).chmod(0o755)
        shutil.copytree(world, place, dirs_exist_ok=True)
        closed = Path(place, "closed")
        closed.mkdir(mode=0o555)
        line = [*COMMANDS[command].replace("--cache-dir cache", "").split(), "--out", "closed/out"]
        done = forked.run(without_permission, Path(place), line)
        assert done.statuses == [0], done.err
        assert not list(closed.iterdir())
