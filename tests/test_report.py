"""Reports: JSON that is whole, versions, hardware and memory."""

import json
import pathlib
import platform

import keras
import numpy as np
import pytest

from fenwicks import hardware, runlog


def test_json_comes_back_and_has_a_line_a_key(tmp_path):
    path = tmp_path / 'result.json'
    value = {'recipe': 'fenwicks24', 'test_accuracy': 0.1 + 0.2, 'history': [{'epoch': 1}]}
    runlog.write_json(path, value)
    assert runlog.read_json(path) == value
    assert path.read_text().startswith('{\n "recipe": "fenwicks24",\n "test_accuracy": 0.3')
    assert path.read_text().endswith('}\n')


def test_what_is_no_json_leaves_the_former_file(tmp_path):
    path = tmp_path / 'result.json'
    runlog.write_json(path, {'a': 1})
    with pytest.raises(TypeError):
        runlog.write_json(path, {'a': 1, 'b': np.float32(1)})
    assert runlog.read_json(path) == {'a': 1}
    assert [file.name for file in tmp_path.iterdir()] == ['result.json']


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
