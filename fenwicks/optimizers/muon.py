"""Muon: momentum, orthogonalised, for convolution and dense kernels; SGD for everything else."""

from __future__ import annotations

import math

import keras
from keras import ops

from fenwicks._checks import positive_integer
from fenwicks.optimizers.groups import check_match, group_of_each, matches
from fenwicks.optimizers.orthogonalize import DTYPES, newton_schulz
from fenwicks.optimizers.sgd import SGD, check_settings


def muon_update(
    weight,
    gradient,
    velocity,
    learning_rate,
    *,
    momentum=0.6,
    nesterov=True,
    ns_steps=3,
    ns_dtype='float32',
    normalize_weights=False,
    weight_decay=0.0,
):
    """One step of Muon on one kernel; pure: nothing is changed in place.

    ```
    v = momentum * velocity + gradient
    d = gradient + momentum * v if nesterov else v
    u = newton_schulz(d as a matrix)
    weight = weight * sqrt(outputs) / norm(weight) if normalize_weights
    weight = weight * (1 - learning_rate * weight_decay) - learning_rate * u
    ```

    The kernel's last axis is its outputs, as everywhere in Keras; all others are flattened into
    one. The papers' matrix, (outputs, inputs * height * width), is this one transposed with its
    columns in another order, and the result the same: neither matters to orthogonalisation.

    Args:
        weight: float tensor of shape (..., outputs), of any rank from 2.
        gradient: tensor of the same shape and dtype.
        velocity: tensor of the same shape and dtype, zeros before the first step. Not used (and
            may be None) when `momentum` is 0.
        learning_rate: float or scalar tensor.
        momentum: Python float, the fraction of the velocity kept.
        nesterov: Python bool.
        ns_steps: steps of `newton_schulz`.
        ns_dtype: its dtype.
        normalize_weights: Python bool, scale the kernel to the norm sqrt(outputs) first.
        weight_decay: Python float, decoupled: a direction has no size for it to join.

    Returns:
        `(weight, velocity)` after the step, in the dtypes in which they came.
    """
    dtype = keras.backend.standardize_dtype(weight.dtype)
    direction = gradient
    if momentum:
        velocity = momentum * velocity + gradient
        direction = gradient + momentum * velocity if nesterov else velocity
    outputs = weight.shape[-1]
    matrix = ops.reshape(direction, (-1, outputs))
    update = ops.reshape(newton_schulz(matrix, ns_steps, dtype=ns_dtype), weight.shape)
    # In float32 whatever the kernel's dtype, with one rounding at the end.
    learning_rate = ops.cast(learning_rate, 'float32')
    weight, update = ops.cast(weight, 'float32'), ops.cast(update, 'float32')
    if normalize_weights:
        norm = ops.sqrt(ops.sum(ops.square(weight)))
        weight = weight * (math.sqrt(outputs) / ops.maximum(norm, 1e-7))
    if weight_decay:
        weight = weight * (1.0 - learning_rate * weight_decay)
    return ops.cast(weight - learning_rate * update, dtype), velocity


