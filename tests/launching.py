"""Scripts in two processes, as a user launches them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# Seconds that a test waits for a process: only one that hangs takes as long, on the slowest machine too.
WAIT = 1200

BIN = Path(sys.executable).parent
LAUNCHERS = {
    "accelerate": [
        *("accelerate", "launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"),
        *("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"),
    ],
    "torchrun": ["torchrun", "--standalone", "--nproc_per_node", "2"],
}


def launch(
    script: Path | str, *arguments: object, launcher: str = "torchrun", timeout: float = WAIT
) -> subprocess.CompletedProcess[str]:
    """Run a script in two processes on the CPU, with its arguments as strings."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ACCELERATE_")}
    environment |= {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    program, *options = LAUNCHERS[launcher]
    return subprocess.run(
        [str(BIN / program), *options, str(script), *map(str, arguments)],
        env=environment,
        check=False,
        timeout=timeout,
        capture_output=True,
        text=True,
    )
