"""Curves: the schedule, a training's course, the search for a learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fenwicks._checks import positive_integer
from fenwicks.plots.canvas import PLAIN, figure_of, grid, label_of, legend, line_style, prepare

History: TypeAlias = Sequence[Mapping] | keras.callbacks.History

# Schedules are read at every step up to here, at as many steps of longer trainings.
_POINTS = 1000

_METRICS = {
    'train_loss': 'loss on training images',
    'train_accuracy': 'accuracy on training images',
    'val_loss': 'validation loss',
    'val_accuracy': 'validation accuracy',
    'test_loss': 'test loss',
    'test_accuracy': 'test accuracy',
    'learning_rate': 'learning rate',
}


def schedule(
    schedule: Callable | Mapping[str, Callable],
    total_steps: int,
    steps_per_epoch: int | None = None,
    *,
    label: str = 'learning rate',
    axes: Axes | None = None,
    theme: str = 'light',
) -> Figure:
    """Draws the value of a schedule at each step of a training.

    Args:
        schedule: a function of the step, such as `fenwicks.schedules.OneCycle` or any of Keras's;
            or several, by the names that go into the legend.
        total_steps: number of steps in the training: the last value shown is that at
            `total_steps - 1`.
        steps_per_epoch: number of steps in an epoch, for an axis in epochs; `None` for steps.
        label: what the schedule is of.
        axes, theme: see `fenwicks.plots`.

    Returns:
        The figure.

    Raises:
        ValueError: a number of steps isn't a positive integer, or there is no function.

    Example:

    >>> from fenwicks import plots, schedules
    >>> one_cycle = schedules.OneCycle(0.4, total_steps=240, warmup_steps=50)
    >>> figure = plots.schedule(one_cycle, total_steps=240, steps_per_epoch=10)
    >>> figure.axes[0].get_xlabel()
    'epoch'
    """
    total_steps = positive_integer('total_steps', total_steps)
    unit = 1 if steps_per_epoch is None else positive_integer('steps_per_epoch', steps_per_epoch)
    axes, colours = prepare(axes, theme, (6.4, 3.2))
    several = schedule if isinstance(schedule, Mapping) else {label: schedule}
    for function in several.values():
        if not callable(function):
            raise ValueError(
                f'`schedule` must be a function of the step, or several. Received: {function!r}'
            )
    for number, (name, function) in enumerate(several.items()):
        steps = _steps(function, total_steps)
        values = [np.asarray(keras.ops.convert_to_numpy(function(step))).item() for step in steps]
        style = {'marker': _marker(steps), **line_style(number, colours)}
        axes.plot(np.asarray(steps) / unit, values, label=label_of(name), **style)
    axes.set_xlabel('step' if steps_per_epoch is None else 'epoch')
    axes.set_ylabel(label, **PLAIN)
    axes.set_ylim(bottom=min(0.0, axes.dataLim.y0))
    grid(axes, colours)
    if len(several) > 1:
        legend(axes, colours)
    return figure_of(axes)


def _marker(points):
    """A mark for each of few points: a line of one can't be seen."""
    return '.' if len(points) < 30 else ''


def _steps(function, total_steps):
    """The steps at which a schedule is read: all of few, some of many, corners always."""
    steps = set(np.linspace(0, total_steps - 1, min(total_steps, _POINTS)).round().astype(int))
    corners = [math.floor(step) for step, _ in getattr(function, 'knots', ())]
    steps |= {near for corner in corners for near in (corner, corner + 1)}
    return sorted(int(step) for step in steps if 0 <= step < total_steps)


