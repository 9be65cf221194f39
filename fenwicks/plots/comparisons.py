"""Pictures of many runs: accuracy against time, and what each trick is worth."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fenwicks.ablation import Row
from fenwicks.plots.canvas import PLAIN, figure_of, grid, label_of, legend, marker_style, prepare


def accuracy_against_time(
    runs: Iterable[Mapping],
    target: float | None = None,
    *,
    axes: Axes | None = None,
    theme: str = 'light',
) -> Figure:
    """Draws test accuracy against seconds of training, a point for each recipe.

    ```
    point: means over the runs of a recipe;  bars: +- 2 * standard error, where there are several
    ```

    Args:
        runs: dicts with `recipe`, `test_accuracy` (a fraction; runs where it is `None` diverged
            and are left out) and `train_seconds`.
        target: an accuracy to mark, as a fraction; `None` for none.
        axes, theme: see `fenwicks.plots`.

    Returns:
        The figure.

    Raises:
        ValueError: a run lacks one of the keys, or no run is left.

    Example:

    >>> from fenwicks import plots
    >>> run = {'recipe': 'page24', 'test_accuracy': 0.94, 'train_seconds': 75}
    >>> figure = plots.accuracy_against_time([run], target=0.94)
    >>> figure.axes[0].get_xlabel()
    'training, s'
    """
    recipes: dict[str, list] = {}
    for run in runs:
        missing = {'recipe', 'test_accuracy', 'train_seconds'} - run.keys()
        if missing:
            raise ValueError(
                '`runs` must have a recipe, a test_accuracy and train_seconds each. '
                f'Received: a run without {", ".join(sorted(missing))}'
            )
        if run['test_accuracy'] is not None:
            point = run['train_seconds'], 100 * run['test_accuracy']
            recipes.setdefault(run['recipe'], []).append(point)
    if not recipes:
        raise ValueError('`runs` must hold a run that came to its end. Received: none')
    axes, colours = prepare(axes, theme, (6.4, 3.8))
    for number, (name, points) in enumerate(recipes.items()):
        (seconds, accuracy), errors = np.mean(points, axis=0), _errors(points)
        axes.errorbar(
            seconds,
            accuracy,
            xerr=errors and errors[0],
            yerr=errors and errors[1],
            label=label_of(f'{name} (n = {len(points)})'),
            linestyle='none',
            capsize=3,
            **marker_style(number, colours),
        )
    if target is not None:
        axes.axhline(100 * target, color=colours.ink, linewidth=0.8, linestyle=':')
        axes.annotate(
            f'{100 * target:g} %',
            (1, 100 * target),
            xycoords=('axes fraction', 'data'),
            ha='right',
            va='bottom',
            color=colours.ink,
        )
    axes.set_xlim(left=0)
    axes.set_xlabel('training, s')
    axes.set_ylabel('test accuracy, %')
    grid(axes, colours)
    legend(axes, colours, loc='best')
    return figure_of(axes)


def _errors(points):
    """Two standard errors of the mean of seconds and of accuracies; None of a single run."""
    if len(points) == 1:
        return None
    return list(2 * np.std(points, axis=0, ddof=1) / math.sqrt(len(points)))


def differences(rows: Sequence[Row], *, axes: Axes | None = None, theme: str = 'light') -> Figure:
    """Draws an ablation: how far each trick moves the test accuracy, with two standard errors.

    Full markers are differences larger than their error, crosses those that aren't. Rows of presets
    and of tricks whose runs all diverged are left out.

    Args:
        rows: as `fenwicks.ablation.summarize` returns them.
        axes, theme: see `fenwicks.plots`.

    Returns:
        The figure, with a line for each trick.

    Raises:
        ValueError: no row is left.

    Example:

    >>> from fenwicks import ablation, plots
    >>> common = {'epochs': 24, 'train_seconds': 9}
    >>> plain = [{'recipe': 'page24', 'test_accuracy': a, **common} for a in (0.6, 0.62)]
    >>> celu = [{'recipe': 'page24+celu', 'test_accuracy': a, **common} for a in (0.7, 0.72)]
    >>> arms = [ablation.Arm('page24'), ablation.Arm('page24', added='celu')]
    >>> figure = plots.differences(ablation.summarize(arms, plain + celu))
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ['page24+celu']
    """
    rows = [row for row in rows if row.arm.trick and not math.isnan(row.difference)]
    if not rows:
        raise ValueError('`rows` must hold a trick whose runs came to an end. Received: none')
    axes, colours = prepare(axes, theme, (7, 1.3 + 0.28 * len(rows)))
    added, removed = colours.series[3], colours.series[2]
    for place, row in enumerate(rows):
        axes.errorbar(
            row.difference,
            place,
            xerr=row.error if math.isfinite(row.error) else None,
            marker=('o' if row.arm.added else 's') if row.resolved else 'x',
            linestyle='none',
            capsize=3,
            color=added if row.arm.added else removed,
        )
    axes.set_yticks(range(len(rows)), [row.arm.name for row in rows], **PLAIN)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.axvline(0, color=colours.ink, linewidth=0.8)
    axes.set_xlabel('difference in test accuracy, points, with two standard errors')
    grid(axes, colours, 'x')
    kinds = [
        Line2D([], [], color=added, marker='o', linestyle='none', label='trick added'),
        Line2D([], [], color=removed, marker='s', linestyle='none', label='trick taken away'),
        Line2D([], [], color=colours.ink, marker='x', linestyle='none', label='within its error'),
    ]
    legend(axes, colours, handles=kinds, loc='upper left', bbox_to_anchor=(1, 1))
    return figure_of(axes)
