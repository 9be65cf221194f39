"""Estimates for TPUs: arithmetic and errors without libtpu; a program compiled where it is."""

import dataclasses
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import types

import keras
import pytest

from fenwicks import hardware, recipes, tpu
from fenwicks.tpu import table
from fenwicks.tpu.costs import _estimate, added_up, split_seconds

ROOT = pathlib.Path(__file__).resolve().parent.parent
needs_jax = pytest.mark.skipif(
    importlib.util.find_spec('jax') is None, reason='JAX is not installed'
)
needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec('jax') is None or importlib.util.find_spec('libtpu') is None,
    reason='the compiler for TPUs is not installed (pip install jax libtpu)',
)


def compiled(**facts):
    from fenwicks.tpu.compiler import Compiled

    usual = {
        'fits': True,
        'memory_bytes': 2**30,
        'flops': 1.97e12,
        'bytes_accessed': 1e9,
        'optimal_seconds': -2.0 + 0.012,
        'cycles': 18_000_000,
        'scatter_bytes': 819_000_000,
        'copied_bytes': 1_638_000_000,
        'collectives': 2,
        'collective_bytes': 80_000_000,
        'compile_seconds': 60.0,
    }
    return Compiled(**{**usual, **facts})


def chips(count):
    """As many devices of JAX, each a chip."""
    return [types.SimpleNamespace(coords=[place, 0, 0]) for place in range(count)]


