"""The script: what it writes, how it goes on after an end, and what it says to bad input."""

import contextlib
import dataclasses
import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from scripts import ROOT, call, free_ports, loaded, refused

from fenwicks import _files, data, devices, recipes
from fenwicks.devices import selection
from fenwicks.training import checkpoint as checkpoints

pytestmark = pytest.mark.backend('tensorflow', 'jax')

SCRIPT = ROOT / 'examples' / 'cifar10.py'
# Pages have tests of their own, in test_report_page_scripts.py.
DIGITS = ('--dataset=digits', '--limit=96', '--batch_size=32', '--device=cpu', '--noreport')
# A network that trains in a second.
SMALL = (*DIGITS, '--precision=float32', '--recipe=fenwicks24_gpu', '--width=0.03')
FIELDS = [
    'recipe',
    'dataset',
    'backend',
    'device',
    'precision',
    'seed',
    'epochs',
    'train_images',
    'test_accuracy',
    'test_accuracy_plain',
    'test_loss',
    'train_seconds',
    'compile_seconds',
    'preprocess_seconds',
    'eval_seconds',
    'images_per_second',
    'peak_memory_mb',
    'versions',
    'history',
]


@pytest.fixture(scope='module')
def script():
    with loaded(SCRIPT) as module:
        yield module


