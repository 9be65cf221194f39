"""Pictures of images and classes: the pixels, numbers and captions that they show."""

import functools
import io

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from fenwicks import augment, evaluate, layers, plots

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (5, 8, 8, 3), np.uint8)
NAMES = ['cat', 'dog', 'owl']
NONE = np.zeros(0, int)


def captions(axes):
    return [text.get_text() for text in axes.texts]


def tiles(axes):
    return np.stack([np.asarray(image.get_array()) for image in axes.images])


def test_images_stand_row_by_row_over_their_captions():
    (axes,) = plots.images(IMAGES, list('abcde'), columns=3).axes
    np.testing.assert_array_equal(tiles(axes), IMAGES)
    assert captions(axes) == list('abcde')
    lefts = [image.get_extent()[0] for image in axes.images]
    tops = [image.get_extent()[3] for image in axes.images]
    assert lefts[:3] == sorted(set(lefts))
    assert lefts[3:] == lefts[:2]
    assert tops[0] == tops[2] < tops[3]
    assert axes.yaxis_inverted()  # so the first row is the upper one
    for image, text in zip(axes.images, axes.texts, strict=True):
        left, right, bottom, _ = image.get_extent()
        assert left < text.get_position()[0] < right
        assert text.get_position()[1] > bottom


def test_images_of_floats_and_of_one_channel_are_shown_as_they_are():
    grey = np.array([0.0, 127.6, 255.0, 3.2]).reshape(1, 2, 2, 1)
    (axes,) = plots.images(grey).axes
    expected = np.repeat([[[0], [128]], [[255], [3]]], 3, axis=-1)
    np.testing.assert_array_equal(tiles(axes)[0], expected)


@pytest.mark.parametrize(
    ('images', 'arguments', 'message'),
    [
        (IMAGES[0], {}, '`images` must be one or more images (count, height, width, channels)'),
        (IMAGES[:0], {}, '`images` must be one or more images'),
        (IMAGES[..., :2], {}, 'of 1 or 3 channels. Received: shape=(5, 8, 8, 2)'),
        (IMAGES / 255, {}, '`images` must be pixels from 0 to 255 (see `fenwicks.augment.denorm'),
        (IMAGES - 100.0, {}, 'Received: numbers from -1'),
        (np.full((1, 2, 2, 3), np.nan), {}, '`images` must be pixels from 0 to 255'),
        (IMAGES, {'captions': ['a']}, '`captions` must be one for each of 5 images. Received: 1'),
        (IMAGES, {'columns': 0.5}, '`columns` must be a positive integer. Received: columns=0.5'),
        (IMAGES, {'columns': 0}, '`columns` must be a positive integer. Received: columns=0'),
    ],
)
def test_images_refuse_what_they_cannot_draw(images, arguments, message):
    with pytest.raises(ValueError) as raised:
        plots.images(images, **arguments)
    assert message in str(raised.value)


@pytest.mark.parametrize('columns', [-2, 1.5, 0])
def test_an_animation_has_whole_columns_and_no_empty_ones(columns):
    with pytest.raises(ValueError, match='`columns` must be a positive integer'):
        plots.animate([IMAGES], columns)
    width, _ = plots.animate([IMAGES], 100).figure.get_size_inches()
    assert width == plots.animate([IMAGES]).figure.get_size_inches()[0]


def test_an_animation_that_was_rendered_shows_its_first_frame_again():
    animation = plots.animate(IMAGES[:, None])
    animation.gif()
    np.testing.assert_array_equal(animation.shown[0].get_array(), IMAGES[0])


def test_augmented_grey_images_are_grey():
    grey = IMAGES[..., :1]
    (axes,) = plots.augmentation(grey, augment.random_flip, 100.0, 50.0, versions=1).axes
    shown = tiles(axes)
    assert shown.shape[1:] == (8, 8, 3)
    assert sorted(np.unique(shown)) == sorted(np.unique(grey))


def test_augmentation_stands_beside_each_original():
    crop = functools.partial(augment.random_crop, padding=2)
    (axes,) = plots.augmentation(IMAGES, crop, 100.0, 50.0, versions=3, seed=(1, 2)).axes
    shown = tiles(axes).reshape(5, 4, 8, 8, 3)
    np.testing.assert_array_equal(shown[:, 0], IMAGES)
    for epoch in range(3):
        seed = augment.fold((1, 2), epoch)
        expected = crop(IMAGES.astype(np.float32), seed)
        np.testing.assert_array_equal(shown[:, epoch + 1], expected)
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == ['original', 'epoch 1', 'epoch 2', 'epoch 3']


