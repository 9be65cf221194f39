"""Second derivatives through the CPU kernels, against those of standard operations."""

import functools

import keras
import numpy as np
import pytest

if keras.backend.backend() != 'tensorflow':
    pytest.skip("TensorFlow's kernels", allow_module_level=True)

import tensorflow as tf

from fenwicks.kernels import activations, batch_norm, convolution, device, pooling


def normal(*shape, seed=0):
    values = np.random.default_rng(seed).standard_normal(shape, np.float32)
    return tf.cast(tf.constant(values), tf.bfloat16)  # every dtype holds them exactly


def second_derivatives(function, dtype, inputs):
    """Of `sum(u * function(inputs))`, times a vector, with respect to the inputs."""
    inputs = [tf.cast(each, dtype) for each in inputs]
    with tf.GradientTape() as outer:
        outer.watch(inputs)
        with tf.GradientTape() as inner:
            inner.watch(inputs)
            outputs = tf.cast(function(*inputs), tf.float64)
            # A loss whose own second derivative isn't zero.
            loss = tf.reduce_sum(tf.cast(normal(*outputs.shape, seed=8), tf.float64) * outputs**2)
        gradients = inner.gradient(loss, inputs)
        slope = sum(
            tf.reduce_sum(tf.cast(normal(*g.shape, seed=9), tf.float64) * tf.cast(g, tf.float64))
            for g in gradients
        )
    return outer.gradient(slope, inputs)


def celu(x):
    return tf.where(x > 0, x, 0.3 * tf.math.expm1(tf.minimum(x, 0) / 0.3))


def gelu(x):
    return 0.5 * x * (1 + tf.math.erf(x * np.sqrt(0.5)))


def silu(x):
    return x * tf.sigmoid(x)


def normalized(x, scale, offset, axes=(0, 1, 2)):
    # `tf.nn.moments` holds the mean fixed.
    mean = tf.reduce_mean(x, axes, keepdims=True)
    variance = tf.reduce_mean((x - mean) ** 2, axes, keepdims=True)
    return (x - mean) / tf.sqrt(variance + 1e-3) * scale + offset


def in_groups(x, scale, offset):
    groups = tf.reshape(x, (2, 2, *x.shape[1:]))
    return tf.reshape(normalized(groups, scale, offset, (1, 2, 3)), x.shape)


def batch_normalized(x, scale, offset):
    scale, offset = (tf.cast(each, tf.float32) for each in (scale, offset))
    return batch_norm.normalize(x, scale, offset, 1e-3)[0]


def group_normalized(x, scale, offset):
    scale, offset = (tf.cast(each, tf.float32) for each in (scale, offset))
    return batch_norm.normalize_groups(x, scale, offset, 2, 1e-3)[0]


def convolved(images, kernel):
    return tf.nn.conv2d(images, kernel, strides=1, padding='SAME')


def pooled(images):
    n, h, w, c = images.shape
    return tf.reduce_max(tf.reshape(images, (n, h // 2, 2, w // 2, 2, c)), (2, 4))


IMAGES, KERNEL = normal(4, 4, 6, 16), normal(3, 3, 16, 8, seed=1)
AFFINE = [normal(16, seed=2), normal(16, seed=3)]
CASES = {
    'celu': (functools.partial(activations.celu, alpha=0.3), celu, [IMAGES]),
    'gelu': (activations.gelu, gelu, [IMAGES]),
    'silu': (activations.silu, silu, [IMAGES]),
    'batch norm': (batch_normalized, normalized, [IMAGES, *AFFINE]),
    'ghost batch norm': (group_normalized, in_groups, [IMAGES, *AFFINE]),
    'convolution': (convolution.conv2d, convolved, [IMAGES, KERNEL]),
    # Of another shape than above, whose traced program would be found again.
    'winograd': (convolution.conv2d, convolved, [IMAGES[1:], KERNEL]),
    'pooling': (pooling.max_pool_2x2, pooled, [IMAGES]),
}


# Whether the processor has AVX-512 and AMX, where that chooses the kernel.
CHOICES = [
    *((case, False) for case in CASES),
    *((case, True) for case in ('batch norm', 'ghost batch norm', 'convolution')),
]


@pytest.mark.parametrize('dtype', ['float32', pytest.param('bfloat16', marks=pytest.mark.thorough)])
@pytest.mark.parametrize(
    'graph',
    [pytest.param(False, marks=pytest.mark.thorough, id='eager'), pytest.param(True, id='graph')],
)
@pytest.mark.parametrize(('case', 'newer'), CHOICES)
def test_second_derivatives(case, newer, graph, dtype, monkeypatch):
    kernel, standard, inputs = CASES[case]
    if case == 'winograd':
        monkeypatch.setattr(convolution.winograd, 'pays', lambda *arguments, **more: True)
    run = functools.partial(second_derivatives, kernel, dtype)
    with device.override(has_avx512=newer, has_amx=newer):
        found = (tf.function(run, autograph=False) if graph else run)(inputs)
    expected = second_derivatives(standard, 'float64', inputs)
    for one, other in zip(found, expected, strict=True):
        error = np.abs(tf.cast(one, tf.float64) - other).max()
        size = np.std(other)
        assert error < {'float32': 2e-4, 'bfloat16': 0.15}[dtype] * size, (error, size)
