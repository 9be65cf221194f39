"""Devices: what is chosen, and what an error tells one to install."""

import keras
import pytest

from fenwicks import devices
from fenwicks.devices import selection


def found(monkeypatch, *kinds):
    monkeypatch.setattr(selection, '_find_devices', lambda: set(kinds))


@pytest.mark.parametrize(
    ('kinds', 'expected'),
    [(['cpu'], 'cpu'), (['cpu', 'gpu'], 'gpu'), (['cpu', 'gpu', 'tpu'], 'tpu')],
)
def test_auto_takes_the_fastest(monkeypatch, kinds, expected):
    found(monkeypatch, *kinds)
    assert devices.select_device() == expected


def refused(monkeypatch, device, *installed, backend='tensorflow', driver=None):
    """The line with which a device is refused on a machine with these distributions."""
    found(monkeypatch, 'cpu')
    monkeypatch.delenv('KERAS_BACKEND', raising=False)
    monkeypatch.setattr(keras.backend, 'backend', lambda: backend)
    monkeypatch.setattr(selection, '_is_installed', lambda name: name in installed)
    monkeypatch.setattr(selection, '_nvidia_driver', lambda: driver)
    monkeypatch.setattr(selection.glob, 'glob', lambda pattern: [])
    with pytest.raises(ValueError) as raised:
        devices.select_device(device)
    message = str(raised.value)
    assert '\n' not in message
    assert message.startswith(f'`device` must be one that the {backend} backend finds: cpu. ')
    assert message.endswith(f' Received: device={device}')
    return message


INSTALL_TPU = (
    "pip install 'jax[tpu]' and set KERAS_BACKEND=jax",
    'pip install tensorflow-tpu==2.20.0 libtpu==0.0.21.1 and set KERAS_BACKEND=tensorflow.',
)


@pytest.mark.parametrize('backend', ['tensorflow', 'jax', 'torch'])
@pytest.mark.parametrize('installed', [(), ('jax',), ('jax', 'tensorflow-cpu')])
def test_without_a_runtime_for_tpus_both_are_named(monkeypatch, backend, installed):
    message = refused(monkeypatch, 'tpu', *installed, backend=backend)
    assert all(command in message for command in INSTALL_TPU)
    assert 'This machine shows no TPU' in message


@pytest.mark.parametrize(
    ('backend', 'installed', 'advice'),
    [
        ('tensorflow', ['jax', 'libtpu'], 'set KERAS_BACKEND=jax before Keras is imported.'),
        ('torch', ['jax', 'libtpu'], 'set KERAS_BACKEND=jax before Keras is imported.'),
        ('jax', ['tensorflow-tpu', 'libtpu'], 'set KERAS_BACKEND=tensorflow before Keras is'),
        ('torch', ['tensorflow-tpu'], 'set KERAS_BACKEND=tensorflow before Keras is imported.'),
        ('jax', ['jax', 'libtpu'], 'this machine has no TPU, or another process has it.'),
        ('tensorflow', ['tensorflow-tpu', 'libtpu'], 'has no TPU, or another process has it.'),
        ('tensorflow', ['jax', 'tensorflow-tpu', 'libtpu'], 'or another process has it.'),
    ],
)
def test_a_runtime_for_tpus_that_is_not_in_use_or_finds_none(
    monkeypatch, backend, installed, advice
):
    assert advice in refused(monkeypatch, 'tpu', *installed, backend=backend)


@pytest.mark.parametrize(
    ('backend', 'installed', 'driver', 'advice'),
    [
        ('tensorflow', [], None, 'No NVIDIA driver runs here; on a machine with one: pip install'),
        ('tensorflow', [], 550, "cpu. pip install 'tensorflow[and-cuda]' in a fresh environment"),
        ('tensorflow', [], 580, "or pip install 'jax[cuda13]' and set KERAS_BACKEND=jax."),
        ('tensorflow', ['jax-cuda12-plugin'], 550, 'set KERAS_BACKEND=jax before Keras is'),
        ('jax', [], None, 'No NVIDIA driver runs here; on a machine with one: this jax doesn'),
        ('jax', [], 550, "cpu. this jax doesn't support GPUs: pip install 'jax[cuda12]'."),
        ('jax', [], 590, "cpu. this jax doesn't support GPUs: pip install 'jax[cuda13]'."),
        ('jax', ['jax-cuda13-plugin'], None, 'supports GPUs, but no NVIDIA driver runs here.'),
        ('jax', ['jax-cuda13-plugin'], 590, 'finds none: check the driver with nvidia-smi.'),
    ],
)
def test_a_missing_gpu_says_what_to_install(monkeypatch, backend, installed, driver, advice):
    assert advice in refused(monkeypatch, 'gpu', *installed, backend=backend, driver=driver)


