"""Trains an image classifier on your own images.

    python examples/folder.py photos                        # a folder for each class
    python examples/folder.py photos --csv=labels.csv       # or labels in a CSV file,
    python examples/folder.py photos --pattern='([a-z]+)_\\d+\\.jpg$'    # in the files' names,
    python examples/folder.py --tfrecord='shards/images-*'  # or TFRecord files
    python examples/folder.py photos --pretrained=ResNet50V2 --weights=resnet50v2_notop.h5
    python examples/folder.py photos --pretrained=none --image_size=64 --recipe=page24 --epochs=40
    python examples/folder.py photos --folds=5

Small images train a ResNet-9 from the beginning; large ones a network that was trained on ImageNet
before, whose weights Keras downloads once. A fifth of the images is kept for the test, unless the
folder is divided into `train` and `test` (or `val`) already. Copies of an image stay on one side;
in a folder divided already they are counted.
"""

from __future__ import annotations

import startup  # noqa: F401

import dataclasses
import hashlib
import shlex

import fine_tuning
import image_sources
import numpy as np
import training_runs
from absl import flags, logging

from fenwicks import assemble, command, data, hardware
from fenwicks.data.folders import check_outside
from fenwicks.models.backbones import default_image_size
from fenwicks.recipes import flags as recipe_flags

FLAGS = flags.FLAGS
MEMORY = 8e9  # bytes of it that the images may take
LARGE = 96  # pixels of the shorter side, from which on images are for a pretrained network
TAKEN_BY_ALL = 16  # pixels of a side that every network of a recipe takes
BACKBONE = 'EfficientNetV2B0'
RECIPE = 'page24'

training_runs.define_flags(RECIPE, 'Of a ResNet-9 or speednet, not of a pretrained network.')
flags.adopt_module_key_flags(training_runs)
image_sources.define_flags()
flags.adopt_module_key_flags(image_sources)
flags.DEFINE_integer(
    'image_size', None, 'Side of the images in pixels; default: by the images and the network.'
)
flags.DEFINE_string(
    'pretrained',
    'auto',
    'Network of keras.applications, or keras_hub:PRESET; none for the network of the recipe; '
    f'auto: {BACKBONE} where half of the images have sides of {LARGE} pixels or more.',
)
flags.DEFINE_string('weights', 'imagenet', 'Of --pretrained: imagenet, none, or a file.')
flags.DEFINE_integer(
    'stages', None, 'Stages of the pretrained network that are trained, from its end; default: all.'
)
flags.DEFINE_float(
    'stage_factor', 0.5, 'On the learning rate, from stage to stage, from the end on.'
)
flags.DEFINE_float('test_fraction', 0.2, 'Share of the images to test on.')
flags.DEFINE_integer('folds', None, 'Train this many times, each time testing on another part.')
flags.DEFINE_integer('split_seed', 0, 'Of the choice of test images.')


def main(folder=None):
    """Checks the flags, decodes the images, and trains."""
    code = hardware.provenance()
    if folder is not None and FLAGS.csv is None:  # a CSV file names the pictures one by one
        check_outside(folder, 'out', FLAGS.out or 'out')
    source = image_sources.by_flags(folder)
    check_split_flags(source)
    recipe, network, size, reason = chosen(source)
    assemble.augmentations(recipe)  # raises where it names a transform that there isn't
    count, of_each = (FLAGS.runs, 'runs') if FLAGS.folds is None else (FLAGS.folds, 'folds')
    folders = training_runs.checked_folders(f'{source.name}-{recipe.name}', count, of_each)
    machine = training_runs.Machine.by_flags()
    if network is not None:
        check(network, size)

    if source.count is not None:
        check_memory(source.count, size)
    arrays = source.decode((size, size))
    check_memory(len(arrays), size)
    splits = split(arrays, source)
    train, test = splits[0]
    machine.say(described(arrays, source, len(train), len(test)))
    machine.say(reason)
    warn_of_classes(arrays, source.name, splits)
    if not recipe_flags.batch_size_given(FLAGS):
        recipe = recipe.for_small_data(min(len(train) for train, _ in splits))
    arguments = (folder,) if folder else ()
    made = jobs(recipe, network, arrays, source, splits, arguments)
    if FLAGS.folds is None:
        (job,) = made
        runs = ((job, FLAGS.seed + number) for number in range(count))
    else:
        runs = ((job, FLAGS.seed) for job in made)
    results, folders = training_runs.train_all(runs, machine, folders, __file__, code)
    summary = training_runs.summary(results, source.name, of_each.removesuffix('s'))
    machine.say(f'{summary}; results in {folders.out}', also_quiet=True)
    run = shlex.quote(str(folders.of_runs()[0]))
    machine.say(
        f'python examples/predict.py {run} FILE ... classifies pictures, '
        f'python examples/evaluate.py {run} DIR tests on a folder of them'
    )


