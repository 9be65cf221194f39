"""Keras's own `fit` on many devices, and in two processes, trains as it does on one device."""

import contextlib
import functools
import pathlib

import keras
import numpy as np
import pytest
from test_replicas import BACKENDS, environments, results
from test_replicas import start as start_script

from fenwicks import devices
from fenwicks.devices import distribution, selection

SCRIPT = pathlib.Path(__file__).with_name('strategy_run.py')
KINDS = {'tensorflow': 'MirroredStrategy', 'jax': 'DataParallel'}


def start(backend, *cases, **environment):
    return start_script(backend, *cases, script=SCRIPT, **environment)


@functools.cache
def run():
    """What the two backends made of it, side by side."""
    # The eight first: TensorFlow cuts up its processor before its first operation, once for all.
    cases = 'averaged_on_8', 'averaged_on_1'
    found = results(*(start(backend, *cases) for backend in BACKENDS))
    return dict(zip(BACKENDS, found, strict=True))


def assert_alike(backend, one, other):
    np.testing.assert_allclose(one['losses'], other['losses'], rtol=2e-5)
    assert one['accuracies'] == other['accuracies']
    np.testing.assert_allclose(one['weights'], other['weights'], rtol=2e-4, atol=2e-5)
    # On TensorFlow the moving statistics are those of the first device.
    tolerance = 2e-2 if backend == 'tensorflow' else 2e-5
    for key in ('statistics', 'evaluated', 'logits'):
        if key in one:
            np.testing.assert_allclose(one[key], other[key], rtol=tolerance, atol=tolerance)


@pytest.mark.thorough
@pytest.mark.parametrize('backend', BACKENDS)
def test_eight_devices_fit_like_one(backend):
    """Groups of four images are normalized together: on eight devices of four each its own."""
    several, alone = (run()[backend][f'averaged_on_{count}'] for count in (8, 1))
    assert (several['count'], several['on_devices'], several['kind']) == (8, 8, KINDS[backend])
    assert (alone['count'], alone['on_devices'], alone['kind']) == (1, 1, 'NoneType')
    assert_alike(backend, several, alone)
    first, last = alone['losses']
    assert last < first - 0.1
    assert abs(alone['evaluated'][0] - last) > 1e-3  # the averages are not the last weights


@pytest.mark.slow
@pytest.mark.parametrize('backend', BACKENDS)
def test_batch_norm_sees_the_parts_on_tensorflow_and_the_whole_batch_on_jax(backend):
    (found,) = results(start(backend, 'plain_on_8', 'plain_on_1', 'ghosts_on_1'))
    alone, other = found['ghosts_on_1'], found['plain_on_1']
    if backend == 'jax':
        alone, other = other, alone
    assert_alike(backend, found['plain_on_8'], alone)
    assert abs(found['plain_on_8']['losses'][1] - other['losses'][1]) > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize('backend', BACKENDS)
def test_two_processes_fit_together(backend):
    one, other = results(*(start(backend, 'all', **told) for told in environments(backend)))
    one, other = one['all'], other['all']
    assert one['processes'] == one['count'] == 2
    assert (one['chief'], other['chief']) == (True, False)
    assert one['weights'] == other['weights']
    (alone,) = results(start(backend, 'ghosts_of_16', 'plain_on_1'))
    alone = alone['ghosts_of_16' if backend == 'tensorflow' else 'plain_on_1']
    np.testing.assert_allclose(one['losses'], alone['losses'], rtol=2e-5)
    np.testing.assert_allclose(one['weights'], alone['weights'], rtol=2e-4, atol=2e-5)


@pytest.mark.backend('tensorflow', 'jax')
def test_the_scope_sets_the_precision_and_puts_it_back():
    strategy = devices.distribute(6, device='cpu', precision='bfloat16')
    before = keras.config.dtype_policy()
    with strategy.scope() as entered:
        assert entered is strategy
        assert keras.layers.Dense(2).dtype_policy.name == 'mixed_bfloat16'
    assert keras.config.dtype_policy() == before
    with contextlib.suppress(ZeroDivisionError), strategy.scope():
        _ = 1 / 0
    assert keras.config.dtype_policy() == before
    assert (strategy.count, strategy.batch_size, strategy.distribution) == (1, 6, None)
    assert strategy.jit_compile == (keras.backend.backend() == 'jax')


@pytest.mark.backend('tensorflow', 'jax')
def test_bad_arguments(monkeypatch):
    for size in (0, 2.0, True, None):
        with pytest.raises(ValueError, match=r'`global_batch_size` must be a positive integer'):
            devices.distribute(size)
    with pytest.raises(ValueError, match=r'`replicas` must be a positive integer'):
        devices.distribute(8, 0)
    with pytest.raises(ValueError, match=r'`device` must be one of auto, .* device=cuda'):
        devices.distribute(8, device='cuda')
    with pytest.raises(ValueError, match=r'`precision` must be one of .* precision=half'):
        devices.distribute(8, precision='half')
    with monkeypatch.context() as patch:  # before TensorFlow splits the CPU for good
        patch.setattr(distribution, '_placement', lambda backend: pytest.fail)
        with pytest.raises(ValueError, match=r'must be a multiple of 3, .*global_batch_size=10$'):
            devices.distribute(10, 3, device='cpu')
    keras.ops.zeros(())  # from now on there are as many devices as there are
    with pytest.raises(ValueError, match=r'`replicas` must be at most \d+, .* kind cpu here'):
        devices.distribute(8192, 4096, device='cpu')
    monkeypatch.setattr(
        distribution,
        '_placement',
        lambda backend: lambda count, device: distribution.Placement(8, 1, True, False, 1, None),
    )
    with pytest.raises(ValueError) as raised:
        devices.distribute(20, device='cpu')
    assert str(raised.value) == (
        '`global_batch_size` must be a multiple of 8, the devices that share it. '
        'Received: global_batch_size=20'
    )


@pytest.mark.backend('tensorflow', 'jax')
@pytest.mark.parametrize('device', ['gpu', 'tpu'])
def test_a_missing_device_says_what_to_install(monkeypatch, device):
    monkeypatch.setattr(selection, '_find_devices', lambda: {'cpu'})
    monkeypatch.setattr(selection, '_is_installed', lambda distribution: False)
    with pytest.raises(ValueError, match=f'pip install .* Received: device={device}') as raised:
        devices.distribute(64, device=device)
    assert '\n' not in str(raised.value)


def test_other_backends_are_refused_in_a_line():
    with pytest.raises(ValueError, match=r'on the tensorflow and the jax .* KERAS_BACKEND=torch'):
        distribution._placement('torch')


@pytest.mark.backend('tensorflow')
def test_the_labels_from_which_keras_builds_a_model_under_a_strategy():
    """It hands the loss the mean of the devices' class indices, which are floats then."""
    import tensorflow as tf

    from fenwicks import losses

    logits, means = np.zeros((4, 3), 'float32'), np.zeros(4)
    with pytest.raises(ValueError, match='`labels` must be integers'):
        losses.CrossEntropy()(means, logits)
    with tf.distribute.MirroredStrategy(['CPU:0']).scope():
        assert float(losses.CrossEntropy()(means, logits)) == pytest.approx(np.log(3))
