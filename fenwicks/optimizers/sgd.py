"""Stochastic gradient descent with PyTorch/TF1 semantics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import keras
from keras import ops

from fenwicks import _keras_optimizers
from fenwicks._checks import flag
from fenwicks._typing import Config, Step, Tensor
from fenwicks.optimizers.base import MomentumOptimizer, Rate
from fenwicks.optimizers.groups import UNCHANGED, ParameterGroup, checked_groups, group_of_each


def sgd_step(
    weight: Tensor,
    gradient: Tensor,
    velocity: Tensor,
    learning_rate: Tensor,
    *,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    rate_in_velocity: bool = False,
) -> tuple[Tensor, Tensor]:
    """Computes one SGD step of one tensor; pure: nothing is changed in place.

    ```
    d = gradient + weight_decay * weight
    v = momentum * velocity + d
    decrease = learning_rate * (d + momentum * v if nesterov else v)
    ```

    and with `rate_in_velocity`:

    ```
    d = learning_rate * (gradient + weight_decay * weight)
    v = momentum * velocity + d
    decrease = d + momentum * v if nesterov else v
    ```

    Args:
        weight: float tensor of any shape.
        gradient: tensor of the same shape and dtype.
        velocity: tensor of the same shape and dtype, zeros before the first step. Not used (and may
            be None) when `momentum` is 0.
        learning_rate: float or scalar tensor of the same dtype.
        momentum: Python float, the fraction of the velocity kept.
        nesterov: Python bool.
        weight_decay: Python float, coupled: it joins the gradient, hence the velocity.
        rate_in_velocity: Python bool, which of the two forms.

    Returns:
        `(decrease, velocity)`: what the step takes from the weight, and the velocity after it.

    Example:

    >>> sgd_step(1.0, 0.5, 2.0, 0.1, momentum=0.5)
    (0.15000000000000002, 1.5)
    """
    # Options are Python values, so a compiled step holds only the operations it needs.
    if weight_decay:
        gradient = gradient + weight_decay * weight
    if rate_in_velocity:
        gradient = learning_rate * gradient
    step = gradient
    if momentum:
        velocity = momentum * velocity + gradient
        step = gradient + momentum * velocity if nesterov else velocity
    return step if rate_in_velocity else learning_rate * step, velocity


@keras.saving.register_keras_serializable(package='fenwicks')
class SGD(MomentumOptimizer):
    """SGD as in PyTorch and TensorFlow 1: rate outside the velocity, weight decay coupled.

    ```
    d = gradient + weight_decay * w
    v = momentum * v + d
    w = w - learning_rate * (d + momentum * v if nesterov else v)
    ```

    Settings published with one of three forms of SGD don't carry over to the others where the rate
    changes or weights decay:

    * PyTorch's and TF1's, above, the default here: the rate multiplies the whole velocity.
    * David Page's, with `rate_in_velocity=True`: `learning_rate * d` joins the velocity, so that a
      change of rate takes effect only as the velocity forgets.
    * `keras.optimizers.SGD` has Page's velocity, but applies weight decay directly to the weights,
      past the velocity, which is about `1 / (1 - momentum)` times weaker.

    With a constant rate and no decay all three agree.

    Args:
        learning_rate: float >= 0, a `keras.optimizers.schedules.LearningRateSchedule`, or a
            function without arguments that returns the rate.
        momentum: float in [0, 1), the fraction of the velocity kept at each step.
        nesterov: bool, look ahead along the velocity. Needs `momentum` above 0.
        weight_decay: float >= 0, for a loss that is averaged over the batch.
        rate_in_velocity: bool, whether the velocity holds gradients times the rate (Page's form) or
            gradients alone (PyTorch's).
        groups: sequence of `ParameterGroup`s: the rate and decay of chosen variables.
        clipnorm: float, clips each variable's gradient to this norm (before weight decay).
        clipvalue: float, clips each element of the gradients.
        global_clipnorm: float, clips the norm of all gradients together.
        name: string, the optimizer's name.
        use_ema, ema_momentum, ema_overwrite_frequency, loss_scale_factor,
            gradient_accumulation_steps: as in `keras.optimizers.SGD`. Schedules, those of groups
            too, count every step, also steps that only accumulate gradients.

    Raises:
        ValueError: an argument is out of its range; or, when the optimizer is built, two groups
            match one variable or a group matches none.

    Example:

    >>> import keras
    >>> from fenwicks.optimizers import ParameterGroup
    >>> from fenwicks.schedules import OneCycle
    >>> optimizer = SGD(
    ...     OneCycle(peak=0.4, total_steps=2328, warmup_steps=485),
    ...     momentum=0.9,
    ...     nesterov=True,
    ...     weight_decay=0.000125,
    ...     groups=[ParameterGroup('bias', learning_rate=64.0, weight_decay=1 / 64)],
    ... )
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> model.compile(optimizer=optimizer, loss='mse')

    Reference: Sutskever, Martens, Dahl, Hinton, "On the importance of initialization and momentum
    in deep learning", 2013 (Nesterov); the default form is that of `torch.optim.SGD`, the other
    that of Page, "How to train your ResNet", 2018, https://myrtle.ai/learn/how-to-train-your-resnet/
    """

    def __init__(
        self,
        learning_rate: Rate,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        groups: Sequence[ParameterGroup] = (),
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        name: str | None = None,
        rate_in_velocity: bool = False,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
    ) -> None:
        rate_in_velocity = flag('rate_in_velocity', rate_in_velocity)
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
        self.rate_in_velocity = rate_in_velocity
        self.groups = checked_groups(groups)

    @property
    def elementwise(self) -> bool:
        """Whether elements are updated independently, so that devices can divide a variable."""
        return not (self.clipnorm or self.global_clipnorm)

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Finds the group of each variable and creates its velocity.

        Args:
            variables: list of the model's trainable variables.
        """
        if self.built:
            return
        # Before anything is created, so that an error leaves the optimizer unbuilt.
        self._group_of_each = tuple(
            UNCHANGED if choice is None else self.groups[choice]
            for choice in self._assign(variables)
        )
        super().build(variables)
        self.velocities = (
            self.add_optimizer_variables(variables, 'velocity') if self.momentum else []
        )

    def update_step(self, gradient: Tensor, variable: Tensor, learning_rate: Tensor) -> None:
        """Updates one variable and its velocity; Keras calls this for each variable in turn."""
        index = _keras_optimizers.variable_index(self, variable)
        velocity = self.velocities[index] if self.momentum else None
        group = self._group_of_each[index]
        step = _keras_optimizers.update_count(self)
        self.update_in_group(gradient, variable, velocity, learning_rate, group, step)

    def update_in_group(
        self,
        gradient: Tensor,
        variable: Tensor,
        velocity: Tensor,
        learning_rate: Tensor,
        group: ParameterGroup,
        step: Step,
    ) -> None:
        """Updates one variable and its velocity with this optimizer's settings.

        Args:
            gradient: tensor of the variable's shape.
            variable: the variable; it is assigned to.
            velocity: its velocity, assigned to; None without momentum.
            learning_rate: the optimizer's rate at this step, to which the group's factor applies.
            group: the variable's `ParameterGroup`.
            step: number of updates made.
        """
        decrease, new_velocity = self.step(
            ops.convert_to_tensor(variable),
            ops.cast(gradient, variable.dtype),
            None if velocity is None else ops.convert_to_tensor(velocity),
            ops.cast(group.rate(learning_rate, step), variable.dtype),
            group.weight_decay * self.weight_decay,
        )
        if velocity is not None:
            self.assign(velocity, new_velocity)
        # In place: assigning a new tensor instead would fragment the memory that TensorFlow reuses.
        self.assign_sub(variable, decrease)

    def step(
        self,
        weight: Tensor,
        gradient: Tensor,
        velocity: Tensor,
        learning_rate: Tensor,
        weight_decay: float,
    ) -> tuple[Tensor, Tensor]:
        """Computes `sgd_step` with this optimizer's settings."""
        return sgd_step(
            weight,
            gradient,
            velocity,
            learning_rate,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=weight_decay,
            rate_in_velocity=self.rate_in_velocity,
        )

    def get_config(self) -> Config:
        """Returns the constructor's arguments as plain values, for `from_config`."""
        return {
            **super().get_config(),
            'rate_in_velocity': self.rate_in_velocity,
            'groups': [group.get_config() for group in self.groups],
        }

    @classmethod
    def from_config(cls, config: Config, custom_objects: dict | None = None) -> Self:
        """Returns an unbuilt optimizer from the dictionary that `get_config` returned.

        Args:
            config: the dictionary.
            custom_objects: names and classes of custom schedules, or None.
        """
        groups = [
            ParameterGroup.from_config(group, custom_objects) for group in config.get('groups', ())
        ]
        return super().from_config({**config, 'groups': groups}, custom_objects=custom_objects)

    def _patterns(self) -> list[str]:
        return [group.match for group in self.groups]

    def _choices(self) -> list[int | None]:
        return [None, *range(len(self.groups))]

    def _choose(
        self, variables: Sequence[keras.Variable], paths: list[str], strict: bool
    ) -> Sequence[int | None]:
        return group_of_each(self.groups, paths, strict)
