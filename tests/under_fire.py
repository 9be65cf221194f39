"""Kills a small training at random instants, or repeats it, and counts those that end otherwise.

    python tests/under_fire.py kills --kills=200 --log=examples/results/under_fire.jsonl
    KERAS_BACKEND=jax python tests/under_fire.py kills --kills=200 --training=streamed
    python tests/under_fire.py seeds --precision=bfloat16

`kills`: this process imports everything, and forks itself for each training, so that a kill takes a
second and not the ten of an import. It runs no operation itself, since frameworks that have started
can't be forked; JAX's children share what they compile. Half of the kills come while a checkpoint
is written, as soon as its temporary file is seen. After each kill the training goes on from its
checkpoint; the last one runs to the end.

`seeds`: the same training with the same seed, three times, each in a new interpreter.

Equal means every bit of every variable, and every loss. A line of JSON says what was found; the
exit status is 1 where something differed.
"""

import argparse
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings

import keras
import numpy as np
from training_toys import BATCH, RATES, make, sgd, toy, values

from fenwicks import (
    augment,
    data,
    devices,
    hardware,
    layers,
    optimizers,
    precision,
    runlog,
)
from fenwicks.training.callbacks import BestWeights

EPOCHS = 60
RUNS = 3  # with the same seed
PRECISIONS = [name for name in precision.PRECISIONS if name != 'auto']
AUGMENT = augment.compose([augment.random_flip, augment.alternating_flip])


def trainer(rate=RATES, model=None, **options):
    optimizer = sgd(rate)
    if keras.config.dtype_policy().name == 'mixed_float16':
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    rule = optimizers.EMA(0.9, every=2)
    return make(model, optimizer, averaging=rule, augment=AUGMENT, **options)


def resident(folder):
    """Trains on arrays that lie on the device; returns the Trainer, and what callbacks know."""
    trained = trainer()
    trained.fit(*toy(), EPOCHS, checkpoint=folder / 'checkpoint.npz', resume=True)
    return trained, []


def callbacks(folder):
    """As `resident`, with validation, and callbacks that change what is trained."""
    trained = trainer(0.05)
    plateau = keras.callbacks.ReduceLROnPlateau(patience=3, factor=0.7)
    stopping = keras.callbacks.EarlyStopping(patience=EPOCHS, restore_best_weights=True)
    trained.fit(
        *toy(),
        EPOCHS,
        validation_data=toy(9, seed=1),
        callbacks=[plateau, stopping],
        checkpoint=folder / 'checkpoint.npz',
        resume=True,
    )
    return trained, [plateau.best, plateau.wait, stopping.best, stopping.best_epoch, stopping.wait]


class Slow(data.ImageBatches):
    """As a disk is, so that kills fall into the fetching of a chunk too."""

    def stored_batch(self, index):
        time.sleep(0.002)
        return super().stored_batch(index)