def check_split_flags(source):
    """Raises where the flags that divide the images break a rule."""
    if FLAGS.folds is not None and FLAGS.runs > 1:
        raise ValueError(f'`runs` must be 1 with `folds`. Received: runs={FLAGS.runs}')
    for flag in ('folds', 'test_fraction', 'split_seed'):
        if FLAGS[flag].present and source.split is not None:
            raise ValueError(
                f'`{flag}` must not be given for {source.name}, which has its own test images. '
                f'Received: {flag}={FLAGS[flag].value}'
            )
    if FLAGS['test_fraction'].present and FLAGS.folds is not None:
        raise ValueError(
            '`test_fraction` must not be given with `folds`, which divide the images evenly. '
            f'Received: test_fraction={FLAGS.test_fraction}'
        )
    for flag, holds, rule in (
        ('folds', FLAGS.folds is None or FLAGS.folds >= 2, 'at least 2'),
        ('test_fraction', 0 < FLAGS.test_fraction < 1, 'a number in (0, 1)'),
        ('split_seed', FLAGS.split_seed >= 0, 'at least 0'),
    ):
        if not holds:
            raise ValueError(f'`{flag}` must be {rule}. Received: {flag}={FLAGS[flag].value}')


def jobs(recipe, network, arrays, source, splits, arguments):
    """The training of each split, made when its turn comes: its images are copies in memory."""
    for number, (train, test) in enumerate(splits):
        settings = {
            'image_size': arrays.image_shape[0],
            'split': [FLAGS.split_seed, number, len(splits)],
        }
        if FLAGS.fit != 'crop':  # predict.py reads it
            settings['fit'] = FLAGS.fit
        job = training_runs.Job(
            recipe,
            arrays.dataset(train, test, source.name, MEMORY),
            settings=settings,
            arguments=arguments,
            train_folders=source.folders_of(arrays.names[index] for index in train),
        )
        if network is not None:
            job = dataclasses.replace(
                job,
                build=network.build_trainer,
                with_pixels=fine_tuning.with_pixels,
                settings={**settings, **network.settings()},
            )
        yield job


def chosen(source):
    """Recipe, pretrained network or None, side of the images, and why."""
    side = source.median_side()
    given = [
        name
        for name in ('recipe', 'recipe_file', 'with', 'without', 'width')
        if FLAGS[name].present
    ]
    name = FLAGS.pretrained
    if name == 'auto':
        name = BACKBONE if side >= LARGE and not given else 'none'
    if name.lower() == 'none':
        for flag in ('weights', 'stages', 'stage_factor'):
            if FLAGS[flag].present:
                raise ValueError(
                    f'`{flag}` needs `pretrained`, such as {BACKBONE}. '
                    f'Received: {flag}={FLAGS[flag].value}'
                )
        recipe = recipe_flags.chosen(FLAGS)
        size, why = FLAGS.image_size, 'as asked for'
        if size is None:
            size = 32 if side <= 48 else 64
            why = f'since the median side of those looked at is {side}'
            if recipe.image_sizes:
                size, why = recipe.image_sizes[-1], f'to which those of {recipe.name} grow'
        check_size(recipe, size)
        return recipe, None, size, f'{recipe.network} on images of {size} x {size}, {why}'
    if given:
        raise ValueError(
            f'`{given[0]}` must not be given with `pretrained`, which has a recipe of its own: '
            f'change that by --set. Received: {given[0]}={FLAGS[given[0]].value}, pretrained={name}'
        )
    recipe = recipe_flags.changed(fine_tuning.RECIPE, FLAGS)
    recipe = dataclasses.replace(recipe, name=recipe.name.replace('fine_tuning', name, 1))
    fine_tuning.check(recipe)
    weights = None if FLAGS.weights.lower() == 'none' else FLAGS.weights
    network = fine_tuning.PretrainedNetwork(name, weights, FLAGS.stages, FLAGS.stage_factor)
    hub = name.lower().startswith('keras_hub:')
    with command.renamed({'name': 'pretrained'}):
        size = FLAGS.image_size
        if size is None:
            size = 224 if hub else default_image_size(name)
    given_weights = 'of the preset' if hub else weights
    how = 'of random weights' if weights is None else f'with the weights {given_weights}'
    return recipe, network, size, f'{name} {how}, on images of {size} x {size}'


