"""Devices: what is chosen, and what an error tells one to install."""

import keras
import pytest

from fenwicks import strategy


def found(monkeypatch, *kinds):
    monkeypatch.setattr(strategy, '_find_devices', lambda: set(kinds))


@pytest.mark.parametrize(
    ('kinds', 'expected'),
    [(['cpu'], 'cpu'), (['cpu', 'gpu'], 'gpu'), (['cpu', 'gpu', 'tpu'], 'tpu')],
)
def test_auto_takes_the_fastest(monkeypatch, kinds, expected):
    found(monkeypatch, *kinds)
    assert strategy.select_device() == expected


@pytest.mark.parametrize('device', ['tpu', 'gpu'])
def test_a_missing_device_says_what_to_install(monkeypatch, device):
    found(monkeypatch, 'cpu')
    with pytest.raises(ValueError) as raised:
        strategy.select_device(device)
    message = str(raised.value)
    assert '\n' not in message
    assert f'that the {keras.backend.backend()} backend finds: cpu.' in message
    package = {'gpu': 'tensorflow[and-cuda]', 'tpu': 'jax[tpu]'}[device]
    assert f"pip install '{package}'" in message
    assert message.endswith(f'Received: device={device}')


@pytest.mark.parametrize('device', ['cuda', 'GPU', '', None])
def test_unknown_device(device):
    with pytest.raises(ValueError) as raised:
        strategy.select_device(device)
    assert str(raised.value) == (
        f'`device` must be one of auto, cpu, gpu, tpu. Received: device={device}'
    )


def test_every_machine_has_a_cpu():
    assert 'cpu' in strategy._find_devices()
    assert strategy._find_devices() <= {'cpu', 'gpu', 'tpu'}
    assert strategy.select_device('cpu') == 'cpu'


@pytest.mark.backend('tensorflow')
def test_choosing_the_cpu_hides_the_accelerators(monkeypatch):
    import tensorflow as tf

    hidden = []
    monkeypatch.setattr(
        tf.config, 'set_visible_devices', lambda devices, kind: hidden.append((devices, kind))
    )
    found(monkeypatch, 'cpu', 'gpu')
    assert strategy.select_device('gpu') == 'gpu'
    assert hidden == []
    assert strategy.select_device('cpu') == 'cpu'
    assert hidden == [([], 'GPU'), ([], 'TPU')]
