"""Ways to run a function of arrays: in each framework, eagerly, traced and compiled."""

import numpy as np
import pytest

# Upper 0.1 % points of the chi-square distribution. Seeds are fixed, so a pass stays a pass.
CHI_SQUARE = {1: 10.83, 4: 18.47, 8: 26.12, 24: 51.18}


def _numpy(function, *arrays):
    return function(*arrays)


def _tf(function, *arrays):
    tf = pytest.importorskip('tensorflow')
    return function(*map(tf.constant, arrays)).numpy()


def _tf_graph(function, *arrays):
    tf = pytest.importorskip('tensorflow')
    return tf.function(function)(*map(tf.constant, arrays)).numpy()


def _tf_xla(function, *arrays):
    tf = pytest.importorskip('tensorflow')
    return tf.function(function, jit_compile=True)(*map(tf.constant, arrays)).numpy()


def _tf_data(function, *arrays):
    """One batch whose size isn't known when the map is traced."""
    tf = pytest.importorskip('tensorflow')
    # Seeds aren't sliced into examples; no batch of these tests holds two.
    seeds = [array for array in arrays if array.shape == (2,)]
    data = tf.data.Dataset.from_tensor_slices(tuple(a for a in arrays if a.shape != (2,)))
    data = data.batch(len(arrays[0])).map(lambda *batch: function(*batch, *map(tf.constant, seeds)))
    assert data.element_spec.shape[0] is None
    (batch,) = data.as_numpy_iterator()
    return batch


def _jax(function, *arrays):
    jax = pytest.importorskip('jax')
    return np.asarray(function(*map(jax.numpy.asarray, arrays)))


def _jax_jit(function, *arrays):
    jax = pytest.importorskip('jax')
    return np.asarray(jax.jit(function)(*map(jax.numpy.asarray, arrays)))


RUNNERS = {f.__name__[1:]: f for f in (_numpy, _tf, _tf_graph, _tf_xla, _tf_data, _jax, _jax_jit)}
EAGER = {name: RUNNERS[name] for name in ('numpy', 'tf', 'jax')}
# As parameters: compiling takes long, and is for the second half of the suite.
COMPILED_LATER = [
    name if name in EAGER else pytest.param(name, marks=pytest.mark.thorough) for name in RUNNERS
]


def pixels(batch=5, height=8, width=7, channels=3, seed=0):
    """Integers 0...255 as float32, so that every dtype of eight bits of mantissa holds them."""
    values = np.random.default_rng(seed).integers(0, 256, (batch, height, width, channels))
    return values.astype('float32')


def coordinates(batch, height, width):
    """Images whose two channels tell each pixel's row and column."""
    grid = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing='ij'), -1)
    return np.broadcast_to(grid, (batch, height, width, 2)).astype('float32')


def assert_uniform(values, categories: int):
    values = np.asarray(values)
    assert set(np.unique(values)) == set(range(categories))
    counts = np.bincount(values.astype(int), minlength=categories)
    expected = len(values) / categories
    assert ((counts - expected) ** 2 / expected).sum() < CHI_SQUARE[categories - 1]