def check_size(recipe, size):
    """Raises where the recipe or its network doesn't take images of this size."""
    recipe_flags.check_image_sizes(recipe, size, size)
    if size >= TAKEN_BY_ALL:
        return
    smallest = next(s for s in range(max(1, size), TAKEN_BY_ALL + 1) if _takes(recipe, s))
    if smallest > size:
        raise ValueError(
            f'`image_size` must be at least {smallest} for {recipe.network}, the network of '
            f'{recipe.name}. Received: image_size={size}'
        )


def _takes(recipe, size):
    try:
        assemble.network(recipe, (size, size, 3), 2)
    except ValueError as error:
        if 'input_shape' not in str(error):
            raise
        return False
    return True


def check(network, size):
    """Raises where the network can't be made, before pictures are decoded."""
    try:
        with command.renamed({'name': 'pretrained', 'input_shape': 'image_size'}):
            network.model((size, size, 3), num_classes=2)
    except OSError as error:
        raise OSError(f'{error}; --pretrained=none trains a ResNet-9 instead') from error


def split(arrays, source):
    """Pairs of the images to train on and to test on."""
    if source.split is not None:
        train, test = source.split(arrays)
        same = copies(arrays.images)
        both = [] if same is None else test[np.isin(same[test], same[train])]
        if len(both):
            count = command.counted(len(both), 'test image')
            names = ', '.join(arrays.names[index] for index in both[:3] if arrays.names)
            logging.warning('the training set has %s, too%s', count, names and f': {names}')
        return [(train, test)]
    same = copies(arrays.images)
    check_differ(same)
    groups = joined(arrays.groups, same)
    settings = {
        'seed': FLAGS.split_seed,
        'labels': arrays.labels,
        'groups': groups,
        'class_names': arrays.class_names,
    }
    names = {'fraction': 'test_fraction', 'seed': 'split_seed'}
    if arrays.groups is not None:
        names['groups'] = 'group_column' if FLAGS.csv else 'pattern'
    with command.renamed(names):
        if FLAGS.folds is not None:
            return data.k_folds(len(arrays), FLAGS.folds, **settings)
        return [data.train_validation_split(len(arrays), FLAGS.test_fraction, **settings)]


def check_memory(count, size):
    """Raises where so many images don't fit the memory; names the flag that makes them fit."""
    if 3 * size * size * count > MEMORY:
        raise ValueError(
            '`image_size` must be small enough for the images to take at most '
            f'{MEMORY / 1e9:g} GB of memory. '
            f'Received: image_size={size}, for {count} images'
        )


def warn_of_classes(arrays, name, splits):
    """Warns of classes that have no images on one side of a split."""
    for number, sides in enumerate(splits):
        lacking = []
        for side, use in zip(sides, ('train', 'test'), strict=True):
            there = np.bincount(arrays.labels[side], minlength=arrays.num_classes)
            if not there.all():
                names = [arrays.class_names[label] for label in np.flatnonzero(there == 0)]
                rest = f' and {len(names) - 10} more' if len(names) > 10 else ''
                lacking.append(f'to {use} on of {", ".join(names[:10])}{rest}')
        if lacking:
            fold = f', fold {number}' if len(splits) > 1 else ''
            logging.warning('%s%s: no images %s', name, fold, '; '.join(lacking))


def copies(images):
    """A number for each image, the same for images of the same pixels; None if all differ."""
    digests = [hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest() for image in images]
    unique, numbers = np.unique(digests, return_inverse=True)
    return None if len(unique) == len(digests) else numbers


def check_differ(same):
    """Raises if all images are copies of one, of which no part could be kept for the test."""
    if same is not None and not same.any():
        raise ValueError(
            'DIR must hold images that differ. Received: one picture, and copies of it'
        )


def joined(groups, same):
    """Numbers of groups that hold all that is in one group or has the same pixels; or None."""
    if groups is None:
        return same
    if same is None:
        return groups
    numbers = np.arange(len(same))
    while True:
        before = numbers
        for relation in (groups, same):
            _, places = np.unique(relation, return_inverse=True)
            lowest = np.full(len(same), len(same))
            np.minimum.at(lowest, places, numbers)
            numbers = lowest[places]
        if np.array_equal(numbers, before):
            return numbers


def described(arrays, source, train, test):
    """What the images are, in a line."""
    counts = data.class_counts(arrays.labels, arrays.class_names)
    shown = [f'{name} {count}' for name, count in list(counts.items())[:10]]
    rest = f' and {len(counts) - 10} more' if len(counts) > 10 else ''
    skipped = f', {len(arrays.skipped)} damaged left out' if arrays.skipped else ''
    return (
        f'{source.name}: {len(arrays)} images of {arrays.num_classes} classes '
        f'({", ".join(shown)}{rest}){skipped}; {train} to train on, {test} to test on'
    )


if __name__ == '__main__':
    command.run(main, 'folder.py', ['DIR'])
