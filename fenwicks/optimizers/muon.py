"""Muon: momentum, orthogonalised, for convolution and dense kernels; SGD for everything else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from fenwicks import _keras_optimizers
from fenwicks._checks import finite_number, flag, positive_integer, sequence
from fenwicks._typing import Config, Tensor
from fenwicks.optimizers.base import MomentumOptimizer, Rate
from fenwicks.optimizers.groups import UNCHANGED, group_of_each, matches_none
from fenwicks.optimizers.orthogonalize import COEFFICIENTS, DTYPES, muon_rescale, muon_step
from fenwicks.optimizers.patterns import check_match, matches
from fenwicks.optimizers.sgd import SGD

_KERNEL = 'muon'  # recorded for a variable that Muon itself updates


@keras.saving.register_keras_serializable(package='fenwicks')
class Muon(MomentumOptimizer):
    """Muon for convolution and dense kernels of any rank, SGD for all other variables.

    ```
    v = momentum * v + gradient
    u = newton_schulz(gradient + momentum * v if nesterov else v)
    w = w - learning_rate * u
    ```

    All singular values of `u` are about 1, whatever the gradient's, so that all directions of a
    kernel learn at one pace. The rate is therefore in units of the weights, and far from SGD's.

    `keras.optimizers.Muon` leaves convolution kernels to AdamW; this one flattens them to
    matrices. `others` updates biases, all variables of rank below 2 (batch norm), and those that
    `others_match` names: embeddings, depthwise and transposed convolutions and the kernels of
    `MultiHeadAttention`, whose last axis isn't their outputs, should be among them, and the last
    layer's kernel usually.

    Args:
        learning_rate: float >= 0, a `keras.optimizers.schedules.LearningRateSchedule`, or a
            function without arguments that returns the rate; for the kernels.
        momentum: float in [0, 1), the fraction of the velocity kept at each step.
        nesterov: bool, look ahead along the velocity. Needs `momentum` above 0.
        ns_steps: positive integer, steps of `newton_schulz`.
        ns_dtype: `'float32'` or `'bfloat16'`, the precision of `newton_schulz`.
        ns_coefficients: three floats, the polynomial of `newton_schulz`.
        normalize_weights: bool, whether each step first scales each kernel to the norm
            sqrt(outputs); or a schedule such as `schedules.AtSteps`: steps at which it is above 0
            do. For kernels whose scale doesn't matter, before batch norm.
        weight_decay: float >= 0 for the kernels, decoupled: `w = w * (1 - learning_rate *
            weight_decay)`. Not together with `normalize_weights`, which would undo it.
        others: a `fenwicks.optimizers.SGD` with the settings for the other variables: rate or
            schedule (of this optimizer's steps), momentum, decay, `ParameterGroup`s. By default SGD
            with this optimizer's rate and momentum. Only its settings are used.
        others_match: sequence of words or regular expressions, as `ParameterGroup.match`: kernels
            that `others` updates too.
        clipnorm: float, clips each variable's gradient to this norm.
        clipvalue: float, clips each element of the gradients.
        global_clipnorm: float, clips the norm of all gradients together.
        name: string, the optimizer's name.
        use_ema, ema_momentum, ema_overwrite_frequency, loss_scale_factor,
            gradient_accumulation_steps: as in `keras.optimizers.SGD`. Schedules, those of `others`
            too, count every step, also steps that only accumulate gradients.

    A constant rate of `others` is a rate of its own: what sets `optimizer.learning_rate` (Keras's
    `LearningRateScheduler`, `ReduceLROnPlateau`) changes that of the kernels alone. Set
    `optimizer.others.learning_rate` as well, or leave `others` out: all variables then share one.

    Raises:
        ValueError: an argument is out of its range; or, when the optimizer is built, a pattern or a
            group matches no variable, or two groups match one.

    Example:

    >>> import keras
    >>> from fenwicks.optimizers import SGD
    >>> from fenwicks.schedules import PiecewiseLinear
    >>> optimizer = Muon(
    ...     PiecewiseLinear([(0, 0.24), (200, 0.0)]),
    ...     normalize_weights=True,
    ...     others=SGD(PiecewiseLinear([(0, 0.05), (200, 0.0)]), momentum=0.85, nesterov=True),
    ...     others_match=['.*head/kernel'],
    ... )
    >>> model = keras.Sequential(
    ...     [keras.Input((4, 4, 3)), keras.layers.Conv2D(8, 3), keras.layers.GlobalMaxPool2D(),
    ...      keras.layers.Dense(2, name='head')]
    ... )
    >>> model.compile(optimizer=optimizer, loss='mse')
    >>> optimizer.build(model.trainable_variables)

    Reference: Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024; on
    convolutions with renormalised weights: Jordan's CIFAR-10 speed records of late 2024.
    """

    def __init__(
        self,
        learning_rate: Rate,
        momentum: float = 0.6,
        nesterov: bool = True,
        ns_steps: int = 3,
        ns_dtype: str = 'float32',
        normalize_weights: bool | LearningRateSchedule = False,
        weight_decay: float = 0.0,
        others: SGD | None = None,
        others_match: Sequence[str] = (),
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        name: str | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        ns_coefficients: Sequence[float] = COEFFICIENTS,
    ) -> None:
        ns_steps = positive_integer('ns_steps', ns_steps)
        if ns_dtype not in DTYPES:
            raise ValueError(f'`ns_dtype` must be one of {DTYPES}. Received: {ns_dtype=}')
        normalize_weights = _checked_normalization(normalize_weights)
        if normalize_weights and weight_decay:
            raise ValueError(
                '`weight_decay` must be 0 with normalize_weights, which would undo it. '
                f'Received: weight_decay={weight_decay}'
            )
        if not (others is None or isinstance(others, SGD)):
            raise ValueError(f'`others` must be a fenwicks SGD or None. Received: {others=}')
        if others is not None:
            _check_only_settings(others)
        others_match = sequence('others_match', others_match, 'strings')
        for match in others_match:
            check_match('others_match', match)
        super().__init__(
            learning_rate=learning_rate,
            momentum=momentum,
            nesterov=nesterov,
            weight_decay=weight_decay,
            clipnorm=clipnorm,
            clipvalue=clipvalue,
            global_clipnorm=global_clipnorm,
            use_ema=use_ema,
            ema_momentum=ema_momentum,
            ema_overwrite_frequency=ema_overwrite_frequency,
            loss_scale_factor=loss_scale_factor,
            gradient_accumulation_steps=gradient_accumulation_steps,
            name=name,
        )
        self.ns_steps = ns_steps
        self.ns_dtype = ns_dtype
        self.ns_coefficients = _checked_coefficients(ns_coefficients)
        self.normalize_weights = normalize_weights
        self.others = others
        self.others_match = others_match
        self._sgd = others or SGD(0.0, momentum=self.momentum, nesterov=self.nesterov)

    @property
    def variables(self) -> list[keras.Variable]:
        """The state, with the rate of `others` behind this optimizer's own: it can be set, too."""
        own = super().variables
        rate = None if self.others is None else _keras_optimizers.constant_or_schedule(self.others)
        if not isinstance(rate, keras.Variable):
            return own
        place = 1 + isinstance(_keras_optimizers.constant_or_schedule(self), keras.Variable)
        return [*own[:place], rate, *own[place:]]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Sets the state, of which Keras's own `set_weights` doesn't know the rate of `others`.

        Args:
            weights: arrays in the order and of the shapes of `variables`.

        Raises:
            ValueError: the optimizer isn't built, or the shapes are others; nothing is set then.
        """
        if not self.built:
            raise ValueError('the optimizer must be built: call `build(model.trainable_variables)`')
        wanted = [tuple(variable.shape) for variable in self.variables]
        found = [tuple(ops.shape(weight)) for weight in weights]
        if found != wanted:
            raise ValueError(
                '`weights` must be arrays of the shapes of `variables`, '
                f'{wanted}. Received: {found}'
            )
        for variable, weight in zip(self.variables, weights, strict=True):
            variable.assign(weight)

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Decides how each variable is updated and creates its velocity.

        Args:
            variables: list of the model's trainable variables.
        """
        if self.built:
            return
        # Before anything is created, so that an error leaves the optimizer unbuilt.
        choices = self._assign(variables)
        super().build(variables)
        # The group of each variable that SGD updates; None for the kernels.
        self._groups = tuple(
            None if choice == _KERNEL else UNCHANGED if choice is None else self._sgd.groups[choice]
            for choice in choices
        )
        self.velocities = [
            self.add_variable_from_reference(variable, name='velocity')
            if (self if group is None else self._sgd).momentum
            else None
            for variable, group in zip(variables, self._groups, strict=True)
        ]

    def update_step(self, gradient: Tensor, variable: Tensor, learning_rate: Tensor) -> None:
        """Updates one variable and its velocity; Keras calls this for each variable in turn."""
        index = _keras_optimizers.variable_index(self, variable)
        velocity, group = self.velocities[index], self._groups[index]
        if group is not None:
            step = _keras_optimizers.update_count(self)
            if self.others is not None:
                learning_rate = self.others.rate_at(step)
            self._sgd.update_in_group(gradient, variable, velocity, learning_rate, group, step)
            return
        decrease, new_velocity = muon_step(
            ops.cast(gradient, variable.dtype),
            None if velocity is None else ops.convert_to_tensor(velocity),
            learning_rate,
            momentum=self.momentum,
            nesterov=self.nesterov,
            ns_steps=self.ns_steps,
            ns_dtype=self.ns_dtype,
            ns_coefficients=self.ns_coefficients,
        )
        normalize_weights = self.normalize_weights
        if isinstance(normalize_weights, LearningRateSchedule):
            normalize_weights = normalize_weights(_keras_optimizers.update_count(self)) > 0
        weight = muon_rescale(
            ops.convert_to_tensor(variable),
            learning_rate,
            normalize_weights=normalize_weights,
            weight_decay=self.weight_decay,
        )
        if velocity is not None:
            self.assign(velocity, new_velocity)
        self.assign(variable, ops.cast(weight - ops.cast(decrease, weight.dtype), variable.dtype))

    def get_config(self) -> Config:
        """Returns the constructor's arguments as plain values, for `from_config`."""
        return {
            **super().get_config(),
            'ns_steps': self.ns_steps,
            'ns_dtype': self.ns_dtype,
            'ns_coefficients': list(self.ns_coefficients),
            'normalize_weights': keras.saving.serialize_keras_object(self.normalize_weights),
            'others': self.others and keras.saving.serialize_keras_object(self.others),
            'others_match': list(self.others_match),
        }

    @classmethod
    def from_config(cls, config: Config, custom_objects: dict | None = None) -> Self:
        """Returns an unbuilt optimizer from the dictionary that `get_config` returned.

        Args:
            config: the dictionary.
            custom_objects: names and classes of custom schedules, or None.
        """
        serialized = {
            name: keras.saving.deserialize_keras_object(config[name], custom_objects=custom_objects)
            for name in ('others', 'normalize_weights')
            if isinstance(config.get(name), dict)
        }
        return super().from_config({**config, **serialized}, custom_objects=custom_objects)

    def _patterns(self) -> list[str]:
        return [*self.others_match, *(group.match for group in self._sgd.groups)]

    def _choices(self) -> list[int | str | None]:
        return [_KERNEL, None, *range(len(self._sgd.groups))]

    def _choose(
        self, variables: Sequence[keras.Variable], paths: list[str], strict: bool
    ) -> Sequence[int | str | None]:
        for match in self.others_match:
            if strict and not any(matches(match, path) for path in paths):
                raise ValueError(
                    'Each of `others_match` must match at least one trainable variable. Received: '
                    f'others_match={match!r}, {matches_none(match, paths)}'
                )
        is_other = [
            len(variable.shape) < 2
            or variable.name == 'bias'  # those of attention have a rank of 2
            or any(matches(match, path) for match in self.others_match)
            for variable, path in zip(variables, paths, strict=True)
        ]
        groups = iter(
            group_of_each(
                self._sgd.groups,
                [path for path, other in zip(paths, is_other, strict=True) if other],
                strict,
            )
        )
        return [next(groups) if other else _KERNEL for other in is_other]


def _checked_coefficients(coefficients: Sequence[float]) -> tuple[float, float, float]:
    try:
        a, b, c = (finite_number('ns_coefficients', each) for each in coefficients)
    except (TypeError, ValueError):
        raise ValueError(
            f'`ns_coefficients` must be three numbers. Received: ns_coefficients={coefficients!r}'
        ) from None
    return a, b, c


def _checked_normalization(normalize_weights: Any) -> bool | LearningRateSchedule:
    if isinstance(normalize_weights, LearningRateSchedule):
        return normalize_weights
    try:
        return flag('normalize_weights', normalize_weights)
    except ValueError:
        raise ValueError(
            '`normalize_weights` must be True, False or a LearningRateSchedule. '
            f'Received: normalize_weights={normalize_weights!r}'
        ) from None


def _check_only_settings(others: SGD) -> None:
    """Raises where `others` has settings that Muon has for all variables together."""
    alone = ('clipnorm', 'clipvalue', 'global_clipnorm', 'use_ema', 'loss_scale_factor',
             'gradient_accumulation_steps')  # fmt: skip
    found = {name: getattr(others, name) for name in alone if getattr(others, name)}
    if found:
        raise ValueError(
            '`others` must leave clipping, averaging, loss scaling and accumulation to Muon, whose '
            'arguments hold for all variables. Received: '
            + ', '.join(f'{name}={value}' for name, value in found.items())
        )
