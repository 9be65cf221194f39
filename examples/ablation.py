"""Measures what each trick is worth: trains a grid of recipes for several seeds and compares.

    python examples/ablation.py --log=ablation.jsonl                   # the whole budget: on a GPU
    python examples/ablation.py --log=ablation.jsonl --width=0.25 --epochs=8 --limit=20000
    python examples/ablation.py --log=ablation.jsonl --render --plot=ablation.png
    python examples/ablation.py --log=speed94.jsonl --baseline= --full=speed94 --runs=4

The grid is the baseline, the baseline with each trick, the full recipe, and the full recipe without
each trick; with an empty baseline the last two only. Each run is appended to the log when it ends;
after an interrupt the same command continues. The comparison is printed as Markdown. A difference
in parentheses is smaller than its error of two standard errors, so these runs don't show that there
is one.
"""

from __future__ import annotations

import startup  # noqa: F401

import dataclasses
import pathlib

import keras
import logged
from absl import flags

from fenwicks import (
    ablation,
    assemble,
    command,
    data,
    devices,
    hardware,
    precision,
    recipes,
    runlog,
    training,
)
from fenwicks.recipes import flags as recipe_flags

FLAGS = flags.FLAGS
flags.DEFINE_string('log', 'ablation.jsonl', 'JSON-lines file of the runs; it is added to.')
flags.DEFINE_string('baseline', 'page24', 'The recipe without the tricks.')
flags.DEFINE_string('full', 'page10', 'The recipe with the tricks.')
flags.DEFINE_list('tricks', list(recipes.TRICKS), 'The tricks of interest, by commas.')
flags.DEFINE_integer('runs', 3, 'Seeds of each recipe: 0, 1, ...', lower_bound=1)
recipe_flags.define_changes()
flags.adopt_module_key_flags(recipe_flags)
flags.DEFINE_integer('limit', None, 'Train on the first N images only.')
flags.DEFINE_string('dataset', 'auto', f'One of {", ".join(data.DATASETS)}.')
flags.DEFINE_string('data_dir', None, 'Folder that holds the data set, in any published form.')
flags.DEFINE_string('precision', 'auto', f'One of {", ".join(precision.PRECISIONS)}.')
flags.DEFINE_string('device', 'auto', f'One of {", ".join(devices.DEVICES)}.')
flags.DEFINE_bool('render', False, 'Train nothing; compare the runs that are in the log.')
flags.DEFINE_string('plot', None, 'Draw the comparison into this file (.png, .svg, ...).')


def main():
    arms = ablation.grid(FLAGS.baseline, FLAGS.full, FLAGS.tricks)
    if FLAGS.plot:
        with command.renamed({'path': 'plot'}):
            plots().check_path(FLAGS.plot)
    if not FLAGS.render:
        command.say_how_to_go_on('the same command goes on')
        train_grid(arms)
    rows = ablation.summarize(arms, runlog.read_lines(FLAGS.log))
    print(ablation.comparison_table(rows))
    if FLAGS.plot:
        plots().save(plots().differences(rows), FLAGS.plot)


def plots():
    """The module, which needs Matplotlib: imported where somebody wants a plot."""
    from fenwicks import plots

    return plots


def train_grid(arms):
    """Checks the flags, finds device and data, and trains what the log lacks."""
    code = hardware.provenance()
    device = devices.select_device(FLAGS.device)
    chosen_precision = precision.set_precision(FLAGS.precision, device)
    dataset = data.load(FLAGS.dataset, FLAGS.data_dir)
    if FLAGS.limit is not None:
        dataset = dataset.limit(FLAGS.limit)
    planned = {}
    for arm in arms:
        recipe = recipe_flags.changed(arm.recipe(), FLAGS)
        recipe = dataclasses.replace(recipe, name=arm.name)  # the settings are logged, too
        recipe = recipe_flags.for_dataset(recipe, dataset.name, FLAGS)
        recipe.steps_per_epoch(len(dataset.train_images))  # raises where a batch is too large
        planned[arm] = recipe
    budget = {
        'dataset': dataset.name,
        'train_images': len(dataset.train_images),
        'width': 1.0 if FLAGS.width is None else FLAGS.width,
        'precision': chosen_precision,
        'backend': keras.backend.backend(),
        'hardware': hardware.describe(device, training.default_replicas().count),
        'data_digest': dataset.digest(),
    }
    log = pathlib.Path(FLAGS.log).expanduser()
    runs = runlog.read_lines(log) if log.exists() else []
    check_same_budget(log, runs, budget, planned)
    runlog.start_log(log)
    with command.renamed({'path': 'log'}), runlog.locked(log):
        runs = runlog.read_lines(log)  # again, since another process may have added some meanwhile
        check_same_budget(log, runs, budget, planned)
        train_missing(log, runs, planned, dataset, {**budget, **code})


def check_same_budget(log, runs, budget, planned):
    """Raises unless the logged runs were made with the settings of those that are planned."""
    recipes_now = {recipe.name: recipe for recipe in planned.values()}
    for run in runs:
        about, recipe = budget, recipes_now.get(run.get('recipe'))
        if recipe is not None:
            settings = logged.recipe_settings(recipe)
            about = {**budget, 'epochs': recipe.epochs, 'settings': settings}
        run = logged.with_all_settings(run)
        runlog.check_same(log, run, about, newer=('data_digest', 'settings'))


def train_missing(log, runs, planned, dataset, about):
    """Trains what the log lacks, one seed of every arm after the other."""
    finished = {(run.get('recipe'), run.get('seed')) for run in runs}
    for seed in range(FLAGS.runs):
        for arm, recipe in planned.items():
            if (recipe.name, seed) in finished:
                continue
            reached = train(recipe, dataset, about['precision'], seed)
            run = {**about, **reached, 'settings': logged.recipe_settings(recipe)}
            accuracy = run['test_accuracy']
            said = 'diverged' if accuracy is None else f'{100 * accuracy:.2f} %'
            print(f'{arm.name}, seed {seed}: {said}', flush=True)
            runlog.append_line(log, run)


def train(recipe, dataset, chosen_precision, seed):
    """Trains once; returns what was reached."""
    keras.utils.clear_session()  # or the graphs of earlier runs would pile up
    precision.set_precision(chosen_precision)  # which the line above has reset
    trainer = assemble.build_trainer(recipe, dataset, precision=chosen_precision, seed=seed)
    described = {
        'recipe': recipe.name,
        'epochs': recipe.epochs,
        'batch_size': recipe.batch_size,
        'seed': seed,
    }
    try:
        trainer.fit(dataset.train_images, dataset.train_labels, recipe.epochs)
    except training.DivergedError:
        return {**described, 'test_accuracy': None}  # a result, too
    tta = assemble.views(recipe)
    score, plain = trainer.evaluate_views(dataset.test_images, dataset.test_labels, tta=tta)
    return {
        **described,
        'test_accuracy': score.accuracy,
        'test_accuracy_plain': plain.accuracy,
        'test_loss': score.loss,
        'train_loss': trainer.records[-1]['train_loss'],
        'train_seconds': trainer.train_seconds,
    }


if __name__ == '__main__':
    command.run(main, 'ablation.py')
