"""Grids of small images: a batch, its augmentations, mistakes, filters."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from fenwicks import augment as augmentations
from fenwicks import evaluate
from fenwicks._checks import positive_integer
from fenwicks._typing import Tensor
from fenwicks.plots.canvas import PLAIN, figure_of, prepare, shortened

_TILE = 0.9  # side of an image in a new figure, in inches
_LINE = 0.2  # height of a line of a caption, as a share of an image's


def images(
    images: ArrayLike,
    captions: Sequence[Any] | None = None,
    columns: int | None = None,
    *,
    axes: Axes | None = None,
    theme: str = 'light',
) -> Figure:
    """Draws a batch of images as a grid, row by row.

    Args:
        images: pixels 0 ... 255 as integers or floats, `(count, height, width, channels)` of 1 or
            3 channels. Normalised images must be denormalised first.
        captions: a text under each image, of one line or more, or a label, a number; `None` for
            none.
        columns: images in a row; `None` for a grid about as wide as high.
        axes, theme: see `fenwicks.plots`.

    Returns:
        The figure. Its axes hold an image and a text each, in order.

    Raises:
        ValueError: an argument breaks its rule.

    Example:

    >>> from fenwicks import data, plots
    >>> digits = data.load('digits')
    >>> names = [digits.class_names[label] for label in digits.test_labels[:20]]
    >>> figure = plots.images(digits.test_images[:20], names)
    >>> len(figure.axes[0].images)
    20
    """
    tiles = pixels('images', images)
    captions = [''] * len(tiles) if captions is None else [str(each) for each in captions]
    if len(captions) != len(tiles):
        raise ValueError(
            f'`captions` must be one for each of {len(tiles)} images. Received: {len(captions)}'
        )
    columns = math.ceil(math.sqrt(1.6 * len(tiles))) if columns is None else columns
    return draw_grid(tiles, captions, columns, axes, theme)[0]


def augmentation(
    images: ArrayLike,
    augment: Callable,
    mean: ArrayLike,
    std: ArrayLike,
    versions: int = 5,
    *,
    seed: tuple[int, int] = (0, 0),
    axes: Axes | None = None,
    theme: str = 'light',
) -> Figure:
    """Draws images as they are, and beside each what an augmentation makes of it, epoch by epoch.

    Args:
        images: uint8 `(count, height, width, channels)`.
        augment: `augment(images, seed)` on normalised float batches, as the `Trainer` takes it.
        mean, std: statistics for normalising, as `fenwicks.data.mean_std` returns them.
        versions: how many augmented images there are beside each.
        seed: of the draws, two integers.
        axes, theme: see `fenwicks.plots`.

    Returns:
        The figure: a row for each image.

    Raises:
        ValueError: an argument breaks its rule.

    Example:

    >>> from fenwicks import augment, data, plots
    >>> digits = data.load('digits')
    >>> mean, std = data.mean_std(digits.train_images)
    >>> figure = plots.augmentation(digits.train_images[:4], augment.random_crop, mean, std)
    >>> len(figure.axes[0].images)
    24
    """
    originals = pixels('images', images)
    versions = positive_integer('versions', versions)
    made = augmentations.preview(images, augment, mean, std, versions, seed)
    columns = [originals, *(pixels('augment', each) for each in made)]
    tiles = [column[row] for row in range(len(columns[0])) for column in columns]
    headings = ['original', *(f'epoch {number + 1}' for number in range(versions))]
    figure, (axes, _) = draw_grid(tiles, [''] * len(tiles), len(columns), axes, theme)
    axes.xaxis.set_visible(True)
    axes.xaxis.tick_top()
    axes.set_xticks([number + 0.5 for number in range(len(columns))], headings)
    axes.tick_params(axis='x', length=0)
    return figure


def mistakes(
    images: ArrayLike,
    labels: ArrayLike,
    logits: ArrayLike,
    class_names: Sequence[str],
    count: int = 12,
    *,
    axes: Axes | None = None,
    theme: str = 'light',
) -> Figure:
    """Draws the misclassified images with the highest predicted probabilities.

    Args:
        images: uint8 `(n, height, width, channels)`.
        labels: integers `(n,)`, the true classes.
        logits: floats `(n, classes)`, as `Trainer.predict` returns them.
        class_names: a name for each class.
        count: how many mistakes at most.
        axes, theme: see `fenwicks.plots`.

    Returns:
        The figure, the most confident mistake first; or the words 'no mistakes'.

    Raises:
        ValueError: an argument breaks its rule.
    """
    logits, labels = np.asarray(logits), np.asarray(labels)
    indices, probabilities = evaluate.most_confident_mistakes(logits, labels, count)
    for name, given, wanted in (
        ('images', np.asarray(images), len(labels)),
        ('class_names', class_names, logits.shape[1]),
    ):
        if len(given) != wanted:
            raise ValueError(
                f'`{name}` must be {wanted}, as the logits (images, classes) have. '
                f'Received: {len(given)}'
            )
    if not len(indices):
        axes, colours = prepare(axes, theme, (4, 1))
        axes.set_axis_off()
        axes.text(0.5, 0.5, 'no mistakes', ha='center', va='center', color=colours.ink)
        return figure_of(axes)
    guesses = logits.argmax(axis=1)
    captions = [
        f'{class_names[guesses[index]]} {100 * probability:.0f} %\nnot {class_names[labels[index]]}'
        for index, probability in zip(indices, probabilities, strict=True)
    ]
    tiles = pixels('images', np.asarray(images)[indices])
    return draw_grid(tiles, captions, 6, axes, theme)[0]


def filters(
    kernel: Tensor, columns: int | None = None, *, axes: Axes | None = None, theme: str = 'light'
) -> Figure:
    """Draws the filters of a first convolution as small pictures, in order.

    ```
    pixel = 127.5 * (1 + weight / max(abs(weights of the filter)))
    ```

    So mid-grey is 0, and each filter has its own scale: those of whitening differ a hundredfold.

    Args:
        kernel: floats `(height, width, channels, filters)` of 1 or 3 channels, such as
            `fenwicks.layers.whitening_filters` returns, or `model.get_layer('whitening').kernel`.
        columns: filters in a row; `None` for a grid about as wide as high.
        axes, theme: see `fenwicks.plots`.

    Returns:
        The figure.

    Raises:
        ValueError: an argument breaks its rule.

    Example:

    >>> import numpy as np
    >>> from fenwicks import plots
    >>> figure = plots.filters(np.eye(12).reshape(2, 2, 3, 12))
    >>> len(figure.axes[0].images)
    12
    """
    weights = np.asarray(keras.ops.convert_to_numpy(kernel), np.float64)
    is_drawable = weights.ndim == 4 and weights.size and weights.shape[2] in (1, 3)
    if not is_drawable or not np.isfinite(weights).all():
        raise ValueError(
            '`kernel` must be finite numbers (height, width, channels, filters) of 1 or 3 '
            f'channels. Received: shape={weights.shape}'
        )
    weights = weights.transpose(3, 0, 1, 2)
    largest = np.abs(weights).max(axis=(1, 2, 3), keepdims=True)
    tiles = np.rint(127.5 * (1 + weights / np.where(largest > 0, largest, 1))).astype(np.uint8)
    captions = [str(number) for number in range(len(tiles))]
    return images(tiles, captions, columns, axes=axes, theme=theme)


def pixels(name: str, images: ArrayLike) -> list[np.ndarray]:
    """The images as a list of uint8 `(height, width, 3)`.

    Raises:
        ValueError: they aren't images of pixels from 0 to 255.
    """
    array = np.asarray(images)
    if array.ndim != 4 or array.shape[-1] not in (1, 3) or not len(array):
        raise ValueError(
            f'`{name}` must be one or more images (count, height, width, channels) of 1 or 3 '
            f'channels. Received: shape={array.shape}'
        )
    if array.dtype != np.uint8:
        low, high = float(array.min()), float(array.max())
        in_unit_range = not np.issubdtype(array.dtype, np.integer) and 0 < high <= 1
        if not (-0.5 <= low <= high <= 255.5) or in_unit_range:  # also where one is NaN
            raise ValueError(
                f'`{name}` must be pixels from 0 to 255 (see `fenwicks.augment.denormalize`). '
                f'Received: numbers from {low:.4g} to {high:.4g}'
            )
        array = np.rint(np.clip(array, 0, 255)).astype(np.uint8)
    return list(np.repeat(array, 3, axis=-1) if array.shape[-1] == 1 else array)


def draw_grid(
    tiles: Sequence[np.ndarray],
    captions: Sequence[str],
    columns: int,
    axes: Axes | None,
    theme: str,
) -> tuple[Figure, tuple[Axes, list[AxesImage]]]:
    """Draws images with their captions; returns the figure, its axes and the images drawn.

    Raises:
        ValueError: `columns`, of which it makes no more than there are images, isn't a positive
            integer.
    """
    columns = min(positive_integer('columns', columns), len(tiles))
    lines = max(caption.count('\n') + 1 if caption else 0 for caption in captions)
    rows = math.ceil(len(tiles) / columns)
    pitch = 1.06 + (_LINE * lines + 0.06 if lines else 0)  # from one row to the next
    size = (0.2 + _TILE * 1.06 * columns, 0.3 + _TILE * pitch * rows)
    axes, colours = prepare(axes, theme, size)
    shown = []
    for number, (tile, caption) in enumerate(zip(tiles, captions, strict=True)):
        left, top = number % columns + 0.03, number // columns * pitch + 0.03
        extent = (left, left + 0.94, top + 0.94, top)
        shown.append(axes.imshow(tile, extent=extent, interpolation='none'))
        # Without a frame an image that is white at its border has no border on white paper.
        frame = Rectangle((left, top), 0.94, 0.94, fill=False, edgecolor=colours.faint, lw=0.6)
        axes.add_patch(frame)
        if caption:
            axes.text(
                left + 0.47,
                top + 0.97,
                '\n'.join(map(shortened, caption.split('\n'))),
                ha='center',
                va='top',
                fontsize=8,
                color=colours.ink,
                **PLAIN,
            )
    axes.set(xlim=(-0.03, columns), ylim=(rows * pitch, -0.03), aspect='equal')
    axes.xaxis.set_visible(False)
    axes.yaxis.set_visible(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure_of(axes), (axes, shown)
