"""Dataset, its checks, and the embedded sample."""

import dataclasses
import hashlib
import pathlib

import numpy as np
import pytest

from fenwicks import data
from fenwicks.data import sample


def arrays(n=6):
    images = np.arange(n * 48, dtype=np.uint8).reshape(n, 4, 4, 3)
    return images, (np.arange(n) % 3).astype(np.int32)


def made():
    return data.Dataset('made', *arrays(6), *arrays(4), ('a', 'b', 'c'), 'memory')


def test_good_arrays_pass():
    images, labels = arrays()
    data.check_arrays(images, labels, 3)
    data.check_arrays(images, labels.astype(np.uint8))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda x, y: (x.astype(np.float32), y), '`images` must be uint8.*float32'),
        (lambda x, y: (x[..., 0], y), r'`images` must have the shape.*\(6, 4, 4\)'),
        (lambda x, y: (x[:0], y[:0]), '`images` must not be empty'),
        (lambda x, y: (x[:, :0], y), '`images` must not be empty'),
        (lambda x, y: (x, y[:-1]), 'same length.*6 images and 5 labels'),
        (lambda x, y: (x, y.astype(np.float32)), '`labels` must be integers.*float32'),
        (lambda x, y: (x, y[:, None]), r'`labels` must have the shape \(n,\).*\(6, 1\)'),
        (lambda x, y: (x, y + 1), r'`labels` must be in \[0, 3\).*from 1 to 3'),
        (lambda x, y: (x, y - 1), r'`labels` must be in \[0, 3\).*from -1 to 1'),
    ],
)
def test_bad_arrays_are_refused_in_one_line(change, message):
    images, labels = change(*arrays())
    with pytest.raises(ValueError, match=message) as caught:
        data.check_arrays(images, labels, 3)
    assert '\n' not in str(caught.value)


def test_negative_labels_are_refused_without_a_number_of_classes():
    images, labels = arrays()
    with pytest.raises(ValueError, match='from -1 to 1'):
        data.check_arrays(images, labels - 1)


def test_dataset_describes_itself():
    dataset = made()
    assert dataset.num_classes == 3
    assert dataset.image_shape == (4, 4, 3)
    assert len(repr(dataset)) < 200
    with pytest.raises(dataclasses.FrozenInstanceError):
        dataset.name = 'other'


def test_names_of_classes_may_be_an_array():
    """`numpy.unique` returns one; it had no digest, and no truth value."""
    names, labels = np.unique(['cat', 'owl', 'cat'], return_inverse=True)
    images = np.zeros((3, 2, 2, 3), np.uint8)
    made = data.ImageArrays(images, labels, names, names=np.array(['x', 'y', 'z']))
    dataset = made.dataset([0, 1], [2])
    listed = data.ImageList(pathlib.Path(), ('x', 'y', 'z'), labels, names)
    parts = images, labels, images, labels
    for each in (made, dataset, listed, data.Dataset('toy', *parts, names, 'made')):
        assert repr(each.class_names) == "('cat', 'owl')"
    assert repr(made.names) == "('x', 'y', 'z')"
    assert len(dataset.digest()) == 16
    with pytest.raises(ValueError, match=r"of class 1 \('owl'\)"):
        data.k_folds(3, 2, labels=labels, class_names=names)


def test_dataset_checks_its_arrays():
    with pytest.raises(ValueError, match='`labels` must be in'):
        data.Dataset('made', *arrays(), *arrays(), ('a', 'b'), 'memory')
    images, labels = arrays()
    with pytest.raises(ValueError, match='`test_images` must have the shape'):
        data.Dataset('made', images, labels, images[:, :2], labels, ('a', 'b', 'c'), 'memory')


def test_a_digest_is_of_all_that_a_data_set_holds():
    dataset = data.load('digits')
    digest = dataset.digest()
    assert len(digest) == 16
    assert digest == data.load('digits').digest()
    others = [dataset.limit(100)]
    for name in ('train_images', 'train_labels', 'test_images', 'test_labels'):
        array = getattr(dataset, name).copy()
        array.flat[-1] ^= 1
        others.append(dataclasses.replace(dataset, **{name: array}))
    others.append(dataclasses.replace(dataset, class_names=(*dataset.class_names[:-1], 'ten')))
    assert len({digest, *(other.digest() for other in others)}) == 7


def test_limit_takes_the_first_training_images_only():
    limited = made().limit(2)
    np.testing.assert_array_equal(limited.train_images, made().train_images[:2])
    np.testing.assert_array_equal(limited.train_labels, [0, 1])
    assert len(limited.test_images) == 4
    assert len(made().limit(6).train_images) == 6
    assert len(made().limit(None).train_images) == 6


@pytest.mark.parametrize('n', [0, -1, 7, 1.5, '1', True])
def test_limit_out_of_range(n):
    with pytest.raises(ValueError, match=rf'`limit` must be in \[1, 6\].*limit={n}$'):
        made().limit(n)


def test_digits_are_a_fixed_stratified_split():
    digits = data.load('digits')
    assert digits.name == 'digits'
    assert digits.train_images.dtype == np.uint8
    assert digits.train_labels.dtype == np.int32
    assert digits.image_shape == (32, 32, 3)
    train, test = np.bincount(digits.train_labels), np.bincount(digits.test_labels)
    assert train.sum() + test.sum() == 1797
    assert 0.15 < (test / (train + test)).min() <= (test / (train + test)).max() < 0.18
    # The split and the pixels must never change: results are compared across versions.
    assert (train.sum(), test.sum()) == (1501, 296)
    assert digits.test_images.sum(dtype=np.int64) == 70996404
    again = data.load('digits')
    np.testing.assert_array_equal(again.train_images, digits.train_images)


def embedded():
    """The digits as they are stored: images 0 to 16 `(1797, 8, 8)`, and labels."""
    with np.load(sample.__file__.replace('sample.py', 'digits.npz')) as file:
        return file['images'], file['labels']


def test_digits_never_change():
    digits = data.load('digits')
    digest = hashlib.sha256()
    for array in (
        digits.train_images,
        digits.train_labels,
        digits.test_images,
        digits.test_labels,
    ):
        digest.update(array.tobytes())
    # Computed when they still came from scikit-learn 1.9.1.
    assert digest.hexdigest() == 'da777bd44716c87acf5ad691d6350baa91f93c3d125ed6ff7ef6c2c3ebce4d61'


def test_digits_are_those_of_scikit_learn():
    datasets = pytest.importorskip('sklearn.datasets', reason='compares with scikit-learn')
    source = datasets.load_digits()
    images, labels = embedded()
    np.testing.assert_array_equal(images, source.images)
    np.testing.assert_array_equal(labels, source.target)


def test_digits_are_packaged():
    root = pathlib.Path(sample.__file__).parents[2]
    if not (root / 'setup.py').exists():
        pytest.skip('an installed package')
    assert "'data/digits.npz'" in (root / 'setup.py').read_text()


def test_digits_are_resized_bilinearly():
    source = embedded()[0][0] * (255 / 16)
    image = data.load('digits').train_images[0].astype(float)
    assert (image == image[..., :1]).all()
    # Four new pixels lie around each old one, at +-1/8 and +-3/8 of its width.
    np.testing.assert_allclose(image[0, 0], source[0, 0], atol=0.5)
    column = source[0, 3] * 7 / 8 + source[0, 4] / 8
    np.testing.assert_allclose(image[0, 14], column, atol=0.5)
    np.testing.assert_allclose(image.mean(), source.mean(), atol=0.5)
