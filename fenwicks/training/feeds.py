"""What a training takes its batches from: arrays that lie on the device, or a stream."""

from __future__ import annotations

import hashlib
import warnings
from typing import Any

from fenwicks import augment as augmentation
from fenwicks.data.dataset import digest_of
from fenwicks.training import checkpoint as checkpoints
from fenwicks.training import checks, chunks, memory, targets
from fenwicks.training.defaults import check_pixels
from fenwicks.training.phase_engines import PhaseEngines
from fenwicks.training.sources import check_no_labels_beside, is_stream, open_stream
from fenwicks.training.streams import Stream


class ArrayFeed:
    """Arrays that lie on the device during the training.

    Args:
        images: uint8 `(count, height, width, channels)`.
        labels: as of `Trainer.fit`.
        engines: those that train.
        budget: bytes that they may take on the device, or `None`.
        class_weight, sample_weight: as of `Trainer.fit`.

    Attributes:
        steps: whole batches in an epoch.
        outputs: number of the model's outputs for an image.
        dtype, image_shape: of the images, and of each of them.
        labels: as the device holds them; of a stream those of the first batch.
        stream: None.
    """

    stream = None

    def __init__(
        self,
        images: Any,
        labels: Any,
        engines: PhaseEngines,
        budget: int | None,
        class_weight: dict[int, float] | None = None,
        sample_weight: Any = None,
    ):
        if labels is None:
            raise ValueError('`labels` must be given with an array of images. Received: None')
        settings = engines.settings
        batch_size, loss = settings.batch_size, settings.loss
        images, self.labels, self.outputs = checks.check_data(
            settings.model, loss, images, labels, batch_size
        )
        if batch_size > len(images):
            raise ValueError(
                f'`batch_size` must be at most the {len(images)} training images. '
                f'Received: batch_size={batch_size}'
            )
        weights = targets.image_weights(
            self.labels, self.outputs, class_weight, sample_weight, loss
        )
        checks.check_weights(
            settings.replicas, settings.accumulate, loss, self.labels, self.outputs, weights
        )
        self.images, self._targets = images, (self.labels, *weights)
        self.dtype, self.image_shape = images.dtype, images.shape[1:]
        self.steps = len(images) // batch_size
        self._engines = engines
        on_cpu = engines.at(0).on_cpu
        copies = settings.replicas.local_count if on_cpu else 1
        memory.check_fits(
            copies * sum(array.nbytes for array in (images, *self._targets)),
            memory.free_memory(on_cpu) if budget is None else None,
            held=engines.data_bytes,
            budget=budget,
        )

    def origin(self) -> dict[str, Any]:
        """What a checkpoint says of the data."""
        return checkpoints.origin(digest_of(self.images, *self._targets))

    def warn_unless_known(self) -> None:
        """Warns where `origin` can't tell other data from those of the checkpoint."""

    def start(self, epoch: int, epochs: int) -> None:
        """Places the data, or their first part, on the device.

        Args:
            epoch: the first epoch, from 0.
            epochs: epochs in all.
        """
        self._engines.load(self.images, self._targets, self.outputs)

    def stop(self) -> None:
        """Ends what runs beside the training, and drops what it has fetched."""


