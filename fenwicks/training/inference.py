"""What a trained model says of images: logits, and exact scores, with test-time augmentation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import keras
import numpy as np

from fenwicks import evaluate as evaluation
from fenwicks.training import checks, sources, targets
from fenwicks.training.averages import Averages
from fenwicks.training.defaults import check_pixels
from fenwicks.training.engines.base import Loss
from fenwicks.training.metrics import MetricSet, warn_unless_finite
from fenwicks.training.phase_engines import PhaseEngines
from fenwicks.training.replicas import Replicas

BATCH_SIZE = 500  # images of a forward pass


class Predictor:
    """`predict` and `evaluate` of a `Trainer`, with the averages of its weights."""

    model: keras.Model
    loss: Loss
    replicas: Replicas
    _averages: Averages
    _engines: PhaseEngines
    _metrics: MetricSet
    _labels: np.ndarray
    _steps_taken: int

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
        if not sources.is_source(images):
            checks.check_images(self.model, images)
            return self._views(images, batch_size, tta)
        batches = ((batch, None) for batch in sources.all_images(images))
        return self._views(self._read(batches), batch_size, tta)

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
        sources.check_no_labels_beside(images, labels)
        if sources.is_stream(images, labels):
            found: list[np.ndarray] = []
            views = self._views(self._read(_pairs(images), found), batch_size, tta)
            labels = np.concatenate(found)
        else:
            labels, _ = checks.check_data(self.model, self.loss, images, labels)
            views = self._views(images, batch_size, tta)
        self._metrics.fit_to(labels[:1], views.shape[-1])
        return self._metrics_of(tta.combine(views), labels), self._metrics_of(views[0], labels)

    def _read(self, batches, found=None):
        """The images of batches of a source, checked; their labels are added to `found`."""
        first, outputs = None, 0
        for images, labels in batches:
            kind = images.dtype.name, images.shape[1:]
            if first is None:  # once, since it calls the model
                check_pixels(self._engines.settings.normalize, images)
                first, outputs = kind, checks.check_image_shape(self.model, images)
            if kind != first:
                raise ValueError(
                    f'`images` must give batches of one form. Received: {first}, then {kind}'
                )
            if found is not None:
                found.append(targets.check_labels(self.loss, labels, len(images), outputs, 1))
            yield images

    def _views(self, images, batch_size, tta):
        """The logits of all views of images that are an array or an iterator of batches."""
        if isinstance(images, Iterator) and batch_size is not None:
            raise ValueError(
                '`batch_size` must be None with a source of batches, which have a size. '
                f'Received: batch_size={batch_size}'
            )
        batch_size = BATCH_SIZE if batch_size is None else batch_size
        with self.averaged():
            return evaluation.predict_views(self._engines.at(0).predict, images, batch_size, tta)

    def _metrics_of(self, outputs, labels):
        """The `evaluate.Metrics` of the outputs for all images."""
        others = self._metrics.named(self._metrics.of_all(labels, outputs))
        if labels.ndim == 1 and targets.of_logits(self.loss):
            plain = evaluation.metrics(outputs, labels)
            loss, accuracy = plain.loss, plain.accuracy
        else:
            mean_loss = self.replicas.local_loss(targets.without_smoothing(self.loss))
            tensors = keras.ops.convert_to_tensor(labels), keras.ops.convert_to_tensor(outputs)
            loss = float(keras.ops.convert_to_numpy(mean_loss(*tensors)))
            correct = self._engines.at(0).correct(outputs, labels)
            accuracy = self._accuracy(correct, len(outputs), labels)
        warn_unless_finite({'loss': loss})
        return evaluation.Metrics(loss, accuracy, others)

    def _accuracy(self, correct, images, labels=None):
        """The share of right answers; `None` where no answer is right or wrong."""
        labels = self._labels if labels is None else labels
        if not targets.has_accuracy(self.loss, labels):
            return None
        each = labels.shape[1] if targets.kind_of(self.loss) == targets.BINARY else 1
        return correct / (images * each)

    def averaged(self) -> AbstractContextManager[None]:
        """A context in which the averages take the place of the model's weights, for saving it.

        ```python
        with trainer.averaged():
            trainer.model.save('model.keras')
        ```

        Afterwards the model has its own weights again. Without `averaging`, or before its first
        update, the context has no effect.
        """
        return self._averages.in_place(self._steps_taken)


def _pairs(source: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images and labels of the batches of a source without weights."""
    for batch in sources.all_batches(source):
        if batch.weights is not None:
            raise ValueError(
                '`images` must give batches (images, labels) to be evaluated, in which all images '
                'count alike. Received: batches with sample_weight'
            )
        yield batch.images, batch.labels
