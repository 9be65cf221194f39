"""The page of one run."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterator, Mapping, Sequence
from html import escape

from fenwicks import assemble, plots, recipes
from fenwicks.export.card import begun
from fenwicks.plots.canvas import new_axes
from fenwicks.recipes.fields import OF_PRETRAINED
from fenwicks.report import elements, figures, predictions
from fenwicks.report.runs import RESULT, Run, changes, preset_name, preset_of, tricks_of

CHART = (4.6, 2.9)  # inches: a phone shows its text at about the size at which it was drawn


def title(run: Run) -> str:
    """The page's title."""
    return (
        f'{run.result["recipe"]} on {run.result["dataset"]}: {run.accuracy:.2f}\N{NO-BREAK SPACE}%'
    )


def body(run: Run) -> str:
    """All sections, the verdict first."""
    parts = [
        f'<h1>{escape(title(run))}</h1>',
        _summary(run),
        _verdict(run),
        elements.section('Recipe', *_recipe(run)),
        elements.section('Learning curves', *_curves(run)),
        elements.section('Learning rate', *_schedule(run)),
    ]
    if run.material is None:
        note = (
            'The folder of this run holds no `report.npz`, so there are no augmented samples, no '
            'confusion matrix and no mistakes here.'
        )
        parts.append(elements.section('Predictions', elements.paragraph(note)))
    else:
        parts += [
            elements.section('Augmented training images', *predictions.samples(run.material)),
            elements.section('Confusion matrix', *predictions.confusion(run, run.material)),
            elements.section('Most confident mistakes', *predictions.mistakes(run, run.material)),
        ]
    parts += [
        elements.section('Where the time went', *_times(run)),
        elements.section('Reproduce this run', *_reproduction(run)),
    ]
    return '\n'.join(part for part in parts if part)


def trained_epochs(run: Run) -> float:
    """The number of epochs, which need not be whole."""
    return run.result.get('epochs', len(run.history))


def epochs_of(run: Run) -> str:
    """The number of epochs in words."""
    count = trained_epochs(run)
    return f'{count} epoch{"" if count == 1 else "s"}'


def _summary(run: Run) -> str:
    result = run.result
    images = f'{result["test_images"]:,} test images' if result.get('test_images') else 'test set'
    where = result.get('hardware') or result.get('device')
    return elements.paragraph(
        f'{run.accuracy:.2f} % of the {images} are classified correctly, after {epochs_of(run)} '
        f'and {seconds(result["train_seconds"])} of training' + (f' on {where}.' if where else '.')
    )


def _verdict(run: Run) -> str:
    result = run.result
    views = result.get('test_time_augmentation')
    plain = result.get('test_accuracy_plain')
    remark = ''
    if plain is not None and views not in (None, 'none'):
        remark = f'{100 * plain:.2f} % without test-time augmentation'
    items = [('test accuracy', f'{run.accuracy:.2f} %', remark)]
    if result.get('test_loss') is not None:
        items.append(('test loss', f'{result["test_loss"]:.4f}', ''))
    rate = result.get('images_per_second')
    remark = f'{rate:,.0f} images/s' if rate else ''
    items.append(('training', seconds(result['train_seconds']), remark))
    images = f'{result["train_images"]:,} images' if result.get('train_images') else ''
    items.append(('trained on', result['dataset'], images))
    if result.get('device'):
        items.append(('device', result['device'], result.get('precision') or ''))
    return elements.verdict(items)