def learning_curves(
    runs: History | Mapping[str, History | Sequence[History]],
    metrics: Sequence[str] = ('train_accuracy',),
    *,
    axes: Axes | None = None,
    theme: str = 'light',
) -> Figure:
    """Draws metrics epoch by epoch, of one run or of many.

    ```
    line: mean over the runs of a name;  band: mean +- 2 * standard error, where there are several
    ```

    Accuracies are drawn in percent. Those on training images are taken while the network trains, on
    augmented images, so they may lie below those on test images.

    Args:
        runs: a history: the `History` that `fit` returns, of the Trainer or of Keras, or
            `trainer.records`, a dict for each epoch with the key `epoch` and a key for each metric;
            or histories, or sequences of histories, by the names that go into the legend.
        metrics: names in the history, all accuracies or none: `loss` and `accuracy` in a `History`
            are `train_loss` and `train_accuracy` in records.
        axes, theme: see `fenwicks.plots`.

    Returns:
        The figure.

    Raises:
        ValueError: there is no run, or something that isn't a history; no metric, or one that the
            runs lack; accuracies are mixed with other metrics; or the runs of a name differ in
            their epochs.

    Example:

    >>> from fenwicks import plots
    >>> history = [{'epoch': n + 1, 'train_loss': 2.0 / (n + 1)} for n in range(5)]
    >>> figure = plots.learning_curves(history, ['train_loss'])
    >>> figure.axes[0].lines[0].get_ydata()[0].item()
    2.0
    """
    groups = _groups(runs)
    metrics = [metrics] if isinstance(metrics, str) else list(metrics)
    _check_metrics(groups, metrics)
    axes, colours = prepare(axes, theme, (6.4, 3.6))
    number = 0
    for name, histories in groups.items():
        epochs = [record['epoch'] for record in histories[0]]
        for metric in metrics:
            values = np.array(
                [[record[metric] for record in history] for history in histories], np.float64
            ) * (100 if _is_accuracy(metric) else 1)
            style = line_style(number, colours)
            words = _METRICS.get(metric, metric)
            label = ', '.join([name] * bool(name) + [words] * (len(metrics) > 1)) or words
            mean = values.mean(axis=0)
            axes.plot(epochs, mean, label=label_of(label), marker=_marker(epochs), **style)
            if len(histories) > 1:
                error = 2 * values.std(axis=0, ddof=1) / math.sqrt(len(histories))
                axes.fill_between(
                    epochs, mean - error, mean + error, color=style['color'], alpha=0.2, linewidth=0
                )
            number += 1
    axes.set_xlabel('epoch')
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    words = _METRICS.get(metrics[0], metrics[0]) if len(metrics) == 1 else _shared(metrics)
    axes.set_ylabel(f'{words}, %' if _is_accuracy(metrics[0]) else words, **PLAIN)
    grid(axes, colours)
    if number > 1:
        legend(axes, colours)
    return figure_of(axes)


def _groups(runs):
    """Lists of histories by name; the single history of no name has the name ''."""
    if not isinstance(runs, Mapping):
        runs = {'': runs}
    groups = {}
    for name, value in runs.items():
        is_one = isinstance(value, keras.callbacks.History) or _holds_records(value)
        groups[str(name)] = [
            _records(each) for each in ([value] if is_one else _several(name, value))
        ]
    if not groups or not all(group and all(group) for group in groups.values()):
        raise ValueError('`runs` must hold a history of an epoch or more. Received: none')
    for name, histories in groups.items():
        epochs = {tuple(record['epoch'] for record in history) for history in histories}
        if len(epochs) > 1:
            spans = ', '.join(f'{numbers[0]} to {numbers[-1]}' for numbers in sorted(epochs))
            raise ValueError(
                f'`runs` of one name must have the same epochs. Received: {name!r} with runs of '
                f'the epochs {spans}'
            )
    return groups


def _several(name, value):
    """The histories of a name, if they are histories."""
    value = list(value) if isinstance(value, Iterable) else [value]
    for each in value:
        is_history = isinstance(each, keras.callbacks.History) or _holds_records(each)
        if not (is_history or (isinstance(each, list) and not each)):  # no epoch: refused below
            raise ValueError(
                '`runs` must hold histories: what `fit` returns, or `trainer.records`. Received: '
                f'{type(each).__name__}{f" under {name!r}" if name else ""}'
            )
    return value


def _holds_records(value):
    """Whether this is a history as a dict for each epoch."""
    return (
        isinstance(value, Sequence)
        and bool(value)
        and all(isinstance(each, Mapping) and 'epoch' in each for each in value)
    )


def _records(history):
    """A dict an epoch; of a `History` those names that each epoch has a value of."""
    if not isinstance(history, keras.callbacks.History):
        return history
    lists = {k: v for k, v in history.history.items() if len(v) == len(history.epoch)}
    return [
        {'epoch': epoch + 1, **{name: values[place] for name, values in lists.items()}}
        for place, epoch in enumerate(history.epoch)
    ]


