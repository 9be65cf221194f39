"""Evaluation: exact over the whole set, whatever the size of a batch and of the logits."""

import math

import keras
import numpy as np
import pytest

from fenwicks import evaluate


def test_equal_logits_cost_the_logarithm_of_the_classes():
    score = evaluate.metrics(np.zeros((6, 4), np.float32), np.array([0, 1, 2, 3, 0, 0]))
    assert score.loss == pytest.approx(np.log(4), abs=1e-15)
    assert score.accuracy == 0.5  # of equal logits the first counts


def test_two_logits_against_the_closed_form():
    gaps = np.array([-3.0, -0.5, 0.25, 2.0])
    logits = np.stack([np.zeros(4), gaps], axis=1).astype(np.float32)
    score = evaluate.metrics(logits, np.array([1, 1, 1, 1]))
    assert score.loss == pytest.approx(np.mean(np.log1p(np.exp(-gaps))), abs=1e-15)
    assert score.accuracy == 0.5
    flipped = evaluate.metrics(logits, [0, 0, 0, 0])
    assert flipped.loss == pytest.approx(np.mean(np.log1p(np.exp(gaps))), abs=1e-15)


def test_extreme_logits_stay_finite():
    largest = np.finfo(np.float32).max
    logits = np.array([[largest, -largest, 0], [-largest, -largest, -largest]], np.float32)
    score = evaluate.metrics(logits, np.array([0, 2]))
    assert score.loss == pytest.approx(np.log(3) / 2)
    assert score.accuracy == 0.5
    wrong = evaluate.metrics(logits[:1], np.array([1]))
    assert wrong.loss == pytest.approx(2 * float(largest))
    assert wrong.accuracy == 0.0


def test_a_shift_of_the_logits_changes_nothing():
    rng = np.random.default_rng(3)
    logits, labels = rng.standard_normal((50, 10)), rng.integers(0, 10, 50)
    shifted = evaluate.metrics(logits + rng.normal(0, 1000, (50, 1)), labels)
    assert shifted.loss == pytest.approx(evaluate.metrics(logits, labels).loss, abs=1e-9)


def test_a_perfect_score_has_no_negative_loss():
    score = evaluate.metrics(np.array([[1000.0, 0.0]]), np.array([0]))
    assert (score.loss, math.copysign(1, score.loss)) == (0, 1)


def test_metrics_are_plain_floats():
    score = evaluate.metrics(np.zeros((2, 3), np.float16), np.array([0, 1]))
    assert type(score.loss) is type(score.accuracy) is float