def _recipe(run: Run) -> Iterator[str]:
    recipe = run.recipe
    if recipe is None:
        yield elements.paragraph(
            f'`{run.result["recipe"]}`. Its settings are not in the result, or are those of '
            'another version of fenwicks.'
        )
        return
    base, preset = preset_of(recipe), preset_name(recipe)
    if base is None or preset is None:
        settings = dataclasses.asdict(recipe)
        if isinstance(run.settings().get('pretrained'), dict):
            yield elements.paragraph(f'`{recipe.name}`, {begun(run.result)}.')
            settings = {field: own for field, own in settings.items() if field in OF_PRETRAINED}
        else:
            yield elements.paragraph(f'`{recipe.name}`, a recipe of your own.')
        rows = [[field, value(own)] for field, own in settings.items()]
        yield elements.details('All settings', elements.table('Settings', ['field', 'value'], rows))
        return
    source = recipes.PRESETS[preset].source
    published = f' Published: {source}.' if source else ''
    yield elements.paragraph(f'`{base.name}`, {base.epochs} epochs.{published}')
    differences = changes(recipe, base)
    if differences:
        rows = [[field, value(theirs), value(ours)] for field, (theirs, ours) in
                differences.items()]  # fmt: skip
        caption = f'What this run changed of {base.name}'
        yield elements.table(caption, ['setting', base.name, 'this run'], rows)
    else:
        yield elements.paragraph('This run used it as it is.')
    tricks = tricks_of(recipe)
    if tricks:
        rows = [[name, recipes.TRICKS[name].summary] for name in tricks]
        yield elements.details(
            f'Its tricks ({len(tricks)})',
            elements.table('Tricks of this recipe', ['trick', 'what it does'], rows),
        )


def metrics_in(histories: Sequence[Sequence[Mapping]], ending: str) -> list[str]:
    """The metrics with that ending that every epoch of all histories has."""
    records = [record for history in histories for record in history]
    return [
        key
        for key in records[0]
        if key.endswith(ending) and all(record.get(key) is not None for record in records)
    ]


def _curves(run: Run) -> Iterator[str]:
    drawn = []
    for ending in ('loss', 'accuracy'):
        metrics = metrics_in([run.history], ending)
        if not metrics:
            continue
        axes = new_axes(CHART)
        figure = plots.learning_curves(run.history, metrics, axes=axes)
        ends = '; '.join(
            f'{metric.replace("_", " ")} from {run.history[0][metric]:.3g} to '
            f'{run.history[-1][metric]:.3g}'
            for metric in metrics
        )
        description = f'Line chart over {epochs_of(run)}: {ends}.'
        drawn.append(elements.chart(figures.svg(figure, description, f'curve-{ending}')))
    if not drawn:
        return
    yield elements.charts(*drawn)
    yield elements.paragraph(
        'Loss and accuracy on training images are those of the network while it learns, on '
        'augmented images: they may be worse than on the test images.'
    )
    keys = [key for key in run.history[0] if key != 'epoch']
    rows = [[record['epoch'], *(value(record.get(key)) for key in keys)] for record in run.history]
    header = ['epoch', *(key.replace('_', ' ') for key in keys)]
    yield elements.details('Every epoch in numbers',
                           elements.table('Every epoch', header, rows, len(keys)))  # fmt: skip


def _schedule(run: Run) -> Iterator[str]:
    recipe, images = run.recipe, run.result.get('train_images')
    if recipe is not None and images and images >= recipe.batch_size:
        steps = recipe.steps_per_epoch(images)
        total = recipe.total_steps(steps)
        schedule = assemble.schedule(recipe, steps)
        axes = new_axes(CHART)
        figure = plots.schedule(schedule, total, steps, axes=axes)
        end = total - 1  # the last step that is drawn
        drawn = [(step, rate) for step, rate in schedule.knots if step < end]
        corners = ', '.join(
            f'{rate:.3g} at epoch {max(0, step) / steps:.3g}'
            for step, rate in [*drawn, (end, float(schedule(end)))]
        )
        description = f'Line chart of the learning rate in straight lines: {corners}.'
        yield elements.charts(elements.chart(figures.svg(figure, description, 'schedule')))
        text = f'{total:,} steps of {recipe.batch_size:,} images.'
        if recipe.muon_learning_rate:
            text += (
                f' This is the rate of SGD. That of Muon, which trains the convolutions, has the '
                f'same shape and a peak of {recipe.muon_learning_rate:g}.'
            )
        yield elements.paragraph(text)
        return
    if metrics_in([run.history], 'learning_rate'):
        axes = new_axes(CHART)
        figure = plots.learning_curves(run.history, ['learning_rate'], axes=axes)
        last = run.history[-1]['learning_rate']
        description = f'Line chart of the learning rate after each epoch, at last {last:.3g}.'
        yield elements.charts(elements.chart(figures.svg(figure, description, 'schedule')))


