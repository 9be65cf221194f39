"""Patch whitening against the closed form, by hand, and through saving and loading."""

import re

import keras
import numpy as np
import pytest
from keras import ops

from fenwicks.layers import PatchWhitening, whitening_filters


def array(tensor):
    return ops.convert_to_numpy(tensor)


def smooth_images(count=70, sides=(7, 6), channels=3, seed=0):
    """Random images whose neighbouring pixels and channels are alike; more than one part's."""
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((count, sides[0] + 1, sides[1] + 1, channels))
    images = images[:, 1:, 1:] + images[:, :-1, 1:] + 0.5 * images[:, 1:, :-1]
    return (images + 0.7 * images[..., :1]).astype(np.float32)


def patches_of(images, size):
    """Patches one by one, each flattened as row, column, channel."""
    _, height, width, _ = images.shape
    return np.array(
        [
            image[top : top + size, left : left + size].ravel()
            for image in images
            for top in range(height - size + 1)
            for left in range(width - size + 1)
        ],
        np.float64,
    )


@pytest.mark.parametrize(('size', 'epsilon'), [(3, 1e-2), (2, 5e-4), (1, 1.0)])
def test_whitened_patches(size, epsilon):
    """They are uncorrelated, with mean squares eigenvalue / (eigenvalue + epsilon)."""
    images = smooth_images()
    filters = whitening_filters(images, size, epsilon)
    assert filters.shape == (size, size, 3, 3 * size**2)
    assert filters.dtype == np.float32
    patches = patches_of(images, size)
    second_moment = patches.T @ patches / len(patches)
    eigenvalues = np.linalg.eigvalsh(second_moment)[::-1]
    whitened = patches @ filters.reshape(-1, 3 * size**2)
    np.testing.assert_allclose(
        whitened.T @ whitened / len(whitened),
        np.diag(eigenvalues / (eigenvalues + epsilon)),
        atol=1e-4,
    )


def test_tiny_epsilon_makes_the_identity():
    patches = patches_of(smooth_images(), 2)
    whitened = patches @ whitening_filters(smooth_images(), 2, 1e-12).reshape(12, 12)
    np.testing.assert_allclose(whitened.T @ whitened / len(whitened), np.eye(12), atol=1e-4)


def test_two_pixels_by_hand():
    """Pixels (2, 1) and (1, 2): second moment ((2.5, 2), (2, 2.5)), eigenvalues 4.5 and 0.5."""
    images = np.array([2.0, 1.0, 1.0, 2.0]).reshape(2, 1, 1, 2)
    filters = whitening_filters(images, 1, epsilon=4.5).reshape(2, 2)
    expected = np.transpose([[1 / 3, 1 / 3], [1 / np.sqrt(5), -1 / np.sqrt(5)]]) / np.sqrt(2)
    np.testing.assert_allclose(filters, expected, rtol=1e-6)


def test_one_patch_by_hand():
    """A single patch (1, 2, 3, 4), whose square is 30, is its own first eigenvector."""
    images = np.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 2, 2, 1)
    filters = whitening_filters(images, 2, epsilon=0.3)
    expected = images[0, :, :, 0] / np.sqrt(30 * 30.3)
    np.testing.assert_allclose(filters[:, :, 0, 0], expected, rtol=1e-6)
    # It is the only direction there is.
    np.testing.assert_array_equal(filters[..., 1:], filters[..., [0, 0, 0]])


def test_grey_images_have_no_filters_for_colours():
    """Eigenvalues are three times those of one channel, eigenvectors spread over three."""
    one = smooth_images(channels=1)
    filters = whitening_filters(np.repeat(one, 3, axis=-1), 2, epsilon=3e-3)
    of_one = whitening_filters(one, 2, epsilon=1e-3)
    expected = np.tile(of_one / 3, (1, 1, 3, 3))
    np.testing.assert_allclose(filters, expected, rtol=1e-5, atol=1e-6)


def test_a_rare_direction_keeps_its_filter():
    """Blue has a ten-millionth of the energy of red and of green, 1.5 and 0.5 times."""
    images = np.sqrt([[1.5, 0, 0], [0, 0.5, 0], [0, 0, 1e-7]]).reshape(3, 1, 1, 3)
    filters = whitening_filters(images, 1, epsilon=1e-12).reshape(3, 3)
    expected = np.diag(np.sqrt(3 / np.array([1.5, 0.5, 1e-7])))
    np.testing.assert_allclose(filters, expected, rtol=1e-4)


def test_signs_do_not_depend_on_the_images_sign():
    images = smooth_images()
    np.testing.assert_array_equal(whitening_filters(images, 2), whitening_filters(-images, 2))