def run_module(*flags, code=None, **environment):
    command = ['-c', code] if code else ['-m', 'fenwicks.tpu']
    return subprocess.run(
        [sys.executable, *command, *flags],
        env={**os.environ, 'KERAS_BACKEND': 'jax', 'PYTHONPATH': str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def error_of(run):
    """The one line on standard error."""
    assert run.returncode == 1
    assert run.stderr.startswith('fenwicks.tpu: ')
    assert run.stderr.count('\n') == 1, run.stderr
    return run.stderr


@pytest.mark.parametrize(
    ('topology', 'gib'), [('v2:2x2', 16), ('v4:2x2x1', 32), ('v5e:16x16', 16), ('tpu7x:2x2x1', 192)]
)
def test_chips(topology, gib):
    assert tpu.chip_of(topology).memory_gib == gib


@pytest.mark.parametrize(
    'topology',
    ['v9:1x1', 'v5e', 'v5e:', 'v5e:2x2x1', 'v4:2x2', 'v5e:0x1', 'v5e:2x', '', 'v5e:1 '],
)
def test_an_unknown_topology_lists_the_known_ones(topology):
    with pytest.raises(ValueError, match=r'v2:2x2, v3:2x2, .*, tpu7x:2x2x1\. Received: topology='):
        tpu.chip_of(topology)


def test_every_example_is_a_topology():
    for chip in tpu.CHIPS.values():
        assert tpu.chip_of(chip.example) is chip


@pytest.mark.parametrize(
    ('figure', 'at_least', 'seconds', 'operations'),
    [
        (0.012, 0.005, 0.012, 0),
        (-14.986, 0.005, 0.014, 15),
        (-1.7, 0.2, 0.3, 2),
        (0.3, 1.1, 1.3, 1),  # faster than the chip: one second went missing
        (2.5, 0.1, 2.5, 0),
    ],
)
def test_seconds_come_apart_from_operations_without_estimate(figure, at_least, seconds, operations):
    found = split_seconds(figure, at_least)
    assert found == (pytest.approx(seconds), operations)


def test_data_shapes():
    assert tpu.DataShape.named('cifar100').num_classes == 100
    shape = tpu.DataShape.named('300x8x10x1x7')
    dataset = shape.noise()
    assert dataset.train_images.shape == (300, 8, 10, 1)
    assert dataset.num_classes == 7
    assert dataset.train_images.std() > 50  # or it couldn't be normalised, or whitened
    for name in ('mnist', '50000x32x32x3', '0x32x32x3x10', '5x5x5x5x5x5'):
        with pytest.raises(ValueError, match=f'`dataset` must be .* Received: dataset={name}'):
            tpu.DataShape.named(name)


@needs_jax
def test_an_estimate_adds_up():
    found = _estimate(compiled(), 'v5e:2x4', chips(8), steps_per_epoch=100, steps=1000)
    assert found.fits
    assert found.flops_per_step == 8 * 1.97e12
    assert found.roofline_seconds == pytest.approx(0.01)
    assert found.unpriced_seconds == pytest.approx(0.001)
    assert found.unpriced_operations == 2
    assert found.priced_seconds == pytest.approx(0.012 - 0.002)
    # A corner of 2x4 chips has two of its four links; it sends 7/8 of the arrays.
    assert found.network_seconds == pytest.approx(7 / 8 * 0.08 / 100)
    assert found.step_seconds == pytest.approx(0.0117)
    assert found.epoch_seconds == pytest.approx(1.17)
    assert found.run_seconds == pytest.approx(11.7)
    assert found.memory_limit_bytes == 16 * 2**30
    assert found.cycles == 18_000_000


@needs_jax
def test_a_step_takes_its_operations_time_whatever_is_copied():
    much = compiled(copied_bytes=8_190_000_000)
    found = _estimate(much, 'v5e:1x1', chips(1), steps_per_epoch=1, steps=1)
    assert found.priced_seconds == found.roofline_seconds
    assert found.step_seconds >= found.roofline_seconds


@needs_jax
def test_the_programs_of_a_training_add_up():
    """Ten steps of one program and thirty of a smaller one, in epochs of ten steps."""
    large, small = (
        _estimate(compiled(**changed), 'v5e:1x1', chips(1), steps_per_epoch=10, steps=steps)
        for changed, steps in (({}, 10), ({'flops': 1e12, 'memory_bytes': 2**29}, 30))
    )
    found = added_up([large, small], [10, 30])
    assert found.run_seconds == pytest.approx(large.run_seconds + small.run_seconds)
    assert found.step_seconds == pytest.approx(found.run_seconds / 40)
    assert found.epoch_seconds == pytest.approx(found.run_seconds / 4)
    assert found.flops_per_step == pytest.approx((1.97e12 + 3 * 1e12) / 4)
    assert found.memory_bytes == large.memory_bytes
    assert found.compile_seconds == large.compile_seconds + small.compile_seconds
    assert added_up([large], [10]) == large
    too_big = _estimate(
        compiled(memory_bytes=20 * 2**30), 'v5e:1x1', chips(1), steps_per_epoch=10, steps=10
    )
    assert not added_up([small, too_big], [30, 10]).fits


def test_the_programs_of_a_recipe():
    shape = tpu.DATA_SHAPES['cifar10']
    assert tpu.program_steps(recipes.get('page10'), shape) == [(0, 0, 970)]
    # The whitening's bias learns for 3 epochs of 25 steps.
    assert tpu.program_steps(recipes.get('speed94_muon'), shape) == [(0, 0, 75), (3, 0, 125)]
    assert tpu.program_steps(recipes.get('speed94_2026'), shape) == [
        *((0, 0, 7), (0, 7, 89), (3, 0, 96), (6, 0, 92)),
    ]


@needs_jax
def test_two_devices_share_a_chip():
    found = _estimate(compiled(flops=23e9), 'v2:2x2', chips(4) * 2, steps_per_epoch=1, steps=1)
    assert found.memory_limit_bytes == 8 * 2**30
    assert found.roofline_seconds == pytest.approx(0.001)
    assert found.unpriced_seconds == pytest.approx(0.819 / 350)
    assert found.network_seconds == pytest.approx(3 / 4 * 0.08 / 124)


@needs_jax
@pytest.mark.parametrize('noticed', [True, False])  # by the compiler
def test_a_program_that_does_not_fit_has_a_size_and_no_times(noticed):
    too_big = compiled(fits=not noticed, memory_bytes=20 * 2**30, memory_limit_bytes=15 * 2**30)
    found = _estimate(too_big, 'v5e:1x1', chips(1), steps_per_epoch=1, steps=1)
    assert not found.fits
    assert table.memory(found) == '20.00 of 15.00'
    known = {'topology', 'devices', 'fits', 'memory_bytes', 'memory_limit_bytes', 'compile_seconds'}
    assert {name for name, value in vars(found).items() if value is not None} == known
    assert table.row(found).split() == ['v5e:1x1', '1', 'no', '20.00', 'of', '15.00', *'----', '60']


@needs_jax
def test_sizes_in_messages_and_traffic_in_programs():
    from fenwicks.tpu.compiler import collectives, copied_bytes, scatter_bytes, sizes_in

    message = (
        'RESOURCE_EXHAUSTED: E1000: Ran out of memory on HBM, the total memory required for HLO '
        'temporaries (128.00G) exceeds available HBM (15.75G). HLO module: jit__lambda.'
    )
    assert sizes_in(message) == (128 * 2**30, int(15.75 * 2**30))
    assert sizes_in('no size at all') == (0, 0)
    line = (
        '  %select-and-scatter.29 = bf16[512,32,32,128]{3,0,2,1:T(8,128)(2,1)} '
        'select-and-scatter(%a, %b, %constant.1), window={size=1x2x2x1 stride=1x2x2x1}, '
        'select=%ge, scatter=%add'
    )
    image = 2 * 512 * 32 * 32 * 128
    assert scatter_bytes(f'{line}\n  %c = f32[8] add(%d, %e)\n') == 2 * image + image // 4
    assert scatter_bytes(line.replace('bf16', 'f32') + '\n' + line) == 3 * (2 * image + image // 4)
    text = (
        '  %copy-start.2 = (bf16[7,8]{1,0:T(8,128)(2,1)S(1)}, bf16[7,8]{1,0:T(8,128)(2,1)}, '
        'u32[]{:S(2)}) copy-start(%a), backend_config={"flag_configs":[]}\n'
        '  %copy-done.2 = bf16[7,8]{1,0:T(8,128)(2,1)S(1)} copy-done(%copy-start.2)\n'
        '  %slice-start.1 = ((bf16[7,8]{1,0:T(8,128)(2,1)}), bf16[3,8]{1,0:T(8,128)(2,1)S(1)}, '
        's32[]{:S(2)}) slice-start(%b), slice={[0:3], [0:8]}\n'
        '  %slice-done.1 = bf16[3,8]{1,0:T(8,128)(2,1)S(1)} slice-done(%slice-start.1)\n'
    )
    assert copied_bytes(text) == 4 * 2 * 7 * 8 + 3 * 2 * 3 * 8
    text = (
        '  %all-reduce.2 = (f32[3,3,3,64]{3,2,1,0:T(4,128)S(1)}, /*index=1*/f32[64]{0:T(128)S(1)}) '
        'all-reduce(%a, %b), channel_id=1, to_apply=%add.f32\n'
        '  ROOT %all-reduce.3 = s32[]{:T(128)} all-reduce(%c), channel_id=1\n'
        '  %d = f32[4] add(%all-reduce.2, %e)\n'
    )
    assert collectives(text, devices=8) == [2 * 4 * (27 * 64 + 64), 2 * 4]
    text = (
        '  %a = bf16[8,64,10]{1,2,0:T(8,128)(2,1)} all-gather(%p.1), channel_id=1, '
        'frontend_attributes={chain_id="0"}\n'
        '  %b = bf16[8,64,10]{1,2,0:T(8,128)(2,1)} all-gather(%p.2), channel_id=1, '
        'frontend_attributes={chain_id="0"}\n'
        '  %c = bf16[64,10]{1,0} all-gather(%p.3), channel_id=1, '
        'frontend_attributes={chain_id="1"}\n'
        '  %d = f32[8,10]{1,0} reduce-scatter(%p.4), channel_id=1, dimensions={0}\n'
        '  %e = (f32[1,10]{1,0}, f32[8,10]{1,0}) all-gather-start(%p.5), channel_id=1\n'
    )
    assert collectives(text, devices=8) == [2 * 8 * 64 * 10, 2 * 64 * 10, 8 * 4 * 8 * 10, 4 * 80]


@pytest.mark.thorough
@needs_libtpu
def test_copies_beside_other_operations_are_told_from_the_rest():
    """Eight reductions each read their array once, whatever is copied ahead of them."""
    code = (
        'import jax, jax.numpy as jnp\n'
        'from fenwicks.tpu.compiler import copied_bytes, topology_devices\n'
        "place = jax.sharding.SingleDeviceSharding(topology_devices('v5e:1x1')[0])\n"
        "array = jax.ShapeDtypeStruct((9, 256, 256), 'float32', sharding=place)\n"
        'finite = lambda *arrays: jnp.stack([jnp.isfinite(a).all() for a in arrays]).all()\n'
        'program = jax.jit(finite).lower(*[array] * 8).compile()\n'
        'copied = copied_bytes(program.as_text())\n'
        "counted = program.cost_analysis()['bytes accessed']\n"
        'size = 4 * 9 * 256 * 256\n'
        'print(copied / size, (counted - copied) / size)\n'
    )
    run = run_module(code=code)
    assert run.returncode == 0, run.stderr
    copied, others = map(float, run.stdout.split())
    assert copied in range(4, 32, 4)
    assert others == pytest.approx(8, rel=0.01)


@needs_jax
def test_a_program_that_jaxlib_cannot_read_is_no_accident():
    import jax

    from fenwicks.tpu.compiler import text_of

    class Unreadable:
        def as_text(self):
            raise jax.errors.JaxRuntimeError('INTERNAL: RET_CHECK failure')

    with pytest.raises(OSError, match=r"pip install 'jax\[tpu\]'.* Received: INTERNAL: RET_CHECK"):
        text_of(Unreadable())


@needs_jax
@pytest.mark.parametrize('damage', ['', '{', '{}', '[]', '{"fits": true, "other": 1}', None])
def test_a_damaged_figure_is_compiled_anew(monkeypatch, tmp_path, damage):
    from fenwicks.tpu import compiler

    class Program:
        def lower(self):
            return self

    calls = []
    monkeypatch.setattr(compiler, '_digest', lambda *_: 'digest')
    monkeypatch.setattr(compiler, '_compile', lambda *_: calls.append(1) or compiled())
    entry = tmp_path / 'cache' / 'digest.json'
    for _ in range(2):
        assert compiler.compile_program(Program(), (), [], entry.parent) == compiled()
    assert len(calls) == 1
    if damage is None:
        entry.write_bytes(b'\xff')
    else:
        entry.write_text(damage)
    for _ in range(2):
        assert compiler.compile_program(Program(), (), [], entry.parent) == compiled()
    assert len(calls) == 2
    with pytest.raises(OSError, match='`cache` must be a folder that can be written to'):
        compiler.compile_program(Program(), (), [], entry)
    assert len(calls) == 2


@needs_jax
def test_figures_that_cannot_be_kept_are_told(monkeypatch, tmp_path, caplog):
    """They were lost, and with them minutes of compiling."""
    from fenwicks.tpu import compiler

    class Program:
        def lower(self):
            return self

    monkeypatch.setattr(compiler, '_digest', lambda *_: 'digest')
    monkeypatch.setattr(compiler, '_compile', lambda *_: compiled())
    (tmp_path / 'digest.json').mkdir()
    assert compiler.compile_program(Program(), (), [], tmp_path) == compiled()
    assert "the compiler's figures are not kept: " in caplog.text


@needs_jax
def test_figures_are_kept_in_the_home_folder(monkeypatch, tmp_path):
    from fenwicks.tpu import compiler

    class Program:
        def lower(self):
            return self

    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compiler, '_digest', lambda *_: 'digest')
    monkeypatch.setattr(compiler, '_compile', lambda *_: compiled())
    compiler.compile_program(Program(), (), [], '~/cache')
    assert [str(path) for path in pathlib.Path().rglob('*.json')] == ['home/cache/digest.json']


@needs_libtpu
@pytest.mark.parametrize('name', ['LIBTPU_INIT_ARGS', 'XLA_FLAGS'])
def test_figures_of_other_options_are_others(monkeypatch, name):
    from fenwicks.tpu import compiler

    class Lowered:
        def as_text(self):
            return 'program'

    digests = []
    for flags in ('', '--xla_one', '--xla_two'):
        monkeypatch.setenv(name, flags)
        digests.append(compiler._digest(Lowered(), []))
    assert len(set(digests)) == 3


@needs_libtpu
@pytest.mark.parametrize(
    ('topology', 'devices', 'per_chip'),
    [('v2:2x2', 8, 2), ('v4:2x2x1', 4, 1), ('v5p:2x2x1', 4, 1), ('tpu7x:2x2x1', 8, 2)],
)
def test_the_devices_of_a_chip(topology, devices, per_chip):
    """JAX on a real v4 has one for its two cores, as on v5p."""
    from fenwicks.tpu import compiler

    found = compiler.topology_devices(topology)
    assert (len(found), compiler.devices_per_chip(found)) == (devices, per_chip)


@pytest.mark.backend('jax')
@needs_libtpu
def test_the_dtype_policy_is_what_it_was(monkeypatch):
    from fenwicks import assemble

    def fails(*_, **__):
        assert keras.config.dtype_policy().name == 'mixed_bfloat16'
        raise RuntimeError('broken')

    monkeypatch.setattr(assemble, 'build_trainer', fails)
    before = keras.config.dtype_policy()
    with pytest.raises(RuntimeError, match='broken'):
        tpu.estimate(recipes.get('fenwicks24'), 'v5e:1x1')
    assert keras.config.dtype_policy() == before


@needs_jax
def test_a_table_and_a_log(monkeypatch):
    monkeypatch.setattr(table.importlib.metadata, 'version', lambda package: '1.2.3')
    found = _estimate(compiled(), 'v5e:1x1', chips(1), steps_per_epoch=100, steps=1000)
    row = table.row(found)
    assert row.split() == [
        *('v5e:1x1', '1', 'yes', '1.00', 'of', '16.00'),
        *('1.970', '11.00', '1.10', '11.0', '60'),
    ]
    starts = [table.HEADER.index(title) for title in ('fits', 'ms/step', 'compiled')]
    assert [row[start:].split()[0] for start in starts] == ['yes', '11.00', '60']
    provenance = {**hardware.provenance(), 'commit': 'of the start'}
    entry = table.log_entry(found, {'recipe': 'fenwicks24'}, provenance)
    entry = json.loads(json.dumps(entry))
    assert entry['commit'] == 'of the start'
    assert entry['recipe'] == 'fenwicks24'
    assert entry['hardware'] == 'TPU v5e, 1 chip'
    assert entry['versions']['libtpu'] == '1.2.3'
    assert {'step_seconds', 'run_seconds'} <= set(entry['estimated']) <= set(entry)
    assert {field.name for field in dataclasses.fields(found)} < set(entry)


@pytest.mark.skipif(keras.backend.backend() == 'jax', reason='a matter of the other backends')
@needs_jax
def test_another_backend_is_an_error():
    with pytest.raises(ValueError, match='Received: KERAS_BACKEND=' + keras.backend.backend()):
        tpu.estimate(recipes.get('fenwicks24'), 'v5e:1x1')


@needs_jax
def test_a_missing_libtpu_is_said_in_one_line():
    code = (
        'import importlib.util as u, runpy; find = u.find_spec\n'
        "u.find_spec = lambda name, *rest: None if name == 'libtpu' else find(name, *rest)\n"
        "runpy.run_module('fenwicks.tpu', run_name='__main__')"
    )
    assert 'pip install libtpu' in error_of(run_module(code=code))


@needs_libtpu
def test_the_module_chooses_jax():
    """So nothing of TensorFlow's is imported, nor printed, before an error of one line."""
    assert 'v2:2x2, v3:2x2' in error_of(run_module('--topology=nonsense', KERAS_BACKEND=''))


@needs_libtpu
@pytest.mark.skipif(
    importlib.util.find_spec('tensorflow') is None, reason='TensorFlow is not installed'
)
def test_the_backend_that_one_trains_on_does_not_matter():
    message = error_of(run_module('--topology=nonsense', KERAS_BACKEND='tensorflow'))
    assert 'Received: topology=nonsense' in message


def later(*values):
    """A process each, of some seconds."""
    return pytest.param(*values, marks=pytest.mark.thorough)


@needs_libtpu
@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        ('--topology=v5e:1x1,v9:1x1', 'Received: topology=v9:1x1'),
        later('--topology=', '`topology` must name TPUs'),
        ('--log=/no/folder/log.jsonl', 'the log must be a file that can be written to. '),
        later('--cache=/proc/none', '`cache` must be a folder that can be written to. '),
        later(
            '--precision=float16', '`precision` must be one of auto, float32, bfloat16. Received: '
        ),
        later('--topology=v5e:3x1', 'Received: topology=v5e:3x1'),  # libtpu's own rule
        later('--recipe=page10 --topology=v5e:4x8', 'must divide the 16 images of a batch'),
        later('--tensorflow=false --topology=v5e:2x4', '`topology` must be a single device'),
        ('--tensorflow=/no/python', '`tensorflow` must be the Python of an environment with'),
        later('--tensorflow=false', 'Received: tensorflow=false, exit status 1'),
        later('--tensorflow=true', 'Received: tensorflow=true, which wrote no program'),
    ],
)
def test_bad_flags(flags, message):
    assert message in error_of(run_module(*flags.split()))


