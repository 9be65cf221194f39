"""What a trained model says of images: logits, and exact scores, with test-time augmentation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import keras
import numpy as np

from fenwicks import evaluate as evaluation
from fenwicks.training import checks, sources, targets
from fenwicks.training.defaults import check_pixels
from fenwicks.training.metrics import warn_unless_finite
from fenwicks.training.phase_engines import PhaseEngines

BATCH_SIZE = 500  # images of a forward pass


class Predictor:
    """The predictions of a `Trainer`, and their scores.

    Args:
        engines: the `PhaseEngines`, of which the first predicts.
        averaged: function without arguments that returns a context in which the model has the
            weights that predict.
    """

    def __init__(self, engines: PhaseEngines, averaged: Callable[[], AbstractContextManager[None]]):
        self._engines, self._averaged = engines, averaged
        self.settings = engines.settings

    def views(self, images: Any, batch_size: int | None, tta: evaluation.TTA) -> np.ndarray:
        """The logits of each view of images; see `Trainer.predict_views`."""
        if not sources.is_source(images):
            images, _ = checks.check_images(self.settings.model, images)
            return self._views(images, batch_size, tta)
        batches = ((batch, None) for batch in sources.all_images(images))
        return self._views(self._read(batches), batch_size, tta)

    def scores(
        self, images: Any, labels: np.ndarray | None, batch_size: int | None, tta: evaluation.TTA
    ) -> tuple[evaluation.Metrics, evaluation.Metrics]:
        """The scores of the views together and of the first; see `Trainer.evaluate_views`."""
        sources.check_no_labels_beside(images, labels)
        if sources.is_stream(images, labels):
            found: list[np.ndarray] = []
            views = self._views(self._read(_pairs(images), found), batch_size, tta)
            labels = np.concatenate(found)
        else:
            images, labels, _ = checks.check_data(
                self.settings.model, self.settings.loss, images, labels
            )
            views = self._views(images, batch_size, tta)
        self.settings.metrics.check(labels[:1], views.shape[-1])
        plain = self._metrics_of(views[0], labels)
        return plain if len(views) == 1 else self._metrics_of(tta.combine(views), labels), plain

    def _read(self, batches, found=None):
        """The images of batches of a source, checked; their labels are added to `found`."""
        first, outputs = None, 0
        for images, labels in batches:
            kind = images.dtype.name, images.shape[1:]
            if first is None:  # once, since it calls the model
                check_pixels(self.settings.normalize, images)
                first, outputs = kind, checks.check_image_shape(self.settings.model, images)
            if kind != first:
                raise ValueError(
                    f'`images` must give batches of one form. Received: {first}, then {kind}'
                )
            if found is not None:
                found.append(
                    targets.check_labels(self.settings.loss, labels, len(images), outputs, 1)
                )
            yield images

    def _views(self, images, batch_size, tta):
        """The logits of all views of images that are an array or an iterator of batches."""
        if isinstance(images, Iterator) and batch_size is not None:
            raise ValueError(
                '`batch_size` must be None with a source of batches, which have a size. '
                f'Received: batch_size={batch_size}'
            )
        batch_size = BATCH_SIZE if batch_size is None else batch_size
        with self._averaged():
            return evaluation.predict_views(self._engines.at(0).predict, images, batch_size, tta)

    def _metrics_of(self, outputs, labels):
        """The `evaluate.Metrics` of the outputs for all images."""
        others = self.settings.metrics.named(self.settings.metrics.of_all(labels, outputs))
        if labels.ndim == 1 and targets.is_cross_entropy(self.settings.loss):
            plain = evaluation.metrics(outputs, labels)
            loss, accuracy = plain.loss, plain.accuracy
        else:
            mean_loss = self.settings.replicas.local_loss(targets.for_scores(self.settings.loss))
            tensors = keras.ops.convert_to_tensor(labels), keras.ops.convert_to_tensor(outputs)
            loss = float(keras.ops.convert_to_numpy(mean_loss(*tensors)))
            correct = self._engines.at(0).correct(outputs, labels)
            accuracy = targets.accuracy(self.settings.loss, labels, correct, len(outputs))
        warn_unless_finite({'loss': loss})
        return evaluation.Metrics(loss, accuracy, others)


def _pairs(source: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images and labels of the batches of a source without weights."""
    for batch in sources.all_batches(source):
        if batch.weights is not None:
            raise ValueError(
                '`images` must give batches (images, labels) to be evaluated, in which all images '
                'count alike. Received: batches with sample_weight'
            )
        yield batch.images, batch.labels
