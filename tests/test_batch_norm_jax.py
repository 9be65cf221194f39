"""Batch normalization in one pass against Keras's formulas: the same values and gradients."""

from functools import partial

import keras
import numpy as np
import pytest

if keras.backend.backend() != 'jax':
    pytest.skip("JAX's batch normalization", allow_module_level=True)

import jax
import jax.numpy as jnp

from fenwicks.kernels import batch_norm_jax
from fenwicks.layers import (
    BatchNormalization,
    ConvBlk,
    ConvBN,
    ConvResBlk,
    GhostBatchNormalization,
    MaxPooling2D,
)

SCALES = np.array([1.5, -0.5, 0.0, -2.0, 1e-3], np.float32)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def trained(layer, inputs, upstream):
    """Outputs, new moving statistics, and gradients with respect to weights and inputs."""
    trainable = [variable.value for variable in layer.trainable_variables]
    fixed = [variable.value for variable in layer.non_trainable_variables]

    def call(trainable, inputs):
        outputs, fixed_after = layer.stateless_call(trainable, fixed, inputs, training=True)
        return outputs, fixed_after

    outputs, pull, fixed_after = jax.vjp(call, trainable, jnp.asarray(inputs), has_aux=True)
    return [outputs, *fixed_after, *jax.tree.leaves(pull(jnp.asarray(upstream, outputs.dtype)))]


def assert_close(found, expected, tolerance=1e-5):
    for one, other in zip(found, expected, strict=True):
        scale = max(1e-3, np.abs(np.asarray(other, np.float32)).max())
        np.testing.assert_allclose(
            np.asarray(one, np.float32), np.asarray(other, np.float32), atol=tolerance * scale
        )


def give_weights(layer, shape, **values):
    layer.build(shape)
    for name, value in values.items():
        getattr(layer, name).assign(value)
    return layer


