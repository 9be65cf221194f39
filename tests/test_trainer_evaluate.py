"""`predict` and `evaluate` of a Trainer, of arrays and of sources of batches."""

import dataclasses
import itertools

import keras
import numpy as np
import pytest
from stream_toys import Changed, Resident
from training_toys import COUNT, dense_model, make, toy

from fenwicks import data, evaluate

pytestmark = pytest.mark.backend('tensorflow', 'jax')
IMAGES, LABELS = toy()
MARGIN = dataclasses.replace(evaluate.FLIP_TRANSLATE, name='margin', margin=0.11)


def tensors(*parts):
    tf = pytest.importorskip('tensorflow')
    return tf.data.Dataset.from_tensor_slices(parts if len(parts) > 1 else parts[0])


SOURCES = {
    'ImageBatches': lambda: data.ImageBatches(IMAGES, LABELS, 5),
    'tf.data': lambda: tensors(IMAGES, LABELS).batch(5),
    'of unknown length': lambda: tensors(IMAGES, LABELS).filter(lambda *_: True).batch(7),
    'of other sizes': lambda: Listed([4, 1, 9, COUNT - 14]),
}


class Listed:
    """Batches of some sizes."""

    def __init__(self, sizes, images=IMAGES, labels=LABELS):
        ends = np.cumsum(sizes)
        self.rows = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
        self.images, self.labels = images, labels

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, number):
        return self.images[self.rows[number]], self.labels[self.rows[number]]


@pytest.fixture(scope='module')
def trainer():
    keras.utils.set_random_seed(0)
    return make(dense_model())


@pytest.mark.parametrize('tta', [evaluate.NONE, evaluate.FLIP, MARGIN], ids=lambda tta: tta.name)
@pytest.mark.parametrize('kind', SOURCES)
def test_a_source_says_what_its_images_say(trainer, kind, tta):
    source = SOURCES[kind]()
    logits = trainer.predict(IMAGES, tta=tta)
    np.testing.assert_allclose(trainer.predict(source, tta=tta), logits, rtol=1e-5, atol=1e-6)
    expected = trainer.evaluate_views(IMAGES, LABELS, tta=tta)
    for found, exact in zip(trainer.evaluate_views(source, tta=tta), expected, strict=True):
        assert found.loss == pytest.approx(exact.loss, rel=1e-5)
        assert found.accuracy == exact.accuracy


def test_some_images_are_doubtful_and_some_are_not(trainer):
    """What the test above needs."""
    doubtful = MARGIN.is_doubtful(trainer.predict(IMAGES))
    assert 0 < np.count_nonzero(doubtful) < COUNT


