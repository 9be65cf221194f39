"""Exact metrics over a whole set of images."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Metrics:
    """What a model scores on a set of images.

    Attributes:
        loss: mean cross-entropy in nats, without label smoothing.
        accuracy: share of the images whose largest logit is their label's, in [0, 1].
    """

    loss: float
    accuracy: float


def predict_logits(predict, images, batch_size):
    """Logits of all images, in order, the last partial batch included.

    Args:
        predict: from a uint8 batch `(batch_size, height, width, channels)` to its logits.
        images: uint8 `(count, height, width, channels)`.
        batch_size: the one size of batch that `predict` sees (the count, if that is less); the
            last batch is filled up with copies of its last image, so that a compiled program need
            not be compiled again.

    Returns:
        float32 `(count, classes)`.

    Raises:
        ValueError: there is no image, or `batch_size` is not positive.
    """
    if not len(images):
        raise ValueError(f'`images` must not be empty. Received: shape={np.shape(images)}')
    if batch_size < 1:
        raise ValueError(f'`batch_size` must be positive. Received: batch_size={batch_size}')
    batch_size = min(batch_size, len(images))
    logits = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        filling = batch_size - len(batch)
        if filling:
            batch = np.concatenate([batch, np.repeat(batch[-1:], filling, axis=0)])
        logits.append(predict(batch)[: batch_size - filling])
    return np.concatenate(logits)


def metrics(logits, labels) -> Metrics:
    """Mean cross-entropy and accuracy of float logits `(count, classes)`, in float64."""
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    picked = log_probabilities[np.arange(len(labels)), labels]
    return Metrics(float(-picked.mean()), float((logits.argmax(axis=1) == labels).mean()))


def evaluate(predict, images, labels, batch_size=500) -> Metrics:
    """Loss and accuracy of `predict` over all images; see `predict_logits` for the arguments."""
    return metrics(predict_logits(predict, images, batch_size), labels)
