"""The log of runs: JSON that is whole, and errors that name the file."""

import errno
import io
import math
import os

import numpy as np
import pytest

from fenwicks import runlog


def test_json_comes_back_and_has_a_line_a_key(tmp_path):
    path = tmp_path / 'result.json'
    value = {'recipe': 'fenwicks24', 'test_accuracy': 0.1 + 0.2, 'history': [{'epoch': 1}]}
    runlog.write_json(path, value)
    assert runlog.read_json(path) == value
    assert path.read_text().startswith('{\n "recipe": "fenwicks24",\n "test_accuracy": 0.3')
    assert path.read_text().endswith('}\n')


def test_numbers_that_json_has_no_word_for_are_null(tmp_path):
    runlog.write_json(tmp_path / 'a.json', {'loss': np.nan, 'history': [{'loss': -np.inf}, 1.5]})
    assert runlog.read_json(tmp_path / 'a.json') == {'loss': None, 'history': [{'loss': None}, 1.5]}
    runlog.append_line(tmp_path / 'a.jsonl', {'loss': np.nan})
    assert (tmp_path / 'a.jsonl').read_text() == '{"loss": null}\n'


def test_what_is_no_json_leaves_the_former_file(tmp_path):
    path = tmp_path / 'result.json'
    runlog.write_json(path, {'a': 1})
    with pytest.raises(TypeError):
        runlog.write_json(path, {'a': 1, 'b': np.float32(1)})
    assert runlog.read_json(path) == {'a': 1}
    assert [file.name for file in tmp_path.iterdir()] == ['result.json']


def test_lines_come_back_and_a_broken_one_is_named(tmp_path):
    log = tmp_path / 'log.jsonl'
    for value in ({'a': 1}, {'b': 2.5}):
        runlog.append_line(log, value)
    assert runlog.read_lines(log) == [{'a': 1}, {'b': 2.5}]
    with log.open('a') as file:
        file.write('{"c": ')
    with pytest.raises(ValueError, match=r'log\.jsonl must be a JSON object\. .*line 3'):
        runlog.read_lines(log)


@pytest.mark.parametrize(
    'content', [b'', b'{"a": 1', b'[1]', b'\xff\xfe', b'[' * 100_000, b'nonsense', b'\x00' * 64]
)
def test_what_is_no_json_object_is_one_line_that_names_the_file(tmp_path, content):
    for name, read in (('result.json', runlog.read_json), ('log.jsonl', runlog.read_lines)):
        path = tmp_path / name
        path.write_bytes(content)
        if name == 'log.jsonl' and not content:
            assert read(path) == []
            continue
        with pytest.raises(ValueError, match=str(path)) as raised:
            read(path)
        assert '\n' not in str(raised.value)


def test_a_full_disk_leaves_the_log_as_it_was(tmp_path):
    resource = pytest.importorskip('resource')
    log = tmp_path / 'log.jsonl'
    runlog.append_line(log, {'a': 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))  # half of the line fits
    try:
        with pytest.raises(OSError, match=f'^the disk must take the whole of a line of {log}') as e:
            runlog.append_line(log, {'b': 'x' * 200})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert '\n' not in str(e.value)
    runlog.append_line(log, {'c': 3})
    assert runlog.read_lines(log) == [{'a': 1}, {'c': 3}]
    with pytest.raises(OSError, match=r'of /dev/full\. Received: No space left on device$'):
        runlog.append_line('/dev/full', {'b': 2})


def test_a_full_disk_takes_no_line_of_another_process(tmp_path):
    """Which appended one after the half of a line that the disk took."""
    log = tmp_path / 'log.jsonl'
    log.write_text('{"a": 1}\n')

    class Half(io.FileIO):
        def write(self, content):
            if len(content) < 20:
                raise OSError(errno.ENOSPC, 'No space left on device')
            count = super().write(content[:10])
            with log.open('a') as other:
                other.write('\n{"b": 2}\n')
            return count

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('builtins.open', lambda path, mode, **_: Half(path, 'a+'))
        with pytest.raises(OSError, match='the disk must take'):
            runlog.append_line(log, {'c': 'x' * 10})
    assert '\n{"b": 2}\n' in log.read_text()