@pytest.mark.parametrize('count', [1, 2, 3, 4, 7, 8, 12])
def test_every_image_once_in_order_in_batches_of_one_size(count):
    images = np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1)
    sizes = []

    def predict(batch):
        sizes.append(len(batch))
        assert batch.dtype == np.uint8
        pixel = batch.reshape(-1, 1).astype(np.float32)
        return np.concatenate([pixel, -pixel], axis=1)

    logits = evaluate.predict_logits(predict, images, batch_size=4)
    np.testing.assert_array_equal(logits[:, 0], np.arange(count))
    assert logits.shape == (count, 2)
    assert sizes == [min(4, count)] * -(-count // 4)


def test_the_size_of_a_batch_does_not_change_the_score():
    rng = np.random.default_rng(4)
    images = rng.integers(0, 256, (23, 2, 2, 3), dtype=np.uint8)
    labels = rng.integers(0, 5, 23)
    kernel = rng.standard_normal((12, 5)) / 100

    def predict(batch):
        return batch.reshape(len(batch), -1) @ kernel

    whole = evaluate.metrics(predict(images), labels)
    for batch_size in (1, 5, 23, 500):
        score = evaluate.score(predict, images, labels, batch_size)
        assert score.accuracy == whole.accuracy
        assert score.loss == pytest.approx(whole.loss, rel=1e-12)


def test_bad_input():
    images = np.zeros((3, 2, 2, 1), np.uint8)
    with pytest.raises(ValueError, match='`batch_size` must be a positive integer'):
        evaluate.predict_logits(lambda batch: batch, images, 0)
    with pytest.raises(ValueError, match='`images` must not be empty'):
        evaluate.predict_logits(lambda batch: batch, images[:0], 2)


@pytest.mark.parametrize(
    ('change', 'received'),
    [
        (np.transpose, r'shape=\(3, 4\)'),
        (lambda logits: logits[:, 0], r'shape=\(4,\)'),
        (lambda logits: np.concatenate([logits, logits]), r'shape=\(8, 3\)'),
        (lambda logits: logits[:2], r'shape=\(2, 3\)'),
        (lambda logits: logits[None, None], r'shape=\(1, 1, 4, 3\)'),
        (lambda logits: logits[:, None], r'shape=\(4, 1, 3\)'),
        (lambda logits: logits.tolist(), "'list'"),
        (lambda logits: None, "'NoneType'"),
        (lambda logits: np.float32(3), r'shape=\(\)'),
    ],
)
def test_predictions_of_another_shape(change, received):
    images, labels = np.zeros((6, 2, 2, 1), np.uint8), np.zeros(6, int)

    def predict(batch):
        return change(np.zeros((4, 3), np.float32))

    message = rf'^`predict` must return an array of logits \(4, classes\) for 4 .*{received}$'
    for call in (
        lambda: evaluate.score(predict, images, labels, 4),
        lambda: evaluate.predict_logits(predict, images, 4),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize('shape', [(4, 3), (2, 3, 4), (3, 4, 3)])
@pytest.mark.parametrize('margin', [np.inf, 0.5])
def test_views_of_another_shape(shape, margin):
    tta = evaluate.TTA('own', evaluate.FLIP.transforms, evaluate.FLIP.weights, margin)
    images = np.zeros((6, 2, 2, 1), np.uint8)

    with pytest.raises(ValueError, match=r'^`predict` must return an array of logits \([12], 4, c'):
        evaluate.predict_views(lambda batch, transforms: np.zeros(shape), images, 4, tta)


def test_logits_that_are_infinite():
    logits = np.array([[np.inf, 0], [0, -np.inf], [-np.inf, 2]])
    assert evaluate.probabilities(logits).tolist() == [[1, 0], [1, 0], [0, 1]]
    assert evaluate.metrics(logits, np.array([0, 0, 1])) == evaluate.Metrics(0.0, 1.0)
    wrong = evaluate.metrics(logits, np.array([1, 0, 1]))
    assert (wrong.loss, wrong.accuracy) == (np.inf, pytest.approx(2 / 3))
    positions, shares = evaluate.most_confident_mistakes(logits, np.array([1, 1, 1]))
    assert (positions.tolist(), shares.tolist()) == ([0, 1], [1, 1])


def test_logits_that_are_nan_are_no_mistakes():
    logits = np.array([[np.nan, 0], [0, 1], [1, np.nan]])
    assert np.isnan(evaluate.probabilities(logits)).tolist() == [
        [True] * 2,
        [False] * 2,
        [True] * 2,
    ]
    score = evaluate.metrics(logits, np.array([0, 1, 1]))
    assert np.isnan(score.loss)
    assert score.accuracy == pytest.approx(1 / 3)
    positions, shares = evaluate.most_confident_mistakes(logits, np.array([1, 0, 0]))
    assert (positions.tolist(), shares.shape) == ([1], (1,))


@pytest.mark.parametrize('logits', ['a', [['1', '2']], [[1.0, 2.0], [3.0]], None, [[1j, 2j]]])
def test_logits_that_are_no_numbers(logits):
    for call in (
        evaluate.probabilities,
        lambda logits: evaluate.metrics(logits, [0]),
        lambda logits: evaluate.most_confident_mistakes(logits, [0]),
    ):
        with pytest.raises(
            ValueError, match=r'^`logits` must be an array of numbers\. Received: d'
        ):
            call(logits)


def test_logits_that_are_none():
    labels = np.zeros(3, int)
    for shape in ((3,), (3, 0), (1, 3, 2)):
        calls = (
            lambda logits: evaluate.metrics(logits, labels),
            evaluate.probabilities,
            lambda logits: evaluate.most_confident_mistakes(logits, labels),
        )
        for call in calls:
            with pytest.raises(ValueError, match=r'^`logits` must have the shape \(count, class'):
                call(np.zeros(shape))
    with pytest.raises(ValueError, match='`logits` must not be empty'):
        evaluate.metrics(np.zeros((0, 3)), labels[:0])


def test_a_name_is_no_augmentation():
    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.GlobalAveragePooling2D()])
    images = np.zeros((3, 4, 4, 3), np.uint8)
    for call in (
        lambda: evaluate.tta_model(model, 'flip'),
        lambda: evaluate.predict_views(None, images, 2, 'flip'),
    ):
        with pytest.raises(ValueError, match=r"^`tta` must be an evaluate\.TTA.* tta='flip'$"):
            call()
    for wrong in (3, None, keras.Model):
        with pytest.raises(ValueError, match=r'^`model` must be a Keras model\. Received: model='):
            evaluate.tta_model(wrong, evaluate.FLIP)
    for arguments in ((evaluate.unchanged, (1.0,)), ((evaluate.unchanged,), None)):
        with pytest.raises(ValueError, match='must be a sequence of'):
            evaluate.TTA('mine', *arguments)


@pytest.mark.parametrize(
    ('labels', 'message'),
    [
        ([[0], [1], [2]], r'shape \(n,\)\. Received: shape=\(3, 1\)'),
        ([0, 1], 'the same length as the images. Received: 3 images and 2 labels'),
        ([0.0, 1.0, 2.0], 'must be integers. Received: dtype=float64'),
        ([0, 1, -1], r'must be in \[0, 3\). Received: labels from -1 to 1'),
        ([0, 1, 3], r'must be in \[0, 3\). Received: labels from 0 to 3'),
    ],
)
def test_labels_that_fit_no_logits(labels, message):
    with pytest.raises(ValueError, match=message):
        evaluate.metrics(np.eye(3), labels)
