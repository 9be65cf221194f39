"""What is private in Keras's optimizers, as `_keras.py` has it of the rest."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras


def updating_optimizers(optimizer: keras.optimizers.Optimizer) -> list:
    """The optimizers that update weights: this one, or those inside it."""
    inner = getattr(optimizer, 'inner_optimizer', optimizer)
    return getattr(inner, 'optimizers', [inner])


def is_multi_optimizer(optimizer: keras.optimizers.Optimizer) -> bool:
    """Whether it is a `MultiOptimizer`, maybe in a `LossScaleOptimizer`."""
    return hasattr(getattr(optimizer, 'inner_optimizer', optimizer), 'optimizers')


def optimized_variables(optimizer: keras.optimizers.Optimizer) -> list:
    """The variables that a built optimizer updates."""
    return optimizer._trainable_variables


def rebuild(optimizer: keras.optimizers.Optimizer, weights: list) -> None:
    """Builds a built optimizer anew for other weights; weights that it had keep their slots.

    Slots are found again by their paths, which Keras makes of the weights' paths. Where the
    optimizer refuses the weights, it stays built for those that it had.
    """
    before = optimized_variables(optimizer)
    values = {v.path: keras.ops.convert_to_numpy(v) for v in optimizer.variables}
    try:
        _forget_weights(optimizer)
        optimizer.build(weights)
    except BaseException:
        _forget_weights(optimizer)
        optimizer.build(before)
        raise
    finally:
        for variable in optimizer.variables:
            value = values.get(variable.path)
            if value is not None and value.shape == tuple(variable.shape):
                variable.assign(value)


def _forget_weights(optimizer):
    """Makes an optimizer unbuilt; it keeps its count of updates and its learning rates."""
    parts = [getattr(optimizer, name, None) for name in ('inner_optimizer', 'others')]
    parts = [part for part in parts if isinstance(part, keras.optimizers.Optimizer)]
    for part in parts:
        _forget_weights(part)
    kept = [part._learning_rate for part in (optimizer, *parts)] + [optimizer._iterations]
    for variable in list(optimizer._variables):
        if not any(variable is other for other in kept):
            optimizer._tracker.untrack(variable)
    optimizer._trainable_variables = []
    optimizer._trainable_variables_indices = {}
    optimizer.built = False


def variable_index(optimizer: keras.optimizers.Optimizer, variable: keras.Variable) -> int:
    """The place of a variable among those that the optimizer updates."""
    return optimizer._get_variable_index(variable)


def update_count(optimizer):
    """The variable that counts the calls of `apply`, of which `iterations` may be a part."""
    return optimizer._iterations


def constant_or_schedule(optimizer):
    """The variable or the schedule of the learning rate, of which `learning_rate` is a value."""
    return optimizer._learning_rate


class WithoutDecoupledDecay:
    """A base class of optimizers whose own `weight_decay` is part of the gradient.

    Keras would subtract it from the weights as well, as AdamW does. Comes before
    `keras.optimizers.Optimizer` among the bases.
    """

    def _apply_weight_decay(self, variables):
        """Does nothing, where Keras would decay the weights outside the velocity."""


@contextlib.contextmanager
def without_gradient_sum(optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
    """A context in which an optimizer takes gradients that are means over the replicas already.

    On TensorFlow it would add up the gradients of all replicas, after clipping. The threads of a
    strategy's replicas each enter it, and leave it when all have updated.
    """
    inner = getattr(optimizer, 'inner_optimizer', optimizer)
    changed = [optimizer, inner, *getattr(inner, 'optimizers', ())]
    for each in changed:
        each._all_reduce_sum_gradients = list
    try:
        yield
    finally:
        for each in changed:
            vars(each).pop('_all_reduce_sum_gradients', None)


def make_stateless(optimizer):
    """Gives TensorFlow's optimizer the methods that Keras has for all backends.

    TensorFlow's write to the `tf.Variable`s directly, which a `keras.StatelessScope` doesn't see.
    """
    base = next(kind for kind in type(optimizer).__mro__ if kind.__name__ == 'BaseOptimizer')
    for name in ('assign', 'assign_add', 'assign_sub', '_var_key', '_backend_update_step'):
        setattr(optimizer, name, getattr(base, name).__get__(optimizer))
    if optimizer.built:
        optimizer._trainable_variables_indices = {
            optimizer._var_key(variable): index
            for index, variable in enumerate(optimizer._trainable_variables)
        }
    others = getattr(optimizer, 'others', None)  # of Muon
    if isinstance(others, keras.optimizers.Optimizer):
        make_stateless(others)
