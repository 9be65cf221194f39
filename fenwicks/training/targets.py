"""What a training compares the model's outputs with: labels of any form, and weights of images."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from fenwicks import _keras
from fenwicks._checks import finite_number
from fenwicks._errors import one_line
from fenwicks.data.dataset import as_array
from fenwicks.data.dataset import check_labels as check_class_labels
from fenwicks.losses import CrossEntropy

# How correct answers are counted, by the kind of loss:
CLASSES = 'classes'  # the largest output, of one class an image
BINARY = 'binary'  # each output by itself
OTHER = 'other'  # as classes where the labels are integers; nothing else has an accuracy

_OF_CLASSES = (
    CrossEntropy,
    keras.losses.SparseCategoricalCrossentropy,
    keras.losses.CategoricalCrossentropy,
    keras.losses.CategoricalFocalCrossentropy,
)
_BINARY = (keras.losses.BinaryCrossentropy, keras.losses.BinaryFocalCrossentropy)


def as_loss(loss: Any) -> Any:
    """A loss as Keras's `compile` takes it: its name becomes an object, and a function that returns
    a value for each image one that returns their mean.

    Raises:
        ValueError: Keras knows no such name, or the function doesn't take labels and outputs.
    """
    if isinstance(loss, str):
        try:
            function = keras.losses.get(loss)
        except ValueError:
            raise ValueError(
                '`loss` must be a keras.losses.Loss, the name of one, or a function of labels and '
                f'outputs. Received: loss={loss!r}'
            ) from None
        title = getattr(function, '__name__', '').replace('_', ' ').title().replace(' ', '')
        loss = getattr(keras.losses, title)() if hasattr(keras.losses, title) else function
    if loss is None or isinstance(loss, keras.losses.Loss | type) or not callable(loss):
        return loss
    try:
        inspect.signature(loss).bind(None, None)
    except TypeError:
        raise ValueError(
            '`loss` must be a function of labels and outputs. '
            f'Received: one with the parameters {inspect.signature(loss)}'
        ) from None
    except ValueError:  # some callables written in C have no signature
        pass

    @functools.wraps(loss)
    def mean(labels, outputs, sample_weight=None):
        values = loss(labels, outputs)
        if sample_weight is not None:
            values = values * keras.ops.cast(sample_weight, values.dtype)
        return keras.ops.mean(values)

    return mean


def kind_of(loss: Any) -> str:
    """`CLASSES`, `BINARY` or `OTHER`."""
    if isinstance(loss, _OF_CLASSES):
        return CLASSES
    return BINARY if isinstance(loss, _BINARY) else OTHER


def of_logits(loss: Any) -> bool | None:
    """Whether a loss is of logits; `None` where it doesn't say."""
    if isinstance(loss, CrossEntropy):
        return True
    if not isinstance(loss, keras.losses.Loss):
        return None
    try:
        return loss.get_config().get('from_logits')
    except (NotImplementedError, ValueError):
        return None


def is_cross_entropy(loss: Any) -> bool:
    """Whether a loss of integer labels is the cross-entropy of logits, label smoothing apart."""
    if type(loss) is keras.losses.SparseCategoricalCrossentropy:
        return bool(loss.from_logits) and loss.ignore_class is None
    return type(loss) is CrossEntropy


def for_scores(loss: Any) -> Any:
    """The same loss of labels as they are, without smoothing, and a mean where it is a sum."""
    if not isinstance(loss, keras.losses.Loss):
        return loss
    if getattr(loss, 'label_smoothing', 0):
        try:
            config = loss.get_config()
        except NotImplementedError:
            config = {}
        if 'label_smoothing' in config:
            loss = type(loss).from_config({**config, 'label_smoothing': 0.0})
        else:  # a class whose objects can't be made from what it says of them
            loss = _like(loss, label_smoothing=0.0)
    return _like(loss, reduction='sum_over_batch_size') if loss.reduction == 'sum' else loss


def _like(loss, **attributes):
    """A copy with other attributes; `copy.copy` would make it of its configuration."""
    like = object.__new__(type(loss))
    vars(like).update(vars(loss) | attributes)
    return like


def has_accuracy(loss: Any, labels: np.ndarray) -> bool:
    """Whether answers are right or wrong."""
    return kind_of(loss) != OTHER or labels.ndim == 1


