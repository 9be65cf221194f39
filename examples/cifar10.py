"""Trains an image classifier on CIFAR-10, fast.

    python examples/cifar10.py                              # the recipe `speed94`
    python examples/cifar10.py --epochs=2                   # its schedule squeezed into two of them
    python examples/cifar10.py --recipe=page10 --without=whitening
    python examples/cifar10.py --list_recipes
    python examples/cifar10.py --set momentum=0.8 --set activation=relu
    python examples/cifar10.py --recipe_file=my_recipe.py   # a file that defines `recipe`
    python examples/cifar10.py --validate --tensorboard     # test accuracy after each epoch, curves
    python examples/cifar10.py --verbosity=-1               # quiet: one line at the end

README.md ("Results") says what the recipes reach, how long they take, on what hardware and in how
many runs; --list_recipes says it in short. All of it comes from the runs logged under
examples/results/.
"""

from __future__ import annotations

import startup  # noqa: F401

import logged
import training_runs
from absl import flags

from fenwicks import assemble, command, data, hardware, recipes
from fenwicks.recipes import flags as recipe_flags

FLAGS = flags.FLAGS
try:
    REACHED = logged.reached()
except (OSError, ValueError, KeyError, TypeError, AttributeError):
    REACHED = {}  # a damaged log mustn't keep anybody from training
training_runs.define_flags(
    'speed94', f'Reached here: {"; ".join(f"{name} {what}" for name, what in REACHED.items())}.'
)
flags.adopt_module_key_flags(training_runs)
flags.DEFINE_bool('list_recipes', False, 'Print the recipes and the tricks, and stop.')
flags.DEFINE_string(
    'dataset',
    'auto',
    f'One of {", ".join(data.DATASETS)}, or tfds:NAME; auto: cifar10, else the sample.',
)
flags.DEFINE_string('data_dir', None, 'Folder that holds the data set, in any published form.')
flags.DEFINE_integer('limit', None, 'Train on the first N images only.')
flags.DEFINE_alias('csv', 'history_csv')


def main():
    """Checks the flags, finds device and data, and trains `--runs` times."""
    if FLAGS.list_recipes:
        print(recipes.listing(REACHED))
        return
    code = hardware.provenance()
    recipe = recipe_flags.chosen(FLAGS)
    assemble.augmentations(recipe)  # raises where it names a transform that there isn't
    folders = training_runs.checked_folders(recipe.name, FLAGS.runs)
    machine = training_runs.Machine.by_flags()
    dataset = data.load(FLAGS.dataset, FLAGS.data_dir)
    chosen = {'dataset': dataset.name}
    if FLAGS.limit is not None:
        # The sample that stands in for CIFAR-10 has fewer images than one may ask of that.
        stands_in = FLAGS.dataset == 'auto' and dataset.name == 'digits'
        limit = min(FLAGS.limit, len(dataset.train_images)) if stands_in else FLAGS.limit
        dataset = dataset.limit(limit)
        chosen['limit'] = str(limit)
    recipe = recipe_flags.for_dataset(recipe, dataset.name, FLAGS)
    job = training_runs.Job(recipe, dataset, chosen=chosen)
    jobs = [(job, FLAGS.seed + run) for run in range(FLAGS.runs)]
    results, folders = training_runs.train_all(jobs, machine, folders, __file__, code)
    said = f'{training_runs.summary(results, dataset.name)}; results in {folders.out}'
    machine.say(said, also_quiet=True)


if __name__ == '__main__':
    command.run(main, 'cifar10.py')