def test_augmentation_that_asks_for_the_epoch_gets_it():
    (axes,) = plots.augmentation(IMAGES, augment.alternating_flip, 0.0, 1.0, versions=2).axes
    shown = tiles(axes).reshape(5, 3, 8, 8, 3)
    np.testing.assert_array_equal(shown[:, 1], shown[:, 2, :, ::-1])


def test_animation_changes_its_images_from_frame_to_frame(tmp_path):
    frames = RNG.integers(0, 256, (3, 2, 8, 8, 3), np.uint8)
    animation = plots.animate(frames, seconds_per_frame=0.25)
    for number, frame in enumerate(frames):
        (axes,) = animation.draw(number).axes
        np.testing.assert_array_equal(tiles(axes), frame)
    animation.save(tmp_path / 'frames.gif')
    with Image.open(tmp_path / 'frames.gif') as gif:
        assert gif.n_frames == 3
        assert gif.info['duration'] == 250
        assert gif.info['loop'] == 0
    assert '<img alt="animation" src="data:image/gif;base64,' in animation._repr_html_()
    with pytest.raises(ValueError, match='`frames` must be one or more batches of the same shape'):
        plots.animate([IMAGES, IMAGES[:2]])
    with pytest.raises(ValueError, match='`seconds_per_frame` must be a finite number above 0'):
        plots.animate(frames, seconds_per_frame=0)


def test_animated_augmentation_keeps_the_originals_above():
    flip = augment.alternating_flip
    animation = plots.animate_augmentation(IMAGES, flip, 0.0, 1.0, versions=2)
    first, second = (np.stack(list(frame)) for frame in animation.frames)
    for frame in (first, second):
        np.testing.assert_array_equal(frame[:5], IMAGES)
    np.testing.assert_array_equal(first[5:], second[5:, :, ::-1])
    with pytest.raises(ValueError, match="`augment` must keep the images' shape"):
        plots.animate_augmentation(IMAGES, lambda images, seed: images[:, 1:], 0.0, 1.0)