@pytest.mark.parametrize(
    'images_alone',
    [lambda: tensors(IMAGES).batch(6), lambda: data.ImageBatches(IMAGES, batch_size=6)],
    ids=['tf.data', 'ImageBatches'],
)
def test_to_predict_images_need_no_labels(trainer, images_alone):
    found = trainer.predict(images_alone())
    np.testing.assert_allclose(found, trainer.predict(IMAGES), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('images_alone', [False, True])
def test_a_list_of_batches_is_a_source(trainer, images_alone):
    images, labels = toy(11)
    batches = [(images[i : i + 4], labels[i : i + 4]) for i in (0, 4, 8)]
    expected = trainer.predict(images)
    for kind in (list, tuple):
        given = kind(batch[0] if images_alone else batch for batch in batches)
        np.testing.assert_allclose(trainer.predict(given), expected, rtol=1e-5)
    np.testing.assert_allclose(trainer.predict([*images]), expected, rtol=1e-5)
    with pytest.raises(ValueError, match='`images` must not be empty'):
        trainer.predict([])


def test_float_images_are_normalised_as_they_are(trainer):
    """The Trainer divides by 255, whatever the dtype."""
    floats = Listed([COUNT], IMAGES.astype(np.float32))
    found = trainer.evaluate(floats)
    assert found.loss == pytest.approx(trainer.evaluate(IMAGES, LABELS).loss, rel=1e-5)


@pytest.mark.parametrize(
    ('source', 'options', 'message'),
    [
        (lambda: Listed([8, COUNT - 8]), {'batch_size': 8}, '`batch_size` must be None with a so'),
        (lambda: tensors(IMAGES, LABELS).batch(4).repeat(), {}, '`images` must have an end: leave'),
        (
            lambda: data.ImageBatches(IMAGES, LABELS, 5, normalize=lambda images: images / 255),
            {},
            '`images` must be an ImageBatches without `normalize` and `augment`',
        ),
        (lambda: Listed([]), {}, '`images` must not be empty. Received: a source without images'),
        (
            lambda: Changed(1, lambda images, labels: (images.astype(np.float32), labels)),
            {},
            '`images` must give batches of one form. Received: ',
        ),
        (
            lambda: Changed(1, lambda images, labels: (images[:, :4], labels)),
            {},
            '`images` must give batches of one form. Received: ',
        ),
    ],
)
def test_what_a_source_may_not_give(trainer, source, options, message):
    for call in (trainer.predict, trainer.evaluate):
        with pytest.raises(ValueError, match=message.replace('(', r'\(')) as error:
            call(source(), **options)
        assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('source', 'message'),
    [
        (
            lambda: Changed(1, lambda images, labels: (images, labels + 90)),
            r'`labels` must be .* Received: ',
        ),
        (lambda: Resident(weights=np.ones(COUNT)), 'all images count alike. Received: batches wi'),
        (lambda: data.ImageBatches(IMAGES, batch_size=6), 'batches with labels. Received: images'),
    ],
)
def test_what_it_may_not_give_to_be_evaluated(trainer, source, message):
    with pytest.raises(ValueError, match=message) as error:
        trainer.evaluate(source())
    assert '\n' not in str(error.value)


def test_validation_data_that_never_end(trainer):
    """All of them were read into memory."""
    source = tensors(IMAGES, LABELS).batch(4).repeat()
    with pytest.raises(ValueError, match=r'^`validation_data` must be like .* must have an end'):
        trainer.fit(IMAGES, LABELS, 1, validation_data=source)


def test_labels_belong_to_arrays_alone(trainer):
    with pytest.raises(ValueError, match='`labels` must be None with a source of batches'):
        trainer.evaluate(Listed([COUNT]), LABELS)
    for arrays in ([IMAGES, LABELS], (IMAGES, LABELS)):
        with pytest.raises(ValueError, match='`images` must ') as error:
            trainer.predict(arrays)
        assert '\n' not in str(error.value)


def test_an_iterator_has_one_pass_only(trainer):
    calls = (
        lambda batches: trainer.fit(batches, epochs=1),
        lambda batches: trainer.fit(IMAGES, LABELS, 1, validation_data=batches),
        trainer.evaluate,
        trainer.predict,
    )
    for call in calls:
        for batches in (iter([(IMAGES, LABELS)]), ((IMAGES, LABELS) for _ in range(2))):
            with pytest.raises(ValueError, match=r'a source of batches: .* Received: ') as error:
                call(batches)
            assert '\n' not in str(error.value)


def test_a_name_is_no_augmentation(trainer):
    for call in (trainer.predict, lambda images, tta: trainer.evaluate(images, LABELS, tta=tta)):
        with pytest.raises(ValueError, match=r'^`tta` must be an evaluate\.TTA'):
            call(IMAGES, tta='flip')


@pytest.mark.parametrize('tta', [evaluate.FLIP, MARGIN], ids=lambda tta: tta.name)
def test_a_forward_pass_has_one_size(tta):
    """Batches of other sizes would be other programs to compile."""
    sizes = []

    def predict(images, views):
        sizes.append(len(images))
        plain = images[:, 0, 0, :1].astype(np.float32) / 255
        return np.stack([np.concatenate([plain, 0 * plain], axis=1)] * len(views))

    parts = itertools.chain([IMAGES[:4]], [IMAGES[4:5], IMAGES[5:19], IMAGES[19:]])
    views = evaluate.predict_views(predict, parts, 99, tta)
    assert views.shape == (len(tta.transforms), COUNT, 2)
    np.testing.assert_allclose(views[:, :, 0], [IMAGES[:, 0, 0, 0] / 255] * len(views), rtol=1e-6)
    assert set(sizes) == {4}
