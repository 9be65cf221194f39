"""The CPU kernels against TensorFlow's own: the same values and gradients."""

import gc
import math
import weakref

import keras
import numpy as np
import pytest

if keras.backend.backend() != 'tensorflow':
    pytest.skip("TensorFlow's kernels", allow_module_level=True)

import tensorflow as tf

from fenwicks.kernels import activations, batch_norm, convolution, device, pooling, winograd, xla
from fenwicks.layers import (
    CELU,
    GELU,
    BatchNormalization,
    Conv2D,
    ConvBN,
    GhostBatchNormalization,
    MaxPooling2D,
    Sequential,
)


def normal(*shape, seed=0):
    return tf.constant(np.random.default_rng(seed).standard_normal(shape, np.float32))


def direct(images, kernel):
    return tf.nn.conv2d(images, kernel, strides=1, padding='SAME')


def gradients(function, upstream, *inputs):
    """Output of a function, and its gradients given the output's."""
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = function(*inputs)
    return outputs, *tape.gradient(outputs, inputs, output_gradients=upstream)


def assert_close(found, expected, tolerance):
    """Within `tolerance` of the size of what is expected."""
    for one, other in zip(found, expected, strict=True):
        scale = float(tf.math.reduce_std(tf.cast(other, tf.float32)))
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize('size', [1, 3, 5])
def test_conv2d(size):
    images, kernel = normal(2, 6, 7, 5), normal(size, size, 5, 4, seed=1)
    upstream = normal(2, 6, 7, 4, seed=2)
    found = gradients(convolution.conv2d, upstream, images, kernel)
    assert_close(found, gradients(direct, upstream, images, kernel), 1e-5)


@pytest.mark.parametrize(('size', 'sides'), [(3, (6, 6)), (3, (7, 6)), (5, (5, 6))])
def test_conv2d_of_the_first_rows_and_columns(size, sides):
    """The outputs that are asked for, and the gradients of a loss that sees no others."""

    def direct_part(images, kernel):
        return direct(images, kernel)[:, : sides[0], : sides[1]]

    def part(images, kernel):
        return convolution.conv2d(images, kernel, sides)

    images, kernel = normal(2, 7, 7, 5), normal(size, size, 5, 4, seed=1)
    upstream = normal(2, *sides, 4, seed=2)
    found = gradients(part, upstream, images, kernel)
    assert found[0].shape == upstream.shape
    assert_close(found, gradients(direct_part, upstream, images, kernel), 1e-5)


