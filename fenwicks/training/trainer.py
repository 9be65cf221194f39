"""The Trainer: trains a Keras model, with data set, shuffle and augmentation on the device."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import time
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from fenwicks import _keras
from fenwicks._checks import finite_number
from fenwicks.optimizers.averaging import warn_if_none
from fenwicks.training import checkpoint as checkpoints
from fenwicks.training import checks, targets
from fenwicks.training.averages import finalize
from fenwicks.training.defaults import check_pixels
from fenwicks.training.epochs import DivergedError, Epochs
from fenwicks.training.history import History, logs_of, note_additions
from fenwicks.training.hooks import Hooks, check_callbacks
from fenwicks.training.interrupts import deferred_interrupts, noted_interrupts
from fenwicks.training.progress import Progress, check_verbose
from fenwicks.training.resuming import Checkpoint, settings_of
from fenwicks.training.state import check_initial_epoch
from fenwicks.training.steps import StepRunner
from fenwicks.training.validation import Validation, arrays_of, check_frequency


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
            `(batch, classes)`. Its `losses` (those of regularizers) are added to the loss. One of
            `training.HardExamples` is trained on a part of each batch. One with a `train_step` or
            `compute_loss` of its own is refused.
        optimizer: a Keras optimizer, not shared with another model, or the name of one. A model in
            `mixed_float16` must have a `keras.optimizers.LossScaleOptimizer`.
        loss: a `keras.losses.Loss` or its name, or a function of labels and outputs that returns
            the mean or a value for each image; by default `CrossEntropy()`.
        batch_size: images in a step, a positive integer. An epoch drops its incomplete last batch.
        metrics: names or objects of `keras.metrics` beside `loss`, and `accuracy` where labels are
            integers or the loss is a cross-entropy of Keras's, which are always there. Objects are
            made anew from their `get_config`, which must return all arguments of the constructor.
            They are of the outputs as the model returns them, logits mostly, and are accumulated in
            the compiled steps. Integer labels come one-hot to a metric that takes no other form.
        normalize: function from a batch of images, uint8 or as a source gives them, to the model's
            float input. By default division by 255; or nothing for a model with an `Input` of
            integers, or one that scales its images before the first layer with weights, by a layer
            (`Rescaling`, `Normalization`, `BatchNormalization`, one of the user's own) or an
            operation (`images / 255`). What a subclass of Model does in its code isn't seen.
        augment: function `augment(images, seed)` of normalised float batches, such as
            `augment.compose` returns; by default none. Where it has parameters `epoch` (from 0),
            `indices` (int32 `(batch,)`, the places of the images in the data set) or `run_seed`
            (two integers), it gets those too, traced. With a parameter `labels` it is one of both,
            such as `augment.random_mixup`: `augment(images, labels, seed)` gets floats `(batch,
            classes)` and returns both.
        averaging: a rule for averaging weights and batch-norm statistics, such as
            `optimizers.EMA(0.99, every=5)`; `None` for none. `predict` and `evaluate` use the
            averages; the model keeps the weights of its last step, see `averaged`.
        seed: integer in [0, 2**31), for shuffle and augmentation.
        seconds_per_call: seconds of a call of the compiled loop. `None` is a whole epoch on an
            accelerator, or where several processes train together, and 5 s on a CPU.
        replicas: the devices that share each batch, from `training.replicate`. `None` is all
            accelerators on JAX, those of the strategy in scope on TensorFlow, or else one device.
        jit_compile: whether XLA compiles the loop over the steps as one program. `None`, or 'auto',
            is yes on an accelerator. On a CPU TensorFlow runs the loop as a graph; JAX compiles the
            loop where no step convolves, and else calls one compiled step after the other.
        image_sizes: pairs `(epoch, size)`: from that epoch on, counted from 0, the augmented images
            are resized to `size` x `size` pixels, bilinearly and without antialiasing. Empty: they
            keep their size. The model must take each size, as one with an input of `(None, None,
            channels)` and a global pooling does. `predict` and `evaluate` never resize.
        accumulate: parts into which each replica cuts its share of a batch, one after the other in
            the memory of one. The update takes the mean of their gradients, which is the gradient
            of the whole batch. Only batch norm differs: it normalises each part by itself and
            updates its moving statistics once a part. Augmentation sees the whole share.
        memory_budget: bytes of a device's memory that training data may take. `None`: arrays may
            have what is free; a stream has chunks of at most 2**30 bytes together.
        freeze: pairs `(epoch, match)`: from that epoch on, which may be a fraction, the trainable
            variables whose paths `match` matches, as in `optimizers.ParameterGroup`, keep their
            values. No gradient is computed for them, or for what only they need. It doesn't go with
            a `MultiOptimizer`, or with `use_ema`.

    Raises:
        ValueError: an argument breaks its rule.

    Attributes:
        records: list with a dict for each epoch, see `fit`.
        history: the same as a `History`, in Keras's form.
        first_step_at: `time.perf_counter()` at the end of the first step; `None` before it.
        preprocess_seconds, compile_seconds, train_seconds: of placing the data, of compiling and of
            training, in all calls of `fit`.

    Reference:
        Howard, https://www.fast.ai/posts/2018-04-30-dawnbench-fastai.html, for `image_sizes`.
    """

    @property
    def records(self) -> list[dict[str, Any]]:
        return self._state.records

    @property
    def history(self) -> History:
        params = {'steps': self._state.steps_per_epoch, 'epochs': len(self.records)}
        return History(self.records, params)

    @property
    def first_step_at(self) -> float | None:
        return self._state.first_step_at

    @property
    def train_seconds(self) -> float:
        return self._state.train_seconds

    def fit(
        self,
        images: Any,
        labels: np.ndarray | None = None,
        epochs: float = 1,
        *,
        validation_data: Any = None,
        validation_freq: int | Sequence[int] = 1,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        class_weight: dict[int, float] | None = None,
        sample_weight: np.ndarray | None = None,
        initial_epoch: int | None = None,
        verbose: str | int = 'auto',
        checkpoint: str | os.PathLike[str] | None = None,
        resume: bool = False,
        fingerprint: Any = None,
    ) -> History:
        """Trains until the images have been passed over `epochs` times in all.

        Epochs of earlier calls, or of the checkpoint, count. After an epoch that was interrupted,
        by the user or by an error, training can go on from a checkpoint only. Layers may be frozen
        and unfrozen between two calls (`layer.trainable`): the optimizer keeps its count of updates
        and the slots of the weights that stay trainable; other weights begin with new slots. It may
        get another schedule there, too. Within a call callbacks may change a constant rate only.

        Args:
            images: uint8 `(count, height, width, channels)`, or a source of batches `(images,
                labels)` or `(images, labels, sample_weight)` of `batch_size` images: a
                `tf.data.Dataset`, a `keras.utils.PyDataset` such as `data.ImageBatches`, a
                `torch.utils.data.DataLoader`, or another object with `__len__`, and `__getitem__`
                or `__iter__`. Chunks of its batches are sent to the device while others train. It
                shuffles itself, and `normalize` gets its images, uint8 or float, as they are. Of
                several processes each streams its share of each batch.
            labels: what the loss takes: integers `(count,)` or `(count, 1)`; floats `(count,
                classes)`, one-hot or probabilities; for a binary loss numbers `(count, outputs)` in
                [0, 1]; for others numbers `(count, outputs)`, or `(count,)` for one output; `None`
                with a source of batches.
            epochs: number of epochs in all, above 0. The last may be a part of one: 2.5 epochs of
                10 steps are 25 steps.
            validation_data: `(images, labels)` or `(images, labels, sample_weight)`, or a source of
                such batches, which is read once, to be scored after epochs; `None` for none. All
                images count, and the averages are in the place of the weights, where there are any.
                `val_loss` is the mean of the Trainer's loss and the losses of regularizers. What
                layers add by `add_loss` or `activity_regularizer` is in the training's loss only.
            validation_freq: epochs from one validation to the next, or the epochs, from 1, to
                validate after.
            callbacks: `keras.callbacks.Callback`s that work from the beginnings and ends of epochs,
                validations and training. At the end of an epoch the model holds the averages, where
                there are any: what was validated. Each of several processes calls its own.
            class_weight: dict from a class to the weight of its images in the loss, 1 by default;
                with a binary loss of one output the classes are 0 and 1.
            sample_weight: floats `(count,)`, the weight of each image in the loss; `None` with a
                source of batches, which gives them.
            initial_epoch: the epochs trained so far, where that is to be checked.
            verbose: 0 shows nothing, 1 a progress bar and a line an epoch, 2 the lines alone, as in
                Keras; 'auto' is 1 in a terminal or a notebook, and 2 elsewhere.
            checkpoint: path of a file that is rewritten after each epoch; `None` for none. Of
                several processes the chief writes it, and all must be able to read it. No other
                training can use it until this one ends.
            resume: whether to start from `checkpoint` if that exists.
            fingerprint: description of the run, of what JSON can hold and NumPy's numbers. Resuming
                from a checkpoint with another fingerprint, seed or backend is an error. Other data
                are too, where they are arrays or a `data.ImageBatches`. What other sources give is
                for the fingerprint to say; without one there is a warning.

        Returns:
            The `History`, in which `history['loss']` is a list with a number for each epoch.
            `records` has a dict for each epoch: `epoch` (from 1), `train_loss`, `train_accuracy`,
            `learning_rate` (after the last step; of a `MultiOptimizer` that of its first),
            `seconds`, `images_per_second`, and `val_loss` and so on of epochs that were validated.

        Raises:
            ValueError: an argument breaks its rule.
            OSError: the folder of `checkpoint` can't be written to, or another training uses the
                file (`BlockingIOError`).
            DivergedError: the loss, a weight or another variable of the training became infinite or
                NaN. With `keras.callbacks.TerminateOnNaN` the training ends instead, with the
                epochs before.
        """
        epochs = finite_number('epochs', epochs, above=0)
        fingerprint = checkpoints.as_json(fingerprint)
        if resume and checkpoint is None:
            raise ValueError('`resume` needs a `checkpoint` to go on from. Received: None')
        writes = checkpoint is not None and self.replicas.chief
        if checkpoint is not None:
            checkpoint = checkpoints.as_path(checkpoint, writes)
        callbacks = check_callbacks(callbacks)
        verbose = check_verbose(verbose) if self.replicas.chief else 0
        feed = self._open_feed(images, labels, class_weight, sample_weight)
        every = check_frequency(validation_freq)
        if validation_data is not None:
            held_out = arrays_of(validation_data)
            validation_data = checks.check_validation(self.model, self.loss, held_out, feed.dtype)
            held_images, (held_labels, *_) = validation_data
            check_pixels(self.normalize, held_images)
            self._metrics.check(held_labels[:1], feed.outputs)
        state = self._state
        total_steps = max(1, math.floor(epochs * feed.steps + 0.5))
        last = math.ceil(total_steps / feed.steps)  # the number of the last epoch, from 1
        settings = {} if checkpoint is None else settings_of(self, feed, fingerprint)
        places = self._averages.places(self.model)
        file = Checkpoint(checkpoint, settings, state, self.variables, places, writes)
        resumes = resume and checkpoint is not None and os.path.exists(checkpoint)
        # First, so that what it restores is what the last training left.
        with file.claimed_for(last, resumes):
            known: dict[str, Any] = {}
            if resumes:
                known = file.restore(initial_epoch, total_steps, feed.steps)
                if fingerprint is None:
                    feed.warn_unless_known()
            else:
                state.check_whole_epoch()
                check_initial_epoch(initial_epoch, len(state.records))
                if not state.records:
                    self._averages.restart()  # from the present weights
            steps_done = state.steps_done_with(feed.steps)
            validation, done = None, len(state.records)
            if steps_done < total_steps:
                state.check_can_go_on(total_steps, feed.steps)
                if validation_data is not None:
                    validation = self._place_validation(validation_data, every)

            total, before = (self.batch_size * steps for steps in (total_steps, steps_done))
            progress = Progress(total, before, last, verbose)
            hooks = self._hooks(callbacks, last, feed, places)
            try:
                if done < last:
                    self._start_feed(feed, done, last)
                with noted_interrupts() as interrupts, self.replicas.process_errors():
                    loop = Epochs(
                        self._engines,
                        state,
                        self.seconds_per_call,
                        self.variables,
                        self._learning_rate,
                        functools.partial(targets.accuracy, self.loss, feed.labels),
                        progress,
                        interrupts,
                    )
                    hooks.begin(known)
                    for epoch in range(done, last):
                        steps = min(feed.steps, total_steps - epoch * feed.steps)
                        if hooks.stopped or not self._train_epoch(epoch, steps, loop, hooks):
                            break
                        self._finish_epoch(epoch, validation, hooks)
                        file.save(hooks)
                        progress.finish_epoch(state.records[-1])  # prints saved epochs only
                    if not state.finalized:  # first: a callback may put the best weights back
                        with deferred_interrupts():  # it is done once, whatever comes
                            state.finalized = finalize(self.optimizer, self.model)
                    with self.averaged():
                        hooks.call('on_train_end', {})
                        self._averages.adopt_restored()
            finally:
                feed.stop()
                progress.close()
        if self.averaging is not None:
            warn_if_none(self.averaging, state.steps_taken)
        return self.history

    def _train_epoch(self, epoch, steps, loop, hooks):
        """Trains for the steps of an epoch; returns whether it came to its end."""
        hooks.call('on_epoch_begin', epoch, {})
        self._engines.held.check()
        self.compile(epoch)
        self._metrics.reset()
        try:
            record = loop.train(epoch, steps)
        except DivergedError as error:
            if not hooks.diverged(error):
                raise
            return False
        record |= {f'train_{name}': value for name, value in self._metrics.results().items()}
        self._state.add_epoch(record, steps)
        return True

    def _finish_epoch(self, epoch, validation, hooks):
        """Validates, and calls the callbacks, which see what was validated."""
        record = self.records[-1]
        validates = validation is not None and validation.is_due(epoch)
        seen = self.averaged() if validates or hooks.callbacks else contextlib.nullcontext()
        with seen:
            if validates:
                hooks.call('on_test_begin', {})
                scores = validation.score()
                hooks.call('on_test_end', dict(scores))
                record |= {f'val_{name}': value for name, value in scores.items()}
            logs = logs_of(record)
            hooks.call('on_epoch_end', epoch, logs)
        note_additions(record, logs)

    def _hooks(self, callbacks, epochs, feed, places):
        if callbacks:
            accuracy = ['accuracy'] if targets.has_accuracy(self.loss, feed.labels) else []
            metrics = [*accuracy, *self._metrics.copies()]
            with self.replicas.scope():
                _keras.compile_for_callbacks(
                    self.model, self.optimizer, self.loss, metrics, feed.labels, feed.outputs
                )
        params = {'epochs': epochs, 'steps': feed.steps}
        return Hooks(callbacks, self, places, params)

    def _place_validation(self, validation_data, every):
        started = time.perf_counter()
        images, labels_and_weights = validation_data
        validation = Validation(
            self._engines.at(0), self._metrics, self.loss, images, labels_and_weights, every
        )
        self.preprocess_seconds += time.perf_counter() - started
        return validation
