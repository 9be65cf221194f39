"""The Trainer: trains a Keras model, with data set, shuffle and augmentation on the device."""

from __future__ import annotations

import json
import math
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from fenwicks._checks import finite_number
from fenwicks._typing import ImageFunction, Tensor
from fenwicks.training import checkpoint as checkpoints
from fenwicks.training import checks
from fenwicks.training.averages import AveragingRule
from fenwicks.training.engines.base import Loss
from fenwicks.training.epochs import Epochs
from fenwicks.training.interrupts import noted_interrupts
from fenwicks.training.progress import Progress
from fenwicks.training.replicas import Replicas
from fenwicks.training.steps import StepRunner, to_unit_range, unchanged


class Trainer(StepRunner):
    """Trains a Keras model with data set, shuffle and augmentation on the device.

    Keras's `fit()` copies each batch from the host. Here the steps run in one compiled loop. A call
    of the loop takes a whole epoch on an accelerator, and a few seconds on a CPU so that the
    progress bar moves; the first call is one step. All randomness is a function of seed, epoch and
    step. So a training that was interrupted and resumed from its checkpoint ends with the same
    numbers as one that was not.

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
            `(batch, classes)`. Its `losses` (those of regularizers) are added to the loss.
        optimizer: a Keras optimizer, not shared with another model. A model in `mixed_float16`
            needs a `keras.optimizers.LossScaleOptimizer`.
        loss: a `keras.losses.Loss` of integer labels and logits; by default `CrossEntropy()`.
        batch_size: images in a step, a positive integer. An epoch drops its incomplete last batch.
        normalize: function from a uint8 batch to the model's float input; by default division by
            255.
        augment: function `augment(images, seed)` of normalised float batches, such as
            `augment.compose` returns. Where it has parameters `epoch` (from 0), `indices` (int32
            `(batch,)`, the places of the images in the data set) or `run_seed` (two integers), it
            gets those too.
        averaging: a rule for averaging weights and batch-norm statistics, such as
            `optimizers.EMA(0.99, every=5)`; `None` for none. `predict` and `evaluate` use the
            averages; the model keeps the weights of its last step, see `averaged`.
        seed: integer in [0, 2**31), for shuffle and augmentation.
        seconds_per_call: seconds of a call of the compiled loop. `None` is a whole epoch on an
            accelerator, or where several processes train together, and 5 s on a CPU.
        replicas: the devices that share each batch, from `training.replicate`. `None` is all
            accelerators on JAX, those of the strategy in scope on TensorFlow, or else one device.
        jit_compile: whether XLA compiles the loop over the steps as one program. `None` is yes on
            an accelerator and no on a CPU, where TensorFlow then runs the loop as a graph and JAX
            calls a compiled step.
        image_sizes: pairs `(epoch, size)`: from that epoch on, counted from 0, the augmented images
            are resized to `size` x `size` pixels, bilinearly and without antialiasing. Empty: they
            keep their size. The model must take each size, as one with an input of `(None, None,
            channels)` and a global pooling does. `predict` and `evaluate` never resize.

    Raises:
        ValueError: an argument breaks its rule.

    Attributes:
        history: list of a dict for each epoch, see `fit`.
        first_step_at: `time.perf_counter()` at the end of the first step; `None` before it.
        preprocess_seconds, compile_seconds, train_seconds: of placing the data, of compiling and of
            training, in all calls of `fit`.

    Reference:
        Howard, https://www.fast.ai/posts/2018-04-30-dawnbench-fastai.html, for `image_sizes`.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        loss: Loss | None = None,
        *,
        batch_size: int,
        normalize: ImageFunction = to_unit_range,
        augment: Callable[..., Tensor] = unchanged,
        averaging: AveragingRule | None = None,
        seed: int = 0,
        seconds_per_call: float | None = None,
        replicas: Replicas | None = None,
        jit_compile: bool | None = None,
        image_sizes: Sequence[tuple[int, int]] = (),
    ):
        super().__init__(
            model,
            optimizer,
            loss,
            batch_size=batch_size,
            normalize=normalize,
            augment=augment,
            averaging=averaging,
            seed=seed,
            seconds_per_call=seconds_per_call,
            replicas=replicas,
            jit_compile=jit_compile,
            image_sizes=image_sizes,
        )
        self.train_seconds = 0.0
        self._finalized = False  # whether the weights are averages of the optimizer's own
        self._epochs = Epochs(
            self._engines,
            self.batch_size,
            self.seconds_per_call,
            self._learning_rate,
            self._not_finite,
        )

    @property
    def first_step_at(self) -> float | None:
        return self._epochs.first_step_at

    def fit(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        epochs: float,
        *,
        checkpoint: str | os.PathLike[str] | None = None,
        resume: bool = False,
        fingerprint: Any = None,
    ) -> list[dict[str, Any]]:
        """Trains until the images have been passed over `epochs` times in all.

        Epochs of earlier calls, or of the checkpoint, count. After an epoch that was interrupted,
        by the user or by an error, training can go on from a checkpoint only.

        Args:
            images: uint8 `(count, height, width, channels)`.
            labels: integer `(count,)`.
            epochs: number of epochs in all, above 0. The last may be a part of one: 2.5 epochs of
                10 steps are 25 steps.
            checkpoint: path of a file that is rewritten after each epoch; `None` for none. Of
                several processes the chief writes it, and all must be able to read it.
            resume: whether to start from `checkpoint` if that exists.
            fingerprint: description of the run, of what JSON can hold. Resuming from a checkpoint
                with another fingerprint, seed or backend is an error.

        Returns:
            A list of a dict for each epoch: `epoch` (from 1), `train_loss`, `train_accuracy`,
            `learning_rate` (after the last step; of a `MultiOptimizer` that of its first),
            `seconds`, `images_per_second`.

        Raises:
            ValueError: an argument breaks its rule.
            DivergedError: the loss, a weight or another variable of the training became infinite or
                NaN.
        """
        epochs = finite_number('epochs', epochs, above=0)
        fingerprint = json.loads(json.dumps(fingerprint))  # as the file will have it
        if resume and checkpoint is None:
            raise ValueError('`resume` needs a `checkpoint` to go on from. Received: None')
        writes = checkpoint is not None and self.replicas.chief
        if checkpoint is not None and writes and not pathlib.Path(checkpoint).parent.is_dir():
            raise ValueError(
                f'`checkpoint` must lie in a folder that exists. Received: checkpoint={checkpoint}'
            )
        self._check_training(images, labels)
        settings = {} if checkpoint is None else self._settings(images, labels, fingerprint)
        if resume and checkpoint is not None and os.path.exists(checkpoint):
            self._restore(checkpoint, settings)
        else:
            self._check_whole_epoch()
            if not self.history:
                self._averages.restart()  # from the present weights
        steps = max(1, math.floor(epochs * self._steps_per_epoch + 0.5))
        epochs, done = math.ceil(steps / self._steps_per_epoch), len(self.history)
        if self._steps_done < steps:
            self._check_can_go_on(steps)
            self._load(images, labels)

        images_done = self._steps_done * self.batch_size
        progress = Progress(steps * self.batch_size, images_done, epochs, self.replicas.chief)
        try:
            with noted_interrupts() as interrupts:
                for epoch in range(done, epochs):
                    self._train_epoch(epoch, steps, progress, interrupts)
                    if writes:
                        self._save(checkpoint, settings)
                    progress.finish_epoch(self.history[-1])  # prints saved epochs only
        finally:
            progress.close()
        self._finalize()
        return self.history

    def _check_whole_epoch(self):
        """Raises unless the present weights are those of the end of an epoch."""
        if self._half_trained:
            raise ValueError(
                'the Trainer must go on from a whole epoch: make a new one, or pass the '
                f'`checkpoint` and resume=True. Received: a half-trained epoch '
                f'{len(self.history) + 1}'
            )

    def _check_can_go_on(self, steps):
        """Raises where a training that came to its end can't be made longer, to `steps` steps."""
        epochs, done = (count / self._steps_per_epoch for count in (steps, self._steps_done))
        if not done.is_integer():
            raise ValueError(
                'a training that ended with a part of an epoch must not go on. '
                f'Received: epochs={epochs:g} after {done:g}'
            )
        if self._finalized:
            raise ValueError(
                'a Trainer whose optimizer has use_ema must train in one go, at the end of which '
                'its averages replace the weights: make a new one, or pass the `checkpoint` and '
                f'resume=True. Received: epochs={epochs:g} after {done:g}'
            )

    def _train_epoch(self, epoch, steps, progress, interrupts):
        """Trains for an epoch, or for less where the training ends after `steps` steps in all."""
        self.compile(epoch)
        count = min(self._steps_per_epoch, steps - self._steps_done)
        last = self.history[-1]['images_per_second'] if self.history else math.inf
        self._half_trained = True
        record = self._epochs.train(epoch, count, self.batch_size / last, progress, interrupts)
        self._half_trained = False
        self._steps_done += count
        self.train_seconds += record['seconds']
        self.history.append(record)

    def _finalize(self):
        """Puts the averages of an optimizer of Keras with `use_ema` in the weights' place."""
        self.optimizer.finalize_variable_values(self.model.trainable_variables)
        if any(optimizer.use_ema for optimizer in checks.updating(self.optimizer)):
            self._finalized = True
            for weight in self.model.trainable_variables:  # a copy, not the average's memory
                weight.assign(keras.ops.copy(weight.value))

    def _not_finite(self):
        """The first of the training's variables that holds infinities or NaN; the weights first."""
        for variable in (*self.model.trainable_variables, *self.variables):
            if (
                keras.backend.is_float_dtype(variable.dtype)
                and not np.isfinite(
                    keras.ops.convert_to_numpy(keras.ops.cast(variable, 'float32'))
                ).all()
            ):
                return variable

    def _learning_rate(self):
        first, *_ = checks.updating(self.optimizer)
        return float(keras.ops.convert_to_numpy(first.learning_rate))

    def _settings(self, images, labels, fingerprint):
        """What must be equal for a resumed training to end with the same numbers."""
        sizes = {'image_sizes': self.image_sizes} if self.image_sizes else {}
        return {
            **sizes,
            'backend': keras.backend.backend(),  # each draws other random numbers
            'seed': self.seed,
            'batch_size': self.batch_size,
            'steps_per_epoch': self._steps_per_epoch,
            **checkpoints.origin(np.asarray(images), np.asarray(labels, np.int32)),
            'settings': fingerprint,
        }

    def _save(self, path, settings):
        state = {
            **settings,
            'history': self.history,
            'steps_done': self._steps_done,
            'train_seconds': self.train_seconds,
        }
        checkpoints.save(path, self.variables, state)

    def _restore(self, path, settings):
        state = checkpoints.load_state(path)
        if 'format' not in state:  # of an earlier version, which noted less
            settings = {key: settings[key] for key in settings if key in state}
        checkpoints.check_settings(f'the checkpoint {path}', state, settings)
        checkpoints.assign(self.variables, checkpoints.load_values(path, self.variables))
        self.history = state['history']
        # An earlier version trained for whole epochs only.
        whole_epochs = len(self.history) * self._steps_per_epoch
        self._steps_done = state.get('steps_done', whole_epochs)
        self.train_seconds = state['train_seconds']
        self._half_trained = self._finalized = False