@needs_libtpu
def test_the_other_python_finds_no_package_of_this_one(tmp_path):
    """PYTHONPATH was the folder of fenwicks, which may have this Python's packages, too."""
    python = tmp_path / 'python'
    python.write_text(
        '#!/bin/sh\nls $PYTHONPATH >&2\nls $PYTHONPATH/fenwicks/tpu >/dev/null && exit 3'
    )
    python.chmod(0o700)
    error = error_of(run_module('--tensorflow=~/python', HOME=str(tmp_path)))
    assert error.endswith('Received: tensorflow=~/python, fenwicks\n')


@pytest.mark.slow
@needs_libtpu
@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (f'--tensorflow={sys.executable}', 'Received: tensorflow='),
        ('--recipe=resnet', '`recipe` must be one of'),
        ('--topology=v5e:1x1,v5e:2x4 --batch_size=500', '`batch_size` must be a multiple of 8'),
        ('--batch_norm=frozen', '`batch_norm` must be one of per_replica, synchronized'),
        ('--precision=int8', '`precision` must be one of'),
        ('--batch_size=60000', '`batch_size` must be at most'),
        ('fenwicks24', 'no arguments besides flags'),
    ],
)
def test_more_bad_flags(flags, message):
    assert message in error_of(run_module(*flags.split()))


