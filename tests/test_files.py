"""Files: whole or not at all, whatever happens while they are written."""

import contextlib
import errno
import os
import pathlib
import re
import resource

import pytest
from scripts import holder

from fenwicks import _files


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_file_appears_when_the_block_ends(tmp_path):
    path = tmp_path / 'model.tar.gz'
    with _files.written_whole(path) as part:
        assert part.parent == tmp_path
        assert part.suffix == '.gz'
        part.write_text('new')
        assert not path.exists()
    assert path.read_text() == 'new'
    assert names(tmp_path) == ['model.tar.gz']


def test_a_former_file_is_replaced(tmp_path):
    path = tmp_path / 'a.json'
    path.write_text('old')
    with _files.written_whole(str(path)) as part:
        part.write_text('new')
        assert path.read_text() == 'old'
    assert path.read_text() == 'new'


@pytest.mark.parametrize('error', [RuntimeError('broken'), KeyboardInterrupt()])
def test_an_error_leaves_the_former_file(tmp_path, error):
    path = tmp_path / 'a.json'
    path.write_text('old')

    def write():
        with _files.written_whole(path) as part:
            part.write_text('half of the n')
            raise error

    with pytest.raises(type(error)):
        write()
    assert path.read_text() == 'old'
    assert names(tmp_path) == ['a.json']


def test_what_a_kill_left_behind_does_not_disturb(tmp_path):
    path = tmp_path / 'a.json'
    with _files.written_whole(path) as part:
        part.write_text('first')
    part.write_text('half of a file that a kill cut o')
    with _files.written_whole(path) as part:
        part.write_text('second')
    assert path.read_text() == 'second'
    assert names(tmp_path) == ['a.json']


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with (
        pytest.raises(OSError, match=r'the whole of .*a.json'),
        _files.written_whole(tmp_path / 'a.json'),
    ):
        pass
    assert names(tmp_path) == []


def test_an_empty_file_where_that_is_no_error(tmp_path):
    with _files.written_whole(tmp_path / 'a.txt', may_be_empty=True):
        pass
    assert (tmp_path / 'a.txt').read_text() == ''


@pytest.mark.parametrize(
    'error',
    [
        ConnectionResetError(errno.ECONNRESET, 'Connection reset by peer'),
        OSError('image file is truncated'),
        PermissionError(errno.EACCES, 'Permission denied', 'cat.png'),
    ],
)
def test_an_error_of_what_is_read_is_no_full_disk(tmp_path, error):
    with pytest.raises(type(error)) as raised, _files.written_whole(tmp_path / 'a.json'):
        raise error
    assert raised.value is error
    assert names(tmp_path) == []


def other_than_file(folder, kind):
    path = folder / 'other'
    path.mkdir() if kind == 'a folder' else os.mkfifo(path)
    return path


@pytest.mark.parametrize('kind', ['a folder', 'a device or a pipe'])
def test_what_is_no_file_is_refused_before_the_work(tmp_path, kind):
    """A pipe was replaced by a file; of a folder it was said after the block."""
    path = other_than_file(tmp_path, kind)
    (tmp_path / 'link').symlink_to(path)
    with pytest.raises(ValueError, match=rf'`out` must be the path of a file\. .*other, {kind}$'):
        _files.check_target(tmp_path / 'link', 'out')
    for target in (path, tmp_path / 'link'):
        message = f'{target} must be a file that can be written to. Received: {kind}'
        with pytest.raises(OSError, match=f'^{re.escape(message)}$'):
            _files.written_whole(target).__enter__()
    assert not path.is_file()
    assert names(tmp_path) == ['link', 'other']


def test_a_temporary_file_that_cannot_be_removed_hides_no_error(tmp_path, monkeypatch):
    def unlink(path, missing_ok):
        raise PermissionError(1, 'Operation not permitted')

    monkeypatch.setattr(pathlib.Path, 'unlink', unlink)
    with pytest.raises(RuntimeError, match='broken'), _files.written_whole(tmp_path / 'a.json'):
        raise RuntimeError('broken')
    with (
        pytest.raises(OSError, match=r'the disk must take .* No space left on device$'),
        _files.written_whole(tmp_path / 'a.json'),
    ):
        raise OSError(28, 'No space left on device')


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    path = tmp_path / 'a.json'
    with _files.written_whole(path) as one, _files.written_whole(path) as other:
        one.write_text('one')
        other.write_text('the other')
    assert path.read_text() == 'one'
    assert names(tmp_path) == ['a.json']


def test_links_that_lie_there_are_not_followed(tmp_path):
    victim, folder = tmp_path / 'victim', tmp_path / 'out'
    victim.write_text('kept')
    folder.mkdir()
    for name in ('a.json', '.a.part.json', '.probe', '.a.0.part.json'):
        (folder / name).symlink_to(victim)
    _files.check_writable(folder)
    with _files.written_whole(folder / 'a.json') as part:
        part.write_text('new')
    assert victim.read_text() == 'kept'
    assert (folder / 'a.json').read_text() == 'new'
    assert not (folder / 'a.json').is_symlink()


