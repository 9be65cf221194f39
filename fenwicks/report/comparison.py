"""The page that compares several runs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from html import escape

from fenwicks import plots
from fenwicks.plots.canvas import new_axes
from fenwicks.report import elements, figures
from fenwicks.report.runs import Group, Run, differing, group_runs
from fenwicks.report.single import CHART, metrics_in, trained_epochs, value
from fenwicks.runlog import mean_and_error

WIDE = (5.4, 3.4)


def title(runs: Sequence[Run]) -> str:
    """The page's title."""
    groups = group_runs(runs)
    if len(groups) == 1:
        run = runs[0]
        mean = statistics.mean(each.accuracy for each in runs)
        return f'{run.result["recipe"]} on {run.result["dataset"]}, {len(runs)} runs: {mean:.2f} %'
    return f'{len(runs)} runs of {len(groups)} recipes compared'


def body(runs: Sequence[Run]) -> str:
    """All sections, the results first."""
    groups = group_runs(runs)
    parts = [
        f'<h1>{escape(title(runs))}</h1>',
        elements.section('Results', *_results(groups)),
        elements.section('Accuracy against time', *_accuracy_against_time(groups)),
        elements.section('Learning curves', *_curves(groups)),
        elements.section('Differences in settings', *_differences(groups)),
        elements.section('Every run', *_runs(groups)),
    ]
    return '\n'.join(part for part in parts if part)


def _results(groups: Sequence[Group]) -> Iterator[str]:
    rows = []
    for group in groups:
        losses = [run.result.get('test_loss', math.nan) for run in group.runs]
        rows.append([
            group.name,
            trained_epochs(group.runs[0]),
            len(group.runs),
            mean_and_error([run.accuracy for run in group.runs]),
            value(statistics.mean(losses)),
            mean_and_error([run.result['train_seconds'] for run in group.runs]),
        ])  # fmt: skip
    header = ['recipe', 'epochs', 'n', 'test accuracy, %', 'test loss', 'training, s']
    yield elements.table('Mean of the runs of each recipe', header, rows, 5)
    if any(len(group.runs) > 1 for group in groups):
        yield elements.paragraph('After ±: two standard errors of the mean.')
    places = {run.result.get('hardware') for group in groups for run in group.runs}
    if len(places) > 1:
        yield elements.paragraph('The runs are from different hardware: compare no times.')
    sets = {run.result['dataset'] for group in groups for run in group.runs}
    if len(sets) > 1:
        yield elements.paragraph(
            f'The runs are on different data sets ({", ".join(sorted(sets))}): compare no accuracy.'
        )


def _accuracy_against_time(groups: Sequence[Group]) -> Iterator[str]:
    points = [
        {**run.result, 'recipe': group.name} for group in groups for run in group.runs
    ]  # fmt: skip
    figure = plots.accuracy_against_time(points, axes=new_axes(WIDE))
    means = '; '.join(
        f'{group.name} {statistics.mean(run.accuracy for run in group.runs):.2f} % in '
        f'{statistics.mean(run.result["train_seconds"] for run in group.runs):.0f} s'
        for group in groups
    )
    drawing = figures.svg(figure, f'Points of accuracy over seconds of training: {means}.', 'time')
    several = any(len(group.runs) > 1 for group in groups)
    caption = 'Bars: two standard errors of the mean.' if several else ''
    yield elements.chart(drawing, caption, 'wide')


def _curves(groups: Sequence[Group]) -> Iterator[str]:
    histories = [run.history for group in groups for run in group.runs]
    drawn = []
    for ending in ('loss', 'accuracy'):
        for metric in metrics_in(histories, ending):
            curves = {group.name: [run.history for run in group.runs] for group in groups}
            figure = plots.learning_curves(curves, [metric], axes=new_axes(CHART))
            words = metric.replace('_', ' ')
            ends = '; '.join(
                f'{name} ends at {statistics.mean(each[-1][metric] for each in members):.3g}'
                for name, members in curves.items()
            )
            description = f'Line chart of {words} by epoch: {ends}.'
            drawn.append(elements.chart(figures.svg(figure, description, f'curve-{metric}')))
    if drawn:
        yield elements.charts(*drawn)
        if any(len(group.runs) > 1 for group in groups):
            yield elements.paragraph('Bands: two standard errors of the mean.')


def _differences(groups: Sequence[Group]) -> Iterator[str]:
    if len(groups) == 1:
        return
    told = differing([group.runs[0].settings() for group in groups])
    if not told:
        yield elements.paragraph('There is none in what the runs have recorded.')
        return
    rows = [[field, *map(value, values)] for field, values in told.items()]
    header = ['setting', *(group.name for group in groups)]
    yield elements.table('Settings in which the recipes differ', header, rows)


def _runs(groups: Sequence[Group]) -> Iterator[str]:
    rows = [
        [
            str(run.folder),
            group.name,
            value(run.result.get('seed')),
            f'{run.accuracy:.2f}',
            f'{run.result["train_seconds"]:.1f}',
            (run.result.get('commit') or '–')[:12],
        ]
        for group in groups
        for run in group.runs
    ]
    header = ['folder', 'recipe', 'seed', 'test accuracy, %', 'training, s', 'commit']
    yield elements.table('Every run', header, rows)
