"""Precision: the policy that Keras is left with, and what `auto` chooses on which device."""

import keras
import pytest

from fenwicks import assemble, precision

SAPPHIRE_RAPIDS = """processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) Platinum 8481C
flags\t\t: fpu vme avx2 avx512f avx512_bf16 amx_bf16 amx_tile
vmx flags\t: vnmi
"""
WITHOUT_AMX = 'vendor_id\t: GenuineIntel\nflags\t\t: fpu avx2 avx512f avx512_bf16\n'
ZEN_4 = 'vendor_id\t: AuthenticAMD\nflags\t\t: fpu avx2 avx512f avx512_bf16\n'
HASWELL = 'processor\t: 0\nmodel name\t: no bf16\nflags\t\t: fpu avx2 fma\nbugs\t: bf16\n'
GRAVITON_3 = 'processor\t: 0\nFeatures\t: fp asimd sve i8mm bf16\n'
GRAVITON_2 = 'processor\t: 0\nFeatures\t: fp asimd\n'


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        (SAPPHIRE_RAPIDS, True),
        (WITHOUT_AMX, False),
        (ZEN_4, True),
        (GRAVITON_3, True),
        (HASWELL, False),
        (GRAVITON_2, False),
        ('', False),
    ],
)
def test_a_processor_that_is_faster_in_bfloat16(tmp_path, text, expected):
    cpuinfo = tmp_path / 'cpuinfo'
    cpuinfo.write_text(text)
    assert precision.cpu_has_bfloat16(cpuinfo) is expected


def test_a_machine_without_cpuinfo_has_no_bfloat16(tmp_path):
    assert precision.cpu_has_bfloat16(tmp_path / 'missing') is False


@pytest.mark.parametrize(
    ('chosen', 'policy'),
    [('float32', 'float32'), ('bfloat16', 'mixed_bfloat16'), ('float16', 'mixed_float16')],
)
def test_a_named_precision_is_taken_on_any_device(chosen, policy):
    for device in ('cpu', 'gpu', 'tpu'):
        assert precision.set_precision(chosen, device) == chosen
        assert keras.config.dtype_policy().name == policy
    dense = keras.layers.Dense(2)
    dense.build((None, 3))
    assert dense.kernel.dtype == 'float32'
    assert dense.compute_dtype == chosen


@pytest.mark.parametrize(
    ('device', 'units', 'expected'),
    [
        ('cpu', True, 'bfloat16'),
        ('cpu', False, 'float32'),
        ('gpu', True, 'bfloat16'),
        ('gpu', False, 'float16'),
        ('tpu', False, 'bfloat16'),
    ],
)
def test_auto_takes_what_the_device_has_units_for(monkeypatch, device, units, expected):
    monkeypatch.setattr(precision, 'cpu_has_bfloat16', lambda: units)
    monkeypatch.setattr(precision, '_gpu_has_bfloat16', lambda: units)
    assert precision.set_precision('auto', device) == expected
    assert keras.config.dtype_policy().compute_dtype == expected


@pytest.mark.backend('tensorflow')
@pytest.mark.parametrize(
    ('details', 'expected'),
    [
        ({'compute_capability': (7, 5)}, False),  # T4
        ({'compute_capability': (8, 0)}, True),  # A100
        ({'compute_capability': (12, 0)}, True),
        ({}, False),
    ],
)
def test_gpus_have_bfloat16_from_ampere_on(monkeypatch, details, expected):
    import tensorflow as tf

    monkeypatch.setattr(tf.config, 'list_physical_devices', lambda kind: [f'{kind}:0'])
    monkeypatch.setattr(tf.config.experimental, 'get_device_details', lambda gpu: details)
    assert precision.set_precision('auto', 'gpu') == ('bfloat16' if expected else 'float16')


@pytest.mark.parametrize('wrong', ['half', 'mixed_bfloat16', 'Float32', '', None, 16])
def test_unknown_precision_leaves_the_policy(wrong):
    before = keras.config.dtype_policy().name
    with pytest.raises(ValueError) as raised:
        precision.set_precision(wrong)
    assert str(raised.value) == (
        f'`precision` must be one of auto, float32, bfloat16, float16. Received: precision={wrong}'
    )
    assert keras.config.dtype_policy().name == before


@pytest.mark.parametrize('chosen', ['float32', 'bfloat16', 'float16'])
def test_models_that_were_saved_load_without_a_warning(chosen, tmp_path):
    precision.set_precision(chosen)
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    raw = assemble.with_normalization(model, [120.0, 120.0, 120.0], [60.0, 60.0, 60.0])
    raw.save(tmp_path / 'model.keras')
    loaded = keras.models.load_model(tmp_path / 'model.keras')  # a warning would be an error
    assert loaded.optimizer.built


@pytest.mark.parametrize('device', ['cuda', '', None])
def test_unknown_device_leaves_the_policy(device):
    with pytest.raises(ValueError, match=r'^`device` must be one of cpu, gpu, tpu. Received: '):
        precision.set_precision('float16', device)
    assert keras.config.dtype_policy().name == 'float32'


def test_a_gpu_that_is_not_there_is_named(monkeypatch):
    if keras.backend.backend() == 'tensorflow':
        tf = pytest.importorskip('tensorflow')
        monkeypatch.setattr(tf.config, 'list_physical_devices', lambda kind: [])
    elif keras.backend.backend() == 'jax':
        import jax

        def none(kind):
            raise RuntimeError("Unknown backend: 'gpu' requested")

        monkeypatch.setattr(jax, 'devices', none)
    with pytest.raises(ValueError, match='`device` must be one that this process sees'):
        precision.choose_precision('auto', 'gpu')
