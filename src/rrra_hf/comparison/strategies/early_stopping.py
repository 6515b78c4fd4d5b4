"""Early stopping on development queries, by one rule for all strategies that train the encoder."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

logger = logging.getLogger(__name__)

# Steps between measurements, and measurements without a new best after which the training stops.
EVERY = 20
PATIENCE = 3


class EarlyStopping(TrainerCallback):
    """Measures the encoder every few steps, and stops when it gets no better.

    transformers has a callback of this name, which needs checkpoints on disk at each measurement.

    Args:
        model: The weights to keep.
        measure: Returns the quality of the encoder as it is, greater for better.
        before: Its quality before it is trained.

    Example:
        >>> weights = nn.Linear(1, 1, bias=False)
        >>> _ = weights.weight.data.fill_(0.0)
        >>> stopping = EarlyStopping(weights, lambda: -abs(weights.weight.item() - 1), before=-1.0)
        >>> for value in (2.5, 1.1, 3.0):
        ...     _ = weights.weight.data.fill_(value)
        ...     stopping.look(stopping.measure())
        >>> stopping.restore()
        >>> round(weights.weight.item(), 2), [round(quality, 2) for quality in stopping.history]
        (1.1, [-1.0, -1.5, -0.1, -2.0])
    """

    def __init__(self, model: nn.Module, measure: Callable[[], float], before: float):
        self.model = model
        self.measure = measure
        self.history: list[float] = []
        self._best: dict[str, Tensor] = {}
        self.look(before)

    def look(self, quality: float) -> None:
        """Keep the weights if their quality is the best so far."""
        if not self.history or quality > max(self.history):
            self._best = {
                name: weights.detach().clone()
                for name, weights in self.model.named_parameters()
                if weights.requires_grad
            }
        self.history.append(quality)

    def restore(self) -> None:
        """Put the best weights back."""
        self.model.load_state_dict(self._best, strict=False)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure every few steps, and after the last one."""
        if state.global_step % EVERY and state.global_step != state.max_steps:
            return
        self.look(self.measure())
        logger.info("Step %d: quality %.4f", state.global_step, self.history[-1])
        best = self.history.index(max(self.history))
        control.should_training_stop |= len(self.history) - 1 - best >= PATIENCE