@keras.saving.register_keras_serializable(package='fenwicks')
class Muon(keras.optimizers.Optimizer):
    """Muon for convolution and dense kernels of any rank, SGD for all other variables.

    ```
    v = momentum * v + gradient
    u = newton_schulz(gradient + momentum * v if nesterov else v)
    w = w - learning_rate * u
    ```

    Every singular value of a step is about 1, whatever the gradient's: all directions of a kernel
    learn at one pace. The rate is therefore in units of the weights, and far from SGD's.

    `keras.optimizers.Muon` leaves convolution kernels to AdamW; this one flattens them to
    matrices. Variables of rank below 2 (biases, batch norm), and those that `others_match` names,
    are updated as `others` says. Give it embeddings, depthwise kernels, and mostly the last layer.

    Args:
        learning_rate: float >= 0, a `keras.optimizers.schedules.LearningRateSchedule`, or a
            function without arguments that returns the rate; for the kernels.
        momentum: float in [0, 1), the fraction of the velocity kept at each step.
        nesterov: bool, look ahead along the velocity. Needs `momentum` above 0.
        ns_steps: positive integer, steps of `newton_schulz`.
        ns_dtype: `'float32'` or `'bfloat16'`, the precision inside it.
        normalize_weights: bool, whether each step first scales each kernel to the norm
            sqrt(outputs). For kernels whose scale doesn't matter, before batch norm.
        weight_decay: float >= 0 for the kernels, decoupled: `w = w * (1 - learning_rate *
            weight_decay)`. Not together with `normalize_weights`, which would undo it.
        others: a `fenwicks.optimizers.SGD` with the settings for the other variables: rate or
            schedule (of this optimizer's steps), momentum, decay, `ParameterGroup`s. By default SGD
            with this optimizer's rate and momentum. Only its settings are used.
        others_match: sequence of words or regular expressions, as `ParameterGroup.match`: kernels
            that go to `others` too.
        clipnorm: float, clips each variable's gradient to this norm.
        clipvalue: float, clips each element of the gradients.
        global_clipnorm: float, clips the norm of all gradients together.
        name: string, the optimizer's name.

    Raises:
        ValueError: if an argument is out of its range; or, when the optimizer is built, if a
            pattern or a group matches no variable, or two groups match one.

    Example:

    >>> import keras
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
        learning_rate,
        momentum=0.6,
        nesterov=True,
        ns_steps=3,
        ns_dtype='float32',
        normalize_weights=False,
        weight_decay=0.0,
        others=None,
        others_match=(),
        clipnorm=None,
        clipvalue=None,
        global_clipnorm=None,
        name=None,
    ):
        learning_rate = check_settings(learning_rate, momentum, nesterov, weight_decay)
        ns_steps = positive_integer('ns_steps', ns_steps)
        if ns_dtype not in DTYPES:
            raise ValueError(f'`ns_dtype` must be one of {DTYPES}. Received: {ns_dtype=}')
        if normalize_weights and weight_decay:
            raise ValueError(
                '`weight_decay` must be 0 with normalize_weights, which would undo it. '
                f'Received: weight_decay={weight_decay}'
            )
        if not (others is None or isinstance(others, SGD)):
            raise ValueError(f'`others` must be a fenwicks SGD or None. Received: {others=}')
        if others is not None and (others.clipnorm or others.clipvalue or others.global_clipnorm):
            raise ValueError(
                '`others` must not clip: clip all gradients, by the arguments of Muon. '
                f'Received: clipnorm={others.clipnorm}, clipvalue={others.clipvalue}, '
                f'global_clipnorm={others.global_clipnorm}'
            )
        if isinstance(others_match, str):
            raise ValueError(
                f'`others_match` must be a sequence of strings. Received: {others_match=}'
            )
        others_match = tuple(others_match)
        for match in others_match:
            check_match('others_match', match)
        super().__init__(
            learning_rate=learning_rate,
            clipnorm=clipnorm,
            clipvalue=clipvalue,
            global_clipnorm=global_clipnorm,
            name=name,
        )
        self.momentum = float(momentum)
        self.nesterov = bool(nesterov)
        self.ns_steps = ns_steps
        self.ns_dtype = ns_dtype
        self.normalize_weights = bool(normalize_weights)
        # Kept from the base class's constructor on purpose: see _apply_weight_decay.
        self.weight_decay = float(weight_decay)
        self.others = others
        self.others_match = others_match
        self._sgd = others or SGD(0.0, momentum=self.momentum, nesterov=self.nesterov)
        # A constant rate of theirs can be set anew, so it is part of the state.
        if others is not None and isinstance(others.learning_rate, keras.Variable):
            self._track_variable(others.learning_rate)

    def build(self, variables):
        """Creates the velocities, and settles how each variable is updated.

        Args:
            variables: list of the model's trainable variables.
        """
        if self.built:
            return
        # Before anything is created, so that an error leaves the optimizer unbuilt.
        paths = [getattr(variable, 'path', variable.name) for variable in variables]
        for match in self.others_match:
            if not any(matches(match, path) for path in paths):
                raise ValueError(
                    'Each of `others_match` must match at least one trainable variable. Received: '
                    f'others_match={match!r}, which matches none of {len(paths)} variables, '
                    f'{", ".join(map(repr, paths[:3]))}{", ..." if len(paths) > 3 else ""}'
                )
        is_other = [
            len(variable.shape) < 2 or any(matches(match, path) for match in self.others_match)
            for variable, path in zip(variables, paths, strict=True)
        ]
        groups = group_of_each(
            self._sgd.groups, [path for path, other in zip(paths, is_other, strict=True) if other]
        )
        super().build(variables)
        groups = iter(groups)
        # The group of a variable that SGD updates, None for a kernel of Muon's.
        self._groups = [next(groups) if other else None for other in is_other]
        self.velocities = [
            self.add_variable_from_reference(variable, name='velocity')
            if (self._sgd if other else self).momentum
            else None
            for variable, other in zip(variables, is_other, strict=True)
        ]

    def update_step(self, gradient, variable, learning_rate):
        """Updates one variable and its velocity; Keras calls this for each variable in turn."""
        index = self._get_variable_index(variable)
        velocity, group = self.velocities[index], self._groups[index]
        if group is not None:
            step = self._iterations
            if self.others is not None:
                learning_rate = self.others.rate_at(step)
            self._sgd.update_in_group(gradient, variable, velocity, learning_rate, group, step)
            return
        new_weight, new_velocity = muon_update(
            ops.convert_to_tensor(variable),
            ops.cast(gradient, variable.dtype),
            None if velocity is None else ops.convert_to_tensor(velocity),
            learning_rate,
            momentum=self.momentum,
            nesterov=self.nesterov,
            ns_steps=self.ns_steps,
            ns_dtype=self.ns_dtype,
            normalize_weights=self.normalize_weights,
            weight_decay=self.weight_decay,
        )
        if velocity is not None:
            self.assign(velocity, new_velocity)
        self.assign(variable, new_weight)

    def _apply_weight_decay(self, variables):
        """Nothing: the base class would decay the variables of `others` as well."""

    def exclude_from_weight_decay(self, var_list=None, var_names=None):
        """Not supported: the choice would be lost on saving. Use `others_match`.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            'fenwicks.optimizers.Muon takes exemptions as `others_match` and the groups of '
            f'`others`. Received: var_list={var_list}, var_names={var_names}'
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
            'ns_steps': self.ns_steps,
            'ns_dtype': self.ns_dtype,
            'normalize_weights': self.normalize_weights,
            'weight_decay': self.weight_decay,
            'others': self.others and keras.saving.serialize_keras_object(self.others),
            'others_match': list(self.others_match),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """An optimizer from the dictionary that `get_config` returned.

        Args:
            config: dictionary.
            custom_objects: optional dictionary from names to classes, for a custom schedule.

        Returns:
            An unbuilt `Muon`.
        """
        others = config.get('others')
        if isinstance(others, dict):
            others = keras.saving.deserialize_keras_object(others, custom_objects=custom_objects)
        return super().from_config({**config, 'others': others}, custom_objects=custom_objects)
