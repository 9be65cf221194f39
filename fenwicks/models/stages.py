"""The stages of a pretrained network: which of them are trained."""

from __future__ import annotations

import math

import keras

from fenwicks import _keras
from fenwicks._checks import instance, integer


def backbone_stages(model: keras.Model) -> tuple[tuple[keras.layers.Layer, ...], ...]:
    """The layers of a backbone by the resolution at which they work, from the input to the output.

    A stage ends where a convolution or pooling has strides. ResNet-50 has five.

    Args:
        model: of `fenwicks.models.pretrained`.

    Returns:
        The layers of each stage that have weights to train. Stages without such don't count.

    Raises:
        ValueError: `model` contains no backbone.

    Example:

    >>> from fenwicks.models import pretrained
    >>> model = pretrained('VGG16', 4, input_shape=(32, 32, 3), weights=None)
    >>> [layer.name for layer in backbone_stages(model)[0]]
    ['block1_conv1', 'block1_conv2']
    """
    levels: dict[int, float] = {}  # log2 of how much smaller a tensor is than the image
    found: dict[float, list[keras.layers.Layer]] = {}
    for operation in _backbone(model).operations:
        inputs = keras.tree.flatten(operation.input)
        level = max((levels.get(id(each), 0.0) for each in inputs), default=0.0)
        if isinstance(operation, keras.layers.InputLayer):
            level = 0.0
        level += math.log2(_strides(operation))
        for output in keras.tree.flatten(operation.output):
            levels[id(output)] = level
        if _learns(operation):
            found.setdefault(level, []).append(operation)
    return tuple(tuple(found[level]) for level in sorted(found))


def unfreeze(model: keras.Model, stages: int | None = None) -> None:
    """Trains the head and the last stages of the backbone, and freezes the rest.

    The backbone's batch norms stay frozen, whatever the stage: they use the statistics with which
    they came, also in training, and their scales and offsets stay. Call it before the optimizer is
    built: a `Trainer`, or `compile`, comes after it.

    Args:
        model: of `fenwicks.models.pretrained`.
        stages: how many stages of the backbone, counted from the head, are trained: 0 for the head
            alone, None for all. `backbone_stages` lists them.

    Raises:
        ValueError: `model` contains no backbone, or it has fewer stages.

    Example:

    >>> from fenwicks.models import pretrained
    >>> model = pretrained('VGG16', 4, input_shape=(32, 32, 3), weights=None, head='linear')
    >>> unfreeze(model, 0)
    >>> [variable.path for variable in model.trainable_variables]
    ['head/dense/kernel']
    """
    layers = backbone_stages(model)
    if stages is None:
        stages = len(layers)
    stages = integer('stages', stages, low=0)
    if stages > len(layers):
        raise ValueError(
            f'`stages` must be at most the {len(layers)} of the backbone. Received: stages={stages}'
        )
    model.trainable = True  # the head as well, which may have been frozen with all the rest
    for place, stage in enumerate(layers):
        for layer in stage:
            layer.trainable = place >= len(layers) - stages
    for layer in _keras.flatten_layers(_backbone(model)):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False


def _backbone(model):
    """The network within a pretrained model."""
    instance('model', model, keras.Model, 'a Keras model')
    inner = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    if len(inner) != 1:
        raise ValueError(
            '`model` must contain one backbone, as models.pretrained makes it. '
            f'Received: model={model.name!r}, with {len(inner)} models in it'
        )
    return inner[0]


def _learns(operation):
    """Whether an operation has weights that can be trained, frozen or not."""
    return (
        isinstance(operation, keras.layers.Layer)
        and not isinstance(operation, keras.layers.Normalization)
        and bool(operation.weights)
    )


def _strides(operation):
    """By what factor an operation makes images smaller."""
    if isinstance(operation, keras.Model):
        return math.prod(map(_strides, operation.layers))
    strides = getattr(operation, 'strides', 1)
    return max(strides) if isinstance(strides, tuple | list) else strides
