"""Exact metrics over a whole set of images, and test-time augmentation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from fenwicks import _forward, _keras
from fenwicks._checks import finite_number, instance, positive_integer, sequence
from fenwicks._typing import ImageFunction, Tensor
from fenwicks.data.dataset import check_labels


@dataclasses.dataclass(frozen=True, repr=False)
class Metrics:
    """What a model scores on a set of images.

    Attributes:
        loss: mean of the loss without label smoothing; cross-entropy in nats by default.
        accuracy: share of right answers in [0, 1], where the largest logit is the label's; `None`
            where no answer is right or wrong.
        others: other metrics by name.
    """

    loss: float
    accuracy: float | None
    others: dict[str, Any] = dataclasses.field(default_factory=dict, hash=False)

    def __repr__(self):
        shown = {'loss': self.loss, 'accuracy': self.accuracy, **self.others}
        parts = [f'{name}={value!r}' for name, value in shown.items() if value is not None]
        return f'Metrics({", ".join(parts)})'


def unchanged(images: Tensor) -> Tensor:
    """The images as they are."""
    return images


def mirror(images: Tensor) -> Tensor:
    """Images `(batch, height, width, channels)` with left and right exchanged."""
    return ops.flip(images, axis=2)


def up_left(images: Tensor) -> Tensor:
    """Images moved by one pixel up and left; rows and columns that come in are reflections."""
    return _padded(images)[:, 2:, 2:]


def down_right(images: Tensor) -> Tensor:
    """Images moved by one pixel down and right; rows and columns that come in are reflections."""
    return _padded(images)[:, :-2, :-2]


def _padded(images):
    if 1 in images.shape[1:3]:
        raise ValueError(
            '`images` must have sides of at least 2 pixels, to be reflected. '
            f'Received: shape={tuple(images.shape)}'
        )
    return ops.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode='reflect')


def _mirror_up_left(images):
    return mirror(up_left(images))


def _mirror_down_right(images):
    return mirror(down_right(images))


@dataclasses.dataclass(frozen=True)
class TTA:
    """Test-time augmentation: a model's logits for several views of an image, as one.

    ```
    logits = sum(weights[v] * model(transforms[v](images)) for v in range(len(transforms)))
    ```

    With a `margin` an image whose plain prediction is certain keeps its plain logits, and no other
    view of it is computed: `margin` or more lies between its two largest probabilities.

    Args:
        name: what it is called, in recipes and results.
        transforms: functions from a batch of normalised images
            `(batch, height, width, channels)` to one of the same shape, in `keras.ops`; the first
            is `unchanged`, so that the plain logits are among those of the views.
        weights: a share for each view, adding up to 1.
        margin: above 0: from which difference of the two largest of the plain probabilities on a
            prediction is certain; infinite if no prediction is.

    Raises:
        ValueError: an argument isn't what it is said to be, the first transform isn't `unchanged`,
            or the weights don't fit.

    Example:

    >>> FLIP.combine([np.array([[2.0, 4.0]]), np.array([[0.0, 6.0]])])
    array([[1., 5.]])
    """

    name: str
    transforms: tuple[ImageFunction, ...] = dataclasses.field(repr=False)  # of functions
    weights: tuple[float, ...]
    margin: float = math.inf

    def __post_init__(self):
        instance('name', self.name, str, 'a text')
        if self.margin != math.inf:
            object.__setattr__(self, 'margin', finite_number('margin', self.margin, above=0))
        for name, of in (('transforms', 'functions'), ('weights', 'numbers')):  # as tuples
            object.__setattr__(self, name, sequence(name, getattr(self, name), of))
        weights = tuple(finite_number('weights', weight) for weight in self.weights)
        object.__setattr__(self, 'weights', weights)
        if self.transforms[:1] != (unchanged,) or not all(map(callable, self.transforms)):
            raise ValueError(
                '`transforms` must be functions, the first of which is `unchanged`. '
                f'Received: transforms={self.transforms!r}'
            )
        if len(self.weights) != len(self.transforms) or abs(sum(self.weights) - 1) > 1e-6:
            raise ValueError(
                f'`weights` must be one for each of the {len(self.transforms)} transforms and add '
                f'up to 1. Received: weights={self.weights}'
            )

    def combine(self, view_logits: Tensor) -> Tensor:
        """The logits `(count, classes)` of all views: `view_logits` is `(views, count, classes)`.

        Raises:
            ValueError: there are more or fewer views than weights.
        """
        if len(view_logits) != len(self.weights):
            received = f'Received: {len(view_logits)} views'
            raise ValueError(f'`view_logits` must be of {len(self.weights)} views. {received}')
        return sum(weight * each for weight, each in zip(self.weights, view_logits, strict=True))

    def is_doubtful(self, logits: Tensor) -> Tensor:
        """Whether the other views of images count, bools `(count,)`.

        Args:
            logits: of the images as they are, floats `(count, classes)`; or their softmax: rows
                that sum to 1 within 0.01, none negative. A single output must be a logit.
        """
        logits = ops.cast(logits, 'float32')
        if logits.shape[-1] == 1:  # of two classes, whose probabilities differ by 2 * sigmoid - 1
            return ops.abs(ops.tanh(logits[:, 0] / 2)) < self.margin
        are_shares = ops.all(logits >= 0, -1) & (ops.abs(ops.sum(logits, -1) - 1) < 0.01)
        largest, _ = ops.top_k(ops.where(are_shares[:, None], logits, ops.softmax(logits)), 2)
        return largest[:, 0] - largest[:, 1] < self.margin


NONE = TTA('none', (unchanged,), (1.0,))
FLIP = TTA('flip', (unchanged, mirror), (0.5, 0.5))
# Half of it the image and its mirror image, the other half two translations and theirs.
FLIP_TRANSLATE = TTA(
    'flip_translate',
    (unchanged, mirror, up_left, _mirror_up_left, down_right, _mirror_down_right),
    (0.25, 0.25, 0.125, 0.125, 0.125, 0.125),
)
DOUBTFUL = dataclasses.replace(FLIP_TRANSLATE, name='doubtful', margin=0.5)
_A_TTA = 'an evaluate.TTA, such as evaluate.FLIP'
TTAS = {tta.name: tta for tta in (NONE, FLIP, FLIP_TRANSLATE, DOUBTFUL)}


def tta_model(model: keras.Model, tta: TTA) -> keras.Model:
    """A model that applies test-time augmentation, for stock Keras to evaluate or save.

    Args:
        model: from images `(batch, height, width, channels)`, normalised or to be normalised by
            its own layers, to logits `(batch, classes)`; it must know its input shape.
        tta: `FLIP`, `FLIP_TRANSLATE` or another.

    Returns:
        A `keras.Model` with the same inputs, whose outputs are the combined float32 logits. With a
        `margin` it computes all views, and uses them for doubtful images only.

    Raises:
        ValueError: no `TTA`, a model that isn't of images to logits, or channels first.

    Example:

    ```python
    better = fenwicks.evaluate.tta_model(model, fenwicks.evaluate.FLIP)
    better.compile(loss=model.loss, metrics=['accuracy'])
    better.evaluate(test_images, test_labels)
    ```
    """
    instance('tta', tta, TTA, _A_TTA)
    instance('model', model, keras.Model, 'a Keras model')
    _keras.check_channels_last('tta_model', model)
    images = _keras.input_like_that_of(model, name='images')
    outputs = [keras.tree.flatten(model(view(images))) for view in tta.transforms]  # lists, dicts
    views = [ops.cast(output, 'float32') for (output,) in outputs]
    logits = tta.combine(views)
    if not math.isinf(tta.margin):
        logits = ops.where(ops.expand_dims(tta.is_doubtful(views[0]), -1), logits, views[0])
    return keras.Model(images, logits, name=f'{model.name}_{tta.name}')


def predict_logits(predict: _forward.Predict, images: np.ndarray, batch_size: int) -> np.ndarray:
    """Logits of all images, in order, the last partial batch included.

    Args:
        predict: from a uint8 batch `(batch_size, height, width, channels)` to its logits, or to
            those of several views of it, `(views, batch_size, classes)`.
        images: uint8 `(count, height, width, channels)`.
        batch_size: the one size of batch that `predict` sees (the count, if that is less); the
            last batch is filled up with copies of its last image, so that a compiled program need
            not be compiled again.

    Returns:
        An array `(count, classes)`, or `(views, count, classes)`.

    Raises:
        ValueError: there is no image, `batch_size` is no positive integer, or `predict` returns
            something else.
    """
    size, batches = _forward.of_one_size(_forward.slices(images, batch_size))
    return np.concatenate([_forward.filled(predict, batch, size) for batch in batches], axis=-2)


def predict_views(
    predict: Callable[[np.ndarray, Sequence[ImageFunction]], np.ndarray],
    images: np.ndarray | Iterator[np.ndarray],
    batch_size: int,
    tta: TTA,
) -> np.ndarray:
    """Logits `(views, count, classes)` of all views of all images, for `tta.combine`.

    Where `tta` has a `margin`, those of views that aren't computed are the plain ones.

    Args:
        predict: from a batch and some of the `transforms` to the logits of these views,
            `(views, batch_size, classes)`.
        images: as of `predict_logits`, or an iterator of parts of them, the first of which is as
            large as the batches that `predict` sees.
        batch_size: as of `predict_logits`, where `images` is an array.
        tta: which views.

    Raises:
        ValueError: as of `predict_logits`, or `tta` is something else.
    """
    instance('tta', tta, TTA, _A_TTA)
    parts = images if isinstance(images, Iterator) else _forward.slices(images, batch_size)
    size, batches = _forward.of_one_size(parts)

    def logits_of(batch, transforms):
        views = len(transforms)
        return _forward.filled(lambda images: predict(images, transforms), batch, size, views)

    if math.isinf(tta.margin):
        return np.concatenate([logits_of(each, tta.transforms) for each in batches], axis=1)
    plain, doubtful = [], []

    def doubtful_images():
        for batch in batches:
            plain.append(logits_of(batch, tta.transforms[:1]))
            doubtful.append(ops.convert_to_numpy(tta.is_doubtful(plain[-1][0])))
            yield batch[doubtful[-1]]

    again = _forward.rebatched(doubtful_images(), size)
    others = [logits_of(each, tta.transforms[1:]) for each in again if len(tta.transforms) > 1]
    views = np.repeat(np.concatenate(plain, axis=1), len(tta.transforms), axis=0)
    if others:
        views[1:, np.concatenate(doubtful)] = np.concatenate(others, axis=1)
    return views


def metrics(logits: np.ndarray, labels: np.ndarray) -> Metrics:
    """Mean cross-entropy and accuracy of float logits `(count, classes)`, in float64.

    Logits that are NaN make the loss NaN, and count as wrong.

    Raises:
        ValueError: the labels aren't integers `(count,)` in [0, classes), or there is no image.
    """
    logits, labels = _forward.checked_logits(logits), np.asarray(labels)
    check_labels(labels, *logits.shape)
    if not len(labels):
        raise ValueError('`logits` must not be empty. Received: those of 0 images')
    shifted = _forward.below_largest(logits)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    picked = log_probabilities[np.arange(len(labels)), labels]
    right = (logits.argmax(axis=1) == labels) & ~np.isnan(picked)
    return Metrics(float(0 - picked.mean()), float(right.mean()))  # 0 - 0 is no -0.0


def score(
    predict: _forward.Predict, images: np.ndarray, labels: np.ndarray, batch_size: int = 500
) -> Metrics:
    """Loss and accuracy of `predict` over all images; see `predict_logits` for the arguments."""
    return metrics(predict_logits(predict, images, batch_size), labels)


def probabilities(logits: np.ndarray) -> np.ndarray:
    """The softmax of float logits `(count, classes)`, in float64.

    ```
    probabilities = exp(logits) / sum(exp(logits))    # over the classes of each row
    ```

    Raises:
        ValueError: the logits have another shape.

    Example:

    >>> probabilities(np.array([[0.0, 0.0], [1000.0, 0.0]]))
    array([[0.5, 0.5],
           [1. , 0. ]])
    """
    shares = np.exp(_forward.below_largest(_forward.checked_logits(logits)))
    return shares / shares.sum(axis=1, keepdims=True)


def most_confident_mistakes(
    logits: np.ndarray, labels: np.ndarray, count: int = 12
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the wrong predictions to which the model gives the highest probabilities, none NaN.

    Args:
        logits: floats `(n, classes)`.
        labels: integers `(n,)` in [0, classes).
        count: how many to return at most.

    Returns:
        Their positions, highest probability first, and the probabilities, `(k,)` each, k <= count.

    Raises:
        ValueError: the labels, or `count`, break their rule.

    Example:

    >>> logits = np.array([[0.0, 3.0], [5.0, 0.0], [0.0, 1.0]])
    >>> positions, probabilities = most_confident_mistakes(logits, np.array([0, 0, 0]))
    >>> positions.tolist(), probabilities.round(2).tolist()
    ([0, 2], [0.95, 0.73])
    """
    count = positive_integer('count', count)
    logits, labels = _forward.checked_logits(logits), np.asarray(labels)
    check_labels(labels, *logits.shape)
    confidence = probabilities(logits).max(axis=1)
    wrong = np.flatnonzero((logits.argmax(axis=1) != labels) & ~np.isnan(confidence))
    positions = wrong[np.argsort(-confidence[wrong], kind='stable')[:count]]
    return positions, confidence[positions]
