"""Sources of batches for data that don't fit the device: what `Trainer.fit` takes beside arrays."""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fenwicks import data
from fenwicks.training.batches import Batch, Form, as_batch, images_of, not_pairs

_INFINITE = -1  # the cardinality of a `tf.data.Dataset` that repeats itself


def is_stream(images: Any, labels: Any) -> bool:
    """Whether `fit` was given a source of batches rather than arrays."""
    return labels is None and not isinstance(images, np.ndarray)


def is_source(data: Any) -> bool:
    """Whether data that may be arrays are a source of batches."""
    several = hasattr(data, '__getitem__') or hasattr(data, '__iter__')
    held = hasattr(data, '__array__') or isinstance(data, tuple | list | dict | str)
    return hasattr(data, 'element_spec') or (several and not held)


def check_no_labels_beside(source: Any, labels: Any) -> None:
    """Raises where labels were given beside a source of batches, which has them."""
    if is_source(source) and labels is not None:
        raise ValueError(
            '`labels` must be None with a source of batches, which gives (images, labels): name '
            f'the other arguments, such as epochs=10. Received: {type(labels).__name__}'
        )


class Stream:
    """A source of batches, checked: the interface of the two kinds.

    Args:
        source: what `fit` was given.
        batch_size: images in a batch of this process.

    Attributes:
        steps: whole batches in an epoch.
        first: the first `Batch`, or one of the same form.
        form: the `Form` of all batches.
        workers: threads that may fetch batches at the same time.
        gives_indices: whether the source says which images a batch has.
        knows_data: whether `digest` is of the data themselves.
    """

    steps: int
    first: Batch
    workers = 1
    gives_indices = False
    knows_data = False

    def __init__(self, source: Any, batch_size: int):
        self.source, self.batch_size = source, batch_size
        self.passes = 0  # begun so far
        self._open()
        self.form = Form.of(self.first)
        if not self.steps:
            raise ValueError(
                '`images` must give at least one whole batch in a pass. Received: a stream of none'
            )

    def _open(self) -> None:
        """Sets `steps`, `first`, and what else the kind knows of its source."""
        raise NotImplementedError

    def begin_pass(self, epoch: int) -> Callable[[int], Batch]:
        """A function that fetches the batch of a step of this epoch, counted from 0."""
        raise NotImplementedError

    def end_pass(self) -> None:
        """Called after the last batch of an epoch."""

    def digest(self) -> str:
        """A hash of what is known of the data without reading all of them."""
        return hashlib.sha256(f'{self.form} {self.steps}'.encode()).hexdigest()[:16]

    def check(self, batch: Batch, where: str) -> None:
        """Raises unless a batch is like the first one, with finite numbers."""
        form = Form.of(batch)
        if form != self.form:
            raise ValueError(
                f'`images` must give batches of one form, {self.form}. Received: {form} {where}'
            )
        if len(batch.images) != self.batch_size or len(batch.labels) != self.batch_size:
            raise ValueError(
                f'`images` must give batches of {self.batch_size} images. Received: '
                f'{len(batch.images)} images and {len(batch.labels)} labels {where}'
            )
        for name in ('images', 'labels'):
            array = getattr(batch, name)
            if array.dtype.kind == 'f' and not np.isfinite(array).all():
                raise ValueError(
                    f'`images` must give finite numbers. Received: infinite or NaN {name} {where}'
                )


class IndexedStream(Stream):
    """Batches by their number: a `keras.utils.PyDataset`, or anything with a length.

    A source with an attribute `epoch` has it set before each pass. Others, if they have
    `on_epoch_begin` and `on_epoch_end`, are asked for the passes one after the other, so that one
    that shuffles itself in them by a seed does so in a resumed training as in one that was not.
    """

    def _open(self):
        source = self.source
        self._batches = batches = _length(source)
        self.workers = max(1, int(getattr(source, 'workers', 1) or 1))
        _check_stored(source)
        self.gives_indices = hasattr(source, 'stored_batch')
        self.knows_data = isinstance(source, data.ImageBatches) and source.process_count == 1
        self.first = self._get(0) if batches else Batch(np.zeros((0, 0, 0, 0)), np.zeros(0))
        # The incomplete last batch is left out, as that of arrays is.
        last_is_whole = batches < 2 or len(self._get(batches - 1).images) == self.batch_size
        self.steps = batches if last_is_whole else batches - 1

    def _get(self, number):
        return _fetch_one_of(self._batches, _fetch, self.source, number)

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


