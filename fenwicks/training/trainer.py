"""The Trainer: trains a Keras model on images that fit the device's memory, at its full speed."""

from __future__ import annotations

import json
import math
import numbers
import os
import time

import keras
import numpy as np

from fenwicks import data
from fenwicks import evaluate as evaluation
from fenwicks.losses import CrossEntropy
from fenwicks.training import checkpoint as checkpoints
from fenwicks.training.progress import Progress


class DivergedError(FloatingPointError):
    """The training loss stopped being a finite number."""


def _unchanged(images, seed):
    return images


def _to_unit_range(images):
    return keras.ops.cast(images, 'float32') / 255.0


class Trainer:
    """Trains a Keras model with the data set, the shuffle and the augmentation on the device.

    `fit()` of Keras copies each batch from the host. Here the steps run in one compiled loop:
    a whole epoch a call on an accelerator, a few seconds a call on a CPU so that the progress bar
    moves. All randomness is a function of seed, epoch and step, so an interrupted training that
    goes on from its checkpoint ends with the same numbers as one that was never stopped.

    Example:

    ```python
    trainer = fenwicks.training.Trainer(
        model,
        fenwicks.optimizers.SGD(schedule, momentum=0.9, nesterov=True, weight_decay=5e-4),
        batch_size=512,
        normalize=functools.partial(fenwicks.augment.normalize, mean=mean, std=std),
        augment=fenwicks.augment.compose([fenwicks.augment.random_flip]),
    )
    history = trainer.fit(train_images, train_labels, epochs=10)
    print(trainer.evaluate(test_images, test_labels).accuracy)
    ```

    Args:
        model: a built Keras model from float images `(batch, height, width, channels)` to logits
            `(batch, classes)`. Its `losses` (those of regularizers) join the loss.
        optimizer: a Keras optimizer; one of its own, not shared. A model in `mixed_float16` wants
            a `keras.optimizers.LossScaleOptimizer`.
        loss: a `keras.losses.Loss` on integer labels and logits; by default `CrossEntropy()`.
        batch_size: images in a step; the remainder of each epoch is dropped.
        normalize: from a uint8 batch to the model's float input; by default division by 255.
        augment: `augment(images, seed)` on normalised float batches, as `augment.compose` makes.
        seed: of shuffle and augmentation, in [0, 2**31).
        seconds_per_call: how long the compiled loop runs between two reports. `None` is a whole
            epoch on an accelerator and 5 s on a CPU.

    Raises:
        ValueError: an argument breaks its rule.
    """

    def __init__(
        self,
        model,
        optimizer,
        loss=None,
        *,
        batch_size,
        normalize=_to_unit_range,
        augment=_unchanged,
        seed=0,
        seconds_per_call=None,
    ):
        if not model.built:
            raise ValueError('`model` must be built: give it an input shape or call it once')
        if not 0 <= seed < 2**31:
            raise ValueError(f'`seed` must be in [0, 2**31). Received: seed={seed}')
        if seconds_per_call is not None and not seconds_per_call > 0:
            raise ValueError(
                '`seconds_per_call` must be positive. '
                f'Received: seconds_per_call={seconds_per_call}'
            )
        self.model, self.optimizer, self.seed = model, optimizer, int(seed)
        self.loss = CrossEntropy() if loss is None else loss
        self.batch_size = _positive_integer('batch_size', batch_size)
        self.first_step_at = None
        self.compile_seconds = 0.0
        self.preprocess_seconds = 0.0
        self.train_seconds = 0.0
        self.history = []
        optimizer.build(model.trainable_variables)
        self._engine, on_cpu = _engine(
            model, optimizer, self.loss, normalize, augment, self.batch_size, self.seed
        )
        self._seconds_per_call = seconds_per_call or (5.0 if on_cpu else math.inf)

    def fit(self, images, labels, epochs, *, checkpoint=None, resume=False, fingerprint=None):
        """Trains until `epochs` passes over the images have been made.

        Epochs that this Trainer made before, or that came from the checkpoint, count.

        Args:
            images: uint8 `(count, height, width, channels)`.
            labels: integer `(count,)`.
            epochs: number of passes in all, a positive integer.
            checkpoint: path of a file that is rewritten after each epoch; `None` for none.
            resume: whether to go on from `checkpoint` where that exists.
            fingerprint: JSON-able description of the run; going on from a checkpoint with
                another one is an error.

        Returns:
            A list with a dict an epoch: `epoch` (from 1), `train_loss`, `train_accuracy`,
            `learning_rate` (after the epoch's last step), `seconds`, `images_per_second`.

        Raises:
            ValueError: an argument breaks its rule.
            DivergedError: the loss became infinite or not a number.
        """
        epochs = _positive_integer('epochs', epochs)
        fingerprint = json.loads(json.dumps(fingerprint))  # as it comes back from the file
        self._check(images, labels)
        if self.batch_size > len(images):
            raise ValueError(
                f'`batch_size` must be at most the {len(images)} training images. '
                f'Received: batch_size={self.batch_size}'
            )
        if resume and checkpoint is not None and os.path.exists(checkpoint):
            self._restore(checkpoint, fingerprint)

        started = time.perf_counter()
        self._engine.load(images, np.asarray(labels, np.int32))
        loaded = time.perf_counter()
        self.preprocess_seconds += loaded - started
        self._engine.compile()
        self.compile_seconds += time.perf_counter() - loaded

        images_per_epoch = len(images) // self.batch_size * self.batch_size
        done = len(self.history)
        progress = Progress(images_per_epoch * epochs, images_per_epoch * done, epochs)
        try:
            for epoch in range(done, epochs):
                self._train_epoch(epoch, images_per_epoch // self.batch_size, progress)
                if checkpoint is not None:
                    self._save(checkpoint, fingerprint)
                progress.finish_epoch(self.history[-1])  # an epoch on the screen is a saved one
        finally:
            progress.close()
        # An optimizer that averages the weights (Keras's `use_ema`) puts them in place now.
        self.optimizer.finalize_variable_values(self.model.trainable_variables)
        return self.history

    def predict(self, images, batch_size=500):
        """Float32 logits `(count, classes)` of uint8 images, in order."""
        return evaluation.predict_logits(self._engine.predict, images, batch_size)

    def evaluate(self, images, labels, batch_size=500):
        """Loss and accuracy over all images, exactly; see `fenwicks.evaluate.Metrics`."""
        self._check(images, labels)
        return evaluation.metrics(self.predict(images, batch_size), labels)

    def _check(self, images, labels):
        """Raises unless the model takes these images and knows every label."""
        data.check_arrays(images, labels)
        shape = np.shape(images)[1:]
        # Models that are subclasses, not graphs of layers, don't say what they take.
        takes = getattr(self.model, 'input_shape', (None, *shape))[1:]
        if len(takes) != len(shape) or any(
            side not in (None, given) for side, given in zip(takes, shape, strict=True)
        ):
            raise ValueError(
                f'`images` must have the shape (count, {", ".join(map(str, takes))}) that the '
                f'model takes. Received: shape={np.shape(images)}'
            )
        logits = self.model(keras.KerasTensor((1, *shape), 'float32'), training=False)
        data.check_arrays(images, labels, logits.shape[-1])

    def _train_epoch(self, epoch, steps, progress):
        loss_sum, correct, step, seconds = 0.0, 0, 0, 0.0
        while step < steps:
            # The first call takes one step, to learn how long a step is.
            pace = seconds / step if step else self._pace()
            ahead = max(1, int(min(self._seconds_per_call / pace, steps))) if pace else 1
            if math.isinf(self._seconds_per_call):
                ahead = steps
            stop = min(step + ahead, steps)
            started = time.perf_counter()
            loss_sum, hits, taken, last_loss = self._engine.run(epoch, step, stop, loss_sum)
            seconds += time.perf_counter() - started
            self.first_step_at = self.first_step_at or time.perf_counter()
            step, correct = step + taken, correct + hits
            rate = self._learning_rate()
            if not math.isfinite(last_loss):
                raise DivergedError(
                    f'the training loss must stay finite: lower the learning rate. Received: '
                    f'{last_loss} at epoch {epoch + 1}, step {step}, learning rate {rate:.4g}'
                )
            seen = step * self.batch_size
            progress.advance(epoch, taken * self.batch_size, loss_sum / step, correct / seen, rate)
        self.train_seconds += seconds
        self.history.append(
            {
                'epoch': epoch + 1,
                'train_loss': loss_sum / steps,
                'train_accuracy': correct / (steps * self.batch_size),
                'learning_rate': rate,
                'seconds': seconds,
                'images_per_second': steps * self.batch_size / seconds,
            }
        )

    def _pace(self):
        """Seconds a step in the last epoch; 0 before the first."""
        if not self.history:
            return 0.0
        return self.batch_size / self.history[-1]['images_per_second']

    def _learning_rate(self):
        return float(keras.ops.convert_to_numpy(self.optimizer.learning_rate))

    def _variables(self):
        return self.model.variables + self.optimizer.variables

    def _save(self, path, fingerprint):
        state = {
            'fingerprint': fingerprint,
            'history': self.history,
            'train_seconds': self.train_seconds,
            'seed': self.seed,
        }
        checkpoints.save(path, self._variables(), state)

    def _restore(self, path, fingerprint):
        state, values = checkpoints.load(path)
        made = _flat({'seed': state['seed'], 'settings': state['fingerprint']})
        now = _flat({'seed': self.seed, 'settings': fingerprint})
        if made != now:
            keys = [key for key in {**made, **now} if made.get(key) != now.get(key)]
            differences = ', '.join(
                f'{key}={now.get(key)} instead of {made.get(key)}' for key in keys
            )
            raise ValueError(
                f'`resume` must go on with the settings of the checkpoint {path}. '
                f'Received: {differences}'
            )
        checkpoints.assign(self._variables(), values)
        self.history = state['history']
        self.train_seconds = state['train_seconds']


def _flat(settings, path=''):
    """A nested dict as one dict, by dotted paths: innermost keys alone would hide one another."""
    if not isinstance(settings, dict):
        return {path: settings}
    flat = {}
    for key, value in settings.items():
        flat.update(_flat(value, f'{path}.{key}' if path else key))
    return flat


def _positive_integer(name, value):
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(f'`{name}` must be a positive integer. Received: {name}={value!r}')
    return int(value)


def _engine(*arguments):
    """The engine for Keras's backend, and whether it runs on a CPU."""
    backend = keras.backend.backend()
    if backend == 'tensorflow':
        from fenwicks.layers.kernels import on_cpu
        from fenwicks.training.tensorflow_engine import TensorFlowEngine

        return TensorFlowEngine(*arguments, jit_compile=not on_cpu()), on_cpu()
    if backend == 'jax':
        from fenwicks.training.jax_engine import JaxEngine

        engine = JaxEngine(*arguments)
        return engine, engine.device == 'cpu'
    raise ValueError(
        'the Trainer must run on the tensorflow or the jax backend: set KERAS_BACKEND to one of '
        f'them. Received: KERAS_BACKEND={backend}'
    )