@pytest.mark.parametrize('negatives', [False, True])
def test_layer_applies_the_filters(negatives):
    images = smooth_images(count=5)
    layer = PatchWhitening(2, epsilon=5e-4, padding='valid', negatives=negatives, use_bias=True)
    layer.adapt(images)
    bias = np.linspace(-1, 1, 24 if negatives else 12).astype(np.float32)
    layer.bias.assign(bias)
    filters = whitening_filters(images, 2, 5e-4).reshape(12, 12)
    expected = (patches_of(images, 2) @ filters).reshape(5, 6, 5, 12)
    if negatives:
        expected = np.concatenate([expected, -expected], axis=-1)
    np.testing.assert_allclose(array(layer(images)), expected + bias, rtol=1e-3, atol=1e-3)


def test_mixed_precision_rounds_the_outputs_alone():
    """A faint colour on bright pixels is lost in bfloat16 pixels, not in bfloat16 outputs."""
    images = smooth_images(count=20, channels=1) + 3
    images = np.concatenate([images, images + 1e-3 * smooth_images(20, (7, 6), 1, seed=1)], -1)
    outputs = {}
    for dtype in ('float32', 'mixed_bfloat16'):
        layer = PatchWhitening(2, epsilon=1e-9, dtype=dtype)
        layer.adapt(images)
        outputs[dtype] = layer(images)
    assert keras.backend.standardize_dtype(outputs['mixed_bfloat16'].dtype) == 'bfloat16'
    rounded = array(ops.cast(outputs['mixed_bfloat16'], 'float32'))
    np.testing.assert_allclose(rounded, array(outputs['float32']), rtol=2**-8)


def test_gradient_of_the_bias_in_mixed_precision():
    """As many summands as bfloat16 can't add up: 1 more makes no difference to it from 256 on."""
    inputs = keras.Input((32, 32, 2))
    layer = PatchWhitening(1, use_bias=True, dtype='mixed_bfloat16', name='whitening')
    model = keras.Model(inputs, layer(inputs))
    model.compile(keras.optimizers.SGD(1.0), lambda y, outputs: ops.sum(outputs), jit_compile=False)
    model.fit(np.ones((8, 32, 32, 2)), np.zeros((8, 32, 32, 2)), batch_size=8, verbose=0)
    np.testing.assert_allclose(array(layer.bias), -8 * 32 * 32, rtol=1e-6)


def test_same_padding_is_zeros():
    images = smooth_images(count=2)
    layer = PatchWhitening(3)
    layer.adapt(images)
    outputs = array(layer(images))
    assert outputs.shape == (2, 7, 6, 27)
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    filters = whitening_filters(images).reshape(27, 27)
    expected = (patches_of(padded, 3) @ filters).reshape(2, 7, 6, 27)
    np.testing.assert_allclose(outputs, expected, rtol=1e-3, atol=1e-3)


def test_patches_as_they_are_before_adapt():
    images = smooth_images(count=2)
    layer = PatchWhitening(2, padding='valid', negatives=True)
    patches = patches_of(images, 2).reshape(2, 6, 5, 12)
    expected = np.concatenate([patches, -patches], axis=-1)
    np.testing.assert_allclose(array(layer(images)), expected, rtol=1e-6, atol=1e-6)


def small_model(images):
    inputs = keras.Input(images.shape[1:])
    h = PatchWhitening(2, negatives=True, use_bias=True, name='whitening')(inputs)
    h = keras.layers.Activation('relu')(h)
    h = keras.layers.GlobalAveragePooling2D()(h)
    return keras.Model(inputs, keras.layers.Dense(2)(h))


def test_filters_are_saved_with_the_model(tmp_path):
    images = smooth_images(count=8)
    model = small_model(images)
    model.get_layer('whitening').adapt(images)
    model.save(tmp_path / 'model.keras')
    twin = keras.saving.load_model(tmp_path / 'model.keras')
    kernel = array(twin.get_layer('whitening').kernel)
    filters = whitening_filters(images, 2)
    np.testing.assert_array_equal(kernel, np.concatenate([filters, -filters], axis=-1))
    np.testing.assert_array_equal(array(twin(images)), array(model(images)))


def test_fit_trains_the_bias_only():
    images = smooth_images(count=8)
    model = small_model(images)
    layer = model.get_layer('whitening')
    layer.adapt(images)
    kernel = array(layer.kernel).copy()
    assert [v.path for v in layer.trainable_variables] == ['whitening/bias']
    model.compile(keras.optimizers.SGD(0.1), 'mse')
    model.fit(images, np.ones((8, 2)), batch_size=4, verbose=0)
    np.testing.assert_array_equal(array(layer.kernel), kernel)
    assert np.any(array(layer.bias))


@pytest.mark.backend('tensorflow')
def test_no_gradient_of_the_convolution_on_tensorflow():
    import tensorflow as tf

    model = small_model(smooth_images(count=2))

    @tf.function
    def gradients(images):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(images, training=True) ** 2)
        return tape.gradient(loss, [v.value for v in model.trainable_variables])

    graph = gradients.get_concrete_function(tf.zeros((2, 7, 6, 3))).graph
    convolutions = [op.type for op in graph.get_operations() if 'Conv2D' in op.type]
    assert convolutions == ['Conv2D']


