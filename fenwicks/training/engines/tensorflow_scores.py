"""Scores a set of images on TensorFlow: its logits in one loop, then the loss of all of them."""

from __future__ import annotations

import functools

import keras
import tensorflow as tf

from fenwicks.training.engines.base import batch_starts, without_overlap


class Scorer:
    """Scores images that lie on the device.

    Args:
        engine: the `TensorFlowEngine`.
        function: makes a compiled function of a Python function.
        logits: from normalised images to their logits, for use in a compiled function.
        predict: the same, compiled, on all devices.
    """

    def __init__(self, engine, function, logits, predict):
        self.model, self.loss, self.normalize = engine.model, engine.loss, engine.normalize
        self.metrics, self._correct = engine.metrics, engine.count_correct
        self._logits, self._predict = logits, predict
        self._score_logits = function(functools.partial(self._score_of))
        self._score_images = (
            function(functools.partial(self._score_in_one_program))
            if engine.replicas.count == 1
            else self._score_by_batches
        )

    def score(self, images, targets, batch_size):
        """As `Engine.score`, of what its `hold` returned."""
        starts, size = batch_starts(len(images), batch_size)
        loss, found, results = self._score_images(images, targets, starts, size)
        return loss.numpy().item(), found.numpy().item(), results

    def _score_in_one_program(self, images, targets, starts, size):
        """The loss, the number of correct answers and the metrics' results, by one call."""
        return self._score_of(targets, self._logits_in_one_loop(images, starts, size))

    def _score_by_batches(self, images, targets, starts, size):
        """As `_score_in_one_program`, with a call for each batch, which several devices share."""
        batches = [images[start : start + size] for start in starts]
        logits = [self._predict(self.normalize(batch)) for batch in batches]
        return self._score_logits(targets, without_overlap(logits, images.shape[0]))

    def _logits_in_one_loop(self, images, starts, size):
        """The logits of all images, in one loop over batches; see `batch_starts`."""

        def logits_of(start):
            batch = tf.slice(images, [start, 0, 0, 0], [size, *images.shape[1:]])
            return self._logits(self.normalize(batch))

        logits = tf.map_fn(logits_of, starts, fn_output_signature=tf.float32, parallel_iterations=1)
        return without_overlap(tf.unstack(logits), images.shape[0])

    def _score_of(self, targets, logits):
        labels, *weights = targets
        loss = tf.cast(self.loss(labels, logits, *weights), tf.float32)
        values = [(weight, weight.value) for weight in self.model.trainable_weights]
        with keras.StatelessScope(values, collect_losses=True):  # of weights, not of a last batch
            extras = [tf.cast(extra, tf.float32) for extra in self.model.losses]
        results = self.metrics.of_all(labels, logits)
        return loss + sum(extras), self._correct(logits, labels), results
