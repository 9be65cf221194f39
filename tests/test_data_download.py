"""Downloading, against a server on this machine that misbehaves on request."""

import contextlib
import dataclasses
import hashlib
import http.server
import io
import pathlib
import threading
import time

import numpy as np
import pytest
from test_data_load import make

from fenwicks import data
from fenwicks.data import cifar, download
from fenwicks.data.download import DiskError, Source, download_files

NAME = 'archive.tar.gz'
BODY = bytes(range(256)) * 2048  # half a megabyte
MD5 = hashlib.md5(BODY).hexdigest()
# Seconds that tests wait which don't test time-outs: a busy machine may halt a process for a while.
PATIENT = {'connect_timeout': 120.0, 'stall_timeout': 120.0}


class Server(http.server.ThreadingHTTPServer):
    """Serves `files` (path -> bytes) and remembers the ranges asked for.

    Behaviours, by path: 'cut' closes each transfer after 100 kB, 'stall' says nothing after
    50 kB, 'slow' trickles, 'no_range' ignores ranges, 'silent' doesn't answer.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self):
        super().__init__(('127.0.0.1', 0), Handler)
        self.files, self.behaviour, self.ranges = {}, {}, []
        self.done = threading.Event()

    def handle_error(self, request, client_address):
        pass  # clients that hang up are part of the tests

    def source(self, path='/a', md5=MD5, name=NAME, body=BODY, behaviour=None):
        self.files[path] = body
        self.behaviour[path] = behaviour
        url = f'http://127.0.0.1:{self.server_port}{path}'
        return Source({name: url}, {name: md5} if md5 else {})


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        server, behaviour = self.server, self.server.behaviour.get(self.path)
        if behaviour == 'silent':
            server.done.wait()
            return
        body = server.files.get(self.path)
        if body is None:
            self.send_error(404)
            return
        asked = self.headers.get('Range')
        if asked != 'bytes=0-0':
            server.ranges.append((self.path, asked))
        start, end = 0, len(body)
        if asked and behaviour != 'no_range':
            first, _, last = asked.removeprefix('bytes=').partition('-')
            start, end = int(first), int(last) + 1 if last else len(body)
            if start >= len(body):
                self.send_response(416)
                self.send_header('Content-Range', f'bytes */{len(body)}')
                self.send_header('Content-Length', '0')
                self.end_headers()
                return
            self.send_response(206)
            self.send_header('Content-Range', f'bytes {start}-{end - 1}/{len(body)}')
        else:
            self.send_response(200)
        self.send_header('Content-Length', str(end - start))
        self.end_headers()
        if behaviour in ('cut', 'stall'):
            count = 100_000 if behaviour == 'cut' else 50_000
            self.wfile.write(body[start : min(end, start + count)])
            if behaviour == 'stall':
                self.wfile.flush()
                server.done.wait()
            return
        step = 64_000 if behaviour == 'slow' else end - start
        for position in range(start, end, step):
            self.wfile.write(body[position : min(position + step, end)])
            if behaviour == 'slow':
                time.sleep(0.5)


@pytest.fixture(name='server')
def _server(monkeypatch):
    monkeypatch.setattr(download, 'SECONDS_FOR_BETTER', 60.0)
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.done.set()
    server.shutdown()
    server.server_close()
    thread.join()


def fetch(sources, folder, verify=lambda work: None, **options):
    return download_files(list(sources), folder, verify, **{**PATIENT, **options})


def part(folder):
    return folder / '.download' / f'{NAME}.part'


def visible(folder):
    """Names that somebody who looks for data would see."""
    return sorted(path.name for path in folder.iterdir() if path.name != '.download')


def test_whole_file_arrives(server, tmp_path, capsys):
    source = server.source()
    assert fetch([source], tmp_path / 'new' / 'folder') == source
    assert (tmp_path / 'new' / 'folder' / NAME).read_bytes() == BODY
    assert visible(tmp_path / 'new' / 'folder') == [NAME]
    output = capsys.readouterr()
    assert output.out == ''
    assert f'{NAME}: 100%' in output.err
    assert '524k/524k' in output.err


def test_a_file_that_came_meanwhile_is_kept(server, tmp_path):
    (tmp_path / NAME).write_bytes(BODY)
    fetch([server.source()], tmp_path)
    assert server.ranges == []


def test_resumes_where_an_earlier_run_stopped(server, tmp_path):
    part(tmp_path).parent.mkdir()
    part(tmp_path).write_bytes(BODY[:200_000])
    fetch([server.source()], tmp_path)
    assert server.ranges == [('/a', 'bytes=200000-')]
    assert (tmp_path / NAME).read_bytes() == BODY


def test_a_server_without_ranges_sends_all_again(server, tmp_path):
    part(tmp_path).parent.mkdir()
    part(tmp_path).write_bytes(BODY[:200_000])
    fetch([server.source(behaviour='no_range')], tmp_path)
    assert (tmp_path / NAME).read_bytes() == BODY


@pytest.mark.parametrize('left', [BODY, BODY + b'x', b'x' * 200_000], ids=['all', 'more', 'bad'])
def test_leftovers_of_an_earlier_run(server, tmp_path, left):
    part(tmp_path).parent.mkdir()
    part(tmp_path).write_bytes(left)
    fetch([server.source()], tmp_path)
    assert (tmp_path / NAME).read_bytes() == BODY
    assert not part(tmp_path).exists()


def test_cut_off_transfers_are_continued(server, tmp_path):
    fetch([server.source(behaviour='cut')], tmp_path)
    assert (tmp_path / NAME).read_bytes() == BODY
    starts = [asked for _, asked in server.ranges]
    assert starts[:3] == [None, 'bytes=100000-', 'bytes=200000-']


def test_a_stalled_transfer_goes_on_at_the_next_mirror(server, tmp_path):
    sources = [server.source('/stall', behaviour='stall'), server.source('/whole')]
    start = time.monotonic()
    assert fetch(sources, tmp_path, stall_timeout=0.3) == sources[1]
    assert time.monotonic() - start < 60
    assert server.ranges == [('/stall', None), ('/whole', 'bytes=50000-')]
    assert (tmp_path / NAME).read_bytes() == BODY


def test_a_slow_and_steady_download_is_not_killed(server, tmp_path):
    start = time.monotonic()
    fetch([server.source(behaviour='slow')], tmp_path, stall_timeout=3.5)
    assert time.monotonic() - start > 3.5  # longer than the time-out, which is between bytes
    assert len(server.ranges) == 1


def test_a_wrong_digest_goes_to_the_next_mirror(server, tmp_path):
    sources = [server.source('/bad', body=BODY[:-1] + b'x'), server.source('/good')]
    assert fetch(sources, tmp_path) == sources[1]
    assert (tmp_path / NAME).read_bytes() == BODY


def test_a_server_that_sends_without_end_does_not_fill_the_disk(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, 'MOST_BYTES', 300_000)
    sources = [server.source('/endless'), server.source('/good', md5=None, body=BODY[:1000])]
    assert fetch(sources, tmp_path) == sources[1]
    with pytest.raises(ConnectionError, match='the file has more than 300000 bytes'):
        fetch(sources[:1], tmp_path)
    assert not part(tmp_path).exists()


def test_only_wrong_digests(server, tmp_path):
    wrong = hashlib.md5(b'no').hexdigest()
    with pytest.raises(ConnectionError, match=f'{NAME} has the MD5 {wrong}, expected {MD5}'):
        fetch([server.source(body=b'no')], tmp_path)
    assert visible(tmp_path) == []
    assert not part(tmp_path).exists()


def test_files_without_a_digest_are_seen_after_they_are_verified(server, tmp_path):
    sources = [server.source('/bad', md5=None, body=b'bad'), server.source('/good', md5=None)]

    def verify(work):
        assert visible(tmp_path) == []
        if (work / NAME).read_bytes() != BODY:
            raise ValueError('not the data')

    assert fetch(sources, tmp_path, verify) == sources[1]
    assert (tmp_path / NAME).read_bytes() == BODY
    (tmp_path / NAME).unlink()
    with pytest.raises(ConnectionError, match='not the data'):
        fetch(sources[:1], tmp_path, verify)
    assert visible(tmp_path) == []
    assert not (tmp_path / '.download' / NAME).exists()


def test_what_a_source_left_before_it_failed_is_not_judged(server, tmp_path):
    server.files |= {'/1': b'one', '/whole': BODY}
    url = f'http://127.0.0.1:{server.server_port}'
    half = Source({'train': f'{url}/1', 'test': f'{url}/missing'})
    whole = Source({NAME: f'{url}/whole'})

    def verify(work):
        if (work / 'train').exists():
            raise ValueError('half of another source')

    assert fetch([half, whole], tmp_path, verify) == whole
    assert visible(tmp_path) == [NAME]


def test_several_files_in_a_folder(server, tmp_path):
    server.files |= {'/1': b'one', '/2': b'two'}
    url = f'http://127.0.0.1:{server.server_port}'
    source = Source({'sub/1': f'{url}/1', 'sub/2': f'{url}/2'})
    fetch([source], tmp_path)
    assert (tmp_path / 'sub' / '2').read_bytes() == b'two'


def test_half_a_file_is_never_visible(server, tmp_path):
    source = server.source(behaviour='slow')
    thread = threading.Thread(target=fetch, args=([source], tmp_path))
    thread.start()
    seen = set()
    while thread.is_alive():
        with contextlib.suppress(FileNotFoundError):
            seen.add((tmp_path / NAME).stat().st_size)
    thread.join()
    assert seen <= {len(BODY)}
    assert (tmp_path / NAME).read_bytes() == BODY


def test_two_downloads_at_once_fetch_one_file(server, tmp_path):
    pytest.importorskip('fcntl')
    source = server.source(behaviour='slow')
    threads = [threading.Thread(target=fetch, args=([source], tmp_path)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.ranges) == 1
    assert (tmp_path / NAME).read_bytes() == BODY


def test_a_source_whose_reader_is_missing_is_skipped(server, tmp_path):
    source = dataclasses.replace(server.source(), needs='no_such_module')
    with pytest.raises(ConnectionError, match='needs no_such_module'):
        fetch([source], tmp_path)


def test_no_network_gives_up_at_once_and_names_every_mirror(server, tmp_path):
    url = f'http://127.0.0.1:{server.server_port}'
    server.behaviour |= {'/silent': 'silent'}
    sources = [
        Source({NAME: 'http://no-such-host.invalid/x'}),
        Source({NAME: 'http://127.0.0.1:1/x'}),
        Source({NAME: f'{url}/missing'}),
        Source({NAME: f'{url}/silent'}),
    ]
    start = time.monotonic()
    with pytest.raises(ConnectionError, match='no mirror could be used') as caught:
        fetch(sources, tmp_path, connect_timeout=3.0)
    assert time.monotonic() - start < 60
    for part_of_it in ('no-such-host.invalid', '127.0.0.1:1: ', 'HTTP 404', 'timed out'):
        assert part_of_it in str(caught.value)
    assert '\n' not in str(caught.value)
    assert download_files.__defaults__[0] <= 12  # seconds that all real mirrors together may take


def test_a_silent_mirror_does_not_hold_up_the_others(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, 'SECONDS_FOR_BETTER', 1.0)
    sources = [server.source('/silent', behaviour='silent'), server.source('/good')]
    start = time.monotonic()
    assert fetch(sources, tmp_path) == sources[1]
    assert time.monotonic() - start < 60


def test_unwritable_folder(server, tmp_path):
    (tmp_path / 'file').write_bytes(b'')
    with pytest.raises(DiskError, match=r'cannot write .*file/data') as caught:
        fetch([server.source()], tmp_path / 'file' / 'data')
    assert '\n' not in str(caught.value)


def test_full_disk(server, tmp_path):
    if not pathlib.Path('/dev/full').exists():
        pytest.skip('no /dev/full here')
    part(tmp_path).parent.mkdir()
    part(tmp_path).symlink_to('/dev/full')
    with pytest.raises(DiskError, match=r'cannot write .*No space left') as caught:
        fetch([server.source(), server.source('/b')], tmp_path)
    assert '\n' not in str(caught.value)
    assert visible(tmp_path) == []
    assert not part(tmp_path).exists()


# By way of load().


@pytest.fixture(name='cache')
def _cache(monkeypatch, tmp_path):
    monkeypatch.setattr(download_files, '__defaults__', tuple(PATIENT.values()))
    for name in ('KERAS_HOME', 'TFDS_DATA_DIR', 'FENWICKS_OFFLINE'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    monkeypatch.setenv('FENWICKS_DATA', str(tmp_path / 'cache'))
    return tmp_path / 'cache'


def test_load_downloads_once(server, cache, monkeypatch):
    made = make()
    name = 'cifar-10-python.tar.gz'
    md5 = made.spec.layouts[0].archives[name]
    source = server.source(name=name, md5=md5, body=made.files[name])
    spec = dataclasses.replace(made.spec, sources=(source,))
    monkeypatch.setitem(cifar.SPECS, 'cifar10', spec)
    for _ in range(2):
        dataset = data.load('auto')
        made.assert_loaded(dataset)
        assert dataset.source == str(cache / name)
    assert len(server.ranges) == 1


def test_load_verifies_what_has_no_digest(server, cache, monkeypatch):
    made = make()
    name = 'cifar10.npz'
    sources = []
    for path, images in (('/bad', 255 - made.arrays[0]), ('/good', made.arrays[0])):
        buffer = io.BytesIO()
        keys = ('x_train', 'y_train', 'x_test', 'y_test')
        np.savez(buffer, **dict(zip(keys, (images, *made.arrays[1:]), strict=True)))
        sources.append(server.source(path, None, name, buffer.getvalue()))
    spec = dataclasses.replace(made.spec, sources=tuple(sources))
    monkeypatch.setitem(cifar.SPECS, 'cifar10', spec)
    made.assert_loaded(data.load('cifar10'))


def test_load_refuses_what_is_no_form_of_the_data(server, cache, monkeypatch):
    source = server.source('/page', None, 'welcome.html', b'<html>')
    spec = dataclasses.replace(make().spec, sources=(source,))
    monkeypatch.setitem(cifar.SPECS, 'cifar10', spec)
    with pytest.raises(FileNotFoundError, match='what was downloaded is not CIFAR-10'):
        data.load('cifar10')
    assert not (cache / 'welcome.html').exists()


def test_load_without_a_network(cache, monkeypatch, caplog):
    spec = dataclasses.replace(
        make().spec, sources=(Source({NAME: 'http://127.0.0.1:1/x'}, {NAME: MD5}),)
    )
    monkeypatch.setitem(cifar.SPECS, 'cifar10', spec)
    with pytest.raises(FileNotFoundError, match=r'no mirror could be used: 127.0.0.1:1') as caught:
        data.load('cifar10')
    assert '\n' not in str(caught.value)
    assert f'into {cache}' in str(caught.value)
    assert data.load('auto').name == 'digits'
    assert 'embedded sample' in caplog.text


def test_load_into_an_unwritable_cache(server, cache, monkeypatch):
    cache.write_bytes(b'')  # a file where the folder should be
    spec = dataclasses.replace(make().spec, sources=(server.source(),))
    monkeypatch.setitem(cifar.SPECS, 'cifar10', spec)
    with pytest.raises(FileNotFoundError, match=r'cannot write .*cache'):
        data.load('cifar10')