@pytest.mark.parametrize('side', [13, 15, 5, 8])
def test_winograd_of_the_first_rows_and_columns(side):
    """Fewer tiles where the output ends at one: at 13 pixels 9 instead of 16."""
    sides = (side // 2 * 2,) * 2
    images, kernel = normal(3, side, side, 6), normal(3, 3, 6, 7, seed=1)
    upstream = normal(3, *sides, 7, seed=2)

    def direct_part(images, kernel):
        return direct(images, kernel)[:, : sides[0], : sides[1]]

    expected = gradients(direct_part, upstream, images, kernel)
    rotated = tf.transpose(tf.reverse(kernel, (0, 1)), (0, 1, 3, 2))
    found = (
        winograd.convolve(images, kernel, sides),
        winograd.convolve(upstream, rotated, (side, side)),
        winograd.kernel_gradient(images, upstream, kernel.shape),
    )
    assert_close(found, expected, 3e-5)


@pytest.mark.parametrize('part_bytes', [16e6, 20e3])
@pytest.mark.parametrize('sides', [(8, 12), (7, 15), (3, 3)])
def test_winograd(monkeypatch, part_bytes, sides):
    """Whole, and with a batch that doesn't divide into the parts it is cut into."""
    monkeypatch.setattr(winograd, '_PART_BYTES', part_bytes)
    images, kernel = normal(5, *sides, 6), normal(3, 3, 6, 7, seed=1)
    if sides == (8, 12):
        assert len(winograd._parts(images, sides, 7)) == (1 if part_bytes > 1e6 else 2)
    upstream = normal(5, *sides, 7, seed=2)
    expected, _, expected_kernel = gradients(direct, upstream, images, kernel)
    found = winograd.convolve(images, kernel)
    found_kernel = winograd.kernel_gradient(images, upstream, kernel.shape)
    assert_close([found, found_kernel], [expected, expected_kernel], 3e-5)


def test_winograd_in_bfloat16():
    """Rounding errors are what the module says, in outputs and in the kernel's gradient."""
    images, kernel = normal(8, 8, 8, 64), normal(3, 3, 64, 48, seed=1)
    upstream = normal(8, 8, 8, 48, seed=2)
    images, kernel, upstream = (tf.cast(x, tf.bfloat16) for x in (images, kernel, upstream))
    exact = [tf.cast(x, tf.float32) for x in (upstream, images, kernel)]
    expected, _, expected_kernel = gradients(direct, *exact)
    found = (
        winograd.convolve(images, kernel),
        winograd.kernel_gradient(images, upstream, kernel.shape),
    )
    for one, other in zip(found, (expected, expected_kernel), strict=True):
        assert one.dtype == tf.bfloat16
        error = tf.cast(one, tf.float32) - other
        assert 0.005 < tf.math.reduce_std(error) / tf.math.reduce_std(other) < 0.016


def test_winograd_matrices():
    """Cook and Toom's algorithm is exact, whatever the points."""
    for points in (winograd.POINTS, (0, 1, -1, 2, -2)):
        a, b, g = winograd.matrices(points)
        window, kernel = np.random.default_rng(0).standard_normal((2, 6))
        found = a.T @ ((b @ window) * (g @ kernel[:3]))
        np.testing.assert_allclose(found, np.correlate(window, kernel[:3]), rtol=1e-12)


def test_winograd_of_an_unknown_batch():
    images, kernel = normal(3, 4, 8, 6), normal(3, 3, 6, 7, seed=1)
    compiled = tf.function(
        winograd.convolve,
        input_signature=[tf.TensorSpec([None, 4, 8, 6]), tf.TensorSpec([3, 3, 6, 7])],
    )
    assert_close([compiled(images, kernel)], [direct(images, kernel)], 3e-5)


def test_winograd_transforms_are_exact_on_integers():
    """Each tile is right up to the border, where the padding is read."""
    images = tf.reshape(tf.range(64, dtype=tf.float32), (1, 8, 8, 1))
    for row in range(3):
        for column in range(3):
            kernel = np.zeros((3, 3, 1, 1), np.float32)
            kernel[row, column] = 1
            found = winograd.convolve(images, tf.constant(kernel))
            np.testing.assert_allclose(found, direct(images, kernel), atol=1e-4)


@pytest.mark.parametrize(
    ('kernel', 'dtype', 'supported'),
    [
        ((3, 3, 8, 16), tf.float32, True),
        ((3, 3, 8, 16), tf.bfloat16, True),
        ((3, 3, 8, 16), tf.float16, False),
        ((1, 1, 8, 16), tf.float32, False),
    ],
)
def test_what_winograd_supports(kernel, dtype, supported):
    assert winograd.supports(tf.zeros((2, 8, 8, 8), dtype), tf.zeros(kernel, dtype)) is supported


@pytest.mark.parametrize(
    ('costs', 'channels', 'filters', 'side', 'pays', 'pays_for_kernels'),
    [
        (winograd.USUAL, 128, 256, 8, True, True),
        (winograd.USUAL, 64, 64, 8, False, False),
        (winograd.USUAL, 256, 256, 7, True, True),
        (winograd.USUAL, 128, 128, 5, False, False),
        # Measured on Zen 3, as shares of the sliding window's time:
        (winograd.ONEDNN_ON_AVX2, 256, 256, 7, True, True),  # 0.60, 0.43
        (winograd.ONEDNN_ON_AVX2, 256, 256, 5, False, True),  # 1.26, 0.60
        (winograd.ONEDNN_ON_AVX2, 64, 64, 15, False, True),  # 1.17, 0.85
        (winograd.ONEDNN_ON_AVX2, 24, 64, 30, False, True),  # 1.74, 0.61
        (winograd.ONEDNN_ON_AVX2, 3, 64, 32, False, False),
    ],
)
def test_where_winograd_pays(costs, channels, filters, side, pays, pays_for_kernels):
    assert winograd.pays(costs, channels, filters, (side, side)) is pays
    of_kernel = winograd.pays(costs, channels, filters, (side, side), of_kernel=True)
    assert of_kernel is pays_for_kernels


@pytest.mark.parametrize('onednn', [True, False])
def test_each_direction_of_a_convolution_goes_its_fastest_way(monkeypatch, onednn):
    """For outputs of 4x4, of images of 5x5, tiles waste nothing; on the way back they do."""
    taken = []
    for name in ('convolve', 'kernel_gradient'):
        function = getattr(winograd, name)

        def noted(*arguments, name=name, function=function):
            taken.append(name)
            return function(*arguments)

        monkeypatch.setattr(winograd, name, noted)
    monkeypatch.setattr(device, 'has_avx512', lambda: False)
    monkeypatch.setattr(device, 'uses_onednn', lambda: onednn)
    images, kernel = normal(2, 5, 5, 256), normal(3, 3, 256, 256, seed=1)
    upstream = normal(2, 4, 4, 256, seed=2)

    def convolve(images, kernel):
        return convolution.conv2d(images, kernel, (4, 4))

    def whole(images, kernel):
        return direct(images, kernel)[:, :4, :4]

    found = gradients(convolve, upstream, images, kernel)
    assert_close(found, gradients(whole, upstream, images, kernel), 3e-5)
    assert taken == ['convolve', 'kernel_gradient']


def test_convolutions_of_no_image():
    """It was a division by zero where Winograd's way pays; Keras's layer takes it."""
    images, kernel = normal(0, 4, 4, 128), normal(3, 3, 128, 128, seed=1)
    found = gradients(convolution.conv2d, images, images, kernel)
    assert_close(found, gradients(direct, images, images, kernel), 0)


def test_conv2d_takes_the_winograd_way():
    images, kernel = normal(2, 4, 4, 128), normal(3, 3, 128, 128, seed=1)
    upstream = normal(2, 4, 4, 128, seed=2)
    found = gradients(convolution.conv2d, upstream, images, kernel)
    assert_close(found, gradients(direct, upstream, images, kernel), 3e-5)
    # Rounding tells which way it went.
    assert not np.array_equal(found[0], direct(images, kernel))


@pytest.mark.parametrize(
    ('flags', 'variable', 'uses'),
    [
        ({'avx2'}, None, False),
        ({'avx2'}, '1', True),
        ({'avx2', 'avx512f', 'avx512_vnni'}, None, True),
        ({'avx2', 'avx512f', 'avx512_vnni'}, '0', False),
    ],
)
def test_whether_tensorflow_uses_onednn(monkeypatch, flags, variable, uses):
    monkeypatch.setattr(device, '_flags', lambda: frozenset(flags))
    monkeypatch.delenv('TF_ENABLE_ONEDNN_OPTS', raising=False)
    if variable is not None:
        monkeypatch.setenv('TF_ENABLE_ONEDNN_OPTS', variable)
    assert device.uses_onednn() is uses


def errors_of_rounding(found, *inputs):
    """Of outputs and gradients in bfloat16, beside those in float32 from the same inputs."""
    expected = gradients(direct, *(tf.cast(x, tf.float32) for x in inputs))
    pairs = zip(found, expected, strict=True)
    return [
        float(tf.math.reduce_std(tf.cast(one, tf.float32) - other) / tf.math.reduce_std(other))
        for one, other in pairs
    ]


def test_conv2d_in_bfloat16_goes_that_way_for_gradients_only(monkeypatch):
    monkeypatch.setattr(device, 'has_amx', lambda: False)
    images, kernel = normal(2, 4, 4, 128), normal(3, 3, 128, 128, seed=1)
    upstream = normal(2, 4, 4, 128, seed=2)
    images, kernel, upstream = (tf.cast(x, tf.bfloat16) for x in (images, kernel, upstream))
    found = gradients(convolution.conv2d, upstream, images, kernel)
    np.testing.assert_array_equal(found[0], direct(images, kernel))
    for error in errors_of_rounding(found, upstream, images, kernel)[1:]:
        assert 0.009 < error < 0.02


@pytest.mark.parametrize(
    ('batch', 'sides', 'size', 'width'),
    [
        (16, (3, 3), 3, 16 * 4 - 1),
        (12, (4, 7), 3, 4 * 8 - 1),
        (7, (5, 8), 3, 8),  # seven of them would be too wide
        (10, (8, 6), 5, 5 * 8 - 2),
        (4, (2, 5), 1, 4 * 5),
        (4, (9, 9), 3, 2 * 10 - 1),
        (4, (3, 15), 3, 15),  # wide enough by itself
    ],
)
@pytest.mark.parametrize('even', [False, True])
def test_kernel_gradient_side_by_side(monkeypatch, batch, sides, size, width, even):
    """What AMX takes: small images in rows, with zeros between them."""
    slide = convolution._kernel_gradient_directly
    seen = []

    def noted(images, upstream, kernel_shape):
        seen.append(images.shape[2])
        return slide(images, upstream, kernel_shape)

    monkeypatch.setattr(convolution, '_kernel_gradient_directly', noted)
    kept = [side // 2 * 2 if even and size > 1 else side for side in sides]
    images, upstream = normal(batch, *sides, 6), normal(batch, *kept, 7, seed=2)
    kernel_shape = (size, size, 6, 7)
    found = convolution._kernel_gradient_side_by_side(images, upstream, kernel_shape)
    left_out = [[0, side - left] for side, left in zip(sides, kept, strict=True)]
    whole = tf.pad(upstream, [[0, 0], *left_out, [0, 0]])
    assert_close([found], [slide(images, whole, kernel_shape)], 1e-5)
    assert seen == [width]


def test_conv2d_with_amx(monkeypatch):
    """In bfloat16 every pass slides; float32, which AMX doesn't multiply, stays with Winograd."""
    monkeypatch.setattr(device, 'has_amx', lambda: True)
    inputs = normal(4, 4, 4, 128), normal(3, 3, 128, 128, seed=1), normal(4, 4, 4, 128, seed=2)
    rounded = [tf.cast(x, tf.bfloat16) for x in (inputs[2], *inputs[:2])]
    found = gradients(convolution.conv2d, *rounded)
    # Without AVX-512 TensorFlow's own kernel gradient is off by 0.008, Winograd's by 0.017.
    assert max(errors_of_rounding(found, *rounded)) < 0.01
    images, kernel, upstream = inputs
    found = gradients(convolution.conv2d, upstream, images, kernel)
    assert not np.array_equal(found[0], direct(images, kernel))


@pytest.mark.parametrize('known', [(None, 3, 3), (4, None, None), (4, None, 3), (4, 3, None)])
def test_side_by_side_of_an_unknown_batch_or_size(known):
    images, upstream = normal(4, 3, 3, 5), normal(4, 3, 3, 6, seed=1)
    function = tf.function(
        lambda images, upstream: convolution._kernel_gradient_side_by_side(
            images, upstream, (3, 3, 5, 6)
        ),
        input_signature=[tf.TensorSpec((*known, 5)), tf.TensorSpec((*known, 6))],
    )
    expected = convolution._kernel_gradient_directly(images, upstream, (3, 3, 5, 6))
    assert_close([function(images, upstream)], [expected], 1e-5)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'float16'])
