"""Checks of the arguments of a `Trainer`; each raises a ValueError of one line."""

from __future__ import annotations

import inspect
import math

import keras
import numpy as np

from fenwicks import _keras, _keras_optimizers
from fenwicks import augment as augmentation
from fenwicks._checks import finite_number, instance, integer, no_class, positive_integer
from fenwicks._errors import one_line
from fenwicks.data.dataset import check_images as check_arrays_of_images
from fenwicks.layers import ClassNames, PatchWhitening
from fenwicks.training import targets
from fenwicks.training.replicas.base import Replicas

# `outputs.check_outputs` raises these too, judging by the model's outputs.
NO_LOGITS = (
    '`model` must end in logits for a loss that applies the softmax itself: leave out the last '
    'activation'
)
NO_PROBABILITIES = '`loss` must be of logits: pass from_logits=True'


def check(model, optimizer, loss, seed, seconds_per_call, replicas):
    """Raises unless each argument of a Trainer keeps its rule."""
    for name, value in (('model', model), ('optimizer', optimizer), ('loss', loss)):
        no_class(name, value)
    instance('model', model, keras.Model, 'a Keras model')
    if not model.built:
        raise ValueError('`model` must be built: give it an input shape or call it once')
    _keras.check_channels_last('the Trainer', model)
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise ValueError(
            f'`optimizer` must be a Keras optimizer. Received: optimizer={optimizer!r}'
        )
    inputs, outputs = getattr(model, 'inputs', None), getattr(model, 'outputs', None)
    if inputs is not None and len(inputs) != 1:
        raise ValueError(f'`model` must have one input, images. Received: {len(inputs)} inputs')
    if outputs is not None and len(outputs) != 1:
        raise _no_logits([tuple(output.shape) for output in outputs])
    check_standard_steps(model)
    if 'float16' in _keras.compute_dtypes(model) and not hasattr(optimizer, 'inner_optimizer'):
        raise ValueError(
            '`optimizer` must be a keras.optimizers.LossScaleOptimizer for a model that computes '
            'in float16, where small gradients become 0. '
            f'Received: {type(optimizer).__name__}'
        )
    if keras.distribution.distribution() is not None:
        raise ValueError(
            'the Trainer must divide the batches itself, among its `replicas`: call '
            'keras.distribution.set_distribution(None) before the model is made. Received: '
            f'a keras.distribution.{type(keras.distribution.distribution()).__name__}'
        )
    if loss is not None and not callable(loss):
        raise ValueError(
            '`loss` must be a keras.losses.Loss, the name of one, or a function of labels and '
            f'outputs. Received: loss={loss!r}'
        )
    integer('seed', seed, low=0, below=2**31)
    if not isinstance(replicas, Replicas | None):
        raise ValueError(
            f'`replicas` must come from training.replicate. Received: replicas={replicas!r}'
        )
    without_limit = isinstance(seconds_per_call, float) and seconds_per_call == math.inf
    if seconds_per_call is not None and not without_limit:
        finite_number('seconds_per_call', seconds_per_call, above=0)


def check_standard_steps(model):
    """Raises where a model has a step of its own, which the Trainer would not take."""
    for name in ('train_step', 'test_step', 'compute_loss', 'compute_metrics'):
        if getattr(type(model), name) is not getattr(keras.Model, name):
            raise ValueError(
                f'`model` must not override {name}, since the Trainer has steps of its own: train '
                f"it by Keras's fit. Received: {type(model).__name__}.{name}"
            )


def as_optimizer(optimizer):
    """An optimizer, which may be given by the name that Keras knows it by."""
    if not isinstance(optimizer, str):
        return optimizer
    try:
        return keras.optimizers.get(optimizer)
    except ValueError:
        raise ValueError(
            '`optimizer` must be a Keras optimizer, or the name of one, such as adam. '
            f'Received: optimizer={optimizer!r}'
        ) from None


def check_jit_compile(jit_compile):
    """True, False or, for 'auto' too, `None`."""
    if not (jit_compile is None or isinstance(jit_compile, bool) or jit_compile == 'auto'):
        raise ValueError(
            f'`jit_compile` must be True, False or None. Received: jit_compile={jit_compile!r}'
        )
    return None if jit_compile == 'auto' else jit_compile


def check_normalize(normalize):
    """Raises unless `normalize` can be called."""
    if not callable(normalize):
        raise ValueError(
            '`normalize` must be a function of a batch of images, such as partial(augment.normalize'
            f', mean=mean, std=std), or None. Received: normalize={normalize!r}'
        )


