"""Data sets of TensorFlow Datasets, by a stand-in for the package."""

import sys
import types

import numpy as np
import pytest

from fenwicks import data


class Image:
    pass


class ClassLabel:
    names = ('cat', 'dog')


def package(examples, kinds=(Image, ClassLabel), fail=None, prepared=False):
    """A module like `tensorflow_datasets` with one data set, `pets`, of the given splits."""

    class Builder:
        data_dir = '/there/pets/1.0.0'
        info = types.SimpleNamespace(
            splits={
                split: types.SimpleNamespace(num_examples=len(images))
                for split, images in examples.items()
            },
            features={'image': kinds[0](), 'label': kinds[1]()},
            supervised_keys=('image', 'label'),
        )

        def is_prepared(self):
            return prepared

        def download_and_prepare(self):
            if fail:
                raise fail

        def as_dataset(self, split, as_supervised, shuffle_files):
            assert as_supervised
            assert not shuffle_files
            return examples[split]

    def builder(name, data_dir=None):
        if name != 'pets':
            raise ImportError(f'Dataset {name} not found.\nAvailable datasets: pets')
        return Builder()

    module = types.ModuleType('tensorflow_datasets')
    module.builder, module.as_numpy = builder, lambda found: found
    return module


def examples(count, sizes=((6, 8),), channels=3):
    return [(np.full((*sizes[n % len(sizes)], channels), n, np.uint8), n % 2) for n in range(count)]


@pytest.fixture(autouse=True)
def _may_download(monkeypatch):
    monkeypatch.delenv('FENWICKS_OFFLINE', raising=False)  # as CI sets it


def install(monkeypatch, module):
    monkeypatch.setitem(sys.modules, 'tensorflow_datasets', module)


def test_images_of_one_size_are_a_dataset(monkeypatch):
    install(monkeypatch, package({'train': examples(5), 'test': examples(2)}))
    dataset = data.load('tfds:pets')
    assert dataset.name == 'tfds:pets'
    assert dataset.source == '/there/pets/1.0.0'
    assert dataset.class_names == ('cat', 'dog')
    assert dataset.image_shape == (6, 8, 3)
    np.testing.assert_array_equal(dataset.train_images[:, 0, 0, 0], range(5))
    np.testing.assert_array_equal(dataset.test_labels, [0, 1])


def test_images_of_any_size_are_resized(monkeypatch):
    sizes = ((6, 8), (20, 10))
    splits = {'train': examples(5, sizes, channels=1), 'validation': examples(2, sizes, channels=1)}
    install(monkeypatch, package(splits))
    found = data.tfds_images('tfds:pets')
    assert (found.train_count, found.test_count) == (5, 2)
    assert list(found.short_sides(2)) == [6, 10]
    arrays = found.decode((4, 4))
    assert arrays.images.shape == (7, 4, 4, 3)
    np.testing.assert_array_equal(arrays.images[:, 0, 0, 2], [0, 1, 2, 3, 4, 0, 1])
    with pytest.raises(ValueError, match='must have images of one size and a test split'):
        data.load('tfds:pets')


@pytest.mark.parametrize(
    ('module', 'name', 'kind', 'line'),
    [
        (None, 'tfds:pets', ImportError, r'tfds:pets needs TensorFlow Datasets: pip install'),
        (package({}), 'tfds:cats', ValueError, r'\(Dataset cats not found\.\)\. Received: name='),
        (package({'test': []}), 'tfds:pets', ValueError, 'a split `train`'),
        (
            package({'train': []}, kinds=(Image, Image)),
            'tfds:pets',
            ValueError,
            'images with a class each',
        ),
        (
            package({'train': []}, fail=OSError('no\nnetwork')),
            'tfds:pets',
            OSError,
            'tfds:pets can not be downloaded: no network',
        ),
        (
            package({'train': []}, fail=ImportError("No module named 'x'")),
            'tfds:pets',
            ImportError,
            "tfds:pets needs another package: No module named 'x'",
        ),
    ],
)
def test_what_cannot_be_had_is_one_line(monkeypatch, module, name, kind, line):
    install(monkeypatch, module)  # None: it can't be imported
    with pytest.raises(kind, match=line) as raised:
        data.load(name)
    assert '\n' not in str(raised.value)


def test_nothing_is_downloaded_that_must_not_be(monkeypatch):
    splits = {'train': examples(2), 'test': examples(2)}
    install(monkeypatch, package(splits, fail=OSError('asked the network')))
    line = r'^tfds:pets was not found, and must not be downloaded .* Tried: /there/pets/1\.0\.0$'
    with pytest.raises(FileNotFoundError, match=line):
        data.load('tfds:pets', download=False)
    monkeypatch.setenv('FENWICKS_OFFLINE', '1')
    with pytest.raises(FileNotFoundError, match=line):
        data.tfds_images('tfds:pets')
    install(monkeypatch, package(splits, prepared=True))
    assert len(data.load('tfds:pets').train_images) == 2
