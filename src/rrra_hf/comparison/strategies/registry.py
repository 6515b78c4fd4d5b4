"""Registration of strategies: each becomes a method that trains and is measured on the test queries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..methods import Method, register
from ..ranking import Rank, ranked_by
from ..trial import Trial
from .chances import Chances, Strategy
from .train_encoder import train_encoder
from .train_maps import train_maps

SETTINGS = (
    "fit",
    "train",
    "steps",
    "batch_size",
    "num_negatives",
    "learning_rate",
    "bf16",
    "injected_rate",
)

STRATEGIES: dict[str, Strategy] = {}


def strategy(
    name: str, about: str, *settings: str, **options: Any
) -> Callable[[Callable[[Trial], Chances]], Callable[[Trial], Chances]]:
    """Register a function from a trial to chances and weights under a name.

    Args:
        name: Its name.
        about: Description in one line.
        *settings: Settings of `CompareArguments` that it depends on, besides those of the training.
        **options: Other fields of `Method`.

    Example:
        A strategy of your own, which is then a method of `rrra compare`'s table of strategies::

            @strategy("best-ten", "uniform over the 10 best candidates")
            def best_ten(trial):
                return top_k_weights(ground_truth(trial).pool.scores, top_k=10), None
    """

    def decorate(chances: Callable[[Trial], Chances]) -> Callable[[Trial], Chances]:
        add(name, about, Strategy(chances), *settings, **options)
        return chances

    return decorate


def add(name: str, about: str, strategy: Strategy, *settings: str, **options: Any) -> None:
    """Register a strategy, optionally with its own loss, under a name.

    Args:
        name: Its name.
        about: Description in one line.
        strategy: The strategy.
        *settings: As in `strategy`.
        **options: Other fields of `Method`.
    """

    def fit(trial: Trial) -> Rank:
        train = train_maps if trial.arguments.train == "none" else train_encoder
        return train(trial, strategy)

    register(Method("strategies", name, about, ranked_by(fit), settings=SETTINGS + settings, **options))
    STRATEGIES[name] = strategy