@pytest.mark.parametrize('ratio', [0, 10, 300, 1000])
@pytest.mark.parametrize('shape', [(64, 8, 8, 3), (64, 64, 3), (4096, 3)])
def test_moments_of_large_means(ratio, shape):
    """Many standard deviations off zero, where the moving averages are in the first step."""
    inputs = ratio + normal(*shape)
    axes = tuple(range(len(shape) - 1))
    for call in (batch_norm_jax.moments, jax.jit(batch_norm_jax.moments, static_argnums=1)):
        means, variances = call(jnp.asarray(inputs), axes, jnp.zeros(3))
        exact = inputs.astype(np.float64)
        np.testing.assert_allclose(means.ravel(), exact.mean(axes), rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(variances.ravel(), exact.var(axes), rtol=2e-6)


def test_moments_where_the_first_image_is_unlike_the_others():
    inputs = 1000 + normal(64, 8, 8, 3)
    inputs[0] = -500
    _, variances = batch_norm_jax.moments(jnp.asarray(inputs), (0, 1, 2), jnp.zeros(3))
    exact = inputs.astype(np.float64).var((0, 1, 2))
    np.testing.assert_allclose(variances.ravel(), exact, rtol=1e-4)


@pytest.mark.parametrize('kind', [BatchNormalization, partial(GhostBatchNormalization, 16)])
@pytest.mark.parametrize('ratio', [0, 300, 1000])
def test_gradients_of_large_means(kind, ratio):
    """The first step, against the formula in float64."""
    inputs, upstream = ratio + normal(64, 4, 4, 3), normal(64, 4, 4, 3, seed=1)
    size = 64 if kind is BatchNormalization else 16
    layer = give_weights(kind(center=False, scale=False), inputs.shape)
    outputs, *_, gradient = trained(layer, inputs, upstream)
    x, g = (a.astype(np.float64).reshape(-1, size * 16, 3) for a in (inputs, upstream))
    deviation = np.sqrt(x.var(1, keepdims=True) + 1e-5)
    y = (x - x.mean(1, keepdims=True)) / deviation
    exact = (g - g.mean(1, keepdims=True) - y * (g * y).mean(1, keepdims=True)) / deviation
    rounding = max(1e-5, 1e-6 * ratio)  # that of the mean, in float32
    np.testing.assert_allclose(outputs, y.reshape(inputs.shape), atol=rounding)
    np.testing.assert_allclose(gradient, exact.reshape(inputs.shape), atol=rounding)


def test_moments_on_a_tpu_wait_for_no_image():
    """There the sums are part of the convolution before them."""

    def sums(inputs):
        return batch_norm_jax.moments(inputs, (0, 1, 2), jnp.zeros(3))

    traced = jax.jit(sums).trace(jax.ShapeDtypeStruct((64, 8, 8, 3), 'float32'))
    program = {
        platform: traced.lower(lowering_platforms=(platform,)).as_text()
        for platform in ('cpu', 'tpu')
    }
    assert 'stablehlo.slice' in program['cpu']
    assert 'stablehlo.slice' not in program['tpu']
    assert ' conditional(' not in traced.lower().compile().as_text()


def test_moments_of_a_handful():
    """Close together and far from the shift."""
    inputs = np.float32([[1000.0], [1000.25]])
    _, variances = batch_norm_jax.moments(jnp.asarray(inputs), (0,), np.zeros(1, np.float32))
    np.testing.assert_allclose(variances.ravel(), inputs.astype(np.float64).var(0), rtol=1e-4)


def test_a_variance_is_never_negative():
    inputs = jnp.full((700, 3), 1234.567)
    _, variances = batch_norm_jax.moments(inputs, (0,), jnp.zeros(3))
    assert (variances >= 0).all()


@pytest.mark.parametrize('shape', [(6, 5), (6, 4, 5), (6, 4, 4, 5)])
@pytest.mark.parametrize('affine', [True, False])
def test_batch_norm(shape, affine):
    inputs, upstream = 2 + normal(*shape), normal(*shape, seed=1)
    settings = {'scale': affine, 'center': affine, 'momentum': 0.7, 'epsilon': 1e-3}
    values = {'moving_mean': normal(5, seed=2)}
    if affine:
        values |= {'gamma': SCALES, 'beta': normal(5, seed=3)}
    found, expected = (
        trained(give_weights(kind(**settings), shape, **values), inputs, upstream)
        for kind in (BatchNormalization, keras.layers.BatchNormalization)
    )
    assert_close(found, expected)


@pytest.mark.parametrize('padding', ['valid', 'same'])
@pytest.mark.parametrize('dtype', ['float32', 'mixed_bfloat16'])
@pytest.mark.parametrize('kind', [BatchNormalization, partial(GhostBatchNormalization, 3)])
def test_the_pooling_comes_first_and_changes_nothing(padding, dtype, kind):
    """Scales below zero included, of which the largest output is the smallest input's."""
    shape, pooled = (6, 8, 6, 5), (6, 4, 3, 5)
    pool = MaxPooling2D(2, padding=padding, dtype=dtype)
    norm = give_weights(
        kind(dtype=dtype),
        shape,
        gamma=SCALES + 0.25,
        beta=normal(5, seed=3),
        moving_mean=normal(5, seed=2),
    )

    class Behind(keras.layers.Layer):
        def call(self, inputs, training=None):
            return pool(self.norm(inputs, training=training))

    class Within(Behind):
        def call(self, inputs, training=None):
            return self.norm(inputs, training=training, pool=pool)

    found = []
    for order in (Within, Behind):
        layer = order(dtype=dtype)
        layer.norm = norm
        layer.built = True
        inputs = jnp.asarray(2 + normal(*shape), norm.compute_dtype)
        found.append(trained(layer, inputs, normal(*pooled, seed=1)))
    outputs, expected = found[0][0], found[1][0]
    assert outputs.dtype == norm.compute_dtype
    np.testing.assert_array_equal(outputs.astype('float32'), expected.astype('float32'))
    if dtype == 'float32':  # bfloat16 rounds several pixels to one maximum, and any may be it
        assert_close(found[0], found[1])


def test_a_scale_of_zero_can_leave_it():
    shape = (6, 4, 4, 5)
    norm = give_weights(BatchNormalization(), shape, gamma=np.zeros(5, np.float32))
    pool = MaxPooling2D(2)
    gammas, values = [norm.gamma.value, norm.beta.value], norm.non_trainable_variables

    def loss(gammas):
        outputs, _ = norm.stateless_call(
            gammas, [v.value for v in values], normal(*shape), training=True, pool=pool
        )
        return (outputs * normal(6, 2, 2, 5, seed=1)).sum()

    gradient, _ = jax.grad(loss)(gammas)
    assert (np.abs(gradient) > 1e-3).all()


def test_inference_pools_behind():
    norm, pool = BatchNormalization(), MaxPooling2D(2)
    inputs = normal(2, 4, 4, 5)
    expected = pool(norm(inputs, training=False))
    np.testing.assert_array_equal(norm(inputs, training=False, pool=pool), expected)


@pytest.mark.parametrize('block', [ConvBlk, ConvResBlk])
@pytest.mark.parametrize('convs', [1, 2])
@pytest.mark.parametrize('norm', [None, GhostBatchNormalization(2)])
def test_blocks_pool_within_their_last_normalization(block, convs, norm):
    inputs, upstream = normal(4, 8, 8, 4), normal(4, 4, 4, 5, seed=1)
    layer = block(5, convs=convs, **({'normalization': norm} if norm else {}))
    layer.build(inputs.shape)
    last = layer.layers[convs - 1]
    assert [part.name for part in last.layers] == ['conv', 'norm', 'pool', 'activation']
    last.layers[1].gamma.assign(SCALES + 0.25)
    assert last._fuses_pool(training=True)
    found = trained(layer, inputs, upstream)
    last._fuses_pool = lambda training: False
    assert_close(found, trained(layer, inputs, upstream), 1e-4)


def test_a_pool_of_another_class_stays_where_it_is():
    layer = ConvBN(4, pool=MaxPooling2D(2), pool_first=False)
    assert layer._fuses_pool(training=True)
    layer.layers[2] = keras.layers.DepthwiseConv2D(3, 2, padding='same')
    assert not layer._fuses_pool(training=True)


@pytest.mark.parametrize(
    'settings',
    [
        {'normalization': keras.layers.LayerNormalization()},
        {'pool': keras.layers.AveragePooling2D(2)},
        {'activation': 'gelu'},
        {'pool_first': True},
    ],
)
def test_other_blocks_do_not(settings):
    layer = ConvBlk(5, **settings)
    assert not layer.layers[0]._fuses_pool(training=True)
    assert layer(normal(3, 8, 8, 4), training=True).shape == (3, 4, 4, 5)


def test_ghost_batches():
    """Each group as a batch of its own, its means far from zero."""
    inputs, upstream = 50 + normal(6, 4, 4, 5), normal(6, 4, 4, 5, seed=1)
    ghost = give_weights(
        GhostBatchNormalization(3), inputs.shape, gamma=SCALES, moving_mean=np.full(5, 49.0)
    )
    plain = give_weights(keras.layers.BatchNormalization(epsilon=1e-5), inputs.shape, gamma=SCALES)
    outputs = trained(ghost, inputs, upstream)[0]
    for group in (slice(0, 3), slice(3, 6)):
        expected = trained(plain, inputs[group], upstream[group])[0]
        assert_close([outputs[group]], [expected], 1e-4)


def test_one_ghost_batch_is_computed_as_batch_normalization():
    """To the last bit, the pooling before the scaling included."""
    shape, pool = (6, 8, 6, 5), MaxPooling2D(2)

    class Pooled(keras.layers.Layer):
        def __init__(self, norm):
            super().__init__()
            self.norm = give_weights(norm, shape, gamma=SCALES + 0.25, moving_mean=np.ones(5))
            self.built = True

        def call(self, inputs, training=None):
            return self.norm(inputs, training=training, pool=pool)

    found, expected = (
        trained(Pooled(norm), 2 + normal(*shape), normal(6, 4, 3, 5, seed=1))
        for norm in (GhostBatchNormalization(6, epsilon=1e-3), BatchNormalization(epsilon=1e-3))
    )
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