@pytest.mark.parametrize('sides', [(6, 10), (7, 10), (6, 5), (3, 3), (2, 2)])
def test_max_pool_sends_the_gradient_to_the_first_maximum(dtype, sides):
    """Of few distinct values, so that most windows hold their maximum more than once."""
    values = np.random.default_rng(0).integers(0, 3, (4, *sides, 5))
    images = tf.cast(values, dtype)
    upstream = tf.cast(normal(4, sides[0] // 2, sides[1] // 2, 5), dtype)
    found = gradients(pooling.max_pool_2x2, upstream, images)
    expected = gradients(lambda x: tf.nn.max_pool2d(x, 2, 2, 'VALID'), upstream, images)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def exact_batch_norm(images, scale, offset, epsilon):
    images = tf.cast(images, tf.float64)
    mean, variance = tf.nn.moments(images, (0, 1, 2))
    scale, offset = tf.cast(scale, tf.float64), tf.cast(offset, tf.float64)
    return scale * (images - mean) / tf.sqrt(variance + epsilon) + offset, mean, variance


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'float16'])
@pytest.mark.parametrize('has_avx512', [True, False])
@pytest.mark.parametrize('channels', [6, 16])
def test_batch_norm(monkeypatch, dtype, has_avx512, channels):
    """TensorFlow's kernel, as on accelerators, and what is faster on other processors."""
    monkeypatch.setattr(device, 'has_avx512', lambda: has_avx512)
    images = tf.cast(2 * normal(4, 3, 5, channels) + 1, dtype)
    scale, offset = normal(channels, seed=1), normal(channels, seed=2)
    upstream = tf.cast(normal(4, 3, 5, channels, seed=3), dtype)
    _, mean, variance = batch_norm.normalize(images, scale, offset, 1e-3)
    _, exact_mean, exact_variance = exact_batch_norm(images, scale, offset, 1e-3)
    np.testing.assert_allclose(mean, exact_mean, atol=1e-5)
    np.testing.assert_allclose(variance, exact_variance, rtol=1e-5)
    inputs = (images, scale, offset)
    found = gradients(lambda *inputs: batch_norm.normalize(*inputs, 1e-3)[0], upstream, *inputs)
    expected = gradients(
        lambda *inputs: exact_batch_norm(*inputs, 1e-3)[0],
        tf.cast(upstream, tf.float64),
        *inputs,
    )
    tolerance = {'float32': 1e-5, 'bfloat16': 2e-2, 'float16': 2e-3}[dtype]
    assert_close(found, expected, tolerance)