def test_a_line_is_appended_after_one_that_was_cut(tmp_path):
    log = tmp_path / 'log.jsonl'
    runlog.append_line(log, {'a': 1})
    log.write_text(log.read_text() + '{"b": 2}')  # without the end of the line
    runlog.append_line(log, {'c': 3})
    assert runlog.read_lines(log) == [{'a': 1}, {'b': 2}, {'c': 3}]


def test_a_log_without_permission_is_no_full_disk(tmp_path, monkeypatch):
    def denied(*_):
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr(runlog, '_append_whole', denied)
    with pytest.raises(OSError, match=r'log.jsonl must be a file that can be written to\. Rec'):
        runlog.append_line(tmp_path / 'log.jsonl', {})


def test_an_empty_text(tmp_path):
    runlog.write_text(tmp_path / 'a.txt', '')
    assert (tmp_path / 'a.txt').read_text() == ''


def test_a_log_that_cannot_be_sought_is_refused_before_the_work(tmp_path):
    """As /dev/stdout in a pipe: `append_line` raised after it."""
    os.mkfifo(tmp_path / 'log')
    with pytest.raises(OSError, match=r'^the log must be a file .*log \(a pipe or a terminal\)$'):
        runlog.start_log(tmp_path / 'log')


def test_lines_end_at_line_feeds_alone(tmp_path):
    log = tmp_path / 'log.jsonl'
    log.write_text('{"a": "one\u2028two\x85three"}\n{"b": 1}', encoding='utf-8')
    assert runlog.read_lines(log) == [{'a': 'one\u2028two\x85three'}, {'b': 1}]
    log.write_bytes(b'{"a": 1}\r\n{"b": 2}\r\n')
    assert runlog.read_lines(log) == [{'a': 1}, {'b': 2}]


def test_a_table_keeps_its_columns():
    table = runlog.markdown(['a|b', 'c'], [[1, 'two\nlines']])
    assert table == '| a\\|b | c |\n| --- | --- |\n| 1 | two lines |'


def test_a_mean_of_numpys_integers():
    assert runlog.mean_and_error(np.array([94, 96])) == '95.00 ± 2.00'
    assert runlog.mean_and_error([np.int64(94)]) == '94.00'


@pytest.mark.parametrize(
    ('line', 'said'),
    [
        ({'rate': 1, 'sizes': [8]}, "a run of precision=nothing instead of 'float32'"),
        ({'precision': 'float32', 'rate': 2}, 'a run of rate=2 instead of 1'),
        (
            {'precision': 'float32', 'net': {'width': 8, 'bias': 1}},
            'a run of net.width=8 instead of 4, net.bias=1 instead of nothing',
        ),
        (
            {'precision': 'float32', 'net': dict.fromkeys('abcdef', 1)},
            'net.b=1 instead of nothing, net.c=1 instead of nothing, net.d=1 instead of nothing '
            'and 2 more',
        ),
    ],
)
def test_a_line_of_other_settings_is_refused(line, said):
    about = {'precision': 'float32', 'rate': 1, 'sizes': (8,), 'net': {'width': 4}}
    runlog.check_same('x.jsonl', {'rate': 1.0, 'seed': 3}, about, about.keys())
    with pytest.raises(
        ValueError, match=r'^`log` must hold runs of the same .*log=x.jsonl'
    ) as error:
        runlog.check_same('x.jsonl', line, about, ('rate', 'sizes', 'net'))
    assert str(error.value).endswith(said)


def test_two_standard_errors():
    assert runlog.two_errors([94.0, 94.2]) == pytest.approx(0.2)
    assert runlog.two_errors(np.array([3])) == math.inf
    assert math.isnan(runlog.two_errors([1.0, math.nan]))
