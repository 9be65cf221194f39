"""A model, its optimizer and its data on their devices: steps of training, and predictions."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import keras
import numpy as np

from fenwicks import evaluate as evaluation
from fenwicks._checks import positive_integer
from fenwicks._typing import ImageFunction, Tensor
from fenwicks.losses import CrossEntropy
from fenwicks.optimizers.averaging import frozen_variables
from fenwicks.training import checks, targets
from fenwicks.training.averages import Averages, AveragingRule
from fenwicks.training.defaults import default_normalize, unchanged
from fenwicks.training.engines.base import Loss, Settings, StepTotals
from fenwicks.training.engines.select import in_one_call
from fenwicks.training.epochs import LearningRate
from fenwicks.training.feeds import open_feed
from fenwicks.training.freezing import follow_trainable
from fenwicks.training.inference import Predictor
from fenwicks.training.metrics import MetricSet
from fenwicks.training.outputs import check_outputs
from fenwicks.training.phase_engines import PhaseEngines
from fenwicks.training.phases import check_freeze, check_image_sizes, check_leaves_some
from fenwicks.training.replicas import Replicas, default_replicas
from fenwicks.training.sources import is_stream
from fenwicks.training.state import State
from fenwicks.training.streams import Stream


class StepRunner:
    """A `Trainer` without `fit`: it compiles the training program, takes single steps, predicts.

    Args:
        model, optimizer, loss, batch_size, metrics, normalize, augment, averaging, seed,
            seconds_per_call, replicas, jit_compile, image_sizes, accumulate, memory_budget, freeze:
            as of `Trainer`.

    Attributes:
        preprocess_seconds, compile_seconds: of placing the data and of compiling.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        loss: Loss | None = None,
        *,
        batch_size: int,
        metrics: Sequence[Any] | None = None,
        normalize: ImageFunction | None = None,
        augment: Callable[..., Tensor] | None = None,
        averaging: AveragingRule | None = None,
        seed: int = 0,
        seconds_per_call: float | None = None,
        replicas: Replicas | None = None,
        jit_compile: bool | None = None,
        image_sizes: Sequence[tuple[int, int]] = (),
        accumulate: int = 1,
        memory_budget: int | None = None,
        freeze: Sequence[tuple[float, str]] = (),
    ):
        optimizer, loss = checks.as_optimizer(optimizer), targets.as_loss(loss)
        checks.check(model, optimizer, loss, seed, seconds_per_call, replicas)
        augment = unchanged if augment is None else augment
        checks.check_augment(augment)
        self.model, self.optimizer, self.seed = model, optimizer, int(seed)
        self.loss = CrossEntropy() if loss is None else loss
        checks.check_loss(model, self.loss)
        self.metrics = metrics
        self.batch_size = positive_integer('batch_size', batch_size)
        self.normalize = default_normalize(model) if normalize is None else normalize
        checks.check_normalize(self.normalize)
        self.augment, self.averaging = augment, averaging
        self.jit_compile = checks.check_jit_compile(jit_compile)
        self.image_sizes = check_image_sizes(image_sizes, model)
        self.freeze = check_freeze(freeze, model, optimizer)
        self.replicas = default_replicas() if replicas is None else replicas
        self.replicas.check_batch(self.batch_size)
        self.accumulate = checks.check_accumulate(accumulate, self.batch_size, self.replicas)
        self.memory_budget = checks.check_budget(memory_budget)
        checks.check_sharing(self.replicas, self.accumulate, self.loss, seconds_per_call)
        self.compile_seconds = 0.0
        self.preprocess_seconds = 0.0
        self._state = State()
        self._stream: Stream | None = None  # of the last `fit`, if it had one
        self.replicas.check_scope(model, optimizer)
        with self.replicas.scope():
            checks.build(optimizer, model)
            self._averages = Averages(averaging, model, in_one_call)
            self._metrics = MetricSet(metrics, self.loss)
            settings = Settings(
                model=model,
                optimizer=optimizer,
                loss=self.loss,
                normalize=self.normalize,
                augment=augment,
                batch_size=self.batch_size,
                seed=self.seed,
                averages=self._averages,
                metrics=self._metrics,
                kind=targets.kind_of(self.loss),
                replicas=self.replicas,
                jit_compile=self.jit_compile,
                accumulate=self.accumulate,
            )
            self._engines = PhaseEngines(settings, self.image_sizes, self.freeze)
        self._learning_rate = LearningRate(optimizer)
        self._predictor = Predictor(self._engines, self.averaged)
        self.replicas.broadcast_initial_values(self.variables)
        usual = 5.0 if self._engines.at(0).on_cpu and self.replicas.processes == 1 else math.inf
        self.seconds_per_call = usual if seconds_per_call is None else seconds_per_call

    @property
    def variables(self) -> list[keras.Variable]:
        """All variables of the training: the model's, the optimizer's, and the averages."""
        return self.model.variables + self.optimizer.variables + self._averages.variables

    def load(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Places training data on the device, as `fit` does before its first step.

        Args:
            images: uint8 `(count, height, width, channels)`.
            labels: as of `Trainer.fit`.

        Raises:
            ValueError: an argument breaks its rule.
        """
        if is_stream(images, labels):
            raise ValueError('`images` must be an array. Received: a source of batches, for `fit`')
        self._start_feed(self._open_feed(images, labels))

    def compile(self, epoch: int = 0) -> None:
        """Compiles the training programs for the loaded data, without taking a step.

        Args:
            epoch: its number, from 0: with `image_sizes` or `freeze` not all epochs have the same
                programs.

        Raises:
            ValueError: no data are loaded.
        """
        self._engines.check_has_data()
        started = time.perf_counter()
        self._engines.compile(epoch)
        self.compile_seconds += time.perf_counter() - started

    def run_steps(self, epoch: int, start: int, stop: int) -> StepTotals:
        """Takes some steps of an epoch on the loaded data: `fit` without records and checks.

        Afterwards the epoch is half-trained: `fit` goes on from a checkpoint only.

        Args:
            epoch: the epoch's number, from 0.
            start: the first step, from 0.
            stop: the step to stop before; `start` for none.

        Raises:
            ValueError: no data are loaded, there are no such steps, or the averages are in place.
        """
        self._engines.check_steps(epoch, start, stop)
        self.compile(epoch)  # which other data than before need
        self._state.half_trained = self._state.half_trained or stop > start
        totals = self._engines.run(epoch, start, stop, self._state.steps_taken - start)
        self._state.steps_taken += totals.steps
        return totals

    def program(
        self, count: int, image_shape: tuple[int, int, int], epoch: int = 0, step: int = 0
    ) -> tuple[Callable, tuple]:
        """The training program as a pure function, to be compiled ahead of time for any device.

        On TensorFlow the Trainer can't train afterwards.

        Args:
            count: number of training images.
            image_shape: `(height, width, channels)` of each.
            epoch: the epoch's number, from 0, as in `compile`.
            step: a step of that epoch, from 0, which the program takes.

        Returns:
            A function, of `jax.jit` or `tf.function`, and a tuple of its abstract arguments
            (`jax.ShapeDtypeStruct`, `tf.TensorSpec`): the state, whose memory is donated on JAX;
            the images (on JAX one row each) and labels; the epoch's number (on JAX also the seed),
            the steps before it, the first step and the step to stop before; and the sum of the
            losses so far. The function returns the new state and what `StepTotals` holds.

        Raises:
            ValueError: there are fewer images than a batch has.
        """
        if count < self.batch_size:
            raise ValueError(
                f'`count` must be at least the batch size, {self.batch_size}. '
                f'Received: count={count}'
            )
        engine = self._engines.at(epoch, step, steps_per_epoch=count // self.batch_size)
        return engine.program(count, image_shape)

    def graph(self, epoch: int = 0) -> Any:
        """The `tf.Graph` of the training program for the loaded data, on TensorFlow only.

        Args:
            epoch: as of `compile`.

        Raises:
            ValueError: the backend is JAX, or no data are loaded.
        """
        self._engines.check_has_data()
        return self._engines.at(epoch).graph()

    def gradients(self, images: np.ndarray, labels: np.ndarray) -> tuple[float, list[np.ndarray]]:
        """The loss of a batch as it is, without augmentation, and its gradients.

        Args:
            images: uint8 `(batch, height, width, channels)`.
            labels: integer `(batch,)`.

        Returns:
            The loss, and a gradient for each of the model's `trainable_variables`.

        Raises:
            ValueError: an argument breaks its rule.
        """
        images, labels, _ = checks.check_data(self.model, self.loss, images, labels)
        return self._engines.at(0).gradients(images, labels)

    def predict(
        self, images: Any, batch_size: int | None = None, tta: evaluation.TTA = evaluation.NONE
    ) -> np.ndarray:
        """Float32 logits `(count, classes)` of images, in their order.

        Args:
            images: uint8 `(count, height, width, channels)`, or a source of batches, as of `fit`,
                with labels or of images alone. It is read once, to its end. Its batches may have
                different sizes, and the first is that of a forward pass.
            batch_size: images of a forward pass, 500 by default; `None` with a source of batches.
            tta: test-time augmentation, an `evaluate.TTA`.

        Raises:
            ValueError: the model does not take these images, or the source has no end.
        """
        views = self.predict_views(images, batch_size, tta)
        return tta.combine(views)

    def predict_views(
        self, images: Any, batch_size: int | None = None, tta: evaluation.TTA = evaluation.NONE
    ) -> np.ndarray:
        """Float32 logits `(views, count, classes)` of each view of the images.

        The first view is the images themselves; `tta.combine` combines the views.
        """
        return self._predictor.views(images, batch_size, tta)

    def evaluate(
        self,
        images: Any,
        labels: np.ndarray | None = None,
        batch_size: int | None = None,
        tta: evaluation.TTA = evaluation.NONE,
    ) -> evaluation.Metrics:
        """Exact loss and accuracy over all images.

        Args:
            images: uint8 `(count, height, width, channels)`, or a source of batches `(images,
                labels)`, as of `fit`, which is read once, to its end. Each of several processes
                must be given all images.
            labels: integer `(count,)`, or what else the loss takes; `None` with a source of
                batches.
            batch_size, tta: as of `predict`.

        Returns:
            An `evaluate.Metrics`.

        Raises:
            ValueError: the model doesn't take these images or the loss these labels, or the source
                has no end or gives weights.
        """
        score, _ = self.evaluate_views(images, labels, batch_size, tta)
        return score

    def evaluate_views(
        self,
        images: Any,
        labels: np.ndarray | None = None,
        batch_size: int | None = None,
        tta: evaluation.TTA = evaluation.NONE,
    ) -> tuple[evaluation.Metrics, evaluation.Metrics]:
        """As `evaluate`, with test-time augmentation and without it, in one pass.

        Returns:
            A pair of `evaluate.Metrics`: of the combined views, and of the images as they are.
        """
        return self._predictor.scores(images, labels, batch_size, tta)

    def averaged(self) -> AbstractContextManager[None]:
        """A context in which the averages take the place of the model's weights, for saving it.

        ```python
        with trainer.averaged():
            trainer.model.save('model.keras')
        ```

        Afterwards the model has its own weights again. Without `averaging`, or before its first
        update, the context has no effect.
        """
        return self._averages.in_place(self._state.steps_taken)

    def get_weights(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The weights as the last step left them, also within `averaged`, and their averages.

        Returns:
            A list of arrays for `model.weights`, and one for the averages, empty without them.
        """
        return self._averages.get_weights(self.model)

    def set_weights(self, weights: Sequence[np.ndarray], averages: Sequence[np.ndarray]) -> None:
        """Sets weights and averages that `get_weights` returned."""
        self._averages.set_weights(self.model, weights, averages)

    def _open_feed(self, images, labels, class_weight=None, sample_weight=None):
        """The feed of the data; raises unless the model can be trained on them."""
        self._averages.check_not_in_place()
        checks.check_trainable(self.model)
        check_leaves_some(self.freeze, self.model)
        with self.replicas.scope():
            if follow_trainable(self.optimizer, self.model) or self._engines.held.changed():
                self._engines.rebuild()
            self._averages.restart_frozen(frozen_variables(self.model))
        weights = class_weight, sample_weight
        feed = open_feed(images, labels, self._engines, self.memory_budget, *weights, self._stream)
        check_outputs(self.model, self.loss, self._engines.at(0), feed.image_shape, feed.dtype)
        self._metrics.check(feed.labels[:1], feed.outputs)
        return feed

    def _start_feed(self, feed, epoch=0, epochs=1):
        """Places the data of a feed, or their first part, and notes what they are."""
        started = time.perf_counter()
        self._stream = feed.stream
        feed.start(epoch, epochs)
        self._state.take_data(feed.steps)
        self._engines.steps_per_epoch = feed.steps
        self._metrics.fit_to(feed.labels[:1])
        self.preprocess_seconds += time.perf_counter() - started
