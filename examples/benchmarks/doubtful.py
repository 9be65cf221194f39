"""What test-time augmentation for doubtful predictions only costs in accuracy, and saves in time.

    python examples/benchmarks/doubtful.py --recipe=speed94 --precision=bfloat16 --seed=0
    python examples/benchmarks/doubtful.py --recipe=speed94 --epochs=4 --log=doubtful.jsonl
    python examples/benchmarks/doubtful.py --recipe=speed94 --model=out/speed94/model.keras

Trains a recipe, or loads a model that it trained. Predicts the test images and as many training
images with all six views, and says for several margins between the two largest plain probabilities:
how many predictions are below it, hence doubtful; how many passes over the images that makes; and
how many classifications differ from those with all views for all. A margin is chosen on the
training images; the test images then say what it costs. At the end both ways of evaluating the test
images are timed in turn.
"""

from __future__ import annotations

import startup  # noqa: F401

import dataclasses
import os
import statistics
import time

import keras
import numpy as np
import trainings
from absl import flags

from fenwicks import (
    assemble,
    command,
    devices,
    evaluate,
    hardware,
    losses,
    optimizers,
    precision,
    recipes,
    runlog,
    training,
)

FLAGS = flags.FLAGS
trainings.define_flags()
flags.adopt_module_key_flags(trainings)
flags.DEFINE_enum('recipe', 'speed94', recipes.PRESETS, 'What is trained.')
flags.DEFINE_integer('seed', 0, 'Of weights, shuffle and augmentation.', lower_bound=0)
flags.DEFINE_string('model', None, 'A model of raw pixels, instead of a training.')
flags.DEFINE_integer('rounds', 3, 'Timed evaluations of each kind.', lower_bound=0)
flags.DEFINE_string('log', None, 'JSON-lines file to append the result to.')

MARGINS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)


def main():
    recipe = trainings.find_recipe(FLAGS.recipe, FLAGS)
    dataset = trainings.load_dataset(FLAGS)
    if FLAGS.log:
        runlog.start_log(FLAGS.log)
    device = devices.select_device(FLAGS.device)
    chosen = precision.set_precision(FLAGS.precision, device)
    if FLAGS.model:
        model = keras.saving.load_model(os.path.expanduser(FLAGS.model))
        unused = optimizers.SGD(0.0), losses.CrossEntropy()
        trainer = training.Trainer(model, *unused, batch_size=recipe.batch_size)
        # As it was saved; layers without weights, such as that of class names, may differ.
        chosen = next(each.compute_dtype for each in model.layers[::-1] if each.trainable_weights)
    else:
        trainer = assemble.build_trainer(recipe, dataset, precision=chosen, seed=FLAGS.seed)
        trainer.fit(dataset.train_images, dataset.train_labels, recipe.epochs)
    count = len(dataset.test_images)
    sets = {
        'training': (dataset.train_images[:count], dataset.train_labels[:count]),
        'test': (dataset.test_images, dataset.test_labels),
    }
    result = {'benchmark': 'doubtful', 'recipe': recipe.name, 'seed': FLAGS.seed}
    result |= {'precision': chosen, 'epochs': recipe.epochs, 'widths': recipe.widths}
    used = hardware.describe(device, trainer.replicas.count)
    result |= {'hardware': used, **hardware.provenance()}
    for name, (images, labels) in sets.items():
        views = trainer.predict_views(images, tta=evaluate.FLIP_TRANSLATE)
        result[name] = [compare(views, labels, margin) for margin in MARGINS]
        print(f'{name} images\n{table(result[name])}\n')
    result['seconds'] = {
        tta.name: seconds(trainer, sets['test'], tta)
        for tta in (evaluate.NONE, evaluate.FLIP_TRANSLATE, evaluate.DOUBTFUL)
        if FLAGS.rounds
    }
    for name, spent in result['seconds'].items():
        print(f'{name:16} {spent:.1f} s for {count} images')
    if FLAGS.log:
        runlog.append_line(FLAGS.log, result)


def compare(views, labels, margin):
    """What a margin would do to images whose views are known."""
    tta = dataclasses.replace(evaluate.FLIP_TRANSLATE, name='doubtful', margin=margin)
    doubtful = np.asarray(tta.is_doubtful(views[0]))
    whole = evaluate.FLIP_TRANSLATE.combine(views)
    logits = np.where(doubtful[:, None], whole, views[0])
    differ = logits.argmax(1) != whole.argmax(1)
    accuracy = 100 * evaluate.metrics(logits, labels).accuracy
    return {
        'margin': margin,
        'doubtful': float(doubtful.mean()),
        'passes': 1 + (len(views) - 1) * float(doubtful.mean()),
        'differ': float(differ.mean()),
        'accuracy': accuracy,
        'from_all_views': accuracy - 100 * evaluate.metrics(whole, labels).accuracy,
    }


def table(rows):
    header = ['margin', 'doubtful, %', 'passes', 'classified otherwise, %', 'accuracy, %', 'change']
    return runlog.markdown(
        header,
        [
            [
                row['margin'],
                f'{100 * row["doubtful"]:.1f}',
                f'{row["passes"]:.2f}',
                f'{100 * row["differ"]:.3f}',
                f'{row["accuracy"]:.2f}',
                f'{row["from_all_views"]:+.2f}',
            ]
            for row in rows
        ],
    )


def seconds(trainer, data, tta):
    """The median seconds of an evaluation, the first one aside, which compiles."""
    spent = []
    for _ in range(FLAGS.rounds + 1):
        began = time.perf_counter()
        trainer.evaluate(*data, tta=tta)
        spent.append(time.perf_counter() - began)
    return statistics.median(spent[1:])


if __name__ == '__main__':
    command.run(main, 'doubtful.py')