def check_augment(augment):
    """Raises unless `augment` can be called with a batch of images and a seed."""
    rule = (
        '`augment` must be a function of images and a seed, or of images, labels and a seed, such '
        'as augment.compose returns'
    )
    if not callable(augment) or isinstance(augment, keras.layers.Layer):
        raise ValueError(f'{rule}. Received: augment={augment!r}')
    try:
        signature = inspect.signature(augment)
    except (TypeError, ValueError):  # some callables written in C have no signature
        return
    context = dict.fromkeys(augmentation.context_arguments(augment))
    arguments = [None] * (3 if augmentation.takes_labels(augment) else 2)
    try:
        signature.bind(*arguments, **context)
    except TypeError:
        raise ValueError(f'{rule}. Received: one with the parameters {signature}') from None


def check_loss(model, loss):
    """Raises where the loss is of logits and the model returns probabilities, or vice versa."""
    layer = _keras.output_layer(model)
    activation = _activation_of(layer)
    of_logits = targets.of_logits(loss)
    name = getattr(activation, '__name__', activation)
    if of_logits and activation in _OF_PROBABILITIES:
        raise ValueError(f"{NO_LOGITS}. Received: {layer.name} with activation='{name}'")
    ends_in_logits = isinstance(layer, keras.layers.Dense) and activation in (
        None,
        keras.activations.linear,
    )
    if of_logits is False and ends_in_logits:
        raise ValueError(
            f'{NO_PROBABILITIES}. Received: {loss.name} of probabilities, and a model that ends in '
            f'{layer.name}'
        )


_OF_PROBABILITIES = (keras.activations.softmax, keras.activations.sigmoid)


def ends_in_probabilities(model):
    """Whether a model's output is known to come from a softmax or a sigmoid."""
    return _activation_of(_keras.output_layer(model, ClassNames)) in _OF_PROBABILITIES


def _activation_of(layer):
    if isinstance(layer, keras.layers.Softmax):
        return keras.activations.softmax
    return getattr(layer, 'activation', None)


def check_trainable(model):
    """Raises where training would change no weight, or whitening was never adapted."""
    if not model.trainable_variables:
        raise ValueError(
            '`model` must have weights to train: unfreeze a layer, and make another Trainer. '
            'Received: a model without trainable variables'
        )
    for layer in _keras.flatten_layers(model):
        if isinstance(layer, PatchWhitening) and not layer.is_adapted:
            raise ValueError(
                f"`model` must have its whitening adapted: call model.get_layer('{layer.name}')"
                '.adapt(images) with normalised images, as the model takes them, before training. '
                f'Received: {layer.name} with its initial filters'
            )


def check_sharing(replicas, accumulate, loss, seconds_per_call):
    """Raises where the arguments are for a whole batch at once, or one process, only."""
    if replicas.count * accumulate > 1 and getattr(loss, 'reduction', None) == 'sum':
        raise ValueError(
            '`loss` must be a mean over the batch where several replicas, or parts of a batch '
            '(`accumulate`), average it. Received: reduction=sum'
        )
    if replicas.processes > 1 and seconds_per_call is not None:
        raise ValueError(
            '`seconds_per_call` must be None where several processes train together, which '
            f'take the same steps in each call. Received: seconds_per_call={seconds_per_call}'
        )


def check_accumulate(accumulate, batch_size, replicas):
    """The number of parts of each replica's share of a batch."""
    accumulate = positive_integer('accumulate', accumulate)
    share = batch_size // replicas.count
    if share % accumulate:
        raise ValueError(
            f'`accumulate` must divide the {share} images that a replica takes of a batch. '
            f'Received: accumulate={accumulate}'
        )
    return accumulate


def check_budget(memory_budget):
    """The bytes that training data may take on a device, or `None`."""
    return None if memory_budget is None else positive_integer('memory_budget', memory_budget)


def check_weights(replicas, accumulate, loss, labels, outputs, weights):
    """Raises where the loss can't take weights of images, or where parts of a batch would average
    one that isn't divided by the batch."""
    if weights:
        targets.check_loss_takes_weights(loss, labels, outputs)
    reduction = getattr(loss, 'reduction', None)
    parts = replicas.count * accumulate
    if weights and parts > 1 and reduction == 'mean_with_sample_weight':
        raise ValueError(
            "`loss` must have reduction='sum_over_batch_size' for weights of images on several "
            f'replicas or with `accumulate`. Received: reduction={reduction}'
        )