class StreamFeed:
    """A source of batches, of which chunks of many steps are sent to the device.

    Args:
        source: as `sources.open_stream` takes it.
        engines: those that train.
        budget: bytes of a device's memory for two chunks, or `None` for a default.
        class_weight: as of `Trainer.fit`.
        before: the stream of the `fit` before, which may be of the same source.

    Attributes:
        stream: the `Stream`.
    """

    def __init__(
        self,
        source: Any,
        engines: PhaseEngines,
        budget: int | None,
        class_weight: dict[int, float] | None = None,
        before: Stream | None = None,
    ):
        settings = engines.settings
        replicas = settings.replicas
        self.stream = open_stream(source, settings.batch_size, replicas.processes, before)
        first, self._loss = self.stream.first, settings.loss
        self._normalize, self._pixels_checked = settings.normalize, False
        self.outputs = checks.check_image_shape(settings.model, first.images)
        self.dtype, self.image_shape = first.images.dtype, first.images.shape[1:]
        self._class_weight = class_weight
        self._first = self.labels, *weights = self._targets_of(first)
        targets.check_loss_takes(self._loss, self.labels, self.outputs)
        checks.check_weights(
            replicas, settings.accumulate, self._loss, self.labels, self.outputs, weights
        )
        counts = replicas.numbers_of_processes(self.stream.steps)
        if len(set(counts)) > 1:
            raise ValueError(
                '`images` must give equally many batches in each process: drop_remainder=True. '
                f'Received: {", ".join(map(str, counts))} batches'
            )
        context = augmentation.context_arguments(settings.augment)
        if 'indices' in context and not self.stream.gives_indices:
            raise ValueError(
                '`augment` must not ask for the `indices` of the images in the data set where '
                'the source does not give them: stream a data.ImageBatches, or give the source a '
                'method stored_batch(index) that returns (images, labels, indices). Received: '
                f'a {type(source).__name__}'
            )
        self._engines, self._devices, self._budget = engines, replicas.local_count, budget
        self._chunks: chunks.Chunks | None = None
        self.steps = self.stream.steps

    def origin(self) -> dict[str, Any]:
        digest = self.stream.digest()
        if self._class_weight is not None:
            weights = sorted((int(label), float(w)) for label, w in self._class_weight.items())
            digest = hashlib.sha256(f'{digest} {weights}'.encode()).hexdigest()[:16]
        return checkpoints.origin(digest)

    def warn_unless_known(self) -> None:
        # Not even the first batch may be compared: a source that shuffles or augments by itself
        # gives another one each time.
        if not self.stream.knows_data:
            warnings.warn(
                'a resumed training can only check the form of the batches of a '
                f'{type(self.stream.source).__name__}: describe what it gives, '
                "fit(..., fingerprint={'data': ...}), to have that compared with the checkpoint",
                stacklevel=3,
            )

    def start(self, epoch: int, epochs: int) -> None:
        engines, budget = self._engines, self._budget
        if budget is None:
            budget = self._default_budget(engines.at(epoch).on_cpu)
        size = chunks.steps_per_chunk(self.stream, self._first, self._devices, budget)
        place = engines.at(epoch).place_chunk
        self._chunks = chunks.Chunks(
            self.stream, size, self._devices, place, epochs, self._targets_of
        )
        engines.stream(self._chunks, epoch, self.outputs)

    def _default_budget(self, on_cpu):
        # All processes must have chunks of the same size, whatever is free on each.
        alone = self._engines.settings.replicas.processes == 1
        free = memory.free_memory(on_cpu) if alone else None
        return chunks.DEFAULT_BUDGET if free is None else min(chunks.DEFAULT_BUDGET, free // 2)

    def _targets_of(self, batch):
        """The labels of a batch as the device holds them, and its weights, if there are any."""
        if not self._pixels_checked and batch.images.any():  # the `first` of some streams is zeros
            check_pixels(self._normalize, batch.images)
            self._pixels_checked = True
        labels = targets.check_form(self._loss, batch.labels, len(batch.images), self.outputs)
        return labels, *targets.image_weights(
            labels, self.outputs, self._class_weight, batch.weights, self._loss
        )

    def stop(self) -> None:
        if self._chunks is not None:
            self._chunks.close()
            self._engines.unload()  # a chunk is no data to take other steps on


def open_feed(
    images: Any,
    labels: Any,
    engines: PhaseEngines,
    budget: int | None,
    class_weight: dict[int, float] | None = None,
    sample_weight: Any = None,
    before: Stream | None = None,
) -> ArrayFeed | StreamFeed:
    """The feed of what `fit` was given; `before` is the stream of the `fit` before."""
    check_no_labels_beside(images, labels)
    streams = is_stream(images, labels)
    if streams and sample_weight is not None:
        raise ValueError(
            '`sample_weight` must be None with a source of batches, which gives (images, labels, '
            f'sample_weight). Received: {type(sample_weight).__name__}'
        )
    feed = (
        StreamFeed(images, engines, budget, class_weight, before)
        if streams
        else ArrayFeed(images, labels, engines, budget, class_weight, sample_weight)
    )
    settings = engines.settings
    if augmentation.takes_labels(settings.augment):
        labels = feed.labels[: settings.batch_size]
        targets.check_mixing(settings.loss, labels, feed.outputs)
    return feed
