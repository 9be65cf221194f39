"""Statistics of the outputs of a network's layers, by depth."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np

from fenwicks import _keras
from fenwicks._checks import flag, instance


class OutputStatistics(NamedTuple):
    """Of one layer's outputs over some inputs.

    Attributes:
        layer: the layer's name.
        mean: over all numbers.
        deviation: their standard deviation.
        skew: the mean over the channels of the third standardized moment.
        varying: the share of the outputs' mean square that varies within a channel, from 0, where
            each channel is a constant whatever the input, to 1, where all channels have mean 0.
    """

    layer: str
    mean: float
    deviation: float
    skew: float
    varying: float


def output_statistics(
    model: keras.Model, inputs: np.ndarray, training: bool = False
) -> list[OutputStatistics]:
    """Statistics of what each layer of a model makes of some inputs, in the order of depth.

        varying = mean over channels of var(x) / mean over channels of mean(x**2)

    Deep plain networks compute functions that are nearly constant: the varying share falls from
    layer to layer. Batch norm keeps it up.

    Args:
        model: a functional or `Sequential` model; blocks within it count as one layer.
        inputs: what the model takes: normalised floats `(count, ...)`, two at least.
        training: whether the model is called in training mode; its variables stay as they are.

    Returns:
        A list of `OutputStatistics` for each layer but the input.

    Raises:
        ValueError: the model isn't functional, it or a layer has several inputs or outputs, or
            there is one example only.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.ReLU(name='relu')])
    >>> (found,) = output_statistics(model, np.array([[1.0, -1.0], [3.0, -1.0]]))
    >>> found.layer, found.mean, found.varying  # the channels 1, 3 and 0, 0
    ('relu', 1.0, 0.2)

    Reference:
        https://myrtle.ai/learn/how-to-train-your-resnet-7-batch-norm/
    """
    instance('model', model, keras.Model, 'a Keras model')
    training = flag('training', training)
    if len(inputs) < 2:
        raise ValueError(f'`inputs` must hold two inputs or more. Received: {len(inputs)}')
    if len(getattr(model, 'inputs', None) or [None]) > 1:
        raise ValueError(f'`model` must have one input. Received: {len(model.inputs)} inputs')
    _keras.check_channels_last('output_statistics', model)
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    calls: list[tuple[Any, Any]] = []
    if getattr(model, 'inputs', None):  # a functional model, or a Sequential one that is built
        with keras.StatelessScope(), _keras.noted_outputs(layers) as calls:
            model(np.asarray(inputs, model.variable_dtype), training=training)
    output_of = {id(layer): output for layer, output in calls}
    if not calls or not len(layers) == len(calls) == len(output_of):
        raise ValueError(
            '`model` must be a functional or Sequential model that is built, each layer of which '
            f'is called once. Received: model={model.name}'
        )
    found = []
    for layer in layers:
        output = output_of[id(layer)]
        if not hasattr(output, 'shape'):
            raise ValueError(
                '`model` must have layers of one output each. '
                f'Received: {layer.name}, of {len(keras.tree.flatten(output))}'
            )
        found.append(_of_layer(layer, output))
    return found


def _of_layer(layer, output):
    numbers = keras.ops.convert_to_numpy(keras.ops.cast(output, 'float32')).astype(np.float64)
    channels = numbers.reshape(-1, numbers.shape[-1] if numbers.ndim > 1 else 1)
    means, variances = channels.mean(axis=0), channels.var(axis=0)
    moments = ((channels - means) ** 3).mean(axis=0)
    # A channel that is constant has no skew.
    skews = np.divide(moments, variances**1.5, out=np.zeros_like(means), where=variances > 0)
    square = float((channels**2).mean())
    return OutputStatistics(
        layer=layer.name,
        mean=float(numbers.mean()),
        deviation=float(numbers.std()),
        skew=float(skews.mean()),
        varying=float(variances.mean()) / square if square else 0.0,
    )