@pytest.mark.thorough
@needs_libtpu
def test_a_narrow_network_compiles_and_is_remembered(tmp_path):
    flags = ('--recipe=fenwicks24', '--width=0.0625', '--dataset=digits', '--json')
    flags = (*flags, f'--cache={tmp_path}/cache', f'--log={tmp_path}/log.jsonl')
    lines = []
    for _ in range(2):
        run = run_module(*flags)
        assert run.returncode == 0, run.stderr
        lines.append(json.loads(run.stdout))
        assert len(list((tmp_path / 'cache').iterdir())) == 1
    assert [json.loads(line) for line in (tmp_path / 'log.jsonl').read_text().splitlines()] == lines
    assert lines[0] == lines[1]  # seconds of compilation included: it was compiled once
    found = lines[0]
    assert found['topology'] == 'v5e:1x1'
    assert found['fits']
    # The images, in bytes as they are, and little else of this network.
    assert 1501 * 3072 < found['memory_bytes'] < 64 * 2**20
    # Three products of 64 images with each layer's 1/256 of 2 GFLOP, and what is pointwise.
    assert 0.5e9 < found['flops_per_step'] < 1e9
    assert found['roofline_seconds'] < found['step_seconds'] < 0.01
    assert found['epoch_seconds'] == pytest.approx(23 * found['step_seconds'])
    assert found['collectives'] == 0


