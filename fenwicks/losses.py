"""Losses on integer labels."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from fenwicks._checks import finite_number
from fenwicks._typing import Config, Tensor


def cross_entropy(labels: Tensor, logits: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of integer labels and logits, for each example, in float32.

    ```
    log_p = log_softmax(logits)
    loss = (1 - label_smoothing) * -log_p[label] + label_smoothing * mean(-log_p over classes)
    ```

    That is cross-entropy with the target `(1 - label_smoothing) * one_hot + label_smoothing /
    classes`: the definition of PyTorch's `cross_entropy` and of Keras's `CategoricalCrossentropy`
    (which wants one-hot labels; Keras's sparse loss has no smoothing). The true class's own share,
    `label_smoothing / classes`, is part of it.

    Args:
        labels: integer tensor of shape `(batch,)` (or any `logits.shape[:-1]`), each in
            [0, classes). A label out of range can't be seen in compiled code and gives a wrong
            loss: check the data.
        logits: float tensor of shape `(batch, classes)`, of any precision.
        label_smoothing: float in [0, 1).

    Returns:
        A float32 tensor of shape `(batch,)`: reduce it as you like.

    Raises:
        ValueError: if `label_smoothing` is not in [0, 1), if labels are not integers, or if their
            shape is not that of the logits without the last axis.

    Example:

    >>> import numpy as np
    >>> loss = cross_entropy(np.array([1]), np.zeros((1, 4)), label_smoothing=0.2)
    >>> print(f'{float(loss[0]):.4f}')  # log(4), at whatever smoothing
    1.3863

    Reference: Szegedy et al., "Rethinking the Inception architecture for computer vision", 2015.
    """
    label_smoothing = _check_label_smoothing(label_smoothing)
    labels = ops.convert_to_tensor(labels)
    logits = ops.cast(logits, 'float32')
    label_type = keras.backend.standardize_dtype(labels.dtype)
    if 'int' not in label_type:
        raise ValueError(
            f'`labels` must be integers, one class index for each example. Received: {label_type}'
        )
    label_shape, logit_shape = tuple(labels.shape), tuple(logits.shape)
    same = len(label_shape) == len(logit_shape) - 1 and all(
        a == b or a is None or b is None for a, b in zip(label_shape, logit_shape[:-1], strict=True)
    )
    if not same:
        raise ValueError(
            '`labels` must have the shape of the logits without the last axis. '
            f'Received: labels of shape {label_shape}, logits of shape {logit_shape}'
        )
    classes = logit_shape[-1]
    # One-hot and a fused kernel rather than a gather: the form that suits TPUs, and the backward
    # pass is softmax - target in one go.
    targets = ops.one_hot(labels, classes, dtype='float32')
    if label_smoothing:
        targets = (1.0 - label_smoothing) * targets + label_smoothing / classes
    return ops.categorical_crossentropy(targets, logits, from_logits=True)


def _check_label_smoothing(label_smoothing: Any) -> float:
    return finite_number('label_smoothing', label_smoothing, low=0, below=1)


@keras.saving.register_keras_serializable(package='fenwicks')
class CrossEntropy(keras.losses.Loss):
    """`cross_entropy` as a Keras loss, for `compile` and `fit`.

    Computed in float32 whatever the precision of the model.

    Args:
        label_smoothing: float in [0, 1).
        reduction: as in `keras.losses.Loss`; by default the mean over the batch.
        name: string, the loss's name.

    Call arguments:
        y_true: integer labels of shape `(batch,)` or `(batch, 1)`.
        y_pred: logits of shape `(batch, classes)`.

    Returns:
        A float32 scalar, or shape `(batch,)` with `reduction=None`.

    Raises:
        ValueError: as in `cross_entropy`, or if `label_smoothing` is not in [0, 1).

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

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        # Keras hands labels over as floats, and data sets often as a column.
        labels = ops.cast(y_true, 'int32')
        if len(labels.shape) == len(y_pred.shape) and labels.shape[-1] == 1:
            labels = ops.squeeze(labels, axis=-1)
        return cross_entropy(labels, y_pred, self.label_smoothing)

    def get_config(self) -> Config:
        """The constructor's arguments."""
        return {**super().get_config(), 'label_smoothing': self.label_smoothing}