def accuracy(loss: Any, labels: np.ndarray, correct: int, images: int) -> float | None:
    """The share of right answers; `None` where no answer is right or wrong.

    Args:
        loss: as of `Trainer`.
        labels: of some of the images, as the device holds them.
        correct: number of right answers.
        images: number of images; each has as many answers as a label has parts.
    """
    if not has_accuracy(loss, labels):
        return None
    each = labels.shape[1] if kind_of(loss) == BINARY else 1
    return correct / (images * each)


def check_labels(loss: Any, labels: Any, count: int, outputs: int, batch_size: int) -> np.ndarray:
    """Labels as the device holds them; raises where the loss can't take them.

    Args:
        loss: the Trainer's.
        labels: integers `(count,)`; or floats `(count, outputs)`, or `(count,)` for one output.
        count: number of images.
        outputs: the model's, for each image.
        batch_size: of how many labels the loss is tried.

    Returns:
        int32 `(count,)`, or float32 `(count, outputs)`.

    Raises:
        ValueError: the loss doesn't take labels of this form, or they are out of range.
    """
    labels = check_form(loss, labels, count, outputs)
    check_loss_takes(loss, labels[:batch_size], outputs)
    return labels


def check_form(loss: Any, labels: Any, count: int, outputs: int) -> np.ndarray:
    """As `check_labels`, without trying the loss."""
    if kind_of(loss) == CLASSES and outputs == 1:
        raise ValueError(
            '`loss` must be of one output, as the model has: for two classes use '
            'keras.losses.BinaryCrossentropy(from_logits=True). '
            f'Received: {type(loss).__name__}, which is of two outputs or more'
        )
    labels = as_array(labels)
    if labels.shape == (count, 1) and labels.dtype.kind in 'iu' and outputs > 1:
        labels = labels[:, 0]  # as keras.datasets.cifar10.load_data has them
    is_custom = kind_of(loss) == OTHER and not type(loss).__module__.startswith('keras.')
    if kind_of(loss) == CLASSES or (is_custom and outputs > 1 and labels.dtype.kind != 'f'):
        return _class_labels(loss, labels, count, outputs)
    return _values(loss, labels, count, outputs)


def _class_labels(loss, labels, count, outputs):
    if labels.shape != (count, outputs):
        if labels.ndim == 2 and len(labels) == count:
            raise ValueError(
                f'`labels` must be integers (n,), or have the {outputs} columns of the outputs. '
                f'Received: shape={labels.shape}'
            )
        check_class_labels(labels, count, outputs)
        return labels.astype(np.int32)
    labels = labels.astype(np.float32)
    sums = labels.sum(axis=1)
    if kind_of(loss) == CLASSES and not ((labels >= 0).all() and (np.abs(sums - 1) < 0.01).all()):
        raise ValueError(
            '`labels` of several classes an image must be probabilities, >= 0 and with a sum of 1: '
            'for labels that exclude none use keras.losses.BinaryCrossentropy(from_logits=True). '
            f'Received: sums from {sums.min():.6g} to {sums.max():.6g}'
        )
    return labels


def _values(loss, labels, count, outputs):
    if labels.shape == (count,) and outputs == 1:
        labels = labels[:, None]
    if labels.shape != (count, outputs):
        raise ValueError(
            f'`labels` must have the shape ({count}, {outputs}) of the outputs for '
            f'{type(loss).__name__}. Received: shape={labels.shape}'
        )
    if labels.dtype.kind not in 'fiub':
        raise ValueError(f'`labels` must be numbers. Received: dtype={labels.dtype}')
    labels = labels.astype(np.float32)
    low, high = labels.min(), labels.max()
    if not np.isfinite([low, high]).all():
        raise ValueError(f'`labels` must be finite. Received: labels from {low} to {high}')
    if kind_of(loss) == BINARY and (low < 0 or high > 1):
        raise ValueError(
            f'`labels` must be in [0, 1] for {type(loss).__name__}. '
            f'Received: labels from {low} to {high}'
        )
    return labels