@pytest.mark.backend('jax')
@needs_libtpu
def test_what_does_not_fit_is_found_out():
    import jax

    from fenwicks.tpu import compiler
    from fenwicks.training.replicas.jax import from_devices

    devices = compiler.topology_devices('v5e:1x1')
    argument = jax.ShapeDtypeStruct((2**33,), 'float32', sharding=from_devices(devices).replicated)
    found = compiler.compile_program(jax.jit(lambda x: x + 1), (argument,), devices)
    assert not found.fits
    assert found.memory_bytes >= 32 * 2**30 > found.memory_limit_bytes > 15 * 2**30


@pytest.mark.backend('jax')
@pytest.mark.tpu
@needs_libtpu
@pytest.mark.parametrize(('batch_norm', 'most'), [('per_replica', 20), ('synchronized', 60)])
def test_eight_replicas(batch_norm, most):
    recipe = recipes.get('fenwicks24').with_width(0.0625).for_small_data()
    shape = tpu.DATA_SHAPES['digits']
    found = tpu.estimate(recipe, 'v5e:2x4', shape, batch_norm=batch_norm)
    assert found.devices == 8
    assert 1 <= found.collectives <= most


@pytest.mark.backend('jax')
@pytest.mark.tpu
@needs_libtpu
def test_a_training_with_several_programs():
    """Images of two sizes, and a bias that stops within the first epoch."""
    recipe = dataclasses.replace(
        recipes.get('speed94').with_width(0.0625).for_small_data(),
        epochs=2,
        warmup_epochs=0,
        whitening_bias_epochs=0.5,
        image_sizes=(24, 32),
    )
    shape = tpu.DATA_SHAPES['digits']
    parts = tpu.program_steps(recipe, shape)
    assert parts == [(0, 0, 12), (0, 12, 11), (1, 0, 23)]
    found = tpu.estimate(recipe, 'v5e:1x1', shape)
    whole = tpu.estimate(dataclasses.replace(recipe, image_sizes=()), 'v5e:1x1', shape)
    assert found.fits
    assert found.run_seconds == pytest.approx(46 * found.step_seconds)
    assert 0.5 < found.flops_per_step / whole.flops_per_step < 0.95


