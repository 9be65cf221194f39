"""Pictures of classes: how many images each has, and which are taken for which."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from fenwicks.data.dataset import check_labels
from fenwicks.plots.canvas import PLAIN, figure_of, grid, prepare, shortened

# Up to so many classes the matrix has a name beside each row and a number in each cell.
_NAMED = 25

# The cells' colour, laid over the paper with at most this opacity: ink of either theme stays
# legible on it, and the figure fits any paper.
_CELL, _OPACITY = '#2f7de1', 0.6


def class_counts(
    labels: ArrayLike, class_names: Sequence[str], *, axes: Axes | None = None, theme: str = 'light'
) -> Figure:
    """Draws the number of images of each class as bars.

    Args:
        labels: integers `(count,)`, in [0, number of classes).
        class_names: a name for each class.
        axes, theme: see `fenwicks.plots`.

    Returns:
        The figure.

    Raises:
        ValueError: the labels break their rule.

    Example:

    >>> from fenwicks import data, plots
    >>> digits = data.load('digits')
    >>> figure = plots.class_counts(digits.train_labels, digits.class_names)
    >>> int(sum(bar.get_width() for bar in figure.axes[0].patches))
    1501
    """
    labels, classes = np.asarray(labels), _count(class_names)
    check_labels(labels, len(labels), classes)
    counts = np.bincount(labels, minlength=classes)
    axes, colours = prepare(axes, theme, (6.4, 0.8 + 0.24 * classes))
    bars = axes.barh(np.arange(classes), counts, color=colours.series[3], height=0.75)
    axes.bar_label(bars, [f'{count:,}' for count in counts], padding=3, color=colours.ink)
    axes.set_yticks(np.arange(classes), list(map(shortened, class_names)), **PLAIN)
    axes.set_ylim(classes - 0.4, -0.6)  # the first class on top
    axes.set_xlim(0, 1.12 * max(1, counts.max()))
    axes.set_xlabel('images')
    grid(axes, colours, 'x')
    return figure_of(axes)


def _count(class_names):
    if not len(class_names):
        raise ValueError('`class_names` must be one or more. Received: none')
    return len(class_names)


def confusion_matrix(
    labels: ArrayLike,
    predictions: ArrayLike,
    class_names: Sequence[str],
    *,
    axes: Axes | None = None,
    theme: str = 'light',
) -> Figure:
    """Draws how many images of each class were taken for each class.

    ```
    cell (i, j) = number of images with label i and prediction j
    opacity of the cell ~ sqrt(cell (i, j) / images with label i)
    ```

    The square root makes rare mistakes visible beside the diagonal. With more than 25 classes there
    is room for the colours only.

    Args:
        labels: integers `(count,)`, the true classes.
        predictions: integers `(count,)`: `logits.argmax(axis=1)`.
        class_names: a name for each class.
        axes, theme: see `fenwicks.plots`.

    Returns:
        The figure.

    Raises:
        ValueError: labels or predictions break their rule.

    Example:

    >>> import numpy as np
    >>> from fenwicks import plots
    >>> figure = plots.confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), ['cat', 'dog'])
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['1', '1', '1']
    """
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    classes = _count(class_names)
    check_labels(labels, len(labels), classes)
    check_labels(predictions, len(labels), classes)
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (labels, predictions), 1)

    named = classes <= _NAMED
    side = 1.6 + 0.42 * classes if named else 6.0
    axes, colours = prepare(axes, theme, (side, side))
    cells = np.empty((classes, classes, 4))
    cells[:] = to_rgba(_CELL)
    cells[..., 3] = _OPACITY * np.sqrt(counts / np.maximum(1, counts.sum(axis=1, keepdims=True)))
    axes.imshow(cells, interpolation='none')
    axes.set(xlabel='prediction', ylabel='label')
    if named:
        axes.set_xticks(
            range(classes), list(map(shortened, class_names)), rotation=45, ha='right', **PLAIN
        )
        axes.set_yticks(range(classes), list(map(shortened, class_names)), **PLAIN)
        axes.set_xticks(np.arange(1, classes) - 0.5, minor=True)
        axes.set_yticks(np.arange(1, classes) - 0.5, minor=True)
        axes.grid(which='minor', color=colours.faint, linewidth=0.5)
        axes.tick_params(which='both', length=0)
        for row, column in zip(*np.nonzero(counts), strict=True):
            axes.text(
                column,
                row,
                str(counts[row, column]),
                ha='center',
                va='center',
                fontsize=8,
                color=colours.ink,
                weight='bold' if row == column else 'normal',
            )
    for spine in axes.spines.values():
        spine.set_visible(True)
    return figure_of(axes)
