"""The residual network with a part of it changed or left out, for ablations."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ..models.residual_rrra import ResidualReader


class RandomStart(ResidualReader):
    """A residual network that doesn't start at `a = c`: its last layer starts at random."""

    def reset_parameters(self) -> None:
        """Set the starting point, with a random last layer."""
        super().reset_parameters()
        self.output_layer.reset_parameters()


class NoResidual(RandomStart):
    """A network without the residual connection, `a = MLP(...)`, which can't start at `a = c`."""

    def _moved(self, c: Tensor, mixed: Tensor) -> Tensor:
        return self.output_layer(F.gelu(mixed))


class WithoutCosine(ResidualReader):
    """A residual network whose readout ignores one of the three cosines, `column`."""

    column: ClassVar[int]

    def __init__(self, *args: Any, **settings: Any):
        super().__init__(*args, **settings)
        weight = self.readout.weight
        mask = torch.ones_like(weight)
        mask[:, self.column] = 0.0
        with torch.no_grad():
            if (
                self.column == 0
            ):  # the readout starts with this one; start with the retriever's cosine instead
                weight[:, 2] = weight[:, 0]
            weight.mul_(mask)
        weight.register_hook(lambda gradient: gradient * mask)


class WithoutCosQA(WithoutCosine):
    """A residual network that doesn't read `cos(q, a)`."""

    column = 0


class WithoutCosAC(WithoutCosine):
    """A residual network that doesn't read `cos(a, c)`."""

    column = 1


class WithoutCosQC(WithoutCosine):
    """A residual network that doesn't read `cos(q, c)`."""

    column = 2