def test_what_is_installed_is_found():
    assert selection._is_installed('keras')
    assert not selection._is_installed('no-such-distribution')


def test_a_backend_that_was_named_too_late(monkeypatch):
    loaded = keras.backend.backend()
    other = 'jax' if loaded == 'tensorflow' else 'tensorflow'
    monkeypatch.setenv('KERAS_BACKEND', other)
    with pytest.raises(ValueError) as raised:
        devices.select_device()
    assert str(raised.value) == (
        '`KERAS_BACKEND` must be set before Keras is imported: start Python anew. '
        f'Received: KERAS_BACKEND={other}, while Keras runs on {loaded}'
    )


JOINING = ('JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID')


@pytest.mark.parametrize(
    'values', [('host:1', None, None), (None, '2', '0'), ('host:1', '2', 'first')]
)
def test_processes_that_are_told_half_of_it(monkeypatch, values):
    pytest.importorskip('jax')
    monkeypatch.setattr(keras.backend, 'backend', lambda: 'jax')
    for name, value in zip(JOINING, values, strict=True):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=r'_ADDRESS`, .*`JAX_PROCESS_ID` must be set together'):
        devices.connect()


@pytest.mark.parametrize(('hosts', 'joins'), [('localhost', False), ('10.0.0.1,10.0.0.2', True)])
def test_the_hosts_of_a_tpu_slice_join(monkeypatch, hosts, joins):
    jax = pytest.importorskip('jax')
    calls = []
    monkeypatch.setattr(keras.backend, 'backend', lambda: 'jax')
    monkeypatch.setattr(jax.distributed, 'initialize', lambda *arguments: calls.append(arguments))
    for name in JOINING:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('TPU_WORKER_HOSTNAMES', hosts)
    devices.connect()
    assert calls == [()] * joins


@pytest.mark.parametrize('device', ['cuda', 'GPU', '', None])
def test_unknown_device(device):
    with pytest.raises(ValueError) as raised:
        devices.select_device(device)
    assert str(raised.value) == (
        f'`device` must be one of auto, cpu, gpu, tpu. Received: device={device}'
    )


def test_every_machine_has_a_cpu():
    assert 'cpu' in selection._find_devices()
    assert selection._find_devices() <= {'cpu', 'gpu', 'tpu'}
    assert devices.select_device('cpu') == 'cpu'


@pytest.mark.backend('tensorflow')
def test_choosing_the_cpu_hides_the_accelerators(monkeypatch):
    import tensorflow as tf

    hidden = []
    monkeypatch.setattr(
        tf.config, 'set_visible_devices', lambda devices, kind: hidden.append((devices, kind))
    )
    found(monkeypatch, 'cpu', 'gpu')
    assert devices.select_device('gpu') == 'gpu'
    assert hidden == []
    assert devices.select_device('cpu') == 'cpu'
    assert hidden == [([], 'GPU'), ([], 'TPU')]


@pytest.mark.backend('tensorflow')
def test_what_was_hidden_is_not_found_again(monkeypatch):
    import tensorflow as tf

    cpu, *_ = tf.config.list_physical_devices('CPU')
    gpu = tf.config.PhysicalDevice('/physical_device:GPU:0', 'GPU')
    seen = [cpu, gpu]
    monkeypatch.setattr(tf.config, 'list_physical_devices', lambda *kinds: [cpu, gpu])
    monkeypatch.setattr(tf.config, 'get_visible_devices', lambda *kinds: seen)
    assert devices.select_device() == 'gpu'
    seen.remove(gpu)
    assert devices.select_device() == 'cpu'


@pytest.mark.backend('jax')
@pytest.mark.parametrize('default', ['device', 'name'])
def test_the_default_device_of_jax_is_the_only_one_found(monkeypatch, default):
    import jax

    monkeypatch.setattr(keras.distribution, 'list_devices', lambda: ['gpu:0', 'cpu:0'])
    assert devices.select_device() == 'gpu'
    with jax.default_device(jax.devices('cpu')[0] if default == 'device' else 'cpu'):
        assert devices.select_device() == 'cpu'
