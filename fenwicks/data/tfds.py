"""Data sets of TensorFlow Datasets, by name."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from fenwicks._errors import one_line
from fenwicks.data.dataset import Dataset
from fenwicks.data.decoded import ImageArrays
from fenwicks.data.images import checked_options, resize_image
from fenwicks.data.storage import may_download

PREFIX = 'tfds:'
_TESTS = ('test', 'validation')  # the split to test on: the first that is there


@dataclasses.dataclass(frozen=True)
class TfdsImages:
    """The images of a data set of TensorFlow Datasets, not yet of one size.

    Made by `fenwicks.data.tfds_images`.

    Args:
        name: of the data set.
        splits: the examples `(image, label)` of its training split, and of its test split if it has
            one, as NumPy arrays.
        counts: number of images of each of these.
        class_names: the name of each class.
        source: where they lie.
    """

    name: str
    splits: tuple[Any, ...]
    counts: tuple[int, ...]
    class_names: tuple[str, ...]
    source: str

    @property
    def train_count(self) -> int:
        """Number of training images."""
        return self.counts[0]

    @property
    def test_count(self) -> int:
        """Number of test images; 0 if there is no test split."""
        return sum(self.counts[1:])

    def short_sides(self, count: int) -> Iterator[int]:
        """The shorter side, in pixels, of the first training images.

        Args:
            count: of how many.
        """
        for image, _ in itertools.islice(self.splits[0], count):
            yield min(image.shape[:2])

    def decode(
        self, image_size: tuple[int, int], fit: str = 'crop', filter: str = 'bilinear'
    ) -> ImageArrays:
        """All images at one size, those to train on first.

        Args:
            image_size: `(height, width)`.
            fit, filter: see `fenwicks.data.images.decode_image`.

        Returns:
            ImageArrays in RGB.
        """
        options = checked_options(image_size, fit, filter, 3)
        images = np.empty((sum(self.counts), *options.image_shape), np.uint8)
        labels = np.empty(len(images), np.int32)
        for place, (image, label) in enumerate(itertools.chain(*self.splits)):
            images[place] = resize_image(image, *options)
            labels[place] = label
        return ImageArrays(images, labels, self.class_names, source=self.source)


def tfds_images(
    name: str, data_dir: str | os.PathLike[str] | None = None, download: bool | None = None
) -> TfdsImages:
    """The images of a data set of TensorFlow Datasets, which are downloaded if they aren't there.

    Args:
        name: `'tfds:NAME'`, with a configuration and version as TensorFlow Datasets takes them:
            `'tfds:imagenette/160px-v2'`.
        data_dir: where TensorFlow Datasets keeps its data; None for its own default.
        download: see `load`.

    Returns:
        A `TfdsImages`: `decode(image_size)` brings the images to one size.

    Raises:
        ImportError: TensorFlow Datasets isn't installed.
        ValueError: it has no such data set, or one without images and labels.
        OSError: the data set is not there, and can't or may not be downloaded.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            f'{name} needs TensorFlow Datasets: '
            'pip install tensorflow-datasets importlib_resources pyarrow'
        ) from error
    data_dir = None if data_dir is None else os.path.expanduser(data_dir)
    try:
        builder = tfds.builder(name.removeprefix(PREFIX), data_dir=data_dir)
    except Exception as error:  # of an unknown name, of a network that isn't there
        reason = one_line(error).partition(' Available datasets')[0]  # of which there are hundreds
        raise ValueError(
            f'`name` must be a data set of TensorFlow Datasets ({reason}). Received: name={name!r}'
        ) from error
    if not may_download(download) and not builder.is_prepared():
        raise FileNotFoundError(
            f'{name} was not found, and must not be downloaded (`download`, FENWICKS_OFFLINE). '
            f'Tried: {builder.data_dir}'
        )
    try:
        builder.download_and_prepare()
    except ImportError as error:
        raise ImportError(f'{name} needs another package: {one_line(error)}') from error
    except Exception as error:
        raise OSError(f'{name} can not be downloaded: {one_line(error)}') from error
    splits = [each for each in ('train', *_TESTS) if each in builder.info.splits]
    keys = builder.info.supervised_keys
    kinds = [type(builder.info.features[key]).__name__ for key in (keys or ())[:2]]
    if 'train' not in splits or kinds != ['Image', 'ClassLabel']:
        raise ValueError(
            '`name` must be of a data set of images with a class each, and a split `train`. '
            f'Received: name={name!r}, of {kinds} in {splits}'
        )
    splits = splits[:2]
    read = [
        tfds.as_numpy(builder.as_dataset(split=split, as_supervised=True, shuffle_files=False))
        for split in splits
    ]
    return TfdsImages(
        name,
        tuple(read),
        tuple(int(builder.info.splits[split].num_examples) for split in splits),
        tuple(builder.info.features[keys[1]].names),
        str(builder.data_dir),
    )


def load_tfds(
    name: str, data_dir: str | os.PathLike[str] | None = None, download: bool | None = None
) -> Dataset:
    """A data set of TensorFlow Datasets whose images have one size already.

    Args:
        name, data_dir, download: see `tfds_images`.

    Returns:
        A Dataset in RGB.

    Raises:
        ValueError: the sizes differ, or there is no test split.
        ImportError, OSError: as `tfds_images`.
    """
    found = tfds_images(name, data_dir, download)
    shapes = {image.shape[:2] for images in found.splits for image, _ in images}
    if len(shapes) > 1 or not found.test_count:
        raise ValueError(
            '`dataset` must have images of one size and a test split; examples/folder.py takes '
            f'any. Received: dataset={name!r}, with {len(shapes)} sizes and '
            f'{found.test_count} test images'
        )
    arrays = found.decode(shapes.pop())
    every = np.arange(len(arrays))
    train, test = every[: found.train_count], every[found.train_count :]
    return arrays.dataset(train, test, name)