class DatasetStream(Stream):
    """A `tf.data.Dataset`: a pass is an iterator over it.

    A resumed training draws a batch of each pass that came before, so that one that shuffles by a
    seed goes on as if it had not been interrupted.
    """

    def _open(self):
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
        self.steps = _length(self.source)
        # None of its own, which would begin a pass: any valid one.
        images, labels, *weights = (
            np.zeros(part.shape, part.dtype.as_numpy_dtype) for part in spec
        )
        if labels.ndim > 1:
            labels[:, 0] = 1  # the first class, as probabilities
        self.first = as_batch((images, labels, *weights))

    def begin_pass(self, epoch):
        for _ in range(self.passes, epoch):
            next(iter(self.source))
        self.passes = epoch + 1
        batches = self.source.as_numpy_iterator()

        def fetch(step):
            try:
                return as_batch(next(batches))
            except StopIteration:
                raise _ended_early(self.steps, step) from None
            except Exception as error:
                if 'was expected to contain' in str(error):  # assert_cardinality's
                    raise _ended_early(self.steps, step) from None
                raise

        return fetch


def open_stream(source: Any, batch_size: int, processes: int = 1) -> Stream:
    """The stream of a source.

    Args:
        source: a `tf.data.Dataset`, a `keras.utils.PyDataset`, or anything with `__getitem__` and
            `__len__` that gives batches `(images, labels)`.
        batch_size: images in a step, of all processes together.
        processes: number of processes, each of which has an equal share of each batch.

    Raises:
        ValueError: it is no such source, its length isn't known, or its batches have another size.
    """
    share = batch_size // processes
    if hasattr(source, 'element_spec'):
        stream: Stream = DatasetStream(source, share)
    else:
        _check_indexed(source)
        stream = IndexedStream(source, share)
    found = len(stream.first.images)
    if found != share:
        shares = f', of which each of the {processes} processes has a share' * (processes > 1)
        raise ValueError(
            f'`batch_size` must be that of the batches of the stream{shares}. Received: '
            f'batch_size={batch_size}, and batches of {found} images'
        )
    return stream


def all_batches(source: Any) -> Iterator[Batch]:
    """The batches of a pass over a source, the incomplete last one too.

    Raises:
        ValueError: the source has no end, or a batch isn't one of the Trainer's.
    """
    return _pass_over(source, as_batch, _fetch)


def all_images(source: Any) -> Iterator[np.ndarray]:
    """The images of a pass over a source, whose batches need no labels.

    Raises:
        ValueError: as of `all_batches`.
    """
    return _pass_over(source, images_of, _fetch_images)


def _pass_over(source, read, fetch):
    if hasattr(source, 'element_spec'):
        if int(source.cardinality()) == _INFINITE:
            raise ValueError(
                '`images` must have an end: leave out .repeat(). Received: a tf.data.Dataset that '
                'repeats its batches for ever'
            )
        yield from map(read, source.as_numpy_iterator())
        return
    _check_indexed(source)
    _check_stored(source)
    count = _length(source)
    for number in range(count):
        yield _fetch_one_of(count, fetch, source, number)


def _check_indexed(source):
    """Raises unless single batches of a source can be had, by their numbers."""
    if not hasattr(source, '__getitem__'):
        raise ValueError(
            '`images` must be an array with `labels`, or a source of batches: a tf.data.Dataset, a '
            'keras.utils.PyDataset such as data.ImageBatches, or an object with __len__ and '
            f'__getitem__. Received: {type(source).__name__}'
        )


def _fetch_one_of(count, fetch, source, number):
    """What `fetch` gets of a source that says it has `count` batches."""
    try:
        return fetch(source, number)
    except IndexError as error:
        raise _ended_early(count, number) from error


def _check_stored(source):
    """Raises where the Trainer would leave out what a source does with its images."""
    if isinstance(source, data.ImageBatches) and (source.normalize or source.augment):
        raise ValueError(
            '`images` must be an ImageBatches without `normalize` and `augment`: give them to '
            'the Trainer, which applies them on the device. Received: one with them'
        )


def _fetch(source, number):
    # A source with this method gives images as they are stored, and their places.
    stored = getattr(source, 'stored_batch', None)
    if stored is None:
        return as_batch(source[number])
    images, labels, indices, *weights = stored(number)
    return as_batch((images, labels, *weights))._replace(indices=np.asarray(indices, np.int32))


def _fetch_images(source, number):
    stored = getattr(source, 'stored_batch', None)
    return images_of(source[number] if stored is None else stored(number))


def _length(source):
    """The number of batches in a pass."""
    try:
        # Of a PyDataset that doesn't know it, this is None.
        count = getattr(source, 'num_batches', None) or len(source)
    except (TypeError, NotImplementedError):
        raise ValueError(
            '`images` must know how many batches are in a pass: give it __len__, or a '
            'tf.data.Dataset .apply(tf.data.experimental.assert_cardinality(batches)). '
            f'Received: a {type(source).__name__} without a length'
        ) from None
    return int(count)


def _ended_early(steps, found):
    return ValueError(
        f'`images` must give as many batches in each pass as it says, {steps}. '
        f'Received: the end after {found}'
    )


def _nothing():
    pass


@contextlib.contextmanager
def fetching(stream: Stream) -> Iterator[Callable]:
    """A `map` of functions over steps, in order, by as many threads as the stream allows."""
    if stream.workers == 1:
        yield map
        return
    pool = concurrent.futures.ThreadPoolExecutor(stream.workers)
    try:
        yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)