def build(optimizer, model):
    """Builds a new optimizer for the model; raises where it was built for another one."""
    weights = model.trainable_variables
    if not optimizer.built:
        optimizer.build(weights)
    elif list(map(id, _keras_optimizers.optimized_variables(optimizer))) != list(map(id, weights)):
        raise ValueError(
            '`optimizer` must be new, or that of this model, whose trainable weights must stay the '
            f'same: make another one, and a Trainer. Received: {optimizer.name}, made for others'
        )


def check_data(model, loss, images, labels, batch_size=1):
    """The images, the labels as the device holds them, and the number of the model's outputs;
    raises unless the model takes these images and the loss these labels."""
    images, outputs = check_images(model, images)
    return images, targets.check_labels(loss, labels, len(images), outputs, batch_size), outputs


def check_validation(model, loss, validation_data, dtype):
    """The images and targets of `validation_data`; raises unless they are like the training's.

    `dtype` is that of the training's images: uint8, or float32 from a source.
    """
    rule = '`validation_data` must be (images, labels) or (images, labels, sample_weight)'
    if not isinstance(validation_data, tuple | list) or len(validation_data) not in (2, 3):
        raise ValueError(f'{rule}. Received: {type(validation_data).__name__}')
    images, labels, *weights = validation_data
    try:
        if dtype == np.uint8:
            images, outputs = check_images(model, images)
        elif getattr(images, 'dtype', None) != dtype:
            raise ValueError(
                f'`images` must be {dtype}, as those are that the stream gives. '
                f'Received: {getattr(images, "dtype", type(images).__name__)}'
            )
        else:
            outputs = check_image_shape(model, images)
        labels = targets.check_labels(loss, labels, len(images), outputs, 1)
        weights = [targets.check_sample_weight(weight, len(images)) for weight in weights]
        if weights:
            targets.check_loss_takes_weights(loss, labels, outputs)
    except ValueError as error:
        raise ValueError(f'`validation_data` must be like the training data: {error}') from None
    return images, (labels, *weights)


def _logits(model, images):
    """What the model returns of an image, as a `KerasTensor`."""
    shape = np.shape(images)[1:]
    try:
        outputs = model(keras.KerasTensor((1, *shape), 'float32'), training=False)
    except Exception as error:  # a model may raise anything
        raise ValueError(
            f'`model` must take a batch of images of the shape {shape}, its one input. '
            f'Received: a {type(model).__name__} ({one_line(error, 200)})'
        ) from None
    if isinstance(outputs, list | tuple | dict) and len(outputs) == 1:
        kind = type(outputs).__name__
        raise ValueError(
            '`model` must return its output itself: make it of `outputs`, not of `[outputs]`. '
            f'Received: a model that returns a {kind} of one output'
        )
    if not isinstance(outputs, keras.KerasTensor) or len(outputs.shape) != 2:
        shapes = keras.tree.map_structure(lambda output: (None, *output.shape[1:]), outputs)
        raise _no_logits(shapes if isinstance(shapes, dict | list) else [shapes])
    return outputs


def _no_logits(shapes):
    return ValueError(
        '`model` must have one output, logits (batch, classes). '
        f'Received: outputs of shape '
        f'{shapes if isinstance(shapes, dict) else ", ".join(map(str, shapes))}'
    )


def check_images(model, images):
    """The images as an array, and the number of the model's outputs for each; raises unless the
    model takes these images."""
    images = np.asarray(check_arrays_of_images(images))
    return images, check_image_shape(model, images)


def check_image_shape(model, images):
    """The number of the model's outputs; raises unless the model takes images of this shape."""
    shape = np.shape(images)[1:]
    # A subclass of Model has no `input_shape`.
    takes = getattr(model, 'input_shape', (None, *shape))[1:]
    if not fits(takes, shape):
        raise ValueError(
            f'`images` must have the shape (count, {", ".join(map(str, takes))}) that the '
            f'model takes. Received: shape={np.shape(images)}'
        )
    return _logits(model, images).shape[-1]


def fits(takes, shape):
    """Whether a model that takes images of a shape, `None` for sides of any length, takes another.

    >>> fits((None, None, 3), (8, 8, 3)), fits((8, 8, 3), (4, 8, 3))
    (True, False)
    """
    return len(takes) == len(shape) and all(
        side in (None, given) for side, given in zip(takes, shape, strict=True)
    )
