"""Cross-entropy with label smoothing, of integer labels and of class probabilities."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from fenwicks import _keras
from fenwicks._checks import finite_number
from fenwicks._errors import one_line
from fenwicks._typing import Config, Shape, Tensor

_AS_A_LOSS = (  # Keras's wrapper of a function casts the labels to the dtype of the logits
    '; compile takes losses.CrossEntropy(), since to a function Keras passes all labels as floats'
)
_BINARY = 'keras.losses.BinaryCrossentropy(from_logits=True)'


def cross_entropy(labels: Tensor, logits: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Computes the cross-entropy of labels and logits for each example, in float32.

    For loops of your own; Keras's `compile` takes `CrossEntropy`.

    ```
    target = one_hot(labels), or labels where they are probabilities
    target = (1 - label_smoothing) * target + label_smoothing / classes
    loss = -sum(target * log_softmax(logits) over classes)
    ```

    This is the definition of PyTorch's `cross_entropy` and of Keras's `CategoricalCrossentropy`
    (which takes no integer labels, as Keras's sparse loss takes no smoothing): the smoothed target
    of the true class is `1 - label_smoothing + label_smoothing / classes`.

    Args:
        labels: integer tensor of shape `(batch,)` (or any `logits.shape[:-1]`), each in
            [0, classes); or float tensor of the shape of the logits, the probabilities of the
            classes, which sum to 1 for each example. Values out of range are refused where they
            are known; in a compiled function they give a wrong loss, so check the data.
        logits: float tensor of shape `(batch, classes)`, of any precision, of two classes or more;
            finite, since infinite ones make the loss NaN: mask a class by -1e9, say.
        label_smoothing: float in [0, 1).

    Returns:
        A float32 tensor of shape `(batch,)`, not reduced.

    Raises:
        ValueError: `label_smoothing` is not in [0, 1), the labels are neither of the two forms, or
            no numbers, or there is only one class.

    Example:

    >>> import numpy as np
    >>> loss = cross_entropy(np.array([1]), np.zeros((1, 4)), label_smoothing=0.2)
    >>> print(f'{float(loss[0]):.4f}')  # log(4), whatever the smoothing
    1.3863
    >>> loss = cross_entropy(np.float32([[0.5, 0.5]]), np.float32([[0.0, np.log(3.0)]]))
    >>> print(f'{float(loss[0]):.4f}')  # (log(4) + log(4/3)) / 2
    0.8370

    Reference: Szegedy et al., "Rethinking the Inception architecture for computer vision", 2015.
    """
    label_smoothing = _check_label_smoothing(label_smoothing)
    labels = ops.convert_to_tensor(_as_numbers('labels', labels))
    logits = ops.cast(_as_numbers('logits', logits), 'float32')
    classes = _check_logits(logits)
    _check_form(labels, tuple(labels.shape), tuple(logits.shape), _AS_A_LOSS)
    _check_values(labels, classes)
    if _is_float(labels):
        targets = ops.cast(labels, 'float32')
    else:
        # One-hot and a fused kernel rather than a gather: it suits TPUs, and the backward pass is
        # softmax - target in one operation.
        targets = ops.one_hot(labels, classes, dtype='float32')
    if label_smoothing:
        targets = (1.0 - label_smoothing) * targets + label_smoothing / classes
    return ops.categorical_crossentropy(targets, logits, from_logits=True)


