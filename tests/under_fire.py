"""Kills a small training at random instants, resumes it, and counts those that end otherwise.

    python tests/under_fire.py --kills=200 --log=examples/results/under_fire.jsonl
    KERAS_BACKEND=jax python tests/under_fire.py --kills=200 --training=resident

This process imports everything, and forks itself for each training: so a kill takes a second, and
not the ten of an import. It runs no operation, since frameworks that have started can't be forked.
Half of the kills come while a checkpoint is written, as soon as its temporary file is seen.

One line of JSON says what was found; the exit status is 1 where a training ended otherwise.
"""

import argparse
import json
import os
import pathlib
import random
import signal
import sys
import tempfile
import time
import warnings

import keras
import numpy as np
from training_toys import make, toy, values

from fenwicks import augment, hardware, optimizers, runlog

EPOCHS = 60
AUGMENT = augment.compose([augment.random_flip, augment.alternating_flip])


def resident(folder):
    """Trains on arrays that lie on the device; returns the Trainer."""
    trainer = make(averaging=optimizers.EMA(0.9, every=2), augment=AUGMENT)
    trainer.fit(*toy(), EPOCHS, checkpoint=folder / 'checkpoint.npz', resume=True)
    return trainer


TRAININGS = {'resident': resident}


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
        trainer = TRAININGS[training](folder)
        losses = [epoch['train_loss'] for epoch in trainer.history]
        np.savez(folder / 'end.part.npz', np.float64(losses), *values(trainer))
        os.replace(folder / 'end.part.npz', folder / 'end.npz')
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


def measure(training, kills, seed):
    """Counts the trainings that ended otherwise than the one that nobody stopped."""
    chance = random.Random(seed)
    found = {'kills': 0, 'within_a_write': 0, 'trainings': 0, 'different': 0}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        whole = folder / 'whole'
        whole.mkdir()
        began = time.monotonic()
        expected = finish(training, whole)
        seconds = time.monotonic() - began
        while found['kills'] < kills:
            cut = folder / str(found['trainings'])
            cut.mkdir()
            found['trainings'] += 1
            while found['kills'] < kills and not (cut / 'end.npz').exists():
                met = kill(training, cut, chance.uniform(0, seconds), chance.random() < 0.5)
                found['kills'] += met is not None
                found['within_a_write'] += met == 'write'
            got = end(cut) if (cut / 'end.npz').exists() else finish(training, cut)
            same = len(got) == len(expected) and all(map(np.array_equal, got, expected))
            found['different'] += not same
            if writes(cut):
                raise RuntimeError('what a killed process left must be removed')
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--kills', type=int, default=200)
    parser.add_argument('--training', choices=list(TRAININGS), default='resident')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--log', help='File of JSON lines to append the result to.')
    arguments = parser.parse_args()
    code = hardware.provenance()
    began = time.monotonic()
    found = {
        'figure': 'kills',
        'training': arguments.training,
        'backend': keras.backend.backend(),
        'precision': 'float32',
        **measure(arguments.training, arguments.kills, arguments.seed),
        'seed': arguments.seed,
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