def _times(run: Run) -> Iterator[str]:
    result = run.result
    parts = [
        ('preparing data and network', result.get('preprocess_seconds')),
        ('compiling', result.get('compile_seconds')),
        ('training', result['train_seconds']),
        ('evaluating', result.get('eval_seconds')),
    ]
    parts = [(name, spent) for name, spent in parts if spent is not None]
    total = sum(spent for _, spent in parts) or 1.0
    rows = [
        [name, elements.Bar(spent / total), f'{spent:.1f}', f'{100 * spent / total:.0f}']
        for name, spent in parts
    ]
    yield elements.table('Seconds of the run', ['what', 'share', 'seconds', '%'], rows, 2)
    remarks = []
    if result.get('first_step_seconds') is not None:
        remarks.append(
            f'The first step was done {seconds(result["first_step_seconds"])} after the start of '
            'the command.'
        )
    if result.get('peak_memory_mb') is not None:
        remarks.append(f'Peak memory of the process: {result["peak_memory_mb"]:,.0f} MB.')
    if remarks:
        yield elements.paragraph(' '.join(remarks))


def _reproduction(run: Run) -> Iterator[str]:
    result = run.result
    yield elements.code(command(run))
    commit = result.get('commit')
    if commit:
        state = ', with changes that were not committed' if result.get('clean') is False else ''
        yield elements.paragraph(f'Commit `{commit}`{state}.')
    rows = [[name, version] for name, version in (result.get('versions') or {}).items()]
    about = [
        (word, result[key])
        for key, word in (
            ('date', 'date'),
            ('hardware', 'hardware'),
            ('device', 'device'),
            ('replicas', 'replicas'),
            ('precision', 'precision'),
            ('backend', 'Keras backend'),
            ('seed', 'seed'),
        )
        if result.get(key) is not None
    ]
    if about:
        yield elements.table('Run', ['what', 'value'], about)
    if rows:
        yield elements.table('Versions', ['package', 'version'], rows)


def command(run: Run) -> str:
    """The command line that trains the same again: the run's own, or one by its settings."""
    result = run.result
    if result.get('command'):
        return result['command']
    parts = ['python', 'examples/cifar10.py', f'--recipe_file={run.folder / RESULT}']
    for flag in ('dataset', 'precision', 'device', 'seed'):
        if result.get(flag) is not None:
            parts.append(f'--{flag}={result[flag]}')
    whole = {'cifar10': 50_000, 'cifar100': 50_000}.get(result['dataset'])
    if whole and result.get('train_images', whole) < whole:
        parts.append(f'--limit={result["train_images"]}')
    return shlex.join(parts)


def seconds(number: float) -> str:
    """A time in words: 3.4 s, or 12 min 5 s."""
    if number < 100:
        return f'{number:.1f}\N{NO-BREAK SPACE}s'
    minutes, rest = divmod(round(number), 60)
    return f'{minutes}\N{NO-BREAK SPACE}min {rest}\N{NO-BREAK SPACE}s'


def value(setting: object) -> str:
    """A setting as it is written in a table."""
    if setting is None or setting != setting:  # not a number
        return '–'
    if isinstance(setting, bool):
        return 'yes' if setting else 'no'
    if isinstance(setting, tuple | list):
        return ', '.join(map(str, setting)) or 'none'
    return f'{setting:.4g}' if isinstance(setting, float) else str(setting)