def test_gif_shows_the_pixels_of_the_frames():
    black_and_white = np.stack([np.zeros((1, 4, 4, 3)), np.full((1, 4, 4, 3), 255)])
    animation = plots.animate(black_and_white)
    with Image.open(io.BytesIO(animation.gif())) as gif:
        middles = []
        for frame in range(2):
            gif.seek(frame)
            middles.append(gif.convert('L').getpixel((gif.width // 2, gif.height // 2)))
    assert middles[0] < 10
    assert middles[1] > 245


def test_class_counts_are_bars_with_their_numbers():
    (axes,) = plots.class_counts(np.array([0, 2, 2, 2]), NAMES).axes
    assert [bar.get_width() for bar in axes.patches] == [1, 0, 3]
    assert captions(axes) == ['1', '0', '3']
    assert [label.get_text() for label in axes.get_yticklabels()] == NAMES
    assert axes.get_xlabel() == 'images'
    assert axes.yaxis_inverted()
    with pytest.raises(ValueError, match='`labels` must be in'):
        plots.class_counts(np.array([3]), NAMES)


def test_confusion_matrix_has_labels_down_and_predictions_across():
    labels, predictions = np.array([0, 0, 0, 0, 1, 2]), np.array([0, 0, 0, 1, 1, 0])
    (axes,) = plots.confusion_matrix(labels, predictions, NAMES).axes
    numbers = {text.get_position(): text.get_text() for text in axes.texts}
    assert numbers == {(0, 0): '3', (1, 0): '1', (1, 1): '1', (0, 2): '1'}  # (prediction, label)
    opacity = np.asarray(axes.images[0].get_array())[..., 3]
    assert opacity[0, 0] == pytest.approx(0.6 * np.sqrt(3 / 4))
    assert opacity[0, 1] == pytest.approx(0.6 * np.sqrt(1 / 4))
    assert opacity[2, 0] == pytest.approx(0.6)
    assert opacity[1, 0] == 0
    assert (axes.get_xlabel(), axes.get_ylabel()) == ('prediction', 'label')
    assert [label.get_text() for label in axes.get_xticklabels()] == NAMES
    with pytest.raises(ValueError, match='`labels` must have the same length'):
        plots.confusion_matrix(labels, predictions[:2], NAMES)


def test_confusion_matrix_of_many_classes_shows_colours_only():
    labels = np.arange(100)
    (axes,) = plots.confusion_matrix(labels, labels, [str(label) for label in labels]).axes
    assert not axes.texts
    assert axes.images[0].get_array().shape == (100, 100, 4)


def test_mistakes_come_with_the_most_confident_first():
    logits = np.array([[9, 0, 0], [0, 2, 0], [0, 0, 7], [0, 0, 1], [0, 5, 0]], np.float32)
    labels = np.array([0, 0, 1, 0, 1])  # the second, third and fourth are wrong
    (axes,) = plots.mistakes(IMAGES, labels, logits, NAMES, count=2).axes
    np.testing.assert_array_equal(tiles(axes), IMAGES[[2, 1]])
    assert captions(axes) == ['owl 100 %\nnot dog', 'dog 79 %\nnot cat']
    positions, probabilities = evaluate.most_confident_mistakes(logits, labels, 5)
    assert positions.tolist() == [2, 1, 3]
    assert probabilities[1] == pytest.approx(np.exp(2) / (np.exp(2) + 2))


def test_no_mistakes_are_said_to_be_none():
    (axes,) = plots.mistakes(IMAGES[:3], np.arange(3), np.eye(3), NAMES).axes
    assert captions(axes) == ['no mistakes']


@pytest.mark.parametrize(
    ('draw', 'message'),
    [
        (
            lambda: plots.filters(np.ones((3, 3, 4, 8))),
            r'`kernel` must be .* shape=\(3, 3, 4, 8\)$',
        ),
        (
            lambda: plots.filters(np.ones((3, 3, 3, 0))),
            r'`kernel` must be .* shape=\(3, 3, 3, 0\)$',
        ),
        (lambda: plots.mistakes(IMAGES, [1] * 5, np.eye(5, 3), ['a']), '`class_names` must be 3, '),
        (lambda: plots.mistakes([], [1] * 5, np.eye(5, 3), NAMES), '`images` must be 5, as '),
        (lambda: plots.class_counts(NONE, []), '`class_names` must be one or more'),
        (lambda: plots.confusion_matrix(NONE, NONE, []), '`class_names` must be one or more'),
    ],
)
def test_what_cannot_be_drawn_names_its_argument(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


def test_filters_are_grey_at_zero_and_each_on_its_own_scale():
    kernel = np.zeros((2, 2, 3, 3))
    kernel[0, 0, :, 0] = 5.0
    kernel[1, 1, 0, 1] = -0.01
    (axes,) = plots.filters(kernel).axes
    shown = tiles(axes)
    assert shown[0, 0, 0].tolist() == [255, 255, 255]
    assert shown[0, 1, 1].tolist() == [128, 128, 128]
    assert shown[1, 1, 1].tolist() == [0, 128, 128]
    assert (shown[2] == 128).all()  # all zeros
    assert captions(axes) == ['0', '1', '2']
    with pytest.raises(ValueError, match='`kernel` must be finite numbers'):
        plots.filters(kernel[0])


def test_filters_that_nearly_reach_their_largest_can_be_drawn():
    plots.filters(-np.linspace(0.995, 1, 54).reshape(3, 3, 3, 2))


def test_filters_of_a_whitening_layer_are_those_that_it_has():
    whitening = layers.PatchWhitening(2)
    whitening.adapt(RNG.standard_normal((4, 8, 8, 3)))
    (axes,) = plots.filters(whitening.kernel).axes
    assert len(axes.images) == 12


ODD_NAMES = ['a$b$c', '$\\frac$', 'x' * 200, 'two\nlines', 'كلب', '\u202ecat']


@pytest.mark.filterwarnings('ignore:Glyph', 'ignore:Matplotlib currently does not support')
def test_names_are_drawn_as_they_are():
    """Two `$` were read as a formula, and many formulas are invalid."""
    labels = np.arange(6)
    for figure in (
        plots.class_counts(labels, ODD_NAMES),
        plots.confusion_matrix(labels, labels[::-1], ODD_NAMES),
        plots.mistakes(np.repeat(IMAGES[:1], 6, 0), labels[::-1], np.eye(6), ODD_NAMES),
        plots.images(np.repeat(IMAGES[:1], 6, 0), ODD_NAMES),
        plots.learning_curves({name: [{'epoch': 1, '$m$': 1.0}] for name in ODD_NAMES}, ['$m$']),
        plots.schedule({name: lambda step: 1.0 for name in ODD_NAMES}, 2, label='$\\frac$'),
        plots.accuracy_against_time(
            [{'recipe': name, 'test_accuracy': 0.5, 'train_seconds': 1} for name in ODD_NAMES]
        ),
    ):
        figure.savefig(io.BytesIO(), format='png')
        texts = [text for text in figure.findobj(Text) if '$' in text.get_text()]
        assert texts
        assert not any(text.get_parse_math() for text in texts)


def test_labels_may_be_captions():
    (axes,) = plots.images(np.zeros((2, 4, 4, 3), 'uint8'), np.array([7, 3])).axes
    assert {'7', '3'} <= {text.get_text() for text in axes.texts}