@pytest.mark.backend('jax')
def test_no_gradient_of_the_convolution_on_jax():
    import jax

    model = small_model(smooth_images(count=2))
    state = [v.value for v in model.non_trainable_variables]

    def loss(trainable, images):
        outputs, _ = model.stateless_call(trainable, state, images, training=True)
        return (outputs**2).sum()

    values = [v.value for v in model.trainable_variables]
    program = str(jax.make_jaxpr(jax.grad(loss))(values, smooth_images(count=2)))
    assert program.count('conv_general_dilated[') == 1


BAD_IMAGES = {
    'bytes': (np.zeros((2, 4, 4, 3), np.uint8), '`images` must be normalized floats'),
    'one image': (np.zeros((4, 4, 3)), '`images` must be normalized floats'),
    'no image': (np.zeros((0, 4, 4, 3)), '`images` must be normalized floats'),
    'small': (np.zeros((2, 4, 2, 3)), '`kernel_size` must be at most the sides'),
    'nan': (np.full((2, 4, 4, 3), np.nan), '`images` must be finite'),
}


@pytest.mark.parametrize('case', BAD_IMAGES)
def test_bad_images(case):
    images, message = BAD_IMAGES[case]
    with pytest.raises(ValueError, match=f'^{message}.* Received: ') as error:
        PatchWhitening(3).adapt(images)
    assert '\n' not in str(error.value)


def test_other_channels():
    layer = PatchWhitening(2)
    layer.build((None, 8, 8, 1))
    with pytest.raises(ValueError, match=r'^`images` must have the 1 channels .*: images of 3$'):
        layer.adapt(smooth_images())


BAD = {
    'kernel_size': [0, 2.0, None],
    'epsilon': [0, -1e-3, float('nan'), float('inf'), '1', None, True],
    'padding': ['causal', 1],
    'negatives': ['no', 1],
    'use_bias': ['no', None],
}


@pytest.mark.parametrize(('name', 'value'), [(n, v) for n, vs in BAD.items() for v in vs])
def test_bad_arguments(name, value):
    with pytest.raises(ValueError, match=f'^`{name}` must be .*Received: {name}=') as error:
        PatchWhitening(**{name: value})
    assert '\n' not in str(error.value)
    if name in ('kernel_size', 'epsilon'):
        with pytest.raises(ValueError, match=f'^`{name}` must be .*Received: {name}='):
            whitening_filters(smooth_images(count=1), **{name: value})


@pytest.mark.backend('jax')
def test_float32_stays_float32_on_accelerators():
    """Which round the factors of float32 products unless told otherwise."""
    import jax

    layer = PatchWhitening(2, use_bias=True)
    layer.build((None, 5, 5, 3))

    def loss(bias, images):
        with keras.StatelessScope([(layer.bias, bias)]):
            return ops.sum(layer(images))

    program = jax.jit(jax.value_and_grad(loss)).lower(layer.bias.value, np.ones((1, 5, 5, 3)))
    program = program.as_text()
    assert program.count('stablehlo.convolution') == 1
    assert program.count('precision_config = [#stablehlo<precision HIGHEST>') == 1


def test_is_adapted(tmp_path):
    inputs = keras.Input((6, 6, 3))
    for negatives in (False, True):
        whitening = PatchWhitening(2, negatives=negatives)
        assert not whitening.is_adapted
        model = keras.Model(inputs, whitening(inputs))
        assert not whitening.is_adapted
        model.save(tmp_path / 'model.keras')
        assert not keras.saving.load_model(tmp_path / 'model.keras').layers[1].is_adapted
        whitening.adapt(np.random.default_rng(0).standard_normal((4, 6, 6, 3)))
        assert whitening.is_adapted
        model.save(tmp_path / 'model.keras')
        assert keras.saving.load_model(tmp_path / 'model.keras').layers[1].is_adapted


@pytest.mark.parametrize('padding', ['same', 'valid'])
@pytest.mark.parametrize('shape', [(32, 8, 3), (8, None, 3), (None, 8, 3)])
def test_patches_larger_than_the_images(padding, shape):
    sides = re.escape(str(shape[:2]))
    message = f'^`kernel_size` must be at most the sides {sides} .* Received: kernel_size=9$'
    with pytest.raises(ValueError, match=message):
        PatchWhitening(9, padding=padding)(keras.Input(shape))
    assert PatchWhitening(8, padding=padding)(keras.Input(shape)).shape[-1] == 192


def test_an_unknown_number_of_channels():
    with pytest.raises(ValueError, match=r'^`inputs` must have a known number of channels\. Rec'):
        PatchWhitening(3)(keras.Input((4, 4, None)))