def command(*arguments, code=None, **environment):
    start = [sys.executable, str(SCRIPT)] if code is None else [sys.executable, '-c', code]
    return subprocess.Popen(
        [*start, *map(str, arguments)],
        env={**os.environ, 'PYTHONPATH': str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def read(folder):
    return json.loads((folder / 'result.json').read_text())


def numbers(result):
    """What two runs of the same settings share: everything but the times and the memory."""
    machine = 'seconds', 'images_per_second', 'peak_memory_mb'
    if isinstance(result, list):
        return [numbers(item) for item in result]
    return {
        key: numbers(value) if key == 'history' else value
        for key, value in result.items()
        if not key.endswith(machine)
    }


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.thorough
def test_the_command_writes_a_result_and_a_model_that_plain_keras_evaluates(tmp_path):
    """By the recipe with the most in it."""
    out = tmp_path / 'out'
    flags = ('--dataset=digits', '--limit=128', '--batch_size=64', '--epochs=1', '--seed=3')
    flags += ('--recipe=page10', '--width=0.25', '--noreport')
    process = command(*flags, f'--out={out}')
    stdout, stderr = process.communicate(timeout=600)
    assert process.returncode == 0, stderr
    assert names(out) == ['README.md', 'model.keras', 'report.npz', 'result.json']
    result = read(out)
    assert set(FIELDS) <= set(result)
    assert result['recipe'] == 'page10'
    assert result['dataset'] == 'digits'
    assert result['backend'] == keras.backend.backend()
    assert result['device'] in ('cpu', 'gpu', 'tpu')
    assert result['precision'] in ('float32', 'bfloat16', 'float16')
    assert (result['seed'], result['epochs'], result['train_images']) == (3, 1, 128)
    assert 0 <= result['test_accuracy_plain'] <= 1
    assert 0 <= result['test_accuracy'] <= 1
    assert np.isfinite(result['test_loss'])
    for key in FIELDS:
        if key.endswith('seconds') or key == 'images_per_second':
            assert result[key] > 0
    assert 100 < result['peak_memory_mb'] < 20_000
    assert result['versions']['keras'] == keras.__version__
    assert len(result['history']) == 1
    assert result['history'][0]['images_per_second'] == result['images_per_second']
    # What it says: the sample at the start, the accuracy at the end, the epoch on the other stream.
    assert 'on digits (embedded sample' in stdout.splitlines()[0]
    assert f'test accuracy {100 * result["test_accuracy"]:.2f} %' in stdout.splitlines()[-1]
    # Two steps are too few for an average.
    said = [line.split()[:2] for line in stderr.splitlines()]
    assert said == [['epoch', '1/1'], ['no', 'averages']], stderr

    model = keras.saving.load_model(out / 'model.keras')
    digits = data.load('digits')
    loss, accuracy = model.evaluate(digits.test_images, digits.test_labels, verbose=0)
    # The saved model computes in float32, whatever it was trained in.
    rounding = 1e-6 if result['precision'] == 'float32' else 0.02
    assert accuracy == pytest.approx(result['test_accuracy_plain'], abs=rounding)
    assert model.get_layer('class_names').class_names == tuple(result['class_names'])
    assert result['class_names'] == list(digits.class_names)
    assert loss == pytest.approx(result['test_loss_plain'], rel=0.02)


@pytest.mark.thorough
def test_runs_get_folders_and_seeds_of_their_own(script, tmp_path, capsys):
    out = tmp_path / 'out'
    flags = (*SMALL, '--epochs=1', '--seed=4', f'--out={out}')
    call(script, *flags, '--runs=2')
    assert names(out) == ['0', '1']
    results = [read(out / run) for run in '01']
    assert [result['seed'] for result in results] == [4, 5]
    assert results[0]['test_loss'] != results[1]['test_loss']
    mean = 50 * sum(result['test_accuracy'] for result in results)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f'test accuracy {mean:.2f} % (s.d. ')
    assert 'over 2 runs on digits' in last

    # A folder that holds a run is neither overwritten nor taken for another run's.
    before = (out / '1' / 'result.json').read_bytes()
    assert refused(script, *flags, '--runs=2').startswith('`out` must not hold a run already')
    assert refused(script, *flags).endswith(f'Received: out={out}, which holds {out / "0"}')
    assert refused(script, *flags[:-1], f'--out={out / "1"}').endswith(f'Received: out={out / "1"}')
    other = refused(script, *flags, '--runs=2', '--seed=5', '--resume')
    assert other.startswith(f'`resume` must go on with the settings of the finished run in {out}/0')
    # The recipe is told by more than its name.
    base = dataclasses.replace(recipes.get('fenwicks24_gpu'), peak_learning_rate=0.3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(recipes.PRESETS, 'fenwicks24_gpu', recipes.Preset(base))
        other = refused(script, *flags, '--runs=2', '--resume')
    assert 'settings.recipe.peak_learning_rate=0.3 instead of ' in other
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, 'check_backend', lambda: 'another')
        other = refused(script, *flags, '--runs=2', '--resume')
    assert other.endswith(f"Received: backend='another' instead of '{keras.backend.backend()}'")
    other = refused(script, *flags, '--resume')
    assert other.startswith('`runs` must be 1 to resume a run that lies in `out` itself, ')
    assert other.endswith(f'Received: runs=1, while one lies in {out}/0')
    call(script, *flags, '--runs=2', '--resume')
    assert 'holds a finished run' in capsys.readouterr().out
    assert (out / '1' / 'result.json').read_bytes() == before


@pytest.mark.thorough
@pytest.mark.backend('tensorflow')
def test_two_processes_share_the_batches_and_one_of_them_speaks_and_writes(tmp_path):
    out = tmp_path / 'out'
    flags = (*SMALL, '--epochs=2', '--batch_norm=synchronized', f'--out={out}')
    workers = [f'localhost:{port}' for port in free_ports(2)]
    processes = [
        command(
            *flags,
            TF_CONFIG=json.dumps(
                {'cluster': {'worker': workers}, 'task': {'type': 'worker', 'index': number}}
            ),
        )
        for number in range(2)
    ]
    try:
        said = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], said
    (chief, progress), (other, nothing) = said
    assert 'cpu (2 replicas), float32' in chief.splitlines()[0]
    assert 'epoch   2/2' in progress
    assert other == ''
    assert 'epoch' not in nothing
    assert names(out) == ['README.md', 'model.keras', 'report.npz', 'result.json']
    result = read(out)
    assert (result['replicas'], result['batch_norm']) == (2, 'synchronized')
    assert (result['batch_size'], len(result['history'])) == (32, 2)
    digits = data.load('digits')
    model = keras.saving.load_model(out / 'model.keras')
    _, accuracy = model.evaluate(digits.test_images, digits.test_labels, verbose=0)
    assert accuracy == pytest.approx(result['test_accuracy_plain'], abs=1e-6)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ('flags', 'line'),
    [
        (
            ['--replicas=3'],
            '`batch_size` must be a multiple of 3, the replicas on these devices. '
            'Received: batch_size=32',
        ),
        (
            ['--replicas=2', '--recipe=page10'],
            '`ghost_batch_size` must divide the 16 images of a batch that each of the replicas '
            'on these devices takes. Received: ghost_batch_size=32',
        ),
    ],
)
def test_a_batch_that_the_replicas_cannot_share(tmp_path, flags, line):
    devices = {'XLA_FLAGS': '--xla_force_host_platform_device_count=3'}
    process = command(*SMALL, *flags, f'--out={tmp_path / "out"}', **devices)
    stdout, stderr = process.communicate(timeout=300)
    assert (process.returncode, stdout) == (1, '')
    assert stderr.splitlines()[-1] == f'cifar10.py: {line}'
    assert names(tmp_path) == []