def check_loss_takes(loss: Any, labels: np.ndarray, outputs: int) -> None:
    """Tries the loss of a batch of checked labels; raises where it isn't a number."""
    try:
        with _keras.changed_variables() as changed:
            value = loss(labels, np.full((len(labels), outputs), 1 / outputs, np.float32))
    except Exception as error:  # a loss may raise anything
        raise ValueError(
            f'`labels` must have a form that the loss takes. Received: {labels.dtype} of shape '
            f'{labels.shape} ({one_line(error, 200)})'
        ) from None
    if changed:
        raise ValueError(
            '`loss` must create or change no variable of a Keras layer. '
            f'Received: a function that does ({", ".join(changed)})'
        )
    shape = tuple(np.shape(value))
    if shape:
        raise ValueError(f'`loss` must return a scalar. Received: shape={shape}')


def check_loss_takes_weights(loss: Any, labels: np.ndarray, outputs: int) -> None:
    """Raises where a function, as `as_loss` returns it, has no value for each image to weight."""
    if isinstance(loss, keras.losses.Loss):
        return
    labels = labels[:2]
    values = loss.__wrapped__(labels, np.full((len(labels), outputs), 1 / outputs, np.float32))
    if np.shape(values) != (len(labels),):
        raise ValueError(
            '`loss` must return a value for each image, a tensor (batch,), to take weights of '
            f'classes or images. Received: shape={tuple(np.shape(values))}'
        )


def check_mixing(loss: Any, labels: np.ndarray, outputs: int) -> None:
    """Raises unless the loss takes what an augmentation makes of labels, floats of each class."""
    mixed = labels if labels.ndim > 1 else np.eye(outputs, dtype=np.float32)[labels]
    try:
        check_loss_takes(loss, mixed, outputs)
    except ValueError:
        name = getattr(loss, 'name', getattr(loss, '__name__', loss))
        raise ValueError(
            '`loss` must take probabilities of the classes where `augment` mixes labels, such as '
            f'fenwicks.losses.CrossEntropy(). Received: loss={name}'
        ) from None


def image_weights(
    labels: np.ndarray,
    outputs: int,
    class_weight: dict[int, float] | None,
    sample_weight: Any,
    loss: Any,
) -> tuple[np.ndarray, ...]:
    """The weight of each image in the loss, float32 `(count,)`, or nothing where all are equal.

    Args:
        labels: checked labels.
        outputs: the model's, for each image.
        class_weight, sample_weight: as of `Trainer.fit`.
        loss: the Trainer's.

    Raises:
        ValueError: an argument breaks its rule.
    """
    factors = []
    if class_weight is not None:
        factors.append(_class_weights(labels, outputs, class_weight, loss))
    if sample_weight is not None:
        factors.append(check_sample_weight(sample_weight, len(labels)))
    return (np.prod(factors, axis=0, dtype=np.float32),) if factors else ()


def check_sample_weight(sample_weight: Any, count: int) -> np.ndarray:
    """Weights of images as float32 `(count,)`; raises where they can't be."""
    try:
        weights = np.asarray(sample_weight)
    except ValueError:  # a list of parts of several shapes
        weights = np.asarray(sample_weight, object)
    if weights.shape != (count,) or weights.dtype.kind not in 'fiub':
        raise ValueError(
            f'`sample_weight` must be numbers of the shape ({count},), one for each image. '
            f'Received: {weights.dtype} of shape {weights.shape}'
        )
    weights = weights.astype(np.float32)
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise ValueError(
            '`sample_weight` must be finite and >= 0. '
            f'Received: from {weights.min()} to {weights.max()}'
        )
    return weights


def _class_weights(labels, outputs, class_weight, loss):
    classes = outputs
    if labels.ndim > 1 and kind_of(loss) == CLASSES:
        labels = labels.argmax(axis=1)
    elif labels.shape[1:] == (1,) and kind_of(loss) == BINARY:
        classes, labels = 2, np.round(labels[:, 0]).astype(np.int32)  # as Keras does
    elif labels.ndim > 1:
        raise ValueError(
            f'`class_weight` must be for labels of one class each, not for {type(loss).__name__} '
            f'of {outputs} outputs: pass `sample_weight`'
        )
    if not isinstance(class_weight, Mapping):
        raise ValueError(
            '`class_weight` must be a dict from classes to weights. '
            f'Received: class_weight={class_weight!r}'
        )
    table = np.ones(classes, np.float32)
    for label, weight in class_weight.items():
        if label not in range(classes):
            raise ValueError(
                f'`class_weight` must be of the classes in [0, {classes}). '
                f'Received: class_weight={{{label!r}: {weight!r}}}'
            )
        table[int(label)] = finite_number(f'class_weight[{label!r}]', weight, low=0)
    return table[labels]
