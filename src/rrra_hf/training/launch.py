"""A check for launches that were asked for several processes and started one."""

from __future__ import annotations

import os

# Launchers set one of these in every process that they start.
SIZE_VARIABLES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
# `accelerate launch` sets the first one always, and the second one if it was asked for several processes.
LAUNCH_VARIABLES = ("ACCELERATE_MIXED_PRECISION", "MASTER_ADDR")


def check_launch() -> None:
    """Raise a RuntimeError if `accelerate launch` was asked for several processes and started only this one.

    `accelerate launch --cpu --num_processes 2` does that without a message. The training would run with half
    of the batch.
    """
    asked = all(name in os.environ for name in LAUNCH_VARIABLES)
    if asked and not any(name in os.environ for name in SIZE_VARIABLES):
        raise RuntimeError(
            "accelerate launch was asked for several processes and started one. To start all of them, use "
            "accelerate launch --multi_gpu or torchrun --nproc_per_node; on CPUs, also set "
            "ACCELERATE_USE_CPU=true. For a single process, use --num_processes 1 and unset MASTER_ADDR."
        )