def _check_metrics(groups, metrics):
    records = [record for group in groups.values() for history in group for record in history]
    known = set.intersection(*(set(record) for record in records)) - {'epoch'}
    unknown = [metric for metric in metrics if metric not in known]
    if unknown or not metrics:
        raise ValueError(
            f'`metrics` must be among those of all runs: {", ".join(sorted(known))}. '
            f'Received: {", ".join(unknown) or "none"}'
        )
    if len({_is_accuracy(metric) for metric in metrics}) > 1:
        raise ValueError(
            '`metrics` must be all accuracies or none: they share an axis. '
            f'Received: {", ".join(metrics)}'
        )


def _is_accuracy(metric):
    return metric.endswith('accuracy')


def _shared(metrics):
    """What several metrics are together: accuracies, losses, or neither."""
    for word in ('accuracy', 'loss'):
        if all(metric.endswith(word) for metric in metrics):
            return word
    return 'value'


def learning_rate_finder(
    learning_rates: Sequence[float],
    losses: Sequence[float],
    suggestion: float | None = None,
    *,
    measured: Sequence[float] | None = None,
    axes: Axes | None = None,
    theme: str = 'light',
) -> Figure:
    """Draws the loss while the learning rate grows step by step, on a logarithmic axis.

    The axis of the loss ends a little above the loss before its minimum: the explosion at the end
    would flatten what one looks for. Losses that are infinite or not numbers are left out.

    Args:
        learning_rates: the rates, each above 0, `(steps,)`.
        losses: the losses at those rates, smoothed or not, `(steps,)`.
        suggestion: a learning rate to mark; `None` for none.
        measured: the losses before smoothing, `(steps,)`, to draw faintly; `None` for none.
        axes, theme: see `fenwicks.plots`.

    Returns:
        The figure.

    Raises:
        ValueError: the arrays differ in their lengths, a rate isn't above 0, or no loss is finite.

    Example:

    >>> from fenwicks import plots
    >>> figure = plots.learning_rate_finder([1e-3, 1e-2, 1e-1, 1], [2.3, 2.0, 1.5, 9.0], 3e-2)
    >>> figure.axes[0].get_xscale()
    'log'
    """
    rates, values = (np.asarray(each, np.float64) for each in (learning_rates, losses))
    for name, given in (('losses', values), ('measured', measured)):
        if given is not None and (rates.shape != np.shape(given) or rates.ndim != 1):
            raise ValueError(
                f'`{name}` must be as many as the learning rates. '
                f'Received: {rates.shape} and {np.shape(given)}'
            )
    for name, value in (('learning_rates', rates), ('suggestion', suggestion)):
        if value is not None and not np.all((np.asarray(value) > 0) & np.isfinite(value)):
            raise ValueError(f'`{name}` must be finite numbers above 0. Received: {name}={value}')
    finite = np.isfinite(values)
    if not finite.any():
        raise ValueError('`losses` must hold a finite number. Received: none')
    axes, colours = prepare(axes, theme, (6.4, 3.6))
    if measured is not None:
        faint: dict[str, Any] = {'color': colours.ink, 'alpha': 0.35, 'linewidth': 0.8}
        axes.plot(rates, measured, marker=_marker(rates), label='each step', **faint)
    rates, values = rates[finite], values[finite]
    label = None if measured is None else 'smoothed'
    axes.plot(rates, values, marker=_marker(rates), label=label, **line_style(0, colours))
    axes.set_xscale('log')
    lowest = int(values.argmin())
    low, high = values[lowest], values[: lowest + 1].max()
    margin = 0.25 * (high - low) or 0.25 * (abs(low) or 1.0)
    axes.set_ylim(low - margin, high + margin)
    if suggestion is not None:
        style = {**line_style(1, colours), 'linewidth': 1.2}
        axes.axvline(suggestion, label=f'suggestion: {suggestion:.2g}', **style)
    if suggestion is not None or measured is not None:
        legend(axes, colours)
    axes.set_xlabel('learning rate')
    axes.set_ylabel('loss')
    grid(axes, colours)
    return figure_of(axes)
