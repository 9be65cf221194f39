"""The Trainer: trains a Keras model on images that fit the device's memory, at its full speed."""

from __future__ import annotations

import json
import math
import os
import pathlib
import time

import keras
import numpy as np

from fenwicks import evaluate as evaluation
from fenwicks._checks import positive_integer
from fenwicks.losses import CrossEntropy
from fenwicks.training import arguments
from fenwicks.training import checkpoint as checkpoints
from fenwicks.training.averages import Averages
from fenwicks.training.progress import Progress
from fenwicks.training.replicas.base import at_hand


class DivergedError(FloatingPointError):
    """The training loss, or a weight, stopped being a finite number."""


def _unchanged(images, seed):
    return images


def _to_unit_range(images):
    return keras.ops.cast(images, 'float32') / 255.0


class Trainer:
    """Trains a Keras model with the data set, the shuffle and the augmentation on the device.

    `fit()` of Keras copies each batch from the host. Here the steps run in one compiled loop:
    a whole epoch a call on an accelerator, a few seconds a call on a CPU so that the progress bar
    moves; the very first call takes one step. All randomness is a function of seed, epoch and step,
    so an interrupted training that goes on from its checkpoint ends with the same numbers as one
    that was never stopped.

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
            Where it has parameters `epoch` (from 0), `indices` (int32 `(batch,)`, the images'
            numbers in the data set) or `run_seed` (two integers), it gets those too.
        averaging: a rule for averaging weights and batch-norm statistics, such as
            `optimizers.EMA(0.99, every=5)`; `None` for none. `predict` and `evaluate` then use
            the averages; the model keeps the weights of its last step, see `averaged`.
        seed: of shuffle and augmentation, in [0, 2**31).
        seconds_per_call: how long the compiled loop runs between two reports. `None` is a whole
            epoch on an accelerator, or of several processes, and 5 s on a CPU.
        replicas: the devices that share each batch, from `training.replicate`. `None` is all
            accelerators on JAX, those of the strategy in scope on TensorFlow, or else one device.

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
        averaging=None,
        seed=0,
        seconds_per_call=None,
        replicas=None,
    ):
        arguments.check(model, optimizer, loss, seed, seconds_per_call, replicas)
        self.model, self.optimizer, self.seed = model, optimizer, int(seed)
        self.loss = CrossEntropy() if loss is None else loss
        self.batch_size = positive_integer('batch_size', batch_size)
        self.replicas = at_hand() if replicas is None else replicas
        self.replicas.check_batch(self.batch_size)
        arguments.check_sharing(self.replicas, self.loss, seconds_per_call)
        self.first_step_at = None
        self.compile_seconds = 0.0
        self.preprocess_seconds = 0.0
        self.train_seconds = 0.0
        self.history = []
        self._steps_per_epoch = 0
        self._half_trained = False
        self._finalized = False  # whether the weights are averages of the optimizer's own
        self.replicas.check_scope(model, optimizer)
        with self.replicas.scope():
            arguments.build(optimizer, model)
            self._averages = Averages(averaging, model)
            self._engine, on_cpu = _engine(
                self.replicas,
                model,
                optimizer,
                self.loss,
                normalize,
                augment,
                self.batch_size,
                self.seed,
                self._averages,
            )
        self.replicas.begin_alike(self._variables())
        reports = on_cpu and self.replicas.processes == 1
        self._seconds_per_call = seconds_per_call or (5.0 if reports else math.inf)

    def fit(self, images, labels, epochs, *, checkpoint=None, resume=False, fingerprint=None):
        """Trains until `epochs` passes over the images have been made.

        Epochs that this Trainer made before, or that came from the checkpoint, count. After an
        epoch that was cut short, by an interrupt or an error, only a checkpoint leads on.

        Args:
            images: uint8 `(count, height, width, channels)`.
            labels: integer `(count,)`.
            epochs: number of passes in all, a positive integer.
            checkpoint: path of a file that is rewritten after each epoch; `None` for none. Of
                several processes the chief alone writes it, where all of them can read it.
            resume: whether to go on from `checkpoint` where that exists.
            fingerprint: JSON-able description of the run; going on from a checkpoint with
                another one is an error, as it is with another seed or backend.

        Returns:
            A list with a dict an epoch: `epoch` (from 1), `train_loss`, `train_accuracy`,
            `learning_rate` (after the epoch's last step; of a `MultiOptimizer` that of its first),
            `seconds`, `images_per_second`.

        Raises:
            ValueError: an argument breaks its rule.
            DivergedError: the loss or a weight became infinite or not a number.
        """
        epochs = positive_integer('epochs', epochs)
        fingerprint = json.loads(json.dumps(fingerprint))  # as it comes back from the file
        if resume and checkpoint is None:
            raise ValueError('`resume` needs a `checkpoint` to go on from. Received: None')
        writes = checkpoint is not None and self.replicas.chief
        if writes and not pathlib.Path(checkpoint).parent.is_dir():
            raise ValueError(
                f'`checkpoint` must lie in a folder that exists. Received: checkpoint={checkpoint}'
            )
        self._averages.check_apart()
        arguments.build(self.optimizer, self.model)  # raises where layers were frozen since
        arguments.check_data(self.model, images, labels)
        if self.batch_size > len(images):
            raise ValueError(
                f'`batch_size` must be at most the {len(images)} training images. '
                f'Received: batch_size={self.batch_size}'
            )
        self._steps_per_epoch = len(images) // self.batch_size
        if resume and os.path.exists(checkpoint):
            self._restore(checkpoint, fingerprint)
        elif self._half_trained:
            raise ValueError(
                'the Trainer must go on from a whole epoch: make a new one, or pass the '
                f'`checkpoint` and resume=True. Received: a half-trained epoch '
                f'{len(self.history) + 1}'
            )
        elif self._finalized and epochs > len(self.history):
            raise ValueError(
                'a Trainer whose optimizer has use_ema must train in one go, at the end of which '
                'its averages replace the weights: make a new one, or pass the `checkpoint` and '
                f'resume=True. Received: epochs={epochs} after {len(self.history)}'
            )
        elif not self.history:
            self._averages.restart()  # from the weights as they are by now

        if len(self.history) < epochs:
            started = time.perf_counter()
            self._engine.load(images, np.asarray(labels, np.int32))
            loaded = time.perf_counter()
            self.preprocess_seconds += loaded - started
            self._engine.compile()
            self.compile_seconds += time.perf_counter() - loaded

        images_per_epoch = self._steps_per_epoch * self.batch_size
        done = len(self.history)
        progress = Progress(
            images_per_epoch * epochs, images_per_epoch * done, epochs, self.replicas.chief
        )
        try:
            for epoch in range(done, epochs):
                self._train_epoch(epoch, self._steps_per_epoch, progress)
                if writes:
                    self._save(checkpoint, fingerprint)
                progress.finish_epoch(self.history[-1])  # an epoch on the screen is a saved one
        finally:
            progress.close()
        # An optimizer that averages the weights (Keras's `use_ema`) puts them in place now.
        self.optimizer.finalize_variable_values(self.model.trainable_variables)
        if any(optimizer.use_ema for optimizer in arguments.updating(self.optimizer)):
            self._finalized = True
            for weight in self.model.trainable_variables:  # not the average's own memory
                weight.assign(keras.ops.copy(weight.value))
        return self.history

    def predict(self, images, batch_size=500, tta=evaluation.NONE):
        """Float32 logits `(count, classes)` of uint8 images, in order.

        Args:
            images: uint8 `(count, height, width, channels)`.
            batch_size: images of one forward pass.
            tta: test-time augmentation, an `evaluate.TTA`.

        Raises:
            ValueError: the model does not take these images.
        """
        return tta.combine(self.predict_views(images, batch_size, tta))

    def predict_views(self, images, batch_size=500, tta=evaluation.NONE):
        """Float32 logits `(views, count, classes)` of the images as each view of `tta` has them.

        The first are those of the images themselves; `tta.combine` makes one of all.
        """
        arguments.check_images(self.model, images)
        with self.averaged():
            return evaluation.predict_logits(
                lambda batch: self._engine.predict(batch, tta.transforms), images, batch_size
            )

    def evaluate(self, images, labels, batch_size=500, tta=evaluation.NONE):
        """Loss and accuracy over all images, exactly; see `fenwicks.evaluate.Metrics`."""
        arguments.check_data(self.model, images, labels)
        return evaluation.metrics(self.predict(images, batch_size, tta), labels)

    def averaged(self):
        """A context in which the model has its averages for weights, for saving it.

        ```python
        with trainer.averaged():
            trainer.model.save('model.keras')
        ```

        Afterwards it has its own weights again. Without `averaging`, or before its first update,
        they are the same.
        """
        return self._averages.in_place(len(self.history) * self._steps_per_epoch)

    def _train_epoch(self, epoch, steps, progress):
        loss_sum, correct, step, seconds = 0.0, 0, 0, 0.0
        self._half_trained = True
        while step < steps:
            ahead = self._steps_ahead(seconds / step if step else self._pace(), steps - step)
            started = time.perf_counter()
            loss_sum, hits, taken, last_loss, weights_finite = self._engine.run(
                epoch, step, step + ahead, loss_sum
            )
            seconds += time.perf_counter() - started
            if self.first_step_at is None:
                self.first_step_at = time.perf_counter()
            step, correct = step + taken, correct + hits
            rate = self._learning_rate()
            if not (math.isfinite(last_loss) and weights_finite):
                what = 'weights' if math.isfinite(last_loss) else 'loss'
                raise DivergedError(
                    f'the training {what} must stay finite: lower the learning rate. Received: '
                    f'loss {last_loss} at epoch {epoch + 1}, step {step}, learning rate {rate:.4g}'
                )
            seen = step * self.batch_size
            progress.advance(epoch, taken * self.batch_size, loss_sum / step, correct / seen, rate)
        self._half_trained = False
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

    def _steps_ahead(self, pace, left):
        """How many steps the next call takes, of those left in the epoch, at `pace` s a step."""
        if self.first_step_at is None:  # one step, whose end is noted, and how long it was
            return 1
        if math.isinf(self._seconds_per_call):
            return left
        return max(1, int(min(self._seconds_per_call / pace, left)))

    def _pace(self):
        """Seconds a step in the last epoch; 0 before the first."""
        if not self.history:
            return 0.0
        return self.batch_size / self.history[-1]['images_per_second']

    def _learning_rate(self):
        first, *_ = arguments.updating(self.optimizer)
        return float(keras.ops.convert_to_numpy(first.learning_rate))

    def _variables(self):
        return self.model.variables + self.optimizer.variables + self._averages.variables

    def _settings(self, fingerprint):
        """What a training must go on with to end as if it had never stopped."""
        return {
            'backend': keras.backend.backend(),  # each has random numbers of its own
            'seed': self.seed,
            'batch_size': self.batch_size,
            'steps_per_epoch': self._steps_per_epoch,
            'settings': fingerprint,
        }

    def _save(self, path, fingerprint):
        state = {
            **self._settings(fingerprint),
            'history': self.history,
            'train_seconds': self.train_seconds,
        }
        checkpoints.save(path, self._variables(), state)

    def _restore(self, path, fingerprint):
        state, values = checkpoints.load(path)
        checkpoints.check_settings(f'the checkpoint {path}', state, self._settings(fingerprint))
        checkpoints.assign(self._variables(), values)
        self.history = state['history']
        self.train_seconds = state['train_seconds']
        self._half_trained = self._finalized = False


def _engine(replicas, *settings):
    """The engine for Keras's backend, and whether it runs on a CPU."""
    if keras.backend.backend() == 'jax':
        from fenwicks.training.engines.jax import JaxEngine

        engine = JaxEngine(*settings, replicas=replicas)
        return engine, engine.device == 'cpu'
    from fenwicks.kernels.device import on_cpu
    from fenwicks.training.engines.tensorflow import TensorFlowEngine

    engine = TensorFlowEngine(*settings, replicas=replicas, jit_compile=not on_cpu())
    return engine, on_cpu()
