"""What a run ran on: hardware, memory, versions, the commit."""

import json
import pathlib
import platform
import subprocess
import types

import keras
import numpy as np
import pytest

from fenwicks import hardware

ROOT = pathlib.Path(__file__).resolve().parent.parent


def test_versions_name_what_figures_depend_on():
    versions = hardware.versions()
    assert versions['python'] == platform.python_version()
    assert versions['keras'] == keras.__version__
    assert versions['numpy'] == np.__version__
    assert keras.backend.backend() in ''.join(versions)
    assert json.loads(json.dumps(versions)) == versions


@pytest.mark.skipif(not pathlib.Path('/proc/self/status').exists(), reason='asks Linux itself')
def test_peak_memory_is_the_kernels_high_water_mark():
    status = pathlib.Path('/proc/self/status').read_text()
    fields = dict(line.split(':', 1) for line in status.splitlines())
    kilobytes = int(fields['VmHWM'].split()[0])
    assert hardware.peak_memory_mb() == pytest.approx(kilobytes / 2**10, abs=20)


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('model name\t: AMD EPYC 9R14\nflags\t: avx2 avx512f avx512_bf16\n', '(avx512_bf16)'),
        ('model name\t: AMD EPYC 9R14\nflags\t: avx2\nmodel name\t: AMD EPYC 9R14\n', '(avx2)'),
        ('model name\t: AMD EPYC 9R14\nflags\t: sse2\n', '(no AVX2)'),
        ('model name\t: AMD EPYC 9R14\nFeatures\t: asimd\n', ''),
    ],
)
def test_the_processor_in_words(monkeypatch, text, expected):
    monkeypatch.setattr(pathlib.Path, 'exists', lambda path: True)
    monkeypatch.setattr(pathlib.Path, 'read_text', lambda path: text)
    name, cores = hardware.describe('cpu').rsplit(', ', 1)
    assert name == f'AMD EPYC 9R14 {expected}'.strip()
    assert int(cores.removesuffix('s').removesuffix(' core')) >= 1


@pytest.mark.parametrize(('places', 'words'), [({0}, '1 core'), ({0, 3}, '2 cores')])
def test_cores_that_the_process_may_use(monkeypatch, places, words):
    monkeypatch.setattr('os.sched_getaffinity', lambda process: places)
    assert hardware.describe('cpu').endswith(f', {words}')


def test_a_processor_without_cpuinfo(monkeypatch):
    monkeypatch.setattr(pathlib.Path, 'exists', lambda path: False)
    assert ' core' in hardware.describe('cpu')
    assert not hardware.describe('cpu').startswith(',')


def git(folder, *arguments):
    identity = ('-c', 'user.name=t', '-c', 'user.email=t@t')
    command = ['git', '-C', str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def clone(tmp_path, monkeypatch):
    monkeypatch.setattr(hardware, '_ROOT', tmp_path)
    hardware._commit.cache_clear()
    yield tmp_path
    hardware._commit.cache_clear()


def test_the_commit_and_whether_its_files_are_unchanged(clone):
    git(clone, 'init', '-q')
    (clone / 'code.py').write_text('1')
    git(clone, 'add', '.')
    git(clone, 'commit', '-qm', 'one')
    (clone / 'out').write_text('not of the code')
    found = hardware.provenance()
    assert (found['commit'], found['clean']) == (git(clone, 'rev-parse', 'HEAD'), True)
    assert found['versions'] == hardware.versions()
    assert json.loads(json.dumps(found)) == found
    (clone / 'code.py').write_text('2')
    assert hardware.provenance() == found  # as the process began
    hardware._commit.cache_clear()
    assert hardware.provenance()['clean'] is False


def test_the_commit_is_of_the_clone_whatever_git_is_told(clone, monkeypatch):
    """In a hook GIT_DIR names the repository that the hook is of."""
    git(clone, 'init', '-q')
    git(clone, 'commit', '-qm', 'one', '--allow-empty')
    commit = git(clone, 'rev-parse', 'HEAD')
    monkeypatch.setenv('GIT_DIR', str(clone / 'other'))
    assert hardware.provenance()['commit'] == commit


def test_outside_a_clone_there_is_no_commit(clone):
    found = hardware.provenance()
    assert (found['commit'], found['clean']) == (None, None)


def test_without_git_there_is_no_commit(clone, monkeypatch):
    (clone / '.git').mkdir()
    monkeypatch.setenv('PATH', str(clone))
    assert hardware.provenance()['commit'] is None


@pytest.mark.parametrize('device', ['auto', 'cuda', '', None])
def test_hardware_that_is_no_kind_of_device(device):
    with pytest.raises(ValueError, match=f'`device` must be one of cpu, gpu, tpu. .*={device}$'):
        hardware.describe(device)


@pytest.mark.backend('tensorflow', 'jax')
@pytest.mark.parametrize(('count', 'words'), [(None, '2 x H200'), (1, '1 x H200')])
def test_accelerators_that_are_used(monkeypatch, count, words):
    found = [types.SimpleNamespace(device_kind='H200')] * 2
    if keras.backend.backend() == 'jax':
        monkeypatch.setattr('jax.devices', lambda kind: found)
    else:
        config = 'tensorflow.config.'
        monkeypatch.setattr(f'{config}list_physical_devices', lambda kind: found)
        monkeypatch.setattr(
            f'{config}experimental.get_device_details', lambda one: {'device_name': 'H200'}
        )
    assert hardware.describe('gpu', count) == words


@pytest.mark.backend('tensorflow', 'jax')
def test_hardware_that_is_not_there():
    with pytest.raises(ValueError, match=r'that this process sees\. Received: device=tpu, and'):
        hardware.describe('tpu')
