"""What the optimizers of this package have in common: their settings, and how they are saved."""

from __future__ import annotations

import functools
import numbers
from collections.abc import Callable, Sequence
from typing import Any, Self, TypeAlias

import keras
from keras.optimizers.schedules import LearningRateSchedule

from fenwicks import _keras_optimizers
from fenwicks._checks import finite_number, flag, integer, no_class, positive_integer
from fenwicks._typing import Config, Step, Tensor
from fenwicks.optimizers import assignments
from fenwicks.optimizers.assignments import Assignments

Rate: TypeAlias = float | LearningRateSchedule | Callable[[], Any]


class MomentumOptimizer(_keras_optimizers.WithoutDecoupledDecay, keras.optimizers.Optimizer):
    """Base of `SGD`, `Muon` and `LARS`: checks and keeps the settings that all of them take.

    Keras's base class would apply `weight_decay` to the weights past the velocity; here each
    optimizer applies its own.

    Args:
        learning_rate, momentum, nesterov, weight_decay: as in `SGD`.
        clipnorm, clipvalue, global_clipnorm, use_ema, ema_momentum, ema_overwrite_frequency,
            loss_scale_factor, gradient_accumulation_steps, name: as in `keras.optimizers.SGD`.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        *,
        learning_rate: Rate,
        momentum: float,
        nesterov: bool,
        weight_decay: float,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
    ) -> None:
        learning_rate = _checked_rate(learning_rate)
        momentum = finite_number('momentum', momentum, low=0, below=1)
        nesterov = flag('nesterov', nesterov)
        if nesterov and not momentum:
            raise ValueError(
                '`nesterov` needs a momentum above 0. '
                f'Received: nesterov={nesterov}, momentum={momentum}'
            )
        weight_decay = finite_number('weight_decay', weight_decay, low=0)
        super().__init__(
            learning_rate=learning_rate,
            clipnorm=_or_none(finite_number, 'clipnorm', clipnorm, above=0),
            clipvalue=_or_none(finite_number, 'clipvalue', clipvalue, above=0),
            global_clipnorm=_or_none(finite_number, 'global_clipnorm', global_clipnorm, above=0),
            use_ema=flag('use_ema', use_ema),
            ema_momentum=finite_number('ema_momentum', ema_momentum, low=0, high=1),
            ema_overwrite_frequency=_or_none(
                positive_integer, 'ema_overwrite_frequency', ema_overwrite_frequency
            ),
            loss_scale_factor=_or_none(
                finite_number, 'loss_scale_factor', loss_scale_factor, above=0
            ),
            gradient_accumulation_steps=_or_none(
                integer, 'gradient_accumulation_steps', gradient_accumulation_steps, low=2
            ),
            name=name,
        )
        self.momentum = momentum
        self.nesterov = nesterov
        # Not passed to the base class's constructor: see `_keras_optimizers.WithoutDecoupledDecay`.
        self.weight_decay = weight_decay
        # How each variable is updated: from a saved configuration, or chosen by `build`.
        self._assignments: Assignments | None = None
        # The places in them of variables that were frozen when the configuration was saved.
        self._frozen: tuple[int, ...] = ()

    def rate_at(self, step: Step) -> Tensor:
        """Returns the learning rate after `step` updates: the schedule's value, or the constant."""
        rate = _keras_optimizers.constant_or_schedule(self)
        return rate(step) if isinstance(rate, LearningRateSchedule) else self.learning_rate

    def exclude_from_weight_decay(
        self, var_list: Sequence | None = None, var_names: Sequence[str] | None = None
    ) -> None:
        """Not supported, since the choice would be lost on saving: use a `ParameterGroup`.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            'fenwicks optimizers take exemptions from weight decay as parameter groups, for '
            "instance ParameterGroup('bias', weight_decay=0.0); Muon also takes `others_match`. "
            f'Received: var_list={var_list}, var_names={var_names}'
        )

    def get_config(self) -> Config:
        """Returns the constructor's arguments as plain values, for `from_config`."""
        config = {
            **super().get_config(),
            'momentum': self.momentum,
            'nesterov': self.nesterov,
            'weight_decay': self.weight_decay,
        }
        if self._assignments is not None and self._patterns():
            config['assignments'] = assignments.to_config(self._assignments)
            if self._frozen_now():
                config['frozen_assignments'] = list(self._frozen_now())
        return config

    @classmethod
    def from_config(cls, config: Config, custom_objects: dict | None = None) -> Self:
        """Returns an unbuilt optimizer from the dictionary that `get_config` returned.

        Args:
            config: the dictionary.
            custom_objects: names and classes of custom schedules, or None.
        """
        config = dict(config)
        recorded, frozen = config.pop('assignments', None), config.pop('frozen_assignments', ())
        optimizer = super().from_config(config, custom_objects=custom_objects)
        if recorded is not None:
            optimizer._assignments = assignments.from_config(recorded, optimizer._choices())
            optimizer._frozen = assignments.frozen_from_config(frozen, len(optimizer._assignments))
        return optimizer

    def _assign(self, variables: Sequence[keras.Variable]) -> list:
        """Chooses how each variable is updated, as saved or by its path, and keeps the choices."""
        self._assignments = assignments.assign(
            variables,
            functools.partial(self._choose, variables),
            self._patterns(),
            self._assignments,
            self._frozen,
        )
        self._frozen = ()
        return [choice for _, _, choice in self._assignments]

    def _frozen_now(self) -> tuple[int, ...]:
        """The places of the variables frozen since the optimizer was built, or as saved."""
        if not self.built:
            return self._frozen
        variables = enumerate(_keras_optimizers.optimized_variables(self))
        return tuple(place for place, variable in variables if not variable.trainable)

    def _patterns(self) -> list[str]:
        """The patterns by which variables are chosen."""
        raise NotImplementedError

    def _choices(self) -> list:
        """All that can be chosen for a variable."""
        raise NotImplementedError

    def _choose(
        self, variables: Sequence[keras.Variable], paths: list[str], strict: bool
    ) -> Sequence:
        """How each variable is updated, judged by its path; strict, patterns must fit the paths."""
        raise NotImplementedError


def _checked_rate(learning_rate: Any) -> Rate:
    if isinstance(learning_rate, numbers.Real):
        return finite_number('learning_rate', learning_rate, low=0)
    no_class('learning_rate', learning_rate)
    if not callable(learning_rate):
        raise ValueError(
            '`learning_rate` must be a finite number >= 0, a LearningRateSchedule or a function '
            f'without arguments. Received: learning_rate={learning_rate!r}'
        )
    return learning_rate


def _or_none(check: Callable, name: str, value: Any, **limits: float) -> Any:
    return None if value is None else check(name, value, **limits)
