"""The logged runs under examples/results/: which belong together, and what they reached."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import statistics

from fenwicks import recipes, runlog

NOT_YET = 'Not logged yet.'
RESULTS = pathlib.Path(__file__).resolve().parent / 'results'


def read(name):
    """The lines of a log; none where nothing was logged yet."""
    path = RESULTS / name
    return runlog.read_lines(path) if path.exists() else []


def table(header, rows):
    """A table in Markdown, or a sentence where there are no rows."""
    return runlog.markdown(header, rows) if rows else NOT_YET


def grouped(lines, keys):
    """The lines in groups that agree in the values of `keys` and in what was trained, sorted.

    Lines of other widths, batches or settings than their recipe has today, or of other numbers of
    replicas, are groups of their own.
    """

    def setting(line):
        trained = tuple(line.get('widths', ())), line.get('batch_size'), line.get('variant', '')
        trained += (line.get('replicas') or 1,)
        return *(line[key] for key in keys), *trained, repr(settings(line))

    return [list(group) for _, group in itertools.groupby(sorted(lines, key=setting), setting)]


def settings(run):
    """The recipe that a run logged; None for runs that logged its name only."""
    held = run.get('settings')
    fields = held.get('recipe') if isinstance(held, dict) else None
    return None if fields is None else recipes.Recipe.from_dict(fields)


def with_all_settings(run):
    """A run whose recipe, if logged, has the fields of today, also those that it was older than."""
    recipe = settings(run)
    return run if recipe is None else {**run, 'settings': recipe_settings(recipe)}


def recipe_settings(recipe):
    """The `settings` that a run of a recipe logs."""
    return {'recipe': dataclasses.asdict(recipe)}


def title(run):
    """The recipe's name, and in what a run's settings differ from those of that name today."""
    variant = run.get('variant')
    batch = f', batches of {run["batch_size"]}' if has_other_batch(run) else ''
    return f'`{run["recipe"]}`' + batch + (f', {variant}' if variant else '')


def has_other_batch(run):
    """Whether a run's batches have another size than its recipe's."""
    known = run['recipe'] in recipes.PRESETS and run.get('batch_size')
    return bool(known) and run['batch_size'] != recipes.get(run['recipe']).batch_size


def commits(lines):
    """The commits that made some lines; a plus where the clone had changes besides."""
    found = {
        line['commit'][:7] + ('' if line['clean'] else '+') for line in lines if line.get('commit')
    }
    if any(not line.get('commit') for line in lines):
        found.add('not logged')
    return ', '.join(sorted(found)) if len(found) <= 3 else f'{len(found)} commits'


def all_runs():
    """The logged trainings by fenwicks, on processors and on GPUs."""
    runs = read('runs.jsonl') + read('gpu.jsonl')
    return [run for run in runs if run['backend'] in ('tensorflow', 'jax')]


def is_whole(run):
    """Whether a run is a training on all of CIFAR-10."""
    return run['dataset'] == 'cifar10' and run['train_images'] == 50_000


def whole_runs():
    """The logged trainings by fenwicks on all of CIFAR-10."""
    return [run for run in all_runs() if is_whole(run)]


def undisturbed(runs):
    """The runs beside which nothing else ran on the machine, so that their seconds count."""
    return [run for run in runs if not run.get('shared_machine')]


def seconds_alone(runs, unit=''):
    """The median seconds of the undisturbed runs, and of how many if not of all; empty of none."""
    seconds = [run['train_seconds'] for run in undisturbed(runs)]
    if not seconds:
        return ''
    fewer = '' if len(seconds) == len(runs) else f' (n = {len(seconds)})'
    return f'{seconds_text(statistics.median(seconds))}{unit}{fewer}'


def paired(lines, others, key='test_accuracy'):
    """The mean difference of lines from others of the same seeds, in points, with its error."""
    theirs = {line['seed']: line[key] for line in finished(others)}
    differences = [
        100 * (x[key] - theirs[x['seed']]) for x in finished(lines) if x['seed'] in theirs
    ]
    return runlog.mean_and_error(differences) if differences else '-'


def finished(lines):
    """The lines of trainings that didn't diverge."""
    return [line for line in lines if line['test_accuracy'] is not None]


def seconds_text(seconds):
    """Three digits, or as many as there are before the point."""
    return f'{seconds:,.0f}' if seconds >= 100 else f'{seconds:.3g}'


def reached():
    """What each recipe reached with its settings of today, in words, by its name."""
    found = {}
    for group in grouped(whole_runs(), ('recipe', 'epochs', 'hardware', 'backend', 'precision')):
        run = group[0]
        if is_as_today(run):
            found.setdefault(run['recipe'], []).append(group)
    return {name: _best_known(name, groups) for name, groups in found.items()}


def is_as_today(run):
    """Whether a run was made with the settings that its recipe has today, epochs aside."""
    if run['recipe'] not in recipes.PRESETS or run.get('variant'):
        return False
    now, then = recipes.get(run['recipe']), settings(run)
    if then is None:
        return (list(now.widths), now.batch_size) == (run['widths'], run['batch_size'])
    return then == now.with_epochs(run['epochs'])


def _best_known(name, groups):
    """The runs with the recipe's own epochs, or else the most epochs, and of those the most."""
    whole = recipes.get(name).epochs
    group = max(groups, key=lambda runs: (runs[0]['epochs'] == whole, runs[0]['epochs'], len(runs)))
    run = group[0]
    accuracy = runlog.mean_and_error([100 * run['test_accuracy'] for run in group])
    took = seconds_alone(group, ' s of training')
    return (
        f'{accuracy} % (n = {len(group)}) in {run["epochs"]} epochs on {run["hardware"]}, '
        f'{run["backend"]}, {run["precision"]}{took and ", "}{took}'
    )
