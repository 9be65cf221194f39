"""Stochastic gradient descent with PyTorch/TF1 semantics."""

from __future__ import annotations

import math

import keras
from keras import ops

from fenwicks.optimizers.groups import ParameterGroup, group_of_each


def sgd_step(
    weight,
    gradient,
    velocity,
    learning_rate,
    *,
    momentum=0.0,
    nesterov=False,
    weight_decay=0.0,
    rate_in_velocity=False,
):
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


def check_settings(learning_rate, momentum, nesterov, weight_decay):
    """The learning rate, a float where it is a number; or a ValueError."""
    if isinstance(learning_rate, (int, float)):
        learning_rate = float(learning_rate)
        if not 0 <= learning_rate < math.inf:
            raise ValueError(
                '`learning_rate` must be a finite number >= 0. '
                f'Received: learning_rate={learning_rate}'
            )
    elif not callable(learning_rate):
        raise ValueError(
            '`learning_rate` must be a number, a LearningRateSchedule or a function. '
            f'Received: learning_rate={learning_rate!r}'
        )
    if not 0 <= momentum < 1:
        raise ValueError(f'`momentum` must be in [0, 1). Received: momentum={momentum}')
    if nesterov and not momentum:
        raise ValueError(
            '`nesterov` needs a momentum above 0. '
            f'Received: nesterov={nesterov}, momentum={momentum}'
        )
    if not 0 <= weight_decay < math.inf:
        raise ValueError(
            f'`weight_decay` must be a finite number >= 0. Received: weight_decay={weight_decay}'
        )
    return learning_rate


@keras.saving.register_keras_serializable(package='fenwicks')
class SGD(keras.optimizers.Optimizer):
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
            gradients (PyTorch's).
        groups: sequence of `ParameterGroup`s: the rate and decay of chosen variables.
        clipnorm: float, clips each variable's gradient to this norm (before weight decay).
        clipvalue: float, clips each element of the gradients.
        global_clipnorm: float, clips the norm of all gradients together.
        name: string, the optimizer's name.

    Raises:
        ValueError: if an argument is out of its range; or, when the optimizer is built, if two
            groups match one variable or a group matches none.

    Example:

    >>> import keras
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
        learning_rate,
        momentum=0.0,
        nesterov=False,
        weight_decay=0.0,
        groups=(),
        clipnorm=None,
        clipvalue=None,
        global_clipnorm=None,
        name=None,
        rate_in_velocity=False,
    ):
        learning_rate = check_settings(learning_rate, momentum, nesterov, weight_decay)
        groups = tuple(groups)
        for group in groups:
            if not isinstance(group, ParameterGroup):
                raise ValueError(f'`groups` must hold ParameterGroups. Received: {group!r}')
        super().__init__(
            learning_rate=learning_rate,
            clipnorm=clipnorm,
            clipvalue=clipvalue,
            global_clipnorm=global_clipnorm,
            name=name,
        )
        self.momentum = float(momentum)
        self.nesterov = bool(nesterov)
        self.rate_in_velocity = bool(rate_in_velocity)
        # Kept from the base class's constructor on purpose: see _apply_weight_decay.
        self.weight_decay = float(weight_decay)
        self.groups = groups

    @property
    def elementwise(self) -> bool:
        """Whether no number's update depends on another number: devices can then divide them."""
        return not (self.clipnorm or self.global_clipnorm)

    def build(self, variables):
        """Creates one velocity for each variable, and settles which group it belongs to.

        Args:
            variables: list of the model's trainable variables.
        """
        if self.built:
            return
        # Before anything is created, so that an error leaves the optimizer unbuilt.
        paths = [getattr(variable, 'path', variable.name) for variable in variables]
        self._group_of_each = group_of_each(self.groups, paths)
        super().build(variables)
        self.velocities = (
            self.add_optimizer_variables(variables, 'velocity') if self.momentum else []
        )

    def update_step(self, gradient, variable, learning_rate):
        """Updates one variable and its velocity; Keras calls this for each variable in turn."""
        index = self._get_variable_index(variable)
        velocity = self.velocities[index] if self.momentum else None
        group = self._group_of_each[index]
        self.update_in_group(gradient, variable, velocity, learning_rate, group, self._iterations)

    def update_in_group(self, gradient, variable, velocity, learning_rate, group, step):
        """Updates one variable and its velocity with this optimizer's settings.

        Args:
            gradient: tensor of the variable's shape.
            variable: the variable; it is assigned to.
            velocity: its velocity, assigned to; None without momentum.
            learning_rate: the optimizer's rate at this step, before the group's say.
            group: the variable's `ParameterGroup`.
            step: number of updates made.
        """
        decrease, new_velocity = sgd_step(
            ops.convert_to_tensor(variable),
            ops.cast(gradient, variable.dtype),
            None if velocity is None else ops.convert_to_tensor(velocity),
            ops.cast(group.rate(learning_rate, step), variable.dtype),
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=group.weight_decay * self.weight_decay,
            rate_in_velocity=self.rate_in_velocity,
        )
        if velocity is not None:
            self.assign(velocity, new_velocity)
        # In place: a new weight elsewhere would cut the free memory that TensorFlow uses again.
        self.assign_sub(variable, decrease)

    def rate_at(self, step):
        """The learning rate after `step` updates: of the schedule, or the constant."""
        rate = self._learning_rate
        if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
            return rate(step)
        return self.learning_rate

    def _apply_weight_decay(self, variables):
        """Nothing: the base class would decay the weights outside the velocity."""

    def exclude_from_weight_decay(self, var_list=None, var_names=None):
        """Not supported: the choice would be lost on saving. Use a `ParameterGroup`.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            'fenwicks.optimizers.SGD takes exemptions as `groups`, for instance '
            "groups=[ParameterGroup('bias', weight_decay=0.0)]. "
            f'Received: var_list={var_list}, var_names={var_names}'
        )

    def get_config(self):
        """The constructor's arguments, as plain values.

        Returns:
            A dictionary that `from_config` accepts.
        """
        base = super().get_config()
        kept = ('name', 'learning_rate', 'clipnorm', 'clipvalue', 'global_clipnorm')
        return {
            **{key: base[key] for key in kept},
            'momentum': self.momentum,
            'nesterov': self.nesterov,
            'weight_decay': self.weight_decay,
            'rate_in_velocity': self.rate_in_velocity,
            'groups': [group.get_config() for group in self.groups],
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """An optimizer from the dictionary that `get_config` returned.

        Args:
            config: dictionary.
            custom_objects: optional dictionary from names to classes, for a custom schedule.

        Returns:
            An unbuilt `SGD`.
        """
        groups = [
            ParameterGroup.from_config(group, custom_objects) for group in config.get('groups', ())
        ]
        return super().from_config({**config, 'groups': groups}, custom_objects=custom_objects)
