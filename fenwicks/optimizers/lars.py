"""LARS: SGD whose step for each kernel is a share of the kernel's own norm."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import ops

from fenwicks._checks import finite_number
from fenwicks._typing import Config, Tensor
from fenwicks.optimizers.base import Rate
from fenwicks.optimizers.groups import ParameterGroup
from fenwicks.optimizers.sgd import SGD, sgd_step


def lars_step(
    weight: Tensor,
    gradient: Tensor,
    velocity: Tensor,
    learning_rate: Tensor,
    *,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    trust_coefficient: float = 0.001,
    epsilon: float = 1e-8,
    rate_in_velocity: bool = True,
) -> tuple[Tensor, Tensor]:
    """Computes one LARS step of one kernel; pure: nothing is changed in place.

    ```
    trust = trust_coefficient * norm(weight)
            / (norm(gradient) + weight_decay * norm(weight) + epsilon)
    d = learning_rate * trust * (gradient + weight_decay * weight)
    v = momentum * velocity + d
    decrease = d + momentum * v if nesterov else v
    ```

    `trust` is 1 where the kernel or the gradient is zero.

    Args:
        weight, gradient, velocity, learning_rate, momentum, nesterov: as in `sgd_step`.
        weight_decay: Python float; it joins the gradient.
        trust_coefficient: Python float, what share of its norm a kernel moves at a rate of 1.
        epsilon: Python float, keeps the denominator above 0.
        rate_in_velocity: Python bool, as in `sgd_step`.

    Returns:
        `(decrease, velocity)`: what the step takes from the weight, and the velocity after it.
    """
    weight_norm = ops.norm(ops.reshape(ops.cast(weight, 'float32'), (-1,)))
    gradient_norm = ops.norm(ops.reshape(ops.cast(gradient, 'float32'), (-1,)))
    trust = trust_coefficient * weight_norm
    trust = trust / (gradient_norm + weight_decay * weight_norm + epsilon)
    is_zero = ops.logical_or(ops.equal(weight_norm, 0.0), ops.equal(gradient_norm, 0.0))
    trust = ops.cast(ops.where(is_zero, 1.0, trust), gradient.dtype)
    if weight_decay:
        gradient = gradient + weight_decay * weight
    return sgd_step(
        weight,
        trust * gradient,
        velocity,
        learning_rate,
        momentum=momentum,
        nesterov=nesterov,
        rate_in_velocity=rate_in_velocity,
    )


@keras.saving.register_keras_serializable(package='fenwicks')
class LARS(SGD):
    """Layer-wise adaptive rate scaling: SGD with a rate of its own for each kernel.

    ```
    trust = trust_coefficient * norm(w) / (norm(gradient) + weight_decay * norm(w) + epsilon)
    d = learning_rate * trust * (gradient + weight_decay * w)
    v = momentum * v + d
    w = w - (d + momentum * v if nesterov else v)
    ```

    A step at a rate of 1 moves each kernel by `trust_coefficient` times its norm, however large its
    gradient, so that one rate serves all layers. Variables of rank below 2 (batch norm, all biases
    but those of attention) are updated as by `SGD`; a `ParameterGroup` gives them another rate or
    decay.

    Args:
        learning_rate: as in `SGD`; far larger than there, since `trust_coefficient` multiplies it.
        momentum: float in [0, 1), the fraction of the velocity kept at each step.
        nesterov: bool, look ahead along the velocity. Needs `momentum` above 0.
        weight_decay: float >= 0, for a loss that is averaged over the batch.
        trust_coefficient: float > 0, what share of its norm a kernel moves at a rate of 1.
        epsilon: float >= 0, keeps the denominator above 0.
        rate_in_velocity: bool, whether the velocity holds gradients times the rate, as in the
            paper, or gradients, as in PyTorch's SGD; they differ where the rate changes.
        groups: sequence of `ParameterGroup`s: the rate and decay of chosen variables.
        clipnorm, clipvalue, global_clipnorm, name, use_ema, ema_momentum, ema_overwrite_frequency,
            loss_scale_factor, gradient_accumulation_steps: as in `SGD`.

    Raises:
        ValueError: as in `SGD`.

    Example:

    >>> import keras
    >>> from fenwicks.optimizers import ParameterGroup
    >>> from fenwicks.schedules import OneCycle
    >>> optimizer = LARS(
    ...     OneCycle(peak=20.0, total_steps=2328, warmup_steps=485),
    ...     weight_decay=0.0005,
    ...     groups=[ParameterGroup('bias', learning_rate=0.02, weight_decay=0.0)],
    ... )
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> model.compile(optimizer=optimizer, loss='mse')

    Reference: You, Gitman, Ginsburg, "Large batch training of convolutional networks", 2017.
    """

    def __init__(
        self,
        learning_rate: Rate,
        momentum: float = 0.9,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        trust_coefficient: float = 0.001,
        epsilon: float = 1e-8,
        rate_in_velocity: bool = True,
        groups: Sequence[ParameterGroup] = (),
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        name: str | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
    ) -> None:
        trust_coefficient = finite_number('trust_coefficient', trust_coefficient, above=0)
        epsilon = finite_number('epsilon', epsilon, low=0)
        super().__init__(
            learning_rate=learning_rate,
            momentum=momentum,
            nesterov=nesterov,
            weight_decay=weight_decay,
            groups=groups,
            clipnorm=clipnorm,
            clipvalue=clipvalue,
            global_clipnorm=global_clipnorm,
            name=name,
            rate_in_velocity=rate_in_velocity,
            use_ema=use_ema,
            ema_momentum=ema_momentum,
            ema_overwrite_frequency=ema_overwrite_frequency,
            loss_scale_factor=loss_scale_factor,
            gradient_accumulation_steps=gradient_accumulation_steps,
        )
        self.trust_coefficient = trust_coefficient
        self.epsilon = epsilon

    @property
    def elementwise(self) -> bool:
        """False: a kernel's norm is part of the update of each of its elements."""
        return False

    def step(
        self,
        weight: Tensor,
        gradient: Tensor,
        velocity: Tensor,
        learning_rate: Tensor,
        weight_decay: float,
    ) -> tuple[Tensor, Tensor]:
        """Computes `lars_step` for kernels, and `sgd_step` for variables of rank below 2."""
        if len(weight.shape) < 2:
            return super().step(weight, gradient, velocity, learning_rate, weight_decay)
        return lars_step(
            weight,
            gradient,
            velocity,
            learning_rate,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=weight_decay,
            trust_coefficient=self.trust_coefficient,
            epsilon=self.epsilon,
            rate_in_velocity=self.rate_in_velocity,
        )

    def get_config(self) -> Config:
        """Returns the constructor's arguments as plain values, for `from_config`."""
        return {
            **super().get_config(),
            'trust_coefficient': self.trust_coefficient,
            'epsilon': self.epsilon,
        }
