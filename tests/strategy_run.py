"""Trains a small network with Keras's own `fit`, on the devices that the arguments name.

`test_strategy.py` runs it with eight devices of this machine. Prints what came of it as JSON.
"""

import dataclasses
import json
import os
import sys

import keras
import numpy as np
from training_toys import toy

from fenwicks import devices, layers, losses, optimizers

BATCH, EPOCHS = 32, 2


@dataclasses.dataclass(frozen=True)
class Case:
    """A training; `ghosts` are the images that are normalized together, 0 for the device's all."""

    replicas: int | None
    ghosts: int = 4
    averaging: object = None


CASES = {
    'averaged_on_8': Case(8, averaging=optimizers.EMA(0.5, every=2)),
    'averaged_on_1': Case(1, averaging=optimizers.EMA(0.5, every=2)),
    'plain_on_8': Case(8, ghosts=0),
    'plain_on_1': Case(1, ghosts=0),
    'ghosts_on_1': Case(1),
    'ghosts_of_16': Case(1, ghosts=16),
    'all': Case(None, ghosts=0),
}


def train(case):
    strategy = devices.distribute(BATCH, case.replicas, device='cpu', precision='float32')
    images, labels = toy(64)
    images = images / np.float32(255)
    callbacks = [optimizers.WeightAveraging(case.averaging)] if case.averaging else []
    with strategy.scope():
        keras.utils.set_random_seed(1)
        norm = layers.GhostBatchNormalization(case.ghosts) if case.ghosts else None
        model = keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                layers.Conv2D(4, 3, padding='same', kernel_regularizer='l2'),
                norm or layers.BatchNormalization(),
                layers.MaxPooling2D(),
                keras.layers.Flatten(),
                layers.Classifier(3),
            ]
        )
        model.compile(
            optimizers.SGD(0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
            losses.CrossEntropy(label_smoothing=0.1),
            metrics=['accuracy'],
            jit_compile=strategy.jit_compile,
        )
        history = model.fit(
            *part_of_process(strategy, images, labels),
            batch_size=strategy.batch_size,
            epochs=EPOCHS,
            shuffle=False,
            callbacks=callbacks,
            verbose=0,
        )
        loss, accuracy = model.evaluate(
            *part_of_process(strategy, images[:BATCH], labels[:BATCH]),
            batch_size=strategy.batch_size,
            verbose=0,
        )
    found = {
        'count': strategy.count,
        'processes': strategy.processes,
        'chief': strategy.chief,
        'kind': type(strategy.distribution).__name__,
        'losses': history.history['loss'],
        'accuracies': history.history['accuracy'],
        'evaluated': [loss, accuracy],
        'weights': flat(model.trainable_variables),
        'statistics': flat(model.non_trainable_variables),
        'on_devices': copies(model.trainable_variables[0]),
    }
    if strategy.processes == 1:  # outside of the scope, too
        found['logits'] = model.predict(images[:16], verbose=0).tolist()
    return found


def part_of_process(strategy, images, labels):
    """What this process feeds: on JAX its half of each batch, where there are two."""
    if keras.backend.backend() != 'jax' or strategy.processes == 1:
        return images, labels
    size, number = strategy.batch_size, int(os.environ['JAX_PROCESS_ID'])
    of_batch = np.arange(len(images)).reshape(-1, strategy.processes, size)
    mine = of_batch[:, number].ravel()
    return images[mine], labels[mine]


def flat(variables):
    return np.concatenate([np.ravel(keras.ops.convert_to_numpy(v)) for v in variables]).tolist()


def copies(variable):
    """How many devices hold a copy of a variable."""
    if keras.backend.backend() == 'jax':
        return len(variable.value.sharding.device_set)
    return len(getattr(variable.value, 'values', [variable]))


if __name__ == '__main__':
    devices.connect()
    print(json.dumps({name: train(CASES[name]) for name in sys.argv[1:]}))
