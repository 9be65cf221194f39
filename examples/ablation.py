"""Measures what each trick is worth: trains a grid of recipes for several seeds and compares.

    python examples/ablation.py --log=ablation.jsonl                   # the whole budget: on a GPU
    python examples/ablation.py --log=ablation.jsonl --width=0.25 --epochs=8 --limit=20000
    python examples/ablation.py --log=ablation.jsonl --render --plot=ablation.png

The grid: the baseline, the baseline with each trick, the full recipe, the full recipe without each
trick. Each run is appended to the log as it ends, and the same command goes on where an earlier
one stopped. Prints the comparison as Markdown; a difference in parentheses is smaller than two
standard errors: as many runs as there are can't tell it from none.
"""

from __future__ import annotations

import pathlib
import sys

import quiet  # noqa: F401

import keras
from absl import app, flags, logging

from fenwicks import (
    ablation,
    assemble,
    data,
    devices,
    evaluate,
    hardware,
    precision,
    recipes,
    runlog,
)
from fenwicks._checks import positive_integer
from fenwicks.training import DivergedError

FLAGS = flags.FLAGS
flags.DEFINE_string('log', 'ablation.jsonl', 'JSON-lines file of the runs; it is added to.')
flags.DEFINE_string('baseline', 'page24', 'The recipe without the tricks.')
flags.DEFINE_string('full', 'page10', 'The recipe with the tricks.')
flags.DEFINE_list('tricks', list(recipes.TRICKS), 'The tricks of interest, by commas.')
flags.DEFINE_integer('runs', 3, 'Seeds of each recipe: 0, 1, ...')
flags.DEFINE_integer('epochs', None, "Epochs of every run; default: each recipe's own.")
flags.DEFINE_integer('limit', None, 'Train on the first N images only.')
flags.DEFINE_float('width', 1.0, 'Factor on the number of filters in each stage.')
flags.DEFINE_string('dataset', 'auto', f'One of {", ".join(data.DATASETS)}.')
flags.DEFINE_string('data_dir', None, 'Folder that holds the data set, in any published form.')
flags.DEFINE_string('precision', 'auto', f'One of {", ".join(precision.PRECISIONS)}.')
flags.DEFINE_string('device', 'auto', f'One of {", ".join(devices.DEVICES)}.')
flags.DEFINE_bool('render', False, 'Train nothing; compare the runs that are in the log.')
flags.DEFINE_string('plot', None, 'Draw the comparison into this file (.png, .svg, ...).')


def main(argv):
    logging.set_verbosity(logging.WARNING)
    if len(argv) > 1:
        fail(f'there are no arguments besides flags. Received: {argv[1]}')
    try:
        for name in ('baseline', 'full'):
            recipes.get(FLAGS[name].value)
        arms = ablation.grid(FLAGS.baseline, FLAGS.full, FLAGS.tricks)
        if FLAGS.plot:
            ablation.check_plot(FLAGS.plot)
        if not FLAGS.render:
            train_grid(arms)
        rows = ablation.summarize(arms, runlog.read_lines(FLAGS.log))
        print(ablation.comparison_table(rows))
        if FLAGS.plot:
            ablation.plot(rows, FLAGS.plot)
    except (ValueError, OSError, ImportError, DivergedError) as error:
        fail(error)
    except KeyboardInterrupt:
        fail('interrupted: the same command goes on')


def fail(error):
    """Ends the script with one line on standard error."""
    sys.exit(f'ablation.py: {" ".join(str(error).split())}')


def parse_flags(argv):
    """The arguments that are no flags; a flag that breaks its rule ends the script."""
    try:
        return FLAGS(argv)
    except flags.Error as error:
        fail(error)
    except SystemExit:  # of --help, which absl ends with 1
        sys.exit(0)


def train_grid(arms):
    """Trains what the log lacks, one seed of every arm after the other."""
    positive_integer('runs', FLAGS.runs)
    device = devices.select_device(FLAGS.device)
    chosen_precision = precision.set_precision(FLAGS.precision, device)
    dataset = data.load(FLAGS.dataset, FLAGS.data_dir)
    if FLAGS.limit is not None:
        dataset = dataset.limit(FLAGS.limit)
    planned = {}
    for arm in arms:
        recipe = recipes.get(
            arm.preset, [arm.added] * bool(arm.added), [arm.removed] * bool(arm.removed)
        )
        if FLAGS.epochs is not None:
            recipe = recipe.with_epochs(FLAGS.epochs)
        recipe = recipe.with_width(FLAGS.width)
        if dataset.name == 'digits':
            recipe = recipe.for_small_data()
        recipe.steps_per_epoch(len(dataset.train_images))  # raises where a batch is too large
        planned[arm] = recipe
    budget = {
        'dataset': dataset.name,
        'train_images': len(dataset.train_images),
        'width': FLAGS.width,
        'precision': chosen_precision,
        'backend': keras.backend.backend(),
        'hardware': hardware.describe(device),
    }
    log = pathlib.Path(FLAGS.log)
    done = runlog.read_lines(log) if log.exists() else []
    epochs = {recipe.name: recipe.epochs for recipe in planned.values()}
    for run in done:
        same_epochs = epochs.get(run.get('recipe'), run.get('epochs')) == run.get('epochs')
        if not same_epochs or any(run.get(key) != value for key, value in budget.items()):
            raise ValueError(
                f'`log` must hold runs of one budget only: pass another file. Received: {log}, '
                f'with a run of { {key: run.get(key) for key in ("epochs", *budget)} }'
            )
    runlog.start_log(log)
    finished = {(run['recipe'], run['seed']) for run in done}
    for seed in range(FLAGS.runs):
        for arm, recipe in planned.items():
            if (recipe.name, seed) in finished:
                continue
            run = {**budget, **train(recipe, dataset, chosen_precision, seed)}
            reached = run['test_accuracy']
            said = 'diverged' if reached is None else f'{100 * reached:.2f} %'
            print(f'{arm.recipe}, seed {seed}: {said}', flush=True)
            runlog.append_line(log, run)


def train(recipe, dataset, chosen_precision, seed):
    """One training; what it reached."""
    keras.utils.clear_session()  # or the graphs of earlier runs would pile up
    trainer = assemble.build_trainer(recipe, dataset, precision=chosen_precision, seed=seed)
    described = {
        'recipe': recipe.name,
        'epochs': recipe.epochs,
        'batch_size': recipe.batch_size,
        'seed': seed,
        'versions': hardware.versions(),
    }
    try:
        trainer.fit(dataset.train_images, dataset.train_labels, recipe.epochs)
    except DivergedError:
        return {**described, 'test_accuracy': None}  # a result, too
    tta = assemble.views(recipe)
    views = trainer.predict_views(dataset.test_images, tta=tta)
    score = evaluate.metrics(tta.combine(views), dataset.test_labels)
    plain = evaluate.metrics(views[0], dataset.test_labels)
    return {
        **described,
        'test_accuracy': score.accuracy,
        'test_accuracy_plain': plain.accuracy,
        'test_loss': score.loss,
        'train_loss': trainer.history[-1]['train_loss'],
        'train_seconds': trainer.train_seconds,
    }


if __name__ == '__main__':
    app.run(main, flags_parser=parse_flags)