@pytest.mark.parametrize(('channels', 'dtype'), [(24, 'float32'), (32, 'bfloat16')])
def test_odd_numbers_of_channels_are_normalized_in_float32(monkeypatch, channels, dtype):
    """In bfloat16 oneDNN's kernel takes ten times as long where vectors aren't full."""
    monkeypatch.setattr(device, 'has_avx512', lambda: True)
    ones, zeros = tf.ones(channels), tf.zeros(channels)
    program = tf.function(lambda x: batch_norm.normalize(x, ones, zeros, 1e-3)[0])
    program = program.get_concrete_function(tf.TensorSpec((None, 4, 4, channels), 'bfloat16'))
    (kernel,) = (op for op in program.graph.get_operations() if op.type == 'FusedBatchNormV2')
    assert kernel.inputs[0].dtype.name == dtype
    assert program.outputs[0].dtype == tf.bfloat16


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_ghost_batch_norm_both_ways(monkeypatch, dtype):
    """What TensorFlow's kernel makes of each group, and what XLA makes of all, are the same."""
    images = tf.cast(2 * normal(6, 4, 5, 3) + 1, dtype)
    scale, offset = normal(3, seed=1), normal(3, seed=2)
    upstream = tf.cast(normal(6, 4, 5, 3, seed=3), dtype)
    ways = []
    for has_avx512 in (True, False):
        monkeypatch.setattr(device, 'has_avx512', lambda has=has_avx512: has)
        _, *moments = batch_norm.normalize_groups(images, scale, offset, 2, 1e-3)
        assert [x.shape for x in moments] == [(3, 3), (3, 3)]
        inputs = (images, scale, offset)
        normalized = gradients(
            lambda *inputs: batch_norm.normalize_groups(*inputs, 2, 1e-3)[0], upstream, *inputs
        )
        ways.append((*moments, *normalized))
    assert_close(*ways, {'float32': 1e-5, 'bfloat16': 2e-2}[dtype])


