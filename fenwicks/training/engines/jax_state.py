"""Small functions of the JAX engine's state and of what it counts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import keras

from fenwicks.kernels.device import override


def scope_of(model, trainable, fixed):
    """A context in which a model's variables have these values, and in which `model.losses` are
    those of regularizers and of calls within it."""
    variables = [*model.trainable_variables, *model.non_trainable_variables]
    values = list(zip(variables, [*trainable, *fixed], strict=True))
    return keras.StatelessScope(values, collect_losses=True)


def holds_convolution(lowered):
    """Whether a program that was lowered, by `jax.jit(...).lower`, convolves anything."""
    return 'stablehlo.convolution' in lowered.as_text()


def infer(model, trainable, fixed, inputs):
    """The model's outputs at inference with these values of its variables.

    Not by Keras's `stateless_call`, which tells the layers within a subclass of `Model` that they
    are being trained only where the subclass passes `training` on.
    """
    with override(in_inference=True):  # this program runs here and isn't exported
        return evaluated(model, trainable, fixed, lambda: model(inputs, training=False))[0]


def evaluated(model, trainable, fixed, function):
    """Calls a function, without arguments, while the model's variables have these values.

    Returns:
        What it returns, the new values of the variables that aren't trainable, and the losses of
        regularizers.
    """
    with scope_of(model, trainable, fixed) as scope:
        outputs, losses = function(), model.losses
    fixed = [scope.get_current_value(v) for v in model.non_trainable_variables]
    return outputs, fixed, losses


def divided_axes(variables, sources, optimizer, replicas):
    """For each variable of the state the axis along which the devices divide it, or `None`.

    Weights are divided only where the optimizer says that its update is elementwise. Variables that
    it doesn't update are replicated. An average is divided like its source.

    Args:
        variables: a tuple of the state's parts, see `JaxEngine`.
        sources: what the averages are of.
        optimizer: a Keras optimizer.
        replicas: the devices.
    """
    axis = replicas.sharded_axis if getattr(optimizer, 'elementwise', False) else _no_axis
    weights, fixed, slots, _, counts = variables
    weight_axes, slot_axes = ([axis(v.shape) for v in part] for part in (weights, slots))
    axes = {id(weight): axis for weight, axis in zip(weights, weight_axes, strict=True)}
    average_axes = [axes.get(id(source)) for source in sources]
    return weight_axes, [None] * len(fixed), slot_axes, average_axes, [None] * len(counts)


def _no_axis(shape):
    """The axis along which an array is divided that every device holds whole."""
    return None


def measuring(replicas, metrics, correct):
    """What is counted of a batch: two functions, of which the step calls the first on each device.

    Args:
        replicas: the devices.
        metrics: a `MetricSet`.
        correct: from logits and labels to the number of correct answers.

    Returns:
        A function of labels and logits to an outcome that is the same on all devices; and one of
        the values of the metrics' variables and an outcome to the number of correct answers and the
        next values.
    """

    def count(labels, logits):
        return replicas.all_reduce_sum(correct(logits, labels))

    def gather(labels, logits):
        batch = [replicas.gather_batch(each) for each in (labels, logits.astype('float32'))]
        return count(labels, logits), *batch

    def update(values, outcome):
        found, labels, logits = outcome
        return found, metrics.updated(values, labels, logits)

    if metrics.metrics:
        return gather, update
    return count, lambda values, outcome: (outcome, values)


def first_carry(state, start, loss_sum):
    """What the loop begins with: state, step, sum of losses, correct answers, last loss."""
    return state, start, loss_sum, jnp.int32(0), jnp.float32(0)


def all_finite(state):
    """Whether all floats of the state are finite, the metrics' apart."""
    *trained, _ = state
    floats = [leaf for leaf in jax.tree.leaves(trained) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in floats]).all()
