"""The kinds of sources of batches: by their number, or one after the other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from fenwicks import data
from fenwicks.training.batches import Batch, as_batch, images_of, not_pairs
from fenwicks.training.streams import Stream, ended_early, length_of

_NO_BATCH = Batch(np.zeros((0, 0, 0, 0)), np.zeros(0))


class IndexedStream(Stream):
    """Batches by their number: a `keras.utils.PyDataset`, or anything with a length.

    A source with an attribute `epoch` has it set before each pass. Others, if they have
    `on_epoch_begin` and `on_epoch_end`, are asked for the passes one after the other, so that one
    that shuffles itself in them by a seed does so in a resumed training as in one that was not.
    """

    def _open(self, before):
        source = self.source
        self._batches = batches = length_of(source)
        self.workers = max(1, int(getattr(source, 'workers', 1) or 1))
        check_stored(source)
        self.gives_indices = hasattr(source, 'stored_batch')
        self.knows_data = isinstance(source, data.ImageBatches) and source.process_count == 1
        self.first = self._get(0) if batches else _NO_BATCH
        # The incomplete last batch is left out, as that of arrays is.
        last_is_whole = batches < 2 or len(self._get(batches - 1).images) == self.batch_size
        self.steps = batches if last_is_whole else batches - 1

    def _get(self, number):
        return fetch_one_of(self._batches, fetch_batch, self.source, number)

    def begin_pass(self, epoch):
        if hasattr(self.source, 'epoch'):
            self.source.epoch = epoch
        else:
            for _ in range(self.passes, epoch):  # those that an earlier process had
                self._call('on_epoch_begin')
                self._call('on_epoch_end')
        self.passes = epoch + 1
        self._call('on_epoch_begin')
        return self._get

    def end_pass(self):
        self._call('on_epoch_end')

    def _call(self, name):
        getattr(self.source, name, _nothing)()

    def digest(self):
        source = self.source
        if not self.knows_data:
            return super().digest()
        digest = hashlib.sha256(super().digest().encode())
        digest.update(f'{source.shuffle} {source.seed}'.encode())
        for array in (source.indices, source.labels, source.images[source.indices[:64]]):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:16]


class LoaderStream(Stream):
    """Batches one after the other, such as those of a `torch.utils.data.DataLoader`: a pass is an
    iterator over the source.

    A resumed training draws a batch of each pass that came before, so that one that shuffles by a
    seed goes on as if it had not been interrupted.
    """

    def _open(self, before):
        self.steps = _whole_batches(self.source)
        if before is not None:  # to draw one again would begin one more pass
            self.first = before.first
        else:
            self.first = as_batch(next(iter(self.source))) if self.steps else _NO_BATCH

    def begin_pass(self, epoch):
        for _ in range(self.passes, epoch):
            next(iter(self.source))
        self.passes = epoch + 1
        batches = self._iterator()

        def fetch(step):
            try:
                return as_batch(next(batches))
            except StopIteration:
                raise ended_early(self.steps, step) from None
            except Exception as error:
                if 'was expected to contain' in str(error):  # tf.data's assert_cardinality
                    raise ended_early(self.steps, step) from None
                raise

        return fetch

    def _iterator(self):
        return iter(self.source)


class DatasetStream(LoaderStream):
    """A `tf.data.Dataset`, which says what its batches are like before it gives one."""

    def _open(self, before):
        spec = self.source.element_spec
        if not isinstance(spec, tuple) or len(spec) not in (2, 3):
            raise not_pairs(spec)
        for part in spec:
            if not hasattr(part, 'shape'):
                raise not_pairs(part)
        shapes = [part.shape for part in spec]
        if any(shape.rank is None or not shape.is_fully_defined() for shape in shapes):
            raise ValueError(
                '`images` must give batches of a fixed shape: .batch(batch_size, '
                'drop_remainder=True), and set_shape or ensure_shape in a map. Received: '
                f'shapes {", ".join(map(str, shapes))}'
            )
        self.steps = length_of(self.source)
        # None of its own, which would begin a pass: any valid one.
        images, labels, *weights = (
            np.zeros(part.shape, part.dtype.as_numpy_dtype) for part in spec
        )
        if labels.ndim > 1:
            labels[:, 0] = 1  # the first class, as probabilities
        self.first = as_batch((images, labels, *weights))

    def _iterator(self):
        return self.source.as_numpy_iterator()


def _whole_batches(source):
    """How many batches a pass has, without the incomplete last one of a DataLoader."""
    size = getattr(source, 'batch_size', None)
    if size and getattr(source, 'drop_last', None) is False and hasattr(source, 'sampler'):
        # The sampler of an IterableDataset has no length.
        counted = source.sampler if hasattr(source.sampler, '__len__') else source.dataset
        return length_of(counted) // size
    return length_of(source)


def check_stored(source: Any) -> None:
    """Raises where the Trainer would leave out what a source does with its images."""
    if isinstance(source, data.ImageBatches) and (source.normalize or source.augment):
        raise ValueError(
            '`images` must be an ImageBatches without `normalize` and `augment`: give them to '
            'the Trainer, which applies them on the device. Received: one with them'
        )


def fetch_one_of(count: int, fetch: Callable, source: Any, number: int) -> Any:
    """What `fetch` gets of a source that says it has `count` batches."""
    try:
        return fetch(source, number)
    except IndexError as error:
        raise ended_early(count, number) from error


def fetch_batch(source: Any, number: int) -> Batch:
    """The batch of a number."""
    # A source with this method gives images as they are stored, and their places.
    stored = getattr(source, 'stored_batch', None)
    if stored is None:
        return as_batch(source[number])
    images, labels, indices, *weights = stored(number)
    return as_batch((images, labels, *weights))._replace(indices=np.asarray(indices, np.int32))


def fetch_images(source: Any, number: int) -> np.ndarray:
    """The images of the batch of a number."""
    stored = getattr(source, 'stored_batch', None)
    return images_of(source[number] if stored is None else stored(number))


def _nothing():
    pass