def streamed(folder):
    """Trains on batches that arrive one after the other, with all that a Trainer can do."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            layers.ConvBN(4),
            keras.layers.GlobalMaxPooling2D(),
            keras.layers.Dense(3, dtype='float32'),
        ]
    )
    trained = trainer(
        0.05,
        model,
        accumulate=2,
        metrics=[keras.metrics.AUC(from_logits=True, num_thresholds=20)],
        image_sizes=((0, 6), (15, 8), (25, 10)),
        freeze=((10.6, '.*beta'),),
    )
    plateau = keras.callbacks.ReduceLROnPlateau('val_loss', patience=2, cooldown=1)
    best = BestWeights('val_loss')
    trained.fit(
        Slow(*toy(), BATCH, shuffle=True, seed=5, drop_remainder=True),
        epochs=EPOCHS,
        validation_data=toy(9, seed=3),
        callbacks=[plateau, best],
        class_weight={0: 2.0},
        checkpoint=folder / 'checkpoint.npz',
        resume=True,
    )
    known = [plateau.best, plateau.wait, plateau.cooldown_counter, best.best, best.best_epoch]
    return trained, known


TRAININGS = {'resident': resident, 'callbacks': callbacks, 'streamed': streamed}


def run(training, folder):
    """Trains, and leaves what came of it in the folder."""
    trained, known = TRAININGS[training](folder)
    numbers = [known, *trained.history.history.values()]
    ends = [*map(np.float64, numbers), *map(exact, values(trained))]
    np.savez(folder / 'end.part.npz', *ends)
    os.replace(folder / 'end.part.npz', folder / 'end.npz')


def exact(array):
    return array.astype(np.float32) if array.dtype.name == 'bfloat16' else array


def train(training, folder):
    """Trains in a process of its own; returns its number."""
    sys.stdout.flush()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # JAX warns of forks, which it survives before it starts
        child = os.fork()
    if child:
        return child
    try:
        with open(folder / 'errors.txt', 'wb') as errors:
            os.dup2(errors.fileno(), 2)
        run(training, folder)
    except BaseException as error:
        (folder / 'error.txt').write_text(f'{type(error).__name__}: {error}')
        os._exit(1)
    os._exit(0)


def finish(training, folder):
    """Trains to the end; returns what came of it."""
    _, status = os.waitpid(train(training, folder), 0)
    if status:
        error = folder / 'error.txt'
        raise RuntimeError(error.read_text() if error.exists() else f'the training died: {status}')
    return end(folder)


def end(folder):
    with np.load(folder / 'end.npz') as archive:
        return [archive[name] for name in archive.files]


def writes(folder):
    """Whether a checkpoint is being written."""
    return any(name.endswith('.part.npz') for name in os.listdir(folder) if name[0] == '.')


def kill(training, folder, seconds, within_write):
    """Trains, and kills that after some seconds; what the kill met, `None` where it came too late.

    Returns:
        `'write'` where a checkpoint was being written, else `'training'`.
    """
    child = train(training, folder)
    time.sleep(seconds)
    while (
        within_write
        and not writes(folder)
        and not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    ):
        time.sleep(0.0005)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return 'write' if writes(folder) else 'training'
    if status:
        raise RuntimeError((folder / 'error.txt').read_text())
    return None


def same(one, other):
    return len(one) == len(other) and all(map(np.array_equal, one, other))


def kills(arguments, folder):
    """Kills until there were enough; how many trainings ended otherwise than one left alone."""
    chance = random.Random(arguments.seed)
    found = {'n': 0, 'within_a_write': 0, 'trainings': 0, 'different': 0}
    for name in ('first', 'timed'):  # the second finds what the first compiled, as later ones do
        whole = folder / name
        whole.mkdir()
        began = time.monotonic()
        expected = finish(arguments.training, whole)
        seconds = time.monotonic() - began
    while found['n'] < arguments.kills:
        cut = folder / str(found['trainings'])
        cut.mkdir()
        found['trainings'] += 1
        while found['n'] < arguments.kills and not (cut / 'end.npz').exists():
            after = chance.uniform(0, seconds)
            met = kill(arguments.training, cut, after, chance.random() < 0.5)
            found['n'] += met is not None
            found['within_a_write'] += met == 'write'
        got = end(cut) if (cut / 'end.npz').exists() else finish(arguments.training, cut)
        found['different'] += not same(got, expected)
        if writes(cut):
            raise RuntimeError('what a killed process left must be removed')
    return found


def seeds(arguments, folder):
    """How many trainings with the same seed ended otherwise than the first."""
    ends = []
    for number in range(RUNS):
        place = folder / str(number)
        place.mkdir()
        flags = [f'--training={arguments.training}', f'--precision={arguments.precision}']
        subprocess.run([sys.executable, __file__, 'once', str(place), *flags], check=True)
        ends.append(end(place))
    return {'n': RUNS, 'different': sum(not same(each, ends[0]) for each in ends)}


def remember_programs(folder):
    """Has the trainings on JAX share what they compile."""
    if keras.backend.backend() == 'jax':
        import jax

        jax.config.update('jax_compilation_cache_dir', os.path.join(folder, 'programs'))
        devices.remember_programs()


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument('figure', choices=['kills', 'seeds', 'once'])
    parser.add_argument('folder', nargs='?', type=pathlib.Path, help='Of `once`: for the results.')
    parser.add_argument('--kills', type=int, default=200)
    parser.add_argument('--training', choices=list(TRAININGS), default='resident')
    parser.add_argument('--precision', choices=PRECISIONS, default='float32')
    parser.add_argument('--seed', type=int, default=0, help='Of the instants of the kills.')
    parser.add_argument('--log', help='File of JSON lines to append the result to.')
    return parser.parse_args()


def main():
    arguments = parse()
    precision.set_precision(arguments.precision)
    if arguments.figure == 'once':
        run(arguments.training, arguments.folder)
        return
    code = hardware.provenance()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        remember_programs(folder)
        measure = {'kills': kills, 'seeds': seeds}[arguments.figure]
        found = measure(arguments, pathlib.Path(folder))
    found = {
        'figure': arguments.figure,
        'training': arguments.training,
        'backend': keras.backend.backend(),
        'precision': arguments.precision,
        **found,
        'seconds': round(time.monotonic() - began, 1),
        'hardware': hardware.describe(),
        **code,
    }
    if arguments.log:
        runlog.append_line(arguments.log, found)
    print(json.dumps(found))
    sys.exit(found['different'] > 0)


if __name__ == '__main__':
    main()