def test_eight_chips_in_words():
    found = tpu.Estimate('v5e:2x4', 8, True, 1, 2)
    assert table.hardware_of(found) == 'TPU v5e, 8 chips'


@pytest.mark.slow
@needs_libtpu
@pytest.mark.parametrize('recipe', ['fenwicks24', 'page10', 'speed94'])
def test_the_tensorflow_engine(recipe, tmp_path):
    """Lowered by a Python with tensorflow-tpu, which can't be in one environment with jax's libtpu:

    python -m venv tf && tf/bin/pip install tensorflow-tpu==2.20.0 libtpu==0.0.21.1 .
    TENSORFLOW_TPU_PYTHON=tf/bin/python python -m pytest -m slow tests/test_tpu.py
    """
    python = os.environ.get('TENSORFLOW_TPU_PYTHON')
    if not python:
        pytest.skip('TENSORFLOW_TPU_PYTHON names no Python with tensorflow-tpu')
    flags = (f'--recipe={recipe}', '--width=0.0625', '--dataset=digits', '--json', '--cache=')
    run = run_module(*flags, f'--tensorflow={python}', f'--log={tmp_path}/log.jsonl')
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found['backend'] == 'tensorflow'
    assert found['versions']['tensorflow-tpu'] == '2.20.0'
    assert found['fits']
    assert 1501 * 3072 < found['memory_bytes'] < 64 * 2**20
    assert found['roofline_seconds'] < found['step_seconds'] < 0.01
