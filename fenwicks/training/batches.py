"""A batch of a source of data, in the form in which it goes to the device."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

# In which type labels come to the device's form, by the kind of theirs.
_KINDS = {'i': np.int32, 'u': np.int32, 'f': np.float32, 'b': np.bool_}


class Batch(NamedTuple):
    """A batch of a source, as NumPy arrays.

    Attributes:
        images: uint8 or float32 `(batch, height, width, channels)`.
        labels: int32, bool or float32 `(batch, ...)`; int64 where a number needs it.
        weights: float32 `(batch,)`, of the images in the loss; `None` where the source has none.
        indices: int32 `(batch,)`, the places of the images in the data set; `None` where the source
            doesn't say.
    """

    images: np.ndarray
    labels: np.ndarray
    weights: np.ndarray | None = None
    indices: np.ndarray | None = None


class Form(NamedTuple):
    """What all batches of a stream have in common: dtype and shape of an image and of a label, and
    whether images have weights."""

    images: tuple[str, tuple[int, ...]]
    labels: tuple[str, tuple[int, ...]]
    weighted: bool

    @staticmethod
    def of(batch: Batch) -> Form:
        images, labels = batch.images, batch.labels
        return Form(
            (images.dtype.name, images.shape[1:]),
            (np.dtype(_KINDS[labels.dtype.kind]).name, labels.shape[1:]),
            batch.weights is not None,
        )

    def __str__(self) -> str:
        (images, image_shape), (labels, label_shape), weighted = self
        weights = ' with weights' * weighted
        return f'{images} images {image_shape} and {labels} labels {label_shape}{weights}'


def as_batch(batch: Any) -> Batch:
    """A `Batch` of what a source gives: uint8 stays, other images become float32.

    Raises:
        ValueError: it isn't `(images, labels)` or `(images, labels, sample_weight)` of a kind that
            the Trainer takes.
    """
    if not isinstance(batch, tuple | list) or len(batch) not in (2, 3):
        raise not_pairs(batch)
    images, labels, *weights = batch
    if labels is None:
        raise ValueError('`images` must give batches with labels. Received: images alone')
    images, labels = _images(images), np.asarray(labels)
    if labels.dtype.kind not in _KINDS or not labels.ndim:
        raise ValueError(
            '`images` must give batches with labels that are numbers, for each image. '
            f'Received: {labels.dtype} of shape {labels.shape}'
        )
    if labels.dtype.kind not in 'iu' or np.array_equal(labels, labels.astype(np.int32)):
        labels = labels.astype(_KINDS[labels.dtype.kind], copy=False)
    return Batch(images, labels, *[_weights(each) for each in weights if each is not None])


def images_of(batch: Any) -> np.ndarray:
    """The images of what a source gives, uint8 or float32: a tuple that begins with them, or them.

    Raises:
        ValueError: they are no images of a kind that the Trainer takes.
    """
    return _images(batch[0] if isinstance(batch, tuple | list) and batch else batch)


def _images(images):
    if isinstance(images, dict):
        raise ValueError(
            '`images` must give batches of one array of images each. '
            f'Received: a dict of {", ".join(map(str, images))}'
        )
    images = np.asarray(images)
    if images.ndim != 4 or not (images.dtype == np.uint8 or images.dtype.kind == 'f'):
        raise ValueError(
            '`images` must give batches of uint8 or float images (batch, height, width, channels). '
            f'Received: dtype={images.dtype}, shape={images.shape}'
        )
    return images if images.dtype == np.uint8 else images.astype(np.float32, copy=False)


def _weights(weights):
    weights = np.asarray(weights)
    return weights[:, 0] if weights.ndim == 2 and weights.shape[1] == 1 else weights


def not_pairs(received: Any) -> ValueError:
    """The error of a source that gives something else."""
    kind = type(received).__name__
    size = f' of {len(received)}' if isinstance(received, tuple | list | dict) else ''
    return ValueError(
        '`images` must give batches that are pairs (images, labels), or (images, labels, '
        'sample_weight); without `labels` beside it, it is taken for a source of batches. '
        f'Received: a {kind}{size}'
    )