def test_batch_norm_far_from_zero():
    """Means a thousand times the deviations: squares of what isn't centred would cancel."""
    images, one = 1000 + normal(16, 8, 8, 3), tf.ones(3)
    outputs, _, variance = batch_norm.normalize(images, one, 0 * one, 1e-5)
    expected, _, exact_variance = exact_batch_norm(images, one, 0 * one, 1e-5)
    np.testing.assert_allclose(variance, exact_variance, rtol=1e-3)
    np.testing.assert_allclose(outputs, expected, atol=2e-3)


@pytest.mark.parametrize(
    'function',
    [
        pooling.max_pool_2x2,
        activations.gelu,
        activations.silu,
        lambda images: activations.celu(images, 0.3),
        lambda images: batch_norm.normalize(images, tf.ones(3), tf.zeros(3), 1e-3)[0],
        lambda images: batch_norm.normalize_groups(images, tf.ones(3), tf.zeros(3), 2, 1e-3)[0],
    ],
    ids=['max_pool_2x2', 'gelu', 'silu', 'celu', 'batch_norm', 'ghost_batch_norm'],
)
def test_kernels_with_an_unknown_batch(function):
    """Without XLA, for whoever exports the model; the numbers are the same."""
    images = normal(4, 5, 6, 3)
    upstream = normal(*function(images).shape, seed=1)
    by_name = tf.function(
        lambda images, upstream: gradients(function, upstream, images),
        input_signature=[tf.TensorSpec([None, *x.shape[1:]]) for x in (images, upstream)],
    )
    graph = by_name.get_concrete_function().graph.as_graph_def()
    attributes = [key for f in graph.library.function for key in f.attr if f.attr[key].b]
    assert '_XlaMustCompile' not in attributes
    assert_close(by_name(images, upstream), gradients(function, upstream, images), 1e-5)


