"""Scores a set of images on JAX: its logits in one loop, then the loss of all of them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from fenwicks.training.engines.base import batch_starts, without_overlap
from fenwicks.training.engines.jax_state import scope_of


class Scorer:
    """Scores images that lie on the devices.

    Args:
        engine: the `JaxEngine`.
        logits: from the values of the model's variables (trainable, others) and normalised images
            to their logits, to be compiled.
        in_one_program: whether the loop over batches is compiled. On a CPU convolutions within
            XLA's loops are slow.
    """

    def __init__(self, engine, logits, in_one_program):
        self.model, self.loss, self.normalize = engine.model, engine.loss, engine.normalize
        self.replicas = engine.replicas
        self.metrics, self._correct = engine.metrics, engine.count_correct
        self._logits = logits
        self._score = jax.jit(self._score_of)
        self._logits_at = jax.jit(self._logits_of_part, static_argnums=(4, 5))
        whole = jax.jit(self._logits_in_one_program, static_argnums=(4, 5))
        self._all_logits = whole if in_one_program else self._logits_by_batches

    def hold(self, images, targets):
        """As `Engine.hold`."""
        rows = jnp.asarray(images).reshape(len(images), -1)  # as the engine's `load` has it
        targets = tuple(map(jnp.asarray, targets))
        return self.replicas.place_for_scoring(rows), images.shape[1:], targets

    def score(self, values, held, batch_size):
        """As `Engine.score`, of the values of the model's variables and what `hold` returned."""
        (trainable, fixed), (images, image_shape, targets) = values, held
        starts, size = batch_starts(len(images), batch_size)
        placed_trainable, placed_fixed = self.replicas.place_for_scoring(values)
        logits = self._all_logits(placed_trainable, placed_fixed, images, starts, size, image_shape)
        logits = self.replicas.on_one_device(logits)
        loss, found, results = self._score(trainable, fixed, targets, logits)
        return loss.item(), found.item(), results

    def _logits_in_one_program(self, trainable, fixed, images, starts, size, image_shape):
        """The logits of all images, in one loop over batches; see `batch_starts`.

        Args:
            trainable, fixed: values of the model's variables.
            images: uint8 `(count, height * width * channels)`.
            starts, size: of the batches.
            image_shape: `(height, width, channels)`.
        """

        def logits_of(start):
            return self._logits_of_part(trainable, fixed, images, start, size, image_shape)

        return without_overlap([*lax.map(logits_of, starts)], len(images))

    def _logits_by_batches(self, trainable, fixed, images, starts, size, image_shape):
        """As `_logits_in_one_program`, with the loop in Python."""
        logits = [
            self._logits_at(trainable, fixed, images, start, size, image_shape) for start in starts
        ]
        return without_overlap(logits, len(images))

    def _logits_of_part(self, trainable, fixed, images, start, size, image_shape):
        pixels = lax.dynamic_slice_in_dim(images, start, size).reshape(size, *image_shape)
        inputs = self.normalize(self.replicas.share_for_scoring(pixels))
        return self._logits(trainable, fixed, inputs)

    def _score_of(self, trainable, fixed, targets, logits):
        labels, *weights = targets
        loss = self.loss(labels, logits, *weights).astype('float32')
        with scope_of(self.model, trainable, fixed):
            extras = [extra.astype('float32') for extra in self.model.losses]
        results = self.metrics.of_all(labels, logits)
        return loss + sum(extras), self._correct(logits, labels), results