def test_a_target_that_is_a_link_is_what_it_leads_to(tmp_path):
    """The link was replaced by a file, and what it had led to grew old."""
    disk = tmp_path / 'disk'
    disk.mkdir()
    for name in ('there', 'not there'):
        link = tmp_path / f'link to {name}'
        link.symlink_to(disk / name)
    (disk / 'there').write_text('old')
    for name in ('there', 'not there'):
        with _files.written_whole(_files.check_target(tmp_path / f'link to {name}')) as part:
            part.write_text('new')
        assert (tmp_path / f'link to {name}').is_symlink()
        assert (disk / name).read_text() == 'new'
    (tmp_path / 'astray').symlink_to('no/folder')
    with pytest.raises(ValueError, match=r'must lie in a folder that exists. Received: path=/'):
        _files.check_target(tmp_path / 'astray')
    (tmp_path / 'round').symlink_to('round')
    assert _files.check_target(tmp_path / 'round') == tmp_path / 'round'


@pytest.mark.parametrize('name', ['x' * 229 + '.z', 'ü' * 115 + '.z', 'x.' + 'z' * 230])
def test_a_name_too_long_for_a_temporary_file(tmp_path, name):
    with pytest.raises(ValueError, match=r'has at most 232 bytes. Received: a name of 23'):
        _files.check_target(tmp_path / (name + 'zz'), 'checkpoint')
    with _files.written_whole(_files.check_target(tmp_path / name)) as part:
        part.write_text('new')
    assert names(tmp_path) == [name]


def test_names_with_wildcards_remove_no_other_file(tmp_path):
    other = tmp_path / '.ab.0.part.json'
    other.write_text('kept')
    with _files.written_whole(tmp_path / 'a*.json') as part:
        part.write_text('new')
    assert other.read_text() == 'kept'


def test_a_lock_ends_with_its_process(tmp_path):
    with holder('locked', tmp_path) as process:
        with pytest.raises(BlockingIOError, match='must not be in use'), _files.locked(tmp_path):
            pass
        process.kill()
        process.wait()
    with _files.locked(tmp_path):
        assert names(tmp_path) == []
    with _files.locked(tmp_path):
        pass


@contextlib.contextmanager
def largest_file(size):
    """Writing past `size` bytes fails as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_leaves_the_former_file_and_says_so_in_a_line(tmp_path):
    path = tmp_path / 'a.json'
    path.write_text('old')
    with (
        pytest.raises(OSError, match=r'the disk must take the whole of .*a.json') as raised,
        largest_file(1000),
        _files.written_whole(path) as part,
    ):
        part.write_bytes(bytes(5000))
    assert str(raised.value).endswith('Received: File too large')
    assert path.read_text() == 'old'
    assert names(tmp_path) == ['a.json']


def test_check_writable_makes_the_folder_and_leaves_it_empty(tmp_path):
    folder = tmp_path / 'a' / 'b'
    _files.check_writable(folder)
    _files.check_writable(str(folder))
    assert names(folder) == []


def test_a_folder_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.chdir(tmp_path)
    _files.check_writable('~/cache')
    assert names(tmp_path) == ['cache']


def test_a_file_in_the_way(tmp_path):
    (tmp_path / 'file').write_text('kept')
    for folder in (tmp_path / 'file', tmp_path / 'file' / 'below'):
        with pytest.raises(OSError, match='`folder` must be a folder that can be') as raised:
            _files.check_writable(folder)
        assert str(folder) in str(raised.value)
        assert '\n' not in str(raised.value)
    assert (tmp_path / 'file').read_text() == 'kept'


def test_a_disk_without_room(tmp_path):
    with largest_file(3), pytest.raises(OSError, match=r'`folder` must be .*\(File too large\)$'):
        _files.check_writable(tmp_path)
    assert names(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write anywhere')
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match=r'`folder` must be .*Permission denied'):
        _files.check_writable(tmp_path)


def test_a_missing_permission_is_no_full_disk(denied, tmp_path):
    path = denied / 'page.html'
    with pytest.raises(OSError, match='must lie in a folder that can be written to') as raised:
        _files.written_whole(path).__enter__()
    assert str(raised.value) == (
        f'{path} must lie in a folder that can be written to. Received: Permission denied'
    )
    with pytest.raises(OSError, match=r'nowhere/a.json must lie in a folder that .*No such file'):
        _files.written_whole(tmp_path / 'nowhere' / 'a.json').__enter__()


def test_a_target_in_such_a_folder_is_refused_before_the_work(denied, tmp_path):
    with pytest.raises(OSError, match='must lie in a folder that can be written to') as raised:
        _files.check_target(denied / 'page.html', 'out', writable=True)
    assert str(raised.value) == (
        '`out` must lie in a folder that can be written to. '
        f'Received: out={denied}/page.html (Permission denied)'
    )
    assert _files.check_target(tmp_path / 'page.html', writable=True) == tmp_path / 'page.html'
    assert names(tmp_path) == ['locked']
