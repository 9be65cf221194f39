"""What a training script shows while it trains: test accuracy, TensorBoard, CSV, wandb, or nothing.

    python examples/cifar10.py --validate                  # test accuracy after each epoch
    python examples/cifar10.py --tensorboard               # tensorboard --logdir=out
    python examples/cifar10.py --csv --verbosity=-1        # history.csv, and one line at the end

`--csv` is short for `--history_csv`, save in `folder.py`, where it names a file of labels.

All of it works by Keras's callbacks, at the ends of epochs.
"""

from __future__ import annotations

import csv
import importlib.util
import io

import keras
import numpy as np
import pages
from absl import flags

from fenwicks import assemble, runlog

FLAGS = flags.FLAGS
IMAGES, SCHEDULE_POINTS = 16, 200  # shown on TensorBoard, at most
_PACKAGES = {'tensorboard': 'tensorboardX', 'wandb': 'wandb'}


def define_flags():
    """Defines the flags."""
    flags.DEFINE_bool('validate', False, 'Show the test accuracy after each epoch. Takes time.')
    flags.DEFINE_bool(
        'tensorboard', False, 'Log scalars, schedule and images for TensorBoard, with tensorboardX.'
    )
    flags.DEFINE_bool('history_csv', False, 'Write the metrics of each epoch to history.csv.')
    flags.DEFINE_bool('wandb', False, 'Log the metrics of each epoch to Weights & Biases.')


def check_flags():
    """Raises, before the training, where a package is missing."""
    for flag, package in _PACKAGES.items():
        if FLAGS[flag].value and importlib.util.find_spec(package) is None:
            raise ImportError(f'`{flag}` needs {package}: pip install {package}')


def is_quiet():
    """Whether the user asked for warnings and errors only: --verbosity=-1, as absl has it."""
    return FLAGS['verbosity'].present and FLAGS.verbosity < 0


def arguments(recipe, dataset, folder, settings, chief=True):
    """The arguments of `Trainer.fit` that the flags ask for.

    Args:
        recipe, dataset: what is trained.
        folder: the run's folder.
        settings: a dict that describes the run.
        chief: whether this process writes files; of several one does.
    """
    callbacks = []
    if FLAGS.history_csv:
        callbacks.append(HistoryFile(folder / 'history.csv', FLAGS.resume))
    if FLAGS.tensorboard:
        callbacks.append(EventFile(folder / 'tensorboard', recipe, dataset))
    if FLAGS.wandb:
        callbacks.append(WeightsAndBiases(folder, settings))
    if callbacks and not chief:  # all processes must do the same to the model
        callbacks = [keras.callbacks.Callback()]
    tested = (dataset.test_images, dataset.test_labels) if FLAGS.validate else None
    return {
        'callbacks': callbacks,
        'validation_data': tested,
        'verbose': 0 if is_quiet() else 'auto',
    }


def named(records):
    """The records of epochs under the names of results: `test_` for `val_`, since the test images
    are what is passed to `fit` as validation data."""
    return [
        {name.replace('val_', 'test_', 1): value for name, value in record.items()}
        for record in records
    ]


class HistoryFile(keras.callbacks.Callback):
    """Writes the metrics of each epoch to a CSV file, as `keras.callbacks.CSVLogger` does.

    The file is whole after each epoch. A training that was killed may have written a row of an
    epoch that its checkpoint doesn't have; when it goes on, that row goes.

    Args:
        path: of the file.
        resume: whether to keep the rows that it has.
    """

    def __init__(self, path, resume):
        super().__init__()
        self.path, self.resume, self.rows = path, resume, []

    def on_train_begin(self, logs=None):
        if self.resume and self.path.exists():
            with open(self.path, newline='', encoding='utf-8', errors='replace') as file:
                try:  # a row with too many columns has no epoch then
                    rows = list(csv.DictReader(file, restkey='epoch'))
                except csv.Error as error:
                    raise ValueError(
                        f'{self.path} must be the CSV file of the training. Received: {error}'
                    ) from None
            self.rows = [row for row in rows if str(row.get('epoch')).isdecimal()]

    def on_epoch_begin(self, epoch, logs=None):
        self.rows = [row for row in self.rows if int(row['epoch']) < epoch]

    def on_epoch_end(self, epoch, logs=None):
        self.rows.append({'epoch': epoch, **(logs or {})})
        names = sorted({name for row in self.rows for name in row} - {'epoch'})
        text = io.StringIO(newline='')
        writer = csv.DictWriter(text, ['epoch', *names], restval='NA', lineterminator='\n')
        writer.writeheader()
        writer.writerows(self.rows)
        runlog.write_text(self.path, text.getvalue())


class EventFile(keras.callbacks.Callback):
    """Writes an event file for TensorBoard: the schedule, augmented images, scalars by epoch.

    `keras.callbacks.TensorBoard` wants TensorFlow; tensorboardX writes the same files without it.

    Args:
        folder: of the event files.
        recipe, dataset: what is trained.
    """

    def __init__(self, folder, recipe, dataset):
        super().__init__()
        self.folder, self.recipe, self.dataset = folder, recipe, dataset

    def on_train_begin(self, logs=None):
        from tensorboardX import SummaryWriter

        self.writer = SummaryWriter(str(self.folder))
        steps = self.recipe.steps_per_epoch(len(self.dataset.train_images))
        total, rate = self.recipe.total_steps(steps), assemble.schedule(self.recipe, steps)
        for step in np.linspace(0, total - 1, min(total, SCHEDULE_POINTS)).astype(int).tolist():
            self.writer.add_scalar('schedule/learning_rate', float(rate(step)), step)
        images = self.dataset.train_images[:IMAGES]
        self.writer.add_images('images/original', images, 0, dataformats='NHWC')
        for batch in pages.augmented(self.recipe, self.dataset, images, epochs=1):
            self.writer.add_images('images/augmented', batch, 0, dataformats='NHWC')

    def on_epoch_end(self, epoch, logs=None):
        for name, value in (logs or {}).items():
            part = 'test' if name.startswith('val_') else 'train'
            self.writer.add_scalar(f'{name.removeprefix("val_")}/{part}', float(value), epoch + 1)
        self.writer.flush()

    def on_train_end(self, logs=None):
        self.writer.close()


class WeightsAndBiases(keras.callbacks.Callback):
    """Logs scalars by epoch to Weights & Biases.

    Args:
        folder: where wandb keeps its files.
        settings: of the run.
    """

    def __init__(self, folder, settings):
        super().__init__()
        self.folder, self.settings = folder, settings

    def on_train_begin(self, logs=None):
        import wandb

        self.run = wandb.init(project='fenwicks', dir=str(self.folder), config=self.settings)

    def on_epoch_end(self, epoch, logs=None):
        self.run.log({name: float(value) for name, value in (logs or {}).items()}, step=epoch + 1)

    def on_train_end(self, logs=None):
        self.run.finish()