@tf.function(jit_compile=True)
def rounded(values):
    return xla.rounded(values, tf.bfloat16)


def test_rounded_is_a_cast():
    upper = np.arange(1 << 16, dtype=np.uint32) << 16
    lower = np.uint32([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF])
    values = (upper[:, None] | lower).view(np.float32)
    values = tf.constant(values[~(np.isnan(values) & (lower > 0))])
    found, expected = (
        tf.bitcast(x, tf.uint16).numpy() for x in (rounded(values), tf.cast(values, tf.bfloat16))
    )
    is_nan = np.isnan(values)
    np.testing.assert_array_equal(found[~is_nan], expected[~is_nan])
    assert np.isnan(tf.cast(rounded(values), tf.float32).numpy()[is_nan]).all()


@pytest.mark.parametrize(('function', 'exact', 'slope'), [
    (activations.silu,
     lambda x: x / (1 + np.exp(-x)),
     lambda x: (1 + np.exp(-x) + x * np.exp(-x)) / (1 + np.exp(-x)) ** 2),
    (activations.gelu,
     lambda x: x * normal_cdf(x),
     lambda x: normal_cdf(x) + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)),
])  # fmt: skip
def test_activations_are_as_exact_as_bfloat16(function, exact, slope):
    """All values of [-80, 80]; an error is that of rounding, and that of a float32 near zero."""
    x = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16)
    x = tf.bitcast(tf.constant(x), tf.bfloat16)
    x = tf.boolean_mask(x, tf.abs(tf.cast(x, tf.float32)) <= 80)
    y, gradient = gradients(function, tf.ones_like(x), x)
    x, y, gradient = (tf.cast(each, tf.float64).numpy() for each in (x, y, gradient))
    for found, expected in ((y, exact(x)), (gradient, slope(x))):
        error = np.abs(found - expected) - 1.02 * 2**-8 * np.abs(expected)
        assert error.max() < 3e-7 * np.abs(x[error.argmax()]) + 1e-7


def normal_cdf(x):
    return np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in x])


def test_kernels_is_compiled_where_the_shape_is_known():
    compiled = tf.function(activations.gelu, input_signature=[tf.TensorSpec([4, 5])])
    graph = compiled.get_concrete_function().graph.as_graph_def()
    assert any(f.attr['_XlaMustCompile'].b for f in graph.library.function)


@pytest.mark.parametrize(
    ('ours', 'stock', 'shape'),
    [
        (Conv2D(4, 3, padding='same'), keras.layers.Conv2D(4, 3, padding='same'), (2, 6, 6, 5)),
        (Conv2D(4, 3, strides=2), keras.layers.Conv2D(4, 3, strides=2), (2, 7, 7, 5)),
        (Conv2D(4, 2, padding='same'), keras.layers.Conv2D(4, 2, padding='same'), (2, 6, 6, 5)),
        (MaxPooling2D(2), keras.layers.MaxPooling2D(2), (2, 6, 6, 5)),
        (MaxPooling2D(2), keras.layers.MaxPooling2D(2), (2, 7, 6, 5)),
        (
            MaxPooling2D(2, padding='same'),
            keras.layers.MaxPooling2D(2, padding='same'),
            (2, 7, 6, 5),
        ),
        (MaxPooling2D(3), keras.layers.MaxPooling2D(3), (2, 3, 3, 5)),
        (MaxPooling2D(3), keras.layers.MaxPooling2D(3), (2, 6, 7, 5)),
        (MaxPooling2D(3, strides=1), keras.layers.MaxPooling2D(3, strides=1), (2, 6, 6, 5)),
        (
            BatchNormalization(),
            keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5),
            (4, 6, 6, 5),
        ),
        (
            BatchNormalization(scale=False, center=False, axis=1),
            keras.layers.BatchNormalization(
                momentum=0.9, epsilon=1e-5, scale=False, center=False, axis=1
            ),
            (4, 6, 6, 5),
        ),
        (
            BatchNormalization(renorm=True),
            keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, renorm=True),
            (4, 6, 6, 5),
        ),
    ],
    ids=lambda value: value.name if isinstance(value, keras.layers.Layer) else None,
)
def test_primitives_are_their_parents(ours, stock, shape):
    """Values, gradients and, after a step of training, all weights."""
    ours.build(shape)
    stock.build(shape)
    weights = [normal(*weight.shape, seed=7).numpy() ** 2 for weight in stock.get_weights()]
    ours.set_weights(weights)
    stock.set_weights(weights)
    images = normal(*shape)
    upstream = normal(*stock.compute_output_shape(shape), seed=3)
    training = {'training': True} if isinstance(stock, keras.layers.BatchNormalization) else {}
    found = gradients(lambda x: ours(x, **training), upstream, images)
    expected = gradients(lambda x: stock(x, **training), upstream, images)
    assert_close(found, expected, 1e-5)
    for one, other in zip(ours.get_weights(), stock.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def _trained():
    """Weak references to a network, and to the graph of one training step of it."""
    model = Sequential(
        [
            ConvBN(4, activation=CELU(), normalization=GhostBatchNormalization(2)),
            ConvBN(4, activation=GELU(), pool=MaxPooling2D(2)),
        ]
    )
    images = normal(4, 4, 4, 4)
    model.build(images.shape)
    values = [variable.value for variable in model.trainable_variables]

    @tf.function(autograph=False)
    def step(images):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(model(images, training=True)))
        for value, gradient in zip(values, tape.gradient(loss, values), strict=True):
            value.assign_sub(1e-3 * gradient)

    step(images)
    return weakref.ref(model), weakref.ref(step.get_concrete_function(images).graph)