# A pause after the checkpoint of epoch N in which the parent can act.
DRIVER = """
import importlib.util, pathlib, signal, sys, time
from fenwicks import command
from fenwicks.training import checkpoint

script, pause, *flags = sys.argv[1:]
sys.path.insert(0, str(pathlib.Path(script).parent))
# A child of a job in the background would ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
save = checkpoint.save

def save_and_pause(path, variables, state, lists):
    save(path, variables, state, lists)
    if len(state['history']) == int(pause):
        path.with_name('paused').touch()
        time.sleep(600)

checkpoint.save = save_and_pause
spec = importlib.util.spec_from_file_location('cifar10', script)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
sys.argv = [script, *flags]
command.run(module.main, 'cifar10.py')
"""


def ended_in_epoch(number, sign, out, *flags):
    """Starts the script, sends it a signal once `number` - 1 epochs are saved; what it printed."""
    process = command(SCRIPT, number - 1, *flags, f'--out={out}', code=DRIVER)
    paused = out / 'paused'
    deadline = time.monotonic() + 300
    while not paused.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(sign)
    _, stderr = process.communicate(timeout=300)
    assert paused.exists(), stderr
    paused.unlink()
    return process.returncode, stderr


@pytest.mark.thorough
def test_interrupted_and_killed_it_goes_on_and_ends_with_the_same_numbers(script, tmp_path):
    flags = (*SMALL, '--epochs=3')
    whole, out = tmp_path / 'whole', tmp_path / 'cut'
    call(script, *flags, f'--out={whole}')

    status, stderr = ended_in_epoch(2, signal.SIGINT, out, *flags)
    assert status == 128 + signal.SIGINT
    assert 'Traceback' not in stderr
    last = stderr.splitlines()[-1]
    assert last == f'cifar10.py: interrupted: the same flags with --resume --out={out} go on'
    assert names(out) == ['checkpoint.npz']
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, 'save', None)  # nothing may be trained
        assert refused(script, *flags, f'--out={out}').startswith('`out` must not hold a run')
        line = refused(script, *flags, f'--out={out}', '--resume', '--seed=1')
        assert line.startswith('`resume` must go on with the settings')
        line = refused(script, *SMALL, '--epochs=4', f'--out={out}', '--resume')
        assert line.startswith('`resume` must go on with the settings')
        line = refused(script, *flags, f'--out={out}', '--resume', '--runs=2')
        assert line.endswith(f'Received: runs=2, while one lies in {out}')

    status, stderr = ended_in_epoch(3, signal.SIGKILL, out, *flags, '--resume')
    assert status == -signal.SIGKILL
    assert names(out) == ['.checkpoint.npz.lock', 'checkpoint.npz']  # the next one removes the lock
    assert len(checkpoints.load_state(out / 'checkpoint.npz')['history']) == 2

    call(script, *flags, f'--out={out}', '--resume')
    assert names(out) == names(whole) == ['README.md', 'model.keras', 'report.npz', 'result.json']
    assert numbers(read(out)) == numbers(read(whole))
    assert len(read(out)['history']) == 3
    weights = [keras.saving.load_model(f / 'model.keras').get_weights() for f in (out, whole)]
    for mine, theirs in zip(*weights, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def catches_sigterm(process):
    """Whether a process has a handler of its own for SIGTERM, which Python by itself has not."""
    status = pathlib.Path(f'/proc/{process.pid}/status').read_text()
    caught = next(line for line in status.splitlines() if line.startswith('SigCgt'))
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.skipif(not pathlib.Path('/proc/self/status').exists(), reason='asks Linux')
@pytest.mark.parametrize('sign', [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize('delay', [0.0, 0.7])
def test_an_interrupt_during_the_imports_is_one_line(tmp_path, sign, delay):
    process = command(*SMALL, f'--out={tmp_path / "out"}')
    while not catches_sigterm(process):
        time.sleep(0.01)
    time.sleep(delay)
    process.send_signal(sign)
    stdout, stderr = process.communicate(timeout=300)
    assert (process.returncode, stdout) == (128 + sign, '')
    assert stderr == 'cifar10.py: interrupted before it began: start it again\n'
    assert names(tmp_path) == []


LOST = """
import ctypes, sys, time
from fenwicks import command

command.SECONDS_TO_END = 1

def main():
    command.say_how_to_go_on('the same command goes on')
    print('ready', flush=True)
    if mode == 'lost':
        while True:
            try:
                time.sleep(600)
            except KeyboardInterrupt:  # as in a callback of C++
                pass
    mutex = ctypes.create_string_buffer(64)  # C code, for which Python waits
    for _ in range(2):
        ctypes.CDLL(None).pthread_mutex_lock(mutex)

mode = sys.argv.pop()
command.run(main, 'lost.py')
"""


@pytest.mark.thorough
@pytest.mark.parametrize('mode', ['lost', 'in C'])
def test_an_interrupt_that_python_does_not_get_ends_the_command_all_the_same(mode):
    process = command(mode, code=LOST)
    assert process.stdout.readline() == 'ready\n'
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 128 + signal.SIGTERM
    assert stderr.splitlines()[-1] == 'lost.py: interrupted: the same command goes on'


@pytest.mark.thorough
def test_of_two_processes_in_one_folder_the_second_is_refused(script, tmp_path):
    out = tmp_path / 'out'
    flags = (*SMALL, '--epochs=2', f'--out={out}')
    first = command(SCRIPT, 1, *flags, code=DRIVER)
    while not (out / 'paused').exists() and first.poll() is None:
        time.sleep(0.05)
    try:
        for others in ((), ('--resume',)):
            line = refused(script, *flags, *others)
            if others:
                assert line == f'`out` must not be in use by another process. Received: out={out}'
            else:
                assert line.startswith('`out` must not hold a run already')
        (out / 'checkpoint.npz').rename(tmp_path / 'away')  # as before the first epoch ends
        line = refused(script, *flags)
        assert line == f'`out` must not be in use by another process. Received: out={out}'
        (tmp_path / 'away').rename(out / 'checkpoint.npz')
    finally:
        first.kill()
        first.communicate()
    (out / 'paused').unlink()
    call(script, *flags, '--resume')  # the lock ended with its process
    assert names(out) == ['README.md', 'model.keras', 'report.npz', 'result.json']


@pytest.mark.thorough
def test_default_folders_never_meet(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('run_folders.default_out', lambda name: pathlib.Path('out') / 'now')
    for _ in range(3):
        call(script, *SMALL, '--epochs=1')
    assert names(tmp_path / 'out') == ['now', 'now-2', 'now-3']
    for folder in (tmp_path / 'out').iterdir():
        assert {'model.keras', 'result.json'} <= set(names(folder)), names(folder)


@pytest.mark.thorough
def test_a_tilde_is_the_home_folder(script, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.chdir(tmp_path)
    call(script, *SMALL, '--epochs=1', '--out=~/x')
    assert names(tmp_path) == ['x']


@pytest.mark.parametrize('content', ['', '{"recipe": "fen', '[]', '{}', '{"test_accuracy": "x"}'])
def test_a_damaged_result_is_one_line_that_names_it(script, tmp_path, content):
    path = tmp_path / 'result.json'
    path.write_text(content)
    line = refused(script, *SMALL, f'--out={tmp_path}', '--resume')
    assert str(path) in line or 'the finished run in' in line
    assert names(tmp_path) == ['result.json']


@pytest.mark.thorough
def test_settings_from_outside(script, tmp_path):
    first, second = tmp_path / 'first', tmp_path / 'second'
    small = tuple(flag for flag in SMALL if 'recipe' not in flag and 'width' not in flag)
    sets = (
        '--set=widths=2,4,4,8',
        '--set=momentum=0.8',
        '--set=flip=none',
        '--set=logit_scale=none',
    )
    call(script, *small, '--recipe=page24', *sets, '--epochs=1', f'--out={first}')
    result = read(first)
    recipe = result['settings']['recipe']
    name = 'page24+widths=2,4,4,8+momentum=0.8+flip=none+logit_scale=None'
    assert result['recipe'] == recipe['name'] == name
    assert (recipe['momentum'], recipe['flip'], recipe['widths']) == (0.8, 'none', [2, 4, 4, 8])
    assert {'commit', 'clean', 'versions', 'date'} <= set(result)
    # What that run wrote is a recipe.
    call(script, *small, f'--recipe_file={first / "result.json"}', f'--out={second}')
    again = {**read(second), 'command': result['command']}
    assert numbers(again) == numbers(result)
    mine = tmp_path / 'mine.py'
    mine.write_text('import fenwicks\nrecipe = fenwicks.recipes.get("page10").with_width(1 / 32)\n')
    call(script, *small, f'--recipe_file={mine}', '--epochs=1', f'--out={tmp_path / "third"}')
    assert read(tmp_path / 'third')['widths'] == [2, 4, 8, 16]


@pytest.mark.parametrize(
    ('flags', 'line'),
    [
        (['--recipe=fast'], '`recipe` must be one of fenwicks24, fenwicks24_gpu, '),
        (['--with=magic'], 'a trick must be one of group_augmentation, pool_first, '),
        (['--recipe=page24', '--with=celu', '--with=ema'], 'flag --with=ema: already defined as '),
        (['--recipe=page10', '--with=celu'], '`with` must name tricks that page10 lacks.'),
        (['--recipe=page24', '--without=celu'], '`without` must name tricks of page24 (none).'),
        (['--recipe=page10', '--with=six_view_tta'], 'tricks must set different fields.'),
        (['--width=0'], '`width` must be a number in (0, 2**20). Received: width=0.0'),
        (['--recipe=page10', '--batch_size=48'], '`ghost_batch_size` must divide the batch of 48'),
        (['--dataset=mnist'], '`dataset` must be one of auto, '),
        (['--device=cuda'], '`device` must be one of auto, cpu, gpu, tpu. Received: device=cuda'),
        (['--precision=half'], '`precision` must be one of auto, float32, '),
        (['--epochs=0'], '`epochs` must be a number in (0, 2**20). Received: epochs=0.0'),
        (['--epochs=1e308'], '`epochs` must be a number in (0, 2**20). Received: epochs=1e+308'),
        (['--width=1e308'], '`width` must be a number in (0, 2**20). Received: width=1e+308'),
        (['--epochs=-2'], '`epochs` must be a number in (0, 2**20). Received: epochs=-2.0'),
        (['--epochs='], 'flag --epochs=: '),
        (['--batch_size=0'], '`batch_size` must be a positive integer. Received: batch_size=0'),
        (['--limit=10', '--batch_size=11'], '`batch_size` must be at most the 10 training images'),
        (['--limit=20'], '`batch_size` must be at most the 20 training images'),
        (['--limit=0'], '`limit` must be in [1, 1501]'),
        (['--limit=2000'], '`limit` must be in [1, 1501]'),
        (['--replicas=0'], '`replicas` must be a positive integer. Received: replicas=0'),
        (['--batch_norm=frozen'], '`batch_norm` must be one of per_replica, synchronized.'),
        (['--runs=0'], 'flag --runs=0: 0 is not a positive integer'),
        (['--seed=-1'], '`seed` must be in [0, 2**31). Received: seed=-1'),
        (['--seed=2147483647', '--runs=2'], '`seed` must be in [0, 2**31)'),
        (['--device=cpu', '--tpu'], '`tpu` must not contradict `device`. Received: device=cpu'),
        (['--dataset=cifar10', '--data_dir=nowhere'], '`data_dir` must be an existing'),
        (['--epoch=3'], "Unknown command line flag 'epoch'"),
        (['--set', 'speed=3'], '`set` must be field=value, with a field of a recipe (name, '),
        (
            ['--set', 'epochs'],
            '`set` must give `epochs` a number, as in epochs=... Received: set=epochs',
        ),
        (['--set', 'momentum=1'], '`momentum` must be a number in [0, 1). Received: momentum=1'),
        (
            ['--set', 'nesterov=2'],
            '`set` must give `nesterov` true or false, as in nesterov=... Received: set=nesterov=2',
        ),
        (
            ['--set=cutout=1', '--set=cutout=2'],
            '`set` must set a field once. Received: set=cutout=2',
        ),
        (
            ['--set=epochs=5', '--epochs=10'],
            '`epochs` must be given once, by `epochs` or by `set`. '
            'Received: epochs=10.0, set=epochs=5',
        ),
        (['--set=batch_size=64', '--batch_size=32'], '`batch_size` must be given once, by '),
        (['--set', 'augmentations=magic()'], '`augmentations` must be random transforms of '),
        (['--set', 'augmentations=random_crop(size=3)'], '`augmentations` must have settings that'),
        (['--set', 'augmentations=pad()', '--set=flip=none'], '`augmentations` must be random '),
        (
            ['--recipe_file=mine.toml'],
            '`recipe_file` must end in .py or .json. Received: recipe_file=',
        ),
        (
            ['--recipe_file=no.py'],
            '`recipe_file` must be a file that exists. Received: recipe_file=no.py',
        ),
        (
            ['--recipe_file=no.py', '--recipe=page10'],
            '`recipe` must not be given with `recipe_file`',
        ),
        (['3'], 'there are no arguments besides flags. Received: 3'),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_file(script, tmp_path, monkeypatch, flags, line):
    monkeypatch.chdir(tmp_path)
    for out in ([], ['--out=results']):
        assert refused(script, '--dataset=digits', *flags, *out).startswith(line)
        assert names(tmp_path) == []


@pytest.mark.parametrize('flags', [['--tpu'], ['--device=tpu'], ['--device=gpu']])
def test_a_device_that_is_not_there(script, tmp_path, monkeypatch, flags):
    monkeypatch.setattr(selection, '_find_devices', lambda: {'cpu'})
    monkeypatch.setattr(selection, '_is_installed', lambda distribution: False)
    monkeypatch.chdir(tmp_path)
    kind = 'gpu' if flags == ['--device=gpu'] else 'tpu'
    line = refused(script, '--dataset=digits', *flags)
    assert line.startswith('`device` must be one that the ')
    on_jax = keras.backend.backend() == 'jax'
    package = {'gpu': 'jax[cuda12]' if on_jax else 'tensorflow[and-cuda]', 'tpu': 'jax[tpu]'}[kind]
    assert f"pip install '{package}'" in line
    assert line.endswith(f'Received: device={kind}')
    assert names(tmp_path) == []


def test_resume_needs_a_folder(script):
    assert refused(script, '--resume').startswith('`resume` needs the folder')
    missing = refused(script, '--resume', '--out=/nowhere/at/all')
    assert missing.startswith(
        '`resume` needs the folder of the interrupted training. Received: out='
    )


def test_what_a_run_lacks_is_said_whatever_its_result_holds(script, tmp_path):
    with flagsaver.flagsaver():
        flags.FLAGS(['cifar10.py', '--validate'])
        said = script.training_runs.pages.not_written({'history': 5}, tmp_path)
    assert said.startswith('the test accuracy after each epoch')


def test_a_run_beside_folder_0_can_be_resumed(script, tmp_path):
    (tmp_path / '0').mkdir()
    folders = script.training_runs.RunFolders('page24', tmp_path, 1, resume=True)
    with pytest.raises(ValueError, match='`runs` must be 1 to resume a run that lies in `out`'):
        folders.check()
    (tmp_path / 'checkpoint.npz').touch()
    folders.check()


def test_a_long_name_of_a_recipe_is_cut_in_a_folders(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = script.training_runs.default_out('page24' + 200 * '+é')
    folder.mkdir(parents=True)
    assert folder.name.endswith('page24' + 48 * '+é')


def test_more_runs_than_can_be_locked_are_refused(script, tmp_path):
    line = refused(script, *SMALL, '--runs=1000000000', f'--out={tmp_path / "x"}')
    assert line.startswith('`runs` must be at most ')
    assert names(tmp_path) == []


def test_a_file_in_the_way_of_out(script, tmp_path):
    (tmp_path / 'file').write_text('kept')
    out = tmp_path / 'file'
    line = refused(script, *SMALL, f'--out={out}')
    assert line == f'`out` must be a folder. Received: out={out}, a file'
    line = refused(script, *SMALL, f'--out={out}/below')
    assert line.startswith(f'`out` must be a folder that can be written to. Received: {out}/below')
    assert (tmp_path / 'file').read_text() == 'kept'


@contextlib.contextmanager
def largest_file(size):
    """Writing past `size` bytes fails as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.thorough
def test_a_disk_that_fills_up_while_training(script, tmp_path, capfd):
    out = tmp_path / 'out'
    with largest_file(4000):
        line = refused(script, *SMALL, '--epochs=2', f'--out={out}')
    whole = out / 'checkpoint.npz'
    assert line == f'the disk must take the whole of {whole}. Received: File too large'
    assert names(out) == []


def test_a_disk_without_room_for_the_model(tmp_path):
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1000)])
    path = tmp_path / 'model.keras'

    def save():
        with _files.written_whole(path) as part:
            model.save(part)

    with largest_file(4000), pytest.raises(OSError, match='the disk must take the whole') as raised:
        save()
    assert '\n' not in str(raised.value)
    assert names(tmp_path) == []


@pytest.mark.thorough
def test_a_training_that_diverges(script, tmp_path, monkeypatch):
    constant = {'start_share': 1.0, 'plateau_share': 1.0, 'peak_learning_rate': 1e30}
    base = dataclasses.replace(recipes.get('fenwicks24_gpu'), **constant)
    monkeypatch.setitem(recipes.PRESETS, 'fenwicks24_gpu', recipes.Preset(base))
    line = refused(script, *SMALL, '--epochs=2', f'--out={tmp_path / "out"}')
    assert line.startswith('the training loss must stay finite: lower the learning rate. Received:')
    assert 'epoch 1, step 2, learning rate 1e+30' in line
    assert names(tmp_path / 'out') == []


def test_the_list_of_recipes(script, capsys):
    call(script, '--list_recipes')
    out = capsys.readouterr().out
    assert out == recipes.listing(script.REACHED) + '\n'
    assert 'speed94 94.06 ± 0.05 % (n = 20) in 8.875 epochs on ' in ' '.join(out.split())


@pytest.mark.thorough
@pytest.mark.parametrize(
    ('flag', 'line'),
    [
        ('--nonsense', "cifar10.py: Unknown command line flag 'nonsense'"),
        (
            '--dataset=mnist',
            'cifar10.py: `dataset` must be one of auto, cifar10, cifar100, digits, or tfds:NAME. ',
        ),
    ],
)
def test_the_command_prints_an_error_of_one_line(flag, line):
    process = command(flag)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 1
    assert stdout == ''
    assert len(stderr.splitlines()) == 1, stderr
    assert stderr.startswith(line)


@pytest.mark.thorough
def test_a_backend_that_does_not_train_is_an_error_of_one_line():
    process = command(KERAS_BACKEND='numpy')
    stdout, stderr = process.communicate(timeout=300)
    assert (process.returncode, stdout) == (1, '')
    assert len(stderr.splitlines()) == 1, stderr
    assert stderr.startswith('cifar10.py: the Trainer must run on the tensorflow or the jax backen')


@pytest.mark.thorough
def test_help_ends_well():
    process = command('--help')
    stdout, stderr = process.communicate(timeout=300)
    assert (process.returncode, stderr) == (0, '')
    assert '--list_recipes' in stdout
    assert '--set' in stdout
    assert 'speed94 94.06 ± 0.05 % (n = 20) in 8.875' in ' '.join(stdout.split())
