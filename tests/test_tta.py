"""Test-time augmentation: views against NumPy, weights against the published formula."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import ops
from training_toys import conv_model, make, toy

from fenwicks import evaluate
from fenwicks.evaluate import DOUBTFUL, FLIP, FLIP_TRANSLATE, NONE, TTA, unchanged
from fenwicks.losses import CrossEntropy

EVERY = [NONE, FLIP, FLIP_TRANSLATE]


def images_like(batch=3, size=5):
    return np.random.default_rng(0).standard_normal((batch, size, size + 1, 2)).astype('float32')


def moved(images, down, right):
    """Shifted by one pixel; indices that leave the image are mirrored at its edge."""
    _, height, width, _ = images.shape

    def reflected(places, size):
        places = np.abs(places)
        return np.where(places >= size, 2 * (size - 1) - places, places)

    rows = reflected(np.arange(height) - down, height)
    columns = reflected(np.arange(width) - right, width)
    return images[:, rows][:, :, columns]


def test_the_six_views():
    images = images_like()
    views = [np.asarray(ops.convert_to_numpy(view(images))) for view in FLIP_TRANSLATE.transforms]
    up_left, down_right = moved(images, -1, -1), moved(images, 1, 1)
    plain = [images, up_left, down_right]
    expected = [view for image in plain for view in (image, image[:, :, ::-1])]
    for view, right in zip(views, expected, strict=True):
        np.testing.assert_array_equal(view, right)
    np.testing.assert_array_equal(up_left[:, :-1, :-1], images[:, 1:, 1:])
    np.testing.assert_array_equal(up_left[:, -1], moved(images, 1, -1)[:, -1])


def test_weights_are_the_published_ones():
    logits = np.random.default_rng(1).standard_normal((6, 4, 3))
    image, mirrored, up, mirrored_up, down, mirrored_down = logits
    translated = ((up + mirrored_up) / 2 + (down + mirrored_down) / 2) / 2
    np.testing.assert_allclose(
        FLIP_TRANSLATE.combine(logits), 0.5 * (image + mirrored) / 2 + 0.5 * translated
    )
    np.testing.assert_allclose(FLIP.combine(logits[:2]), (image + mirrored) / 2)
    np.testing.assert_array_equal(NONE.combine(logits[:1]), image)
    assert list(evaluate.TTAS.values()) == [*EVERY, DOUBTFUL]
    assert list(evaluate.TTAS) == ['none', 'flip', 'flip_translate', 'doubtful']


def dense_logits(images, kernel):
    return images.reshape(len(images), -1) @ kernel


@pytest.mark.parametrize('tta', EVERY, ids=lambda tta: tta.name)
def test_a_model_for_stock_keras(tta, tmp_path):
    images = images_like(7)
    model = keras.Sequential(
        [keras.Input((5, 6, 2)), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    kernel, bias = model.get_weights()
    plain = [images, moved(images, -1, -1), moved(images, 1, 1)]
    views = [
        dense_logits(view, kernel) + bias for image in plain for view in (image, image[:, :, ::-1])
    ]
    expected = tta.combine(views[: len(tta.weights)])
    better = evaluate.tta_model(model, tta)
    np.testing.assert_allclose(better.predict(images, verbose=0), expected, rtol=1e-4, atol=1e-5)
    assert len(better.get_weights()) == 2  # the model's own, shared
    better.save(tmp_path / 'm.keras')
    loaded = keras.saving.load_model(tmp_path / 'm.keras')
    np.testing.assert_allclose(loaded.predict(images, verbose=0), expected, rtol=1e-4, atol=1e-5)
    labels = np.arange(7) % 3
    better.compile(loss=CrossEntropy(), metrics=['sparse_categorical_accuracy'])
    _, accuracy = better.evaluate(images, labels, verbose=0)
    assert accuracy == pytest.approx((expected.argmax(1) == labels).mean())


def test_a_model_in_mixed_precision_combines_in_float32():
    keras.config.set_dtype_policy('mixed_bfloat16')
    model = keras.Sequential(
        [keras.Input((5, 6, 2)), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    assert evaluate.tta_model(model, FLIP).output.dtype == 'float32'


@pytest.mark.backend('tensorflow', 'jax')
def test_the_trainer_gives_all_views_in_one_pass():
    images, labels = toy(23)
    trainer = make(conv_model(), batch_size=4)
    trainer.fit(images, labels, 1)
    inputs = images / np.float32(255)
    plain = [inputs, moved(inputs, -1, -1), moved(inputs, 1, 1)]
    expected = [
        trainer.model.predict(view, verbose=0)
        for image in plain
        for view in (image, image[:, :, ::-1])
    ]
    passes = []
    predict = trainer._engines.at(0).predict
    trainer._engines.at(0).predict = lambda *args: passes.append(len(args[0])) or predict(*args)
    views = trainer.predict_views(images, 10, FLIP_TRANSLATE)
    assert passes == [10, 10, 10]
    assert views.shape == (6, 23, 3)
    assert views.dtype == np.float32
    np.testing.assert_allclose(views, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(trainer.predict(images, 10), views[0])
    for tta in EVERY:
        combined = trainer.predict(images, 10, tta)
        np.testing.assert_allclose(combined, tta.combine(views[: len(tta.weights)]), rtol=1e-6)
        assert combined.dtype == np.float32
        score = trainer.evaluate(images, labels, tta=tta)
        assert score.accuracy == (combined.argmax(1) == labels).mean()


@pytest.mark.parametrize('form', [lambda each: [each], lambda each: {'logits': each}])
def test_a_model_whose_output_is_a_list_or_a_dict(form):
    images = keras.Input((5, 6, 2))
    logits = keras.layers.GlobalAveragePooling2D()(images)
    expected = evaluate.tta_model(keras.Model(images, logits), FLIP).predict(
        images_like(), verbose=0
    )
    found = evaluate.tta_model(keras.Model(images, form(logits)), FLIP).predict(
        images_like(), verbose=0
    )
    np.testing.assert_array_equal(found, expected)


def softmax_margin(logits):
    shares = np.sort(evaluate.probabilities(logits), axis=1)
    return shares[:, -1] - shares[:, -2]


def some_of_each(logits):
    """A margin that half of the predictions have, between two of theirs."""
    margins = np.sort(softmax_margin(logits))
    return float(margins[len(margins) // 2 - 1 : len(margins) // 2 + 1].mean())


@pytest.mark.backend('tensorflow', 'jax')
def test_the_trainer_computes_other_views_of_doubtful_images_only():
    images, labels = toy(23)
    trainer = make(conv_model(), batch_size=4)
    trainer.fit(images, labels, 1)
    views = trainer.predict_views(images, 5, FLIP_TRANSLATE)
    tta = TTA('own', DOUBTFUL.transforms, DOUBTFUL.weights, some_of_each(views[0]))
    doubtful = softmax_margin(views[0]) < tta.margin
    assert doubtful.sum() == 11
    expected = np.where(doubtful[:, None], FLIP_TRANSLATE.combine(views), views[0])
    passes = []
    predict = trainer._engines.at(0).predict

    def counted(batch, transforms):
        passes.append((len(batch), len(transforms)))
        return predict(batch, transforms)

    trainer._engines.at(0).predict = counted
    np.testing.assert_allclose(trainer.predict(images, 5, tta), expected, rtol=1e-5, atol=1e-6)
    assert sorted(passes) == [(5, 1)] * 5 + [(5, 5)] * 3
    passes.clear()
    certain = TTA('own', DOUBTFUL.transforms, DOUBTFUL.weights, 1e-9)
    plain = trainer.predict(images, 5, certain)
    np.testing.assert_allclose(plain, views[0], rtol=1e-5, atol=1e-6)
    assert passes == [(5, 1)] * 5
    score, unaided = trainer.evaluate_views(images, labels, tta=tta)
    assert score.accuracy == (expected.argmax(1) == labels).mean()
    assert unaided.accuracy == (views[0].argmax(1) == labels).mean()


def test_a_model_for_stock_keras_uses_the_views_of_doubtful_images():
    images = images_like(12)
    model = keras.Sequential(
        [keras.Input((5, 6, 2)), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    plain = evaluate.tta_model(model, NONE).predict(images, verbose=0)
    whole = evaluate.tta_model(model, FLIP).predict(images, verbose=0)
    tta = TTA('own', FLIP.transforms, FLIP.weights, some_of_each(plain))
    expected = np.where((softmax_margin(plain) < tta.margin)[:, None], whole, plain)
    found = evaluate.tta_model(model, tta).predict(images, verbose=0)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert 0 < (found != plain).any(1).sum() < 12


@pytest.mark.parametrize('change', [lambda logits: logits, lambda logits: ops.softmax(logits)])
def test_doubts_of_logits_and_of_probabilities(change):
    """All images whose outputs were probabilities were doubtful."""
    logits = np.array([[5.0, 1.0, 0.0], [0.3, 0.2, 0.1], [0.0, 1.0, -1.0]], np.float32)
    found = ops.convert_to_numpy(DOUBTFUL.is_doubtful(change(logits)))
    assert found.tolist() == [False, True, True]
    assert ops.convert_to_numpy(FLIP.is_doubtful(change(logits))).all()


def test_doubts_of_one_logit():
    logits = np.array([[0.0], [1.0], [1.2], [-1.0], [-1.2]], np.float32)  # of 0.5, 0.73, 0.77 ...
    found = ops.convert_to_numpy(DOUBTFUL.is_doubtful(logits))
    assert found.tolist() == [True, True, False, True, False]


@pytest.mark.parametrize('margin', [0, -0.5, float('nan'), -float('inf'), 'a', True, None])
def test_margins_that_are_none(margin):
    message = f'^`margin` must be a finite number above 0. Received: margin={margin!r}$'
    with pytest.raises(ValueError, match=message):
        TTA('own', FLIP.transforms, FLIP.weights, margin)


@pytest.mark.parametrize('count', [1, 4, 7])
def test_views_of_every_image_in_order(count):
    images = np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1)

    def predict(batch):
        pixel = batch.reshape(-1, 1).astype(np.float32)
        logits = np.concatenate([pixel, -pixel], axis=1)
        return np.stack([logits, 2 * logits, 3 * logits])

    views = evaluate.predict_logits(predict, images, batch_size=4)
    assert views.shape == (3, count, 2)
    for factor, logits in enumerate(views, 1):
        np.testing.assert_array_equal(logits[:, 0], factor * np.arange(count))


@pytest.mark.parametrize(
    ('transforms', 'weights', 'message'),
    [
        ((), (), '`transforms` must be functions, the first of which is `unchanged`'),
        ((evaluate.mirror,), (1.0,), '`transforms` must be functions, the first of which is `unch'),
        ((unchanged, 3), (0.5, 0.5), '`transforms` must be functions, .* Received: transforms='),
        ((unchanged,), ('a',), "^`weights` must be a finite number. Received: weights='a'$"),
        ((unchanged,), (True,), '^`weights` must be a finite number. Received: weights=True$'),
        ((unchanged,), (0.5, 0.5), r'`weights` must be one for each of the 1 .*\(0\.5, 0\.5\)'),
        ((unchanged, evaluate.mirror), (0.5, 0.6), '`weights` must be .* add up to 1'),
        ((unchanged,), (float('nan'),), '`weights` must be a finite number. Rec.*nan'),
    ],
)
def test_views_and_weights_that_do_not_fit(transforms, weights, message):
    with pytest.raises(ValueError, match=message) as raised:
        TTA('own', transforms, weights)
    assert '\n' not in str(raised.value)


@pytest.mark.parametrize('weights', [np.full(3, 1 / 3), np.float32([1 / 3] * 3), [1 / 3] * 3])
def test_weights_are_plain_numbers(weights):
    """Those of NumPy made logits float64, and no model."""
    tta = TTA('own', [unchanged] * 3, weights, np.float64(0.5))
    assert {type(number) for number in (*tta.weights, tta.margin)} == {float}
    logits = np.ones((3, 4, 2), np.float32)
    assert tta.combine(logits).dtype == np.float32
    assert evaluate.tta_model(conv_model(), tta).output.dtype == 'float32'


def test_too_few_views():
    for count in (1, 3):
        message = f'^`view_logits` must be of 2 views. Received: {count} views$'
        with pytest.raises(ValueError, match=message):
            FLIP.combine(np.zeros((count, 4, 3)))


def test_a_name_that_is_none():
    with pytest.raises(ValueError, match=r'^`name` must be a text\. Received: name=3$'):
        TTA(3, FLIP.transforms, FLIP.weights)


@pytest.mark.parametrize('view', [evaluate.up_left, evaluate.down_right])
@pytest.mark.parametrize('shape', [(2, 1, 5, 3), (2, 5, 1, 3)])
def test_a_single_row_has_no_reflection(view, shape):
    message = (
        r'^`images` must have sides of at least 2 pixels, .* Received: shape=\(2, [15], [15], 3'
    )
    with pytest.raises(ValueError, match=message):
        view(np.zeros(shape, np.float32))


def of_two():
    one, other = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    both = keras.layers.GlobalAveragePooling2D()(keras.layers.Add()([one, other]))
    return keras.Model([one, other], both)


def to_two():
    images = keras.Input((8, 8, 3))
    found = keras.layers.GlobalAveragePooling2D()(images)
    return keras.Model(images, [found, found])


def of_vectors():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])


@pytest.mark.parametrize('model', [of_two, to_two, of_vectors])
def test_a_model_that_is_not_of_images_to_logits_is_refused(model):
    with pytest.raises(ValueError, match='`model` must be from one batch of images to their logit'):
        evaluate.tta_model(model(), FLIP)


def test_a_model_of_one_logit_uses_the_views_of_doubtful_images():
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(1)]
    )
    images = toy()[0] / np.float32(255)
    plain = model.predict(images, verbose=0)
    whole = evaluate.tta_model(model, FLIP_TRANSLATE).predict(images, verbose=0)
    tta = dataclasses.replace(DOUBTFUL, margin=float(np.median(np.abs(np.tanh(plain / 2)))))
    doubtful = np.abs(np.tanh(plain / 2)) < tta.margin
    found = evaluate.tta_model(model, tta).predict(images, verbose=0)
    np.testing.assert_allclose(found, np.where(doubtful, whole, plain), rtol=1e-4, atol=1e-5)


def test_the_parts_of_a_tta_may_come_as_a_list_or_a_generator():
    found = TTA('x', [unchanged, evaluate.mirror], (0.5 for _ in range(2)))
    assert (found.transforms, found.weights) == ((unchanged, evaluate.mirror), (0.5, 0.5))