@pytest.mark.thorough
@pytest.mark.parametrize('has_avx512', [True, False])
def test_tensorflow_keeps_no_trained_model(has_avx512):
    """Gradients stay registered until the process ends: they must not hold what they were for."""
    from tensorflow.python.framework import ops

    with device.override(has_avx512=has_avx512):
        _trained()
        registered = len(ops.gradient_registry.list())
        references = [reference for _ in range(20) for reference in _trained()]
    gc.collect()
    assert len(ops.gradient_registry.list()) == registered
    assert [reference() for reference in references] == [None] * 40


def launched(function, launch, upstream, *inputs):
    """Output and gradients in a graph, and the graph's operations with those of its functions."""

    @tf.function(autograph=False)
    def graph(upstream, *inputs):
        with device.override(launched=launch):
            return gradients(function, upstream, *inputs)

    program = graph.get_concrete_function(upstream, *inputs)
    definition = program.graph.as_graph_def()
    nodes = [*definition.node, *(n for f in definition.library.function for n in f.node_def)]
    return program(upstream, *inputs), nodes


@pytest.mark.parametrize(
    'function',
    [
        pooling.max_pool_2x2,
        activations.gelu,
        lambda x: batch_norm.normalize_groups(x, tf.ones(3), tf.zeros(3), 2, 1e-3)[0],
    ],
    ids=['pool', 'gelu', 'ghost batch norm'],
)
def test_a_graph_launches_what_xla_compiles(function):
    """Of a compiled function that a graph calls, TensorFlow keeps a copy with each graph."""
    images = normal(4, 6, 6, 3)
    upstream = normal(*function(images).shape, seed=2)
    with device.override(has_avx512=False):
        found, nodes = launched(function, True, upstream, images)
        expected, others = launched(function, False, upstream, images)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert [node.op for node in nodes].count('XlaLaunch') >= 2
    assert not any(node.attr['_XlaMustCompile'].b for node in nodes)
    assert any(node.attr['_XlaMustCompile'].b for node in others)


def test_programs_on_different_inputs_do_not_wait_for_each_other():
    """Else replicas on one processor would take turns."""

    @tf.function(autograph=False)
    def graph(first, second, kernel):
        with device.override(launched=True, has_avx512=True):
            return [convolution.conv2d(pooling.max_pool_2x2(x), kernel) for x in (first, second)]

    arguments = normal(2, 16, 16, 128), normal(2, 16, 16, 128, seed=1), normal(3, 3, 128, 128)
    program = graph.get_concrete_function(*arguments)
    operations = program.graph.get_operations()
    assert sum(operation.type == 'PartitionedCall' for operation in operations) >= 4
    assert not any(operation.control_inputs for operation in operations)
    expected = [direct(pooling.max_pool_2x2(x), arguments[2]) for x in arguments[:2]]
    assert_close(program(*arguments), expected, 3e-5)
