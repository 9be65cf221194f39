"""A callback that records the norms of weights and of their updates."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from fenwicks.optimizers.patterns import check_match, matches
from fenwicks.training.callbacks import TrainerCallback


class WeightNorms(TrainerCallback):
    """Records for each epoch the norms of weights, and how far they moved and turned in it.

    ```
    norm    = |w|,  w the weights after the epoch
    update  = |w - w_before|
    angle   = the angle between w and w_before, in radians
    ```

    Under a `Trainer` that averages its weights these are the averages, see its `fit`.

    Weights before a batch norm settle in a balance of their decay and their updates: then the norm
    stays and the angle of a step is about `sqrt(2 * learning_rate * weight_decay)` for SGD without
    momentum.

    Args:
        match: which variables: a word or a regular expression, as in
            `fenwicks.optimizers.ParameterGroup`; by default all kernels.

    Raises:
        ValueError: `match` is neither a word nor a regular expression, or matches no trainable
            variable when training begins.

    Attributes:
        paths: the paths of the variables.
        history: list with a dict for each epoch: `epoch` (from 1), and `norm`, `update` and
            `angle`, each a list with a float for each variable. `initial` has the norms before
            training.

    Example:

    ```python
    norms = fenwicks.diagnostics.WeightNorms()
    model.fit(images, labels, epochs=10, callbacks=[norms])
    print(dict(zip(norms.paths, norms.history[-1]['norm'], strict=True)))
    ```

    Reference:
        https://myrtle.ai/learn/how-to-train-your-resnet-6-weight-decay/
    """

    def __init__(self, match: str = r'.*kernel') -> None:
        super().__init__()
        check_match('match', match)
        self.match = match
        self.paths: list[str] = []
        self.initial: list[float] = []
        self.history: list[dict[str, Any]] = []
        self._variables: list[keras.Variable] = []
        self._before: list[np.ndarray] = []

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Chooses the variables and notes their values."""
        variables = [v for v in self.model.trainable_variables if matches(self.match, v.path)]
        if not variables:
            raise ValueError(
                '`match` must match the path of a trainable variable, of a model that is built. '
                f'Received: match={self.match!r}'
            )
        paths = [variable.path for variable in variables]
        if paths != self.paths:  # another model's norms
            self.history = []
        self._variables, self.paths = variables, paths
        # Under a Trainer the averages, as at the ends of epochs.
        seen = contextlib.nullcontext() if self.trainer is None else self.trainer.averaged()
        with seen:
            self._before = self._values()
        if not self.history:
            self.initial = _norms(self._before)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Appends the epoch's norms to the history."""
        values = self._values()
        pairs = list(zip(self._before, values, strict=True))
        self.history.append(
            {
                'epoch': epoch + 1,
                'norm': _norms(values),
                'update': _norms([after - before for before, after in pairs]),
                'angle': [_angle(before, after) for before, after in pairs],
            }
        )
        self._before = values

    def _values(self) -> list[np.ndarray]:
        if hasattr(self.model, 'jax_state_sync'):  # the compiled step holds them while `fit` runs
            self.model.jax_state_sync()
        return [np.array(keras.ops.convert_to_numpy(v), np.float64) for v in self._variables]


def _norms(arrays: Sequence[np.ndarray]) -> list[float]:
    return [float(np.linalg.norm(array)) for array in arrays]


def _angle(one: np.ndarray, other: np.ndarray) -> float:
    """Between two vectors, in radians; exact for small ones, where a cosine would round to 1."""
    one, other = np.ravel(one), np.ravel(other)
    scaled, other_scaled = one * np.linalg.norm(other), other * np.linalg.norm(one)
    difference = np.linalg.norm(scaled - other_scaled)
    return float(2 * np.arctan2(difference, np.linalg.norm(scaled + other_scaled)))