@keras.saving.register_keras_serializable(package='fenwicks')
class CrossEntropy(keras.losses.Loss):
    """`cross_entropy` as a Keras loss, for `compile` and `fit`.

    Computed in float32 whatever the precision of the model.

    Args:
        label_smoothing: float in [0, 1).
        reduction: as in `keras.losses.Loss`; by default the mean over the batch.
        name: string, the loss's name.

    Call arguments:
        y_true: integer labels of shape `(batch,)` or `(batch, 1)`; or probabilities of the classes,
            floats of shape `(batch, classes)`.
        y_pred: finite logits of shape `(batch, classes)`, not the output of a softmax.

    Returns:
        A float32 scalar, or shape `(batch,)` with `reduction=None`.

    Raises:
        ValueError: as in `cross_entropy`, or `y_pred` is the output of a softmax (which can't be
            known on JAX).

    Example:

    >>> import keras
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> model.compile(optimizer='sgd', loss=CrossEntropy(label_smoothing=0.2))
    """

    def __init__(
        self,
        label_smoothing: float = 0.0,
        reduction: str | None = 'sum_over_batch_size',
        name: str = 'cross_entropy',
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype='float32')
        self.label_smoothing = _check_label_smoothing(label_smoothing)

    def __call__(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> Tensor:
        y_true, y_pred = _as_numbers('y_true', y_true), _as_numbers('y_pred', y_pred)
        # Before Keras casts the labels to floats, after which nobody can tell what they were.
        if _keras.is_softmax_output(y_pred):
            raise ValueError(
                '`y_pred` must be logits: remove the softmax at the end of the model, or use '
                'keras.losses.SparseCategoricalCrossentropy. Received: the output of a softmax'
            )
        shape, logit_shape = tuple(y_true.shape), tuple(np.shape(y_pred))
        if not _is_float(y_true) and len(shape) == len(logit_shape) and shape[-1:] == (1,):
            shape = shape[:-1]
        _check_logits(y_pred)
        if not (_is_float(y_true) and _builds_for_devices()):
            _check_form(y_true, shape, logit_shape)
        return super().__call__(y_true, y_pred, sample_weight)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        # Class indices by now are floats too, often in a column: their shape tells.
        if len(y_true.shape) == len(y_pred.shape):
            if y_true.shape[-1] != 1:
                return cross_entropy(y_true, y_pred, self.label_smoothing)
            y_true = ops.squeeze(y_true, axis=-1)
        _check_whole(y_true)
        return cross_entropy(ops.cast(y_true, 'int32'), y_pred, self.label_smoothing)

    def get_config(self) -> Config:
        """Returns the constructor's arguments."""
        return {**super().get_config(), 'label_smoothing': self.label_smoothing}


def _builds_for_devices() -> bool:
    """Whether Keras is building a model under a strategy of `tf.distribute`.

    It does so with the mean of the devices' labels, which are floats by then.
    """
    if keras.backend.backend() != 'tensorflow':
        return False
    import tensorflow as tf

    return tf.distribute.in_cross_replica_context()


def _check_label_smoothing(label_smoothing: Any) -> float:
    return finite_number('label_smoothing', label_smoothing, low=0, below=1)


def _dtype(tensor: Tensor) -> str:
    return keras.backend.standardize_dtype(tensor.dtype)


def _as_numbers(name: str, values: Any) -> Tensor:
    """The values as a tensor, or the array that they are; raises where they are no numbers."""
    try:
        tensor = values if hasattr(values, 'shape') else ops.convert_to_tensor(values)
        if _dtype(tensor) != 'string':
            return tensor
    except (TypeError, ValueError):
        pass  # the message below says more
    shown = one_line(repr(values), 100)
    raise ValueError(f'`{name}` must be an array of numbers. Received: {name}={shown}')


def _is_float(tensor: Tensor) -> bool:
    return keras.backend.is_float_dtype(_dtype(tensor))


def _check_logits(logits: Tensor) -> int:
    """Returns the number of classes, or raises a ValueError where there is one at most."""
    shape = tuple(np.shape(logits))
    if not shape or shape[-1] is None or shape[-1] < 2:
        raise ValueError(
            '`logits` must have the shape (batch, classes), with two classes or more: for one '
            f'logit an example use {_BINARY}. Received: logits of shape {shape}'
        )
    return shape[-1]


def _check_form(labels: Tensor, shape: Shape, logit_shape: Shape, of_indices: str = '') -> None:
    """Raises unless labels of this shape are class indices or probabilities for the logits.

    `of_indices` is what else to say of floats in the shape of class indices.
    """
    received = f'Received: {_dtype(labels)} labels of shape {shape}, logits of shape {logit_shape}'
    if _is_float(labels):
        if not _agree(shape, logit_shape):
            more = of_indices if _agree(shape, logit_shape[:-1]) else ''
            raise ValueError(
                '`labels` must be integers, one class index for each example, or floats of the '
                "shape of the logits, a probability for each class; of other targets Keras's "
                f'MeanSquaredError or BinaryCrossentropy is the loss{more}. {received}'
            )
    elif 'int' not in _dtype(labels):
        raise ValueError(f'`labels` must be integers, one class index for each example. {received}')
    elif not _agree(shape, logit_shape[:-1]):
        hint = ', or be floats where they are one-hot' if _agree(shape, logit_shape) else ''
        raise ValueError(
            f'`labels` must have the shape of the logits without the last axis{hint}. {received}'
        )


def _agree(shape: Shape, other: Shape) -> bool:
    return len(shape) == len(other) and all(
        a == b or a is None or b is None for a, b in zip(shape, other, strict=True)
    )


def _known_values(labels: Tensor) -> np.ndarray:
    """The values of labels where they are known; within compiled functions none."""
    try:
        return np.asarray(ops.convert_to_numpy(labels))
    except (TypeError, ValueError, AttributeError, RuntimeError):  # traced, not computed
        return np.empty(0)


def _check_whole(labels: Tensor) -> None:
    """Raises where the values are known and are no class indices, in whatever dtype."""
    values = _known_values(labels)
    wrong = values[values != np.floor(values)]  # NaN is wrong, too
    if wrong.size:
        raise ValueError(
            '`labels` must be integers, one class index for each example, or floats of the shape '
            f'of the logits, a probability for each class. Received: {wrong[:10].tolist()}'
        )


def _check_values(labels: Tensor, classes: int) -> None:
    """Raises where the values are known, outside compiled functions, and can't be labels."""
    values = _known_values(labels)
    if not values.size:
        return
    if not _is_float(labels):
        if values.min() < 0 or values.max() >= classes:
            raise ValueError(
                f'`labels` must be in [0, {classes}), the number of logits. '
                f'Received: labels from {values.min()} to {values.max()}'
            )
        return
    values = values.astype('float64')
    sums = values.sum(axis=-1)
    wrong = ~(np.abs(sums - 1) < 0.01) | (values < 0).any(axis=-1)  # NaN is wrong, too
    if wrong.any():
        raise ValueError(
            '`labels` that are floats must be probabilities of classes: >= 0, with a sum of 1 for '
            f'each example; for labels that exclude none use {_BINARY}. '
            f'Received: {values[wrong][0].tolist()[:10]} with the sum {sums[wrong][0]:.6g}'
        )
