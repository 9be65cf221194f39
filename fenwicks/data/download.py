"""Downloads from several mirrors in turn: resumed, checked, and seen only when whole."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import http.client
import importlib.util
import os
import pathlib
import queue
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

try:
    import fcntl
except ImportError:  # not on Windows, where two downloads at once may cost a second try
    fcntl = None

_HEADERS = {'User-Agent': 'Mozilla/5.0 (compatible; fenwicks)'}  # some hosts turn Python's away
_NETWORK_ERRORS = (OSError, http.client.HTTPException)


@dataclasses.dataclass(frozen=True)
class Source:
    """One place that has a data set.

    Args:
        files: dict, name in the cache -> URL.
        md5: dict, name -> MD5. A file without one is checked by its content instead.
        needs: module without which its files can't be read; the source is skipped then.
    """

    files: dict[str, str]
    md5: dict[str, str] = dataclasses.field(default_factory=dict)
    needs: str = ''

    @property
    def host(self):
        """The host's name, for messages."""
        return urllib.parse.urlsplit(next(iter(self.files.values()))).netloc


class DiskError(OSError):
    """Writing failed, so no mirror can help."""


@contextlib.contextmanager
def _writing(path):
    """Turns an error of the file system into one line that names the file."""
    try:
        yield
    except OSError as error:
        raise DiskError(f'cannot write {path}: {error.strerror or error}') from None


def _reason(error):
    """An error in a few words on one line."""
    if isinstance(error, urllib.error.HTTPError):
        return f'HTTP {error.code}'
    if isinstance(error, urllib.error.URLError):
        return _reason(error.reason) if isinstance(error.reason, Exception) else str(error.reason)
    if isinstance(error, TimeoutError):
        return 'timed out'
    return ' '.join(str(error).split()) or type(error).__name__


def download(sources, folder, verify, connect_timeout=8.0, stall_timeout=20.0):
    """Brings the files of the first source that works into a folder.

    All sources are asked at once whether they are there. Those that are get tried in the order
    given, then those that were slow to answer. Files arrive in `folder/.download/` and are renamed
    into `folder` once they are whole and checked; what is left there after an interruption is
    continued next time. A transfer is given up when nothing arrives for `stall_timeout`, however
    slow it is otherwise.

    Args:
        sources: list of Source.
        folder: path, made where it doesn't exist.
        verify: callable from a folder; raises ValueError if what lies in it is not the data set.
            Called for sources with files without MD5.
        connect_timeout: seconds that all sources together have to answer.
        stall_timeout: seconds without a byte.

    Returns:
        The Source.

    Raises:
        ConnectionError: none worked; names each and why.
        OSError: the folder can't be written to, or the disk is full.
    """
    folder = pathlib.Path(folder)
    work = folder / '.download'
    with _writing(work):
        work.mkdir(parents=True, exist_ok=True)
    failures = []
    with _lock(work / 'lock'):
        for source in sources:  # another process may have brought it while this one waited
            if source.md5 and all(md5_of(folder / name) == md5 for name, md5 in source.md5.items()):
                return source
        for source in _reachable(sources, connect_timeout, failures):
            try:
                for name, url in source.files.items():
                    _fetch(url, work / name, source.md5.get(name), stall_timeout)
                # What another source left whole before it failed would be judged with these.
                foreign = {name for other in sources for name in other.files} - source.files.keys()
                _remove(work / name for name in foreign)
                if source.files.keys() - source.md5.keys():
                    verify(work)
            except DiskError:
                raise
            except (*_NETWORK_ERRORS, ValueError) as error:
                if isinstance(error, ValueError):  # whole, but wrong: of no use to anyone
                    _remove([work / name for name in source.files])
                failures.append(f'{source.host}: {_reason(error)}')
                continue
            for name in source.files:
                with _writing(folder / name):
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    os.replace(work / name, folder / name)
            _remove(work / f'{name}.part' for other in sources for name in other.files)
            return source
    raise ConnectionError('no mirror could be used: ' + '; '.join(failures))


@contextlib.contextmanager
def _lock(path):
    """Waits until no other process downloads into the folder."""
    with contextlib.ExitStack() as stack:
        with _writing(path):
            file = stack.enter_context(open(path, 'w'))
        if fcntl is not None:
            with contextlib.suppress(OSError):  # some network file systems have no locks
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove(paths):
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()


def _reachable(sources, timeout, failures):
    """Sources in the order to try: those that answered, then those that may yet."""
    answers, arrived = {}, queue.Queue()

    def ask(index, url):
        try:
            _open(url, timeout, {'Range': 'bytes=0-0'}).close()
        except Exception as error:
            arrived.put((index, _reason(error)))
        else:
            arrived.put((index, ''))

    for index, source in enumerate(sources):
        if source.needs and importlib.util.find_spec(source.needs) is None:
            answers[index] = f'needs {source.needs}'
            continue
        # Daemons: a name server that never answers must not hold up the program's end.
        url = next(iter(source.files.values()))
        threading.Thread(target=ask, args=(index, url), daemon=True).start()
    deadline = time.monotonic() + timeout
    while len(answers) < len(sources):
        try:
            index, answer = arrived.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        answers[index] = answer
        if not answer:  # one will do: give the better ones a moment more
            deadline = min(deadline, time.monotonic() + 1.0)
    silent = [index for index in range(len(sources)) if index not in answers]
    ready = [index for index in range(len(sources)) if answers.get(index) == '']
    for index, answer in sorted(answers.items()):
        if answer:
            failures.append(f'{sources[index].host}: {answer}')
    if not ready:
        failures += [f'{sources[index].host}: timed out' for index in silent]
        silent = []
    return [sources[index] for index in ready + silent]


def _open(url, timeout, headers):
    request = urllib.request.Request(url, headers=_HEADERS | headers)
    try:
        return urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()  # it is the response as well, with a connection
        raise


def md5_of(path):
    """The MD5 of a file, read in pieces; None where there is no such file."""
    if not path.is_file():
        return None
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'md5').hexdigest()


def _size(path):
    return path.stat().st_size if path.exists() else 0


def _fetch(url, path, md5, stall_timeout):
    """Downloads one file to `path`, by way of `path`.part, which it continues."""
    if path.is_file() and md5 in (None, md5_of(path)):
        return  # from a run that was stopped before the source's other files were there
    part = path.with_name(path.name + '.part')
    with _writing(part):
        part.parent.mkdir(parents=True, exist_ok=True)
    inherited = _size(part) > 0
    while True:
        before = _size(part)
        try:
            whole = _transfer(url, part, stall_timeout)
            error = ConnectionError('the transfer was cut off')
        except DiskError:
            _remove([part])  # a full disk stays full otherwise
            raise
        except _NETWORK_ERRORS as caught:
            whole, error = False, caught
        if not whole:
            if _size(part) < before + 2**16:  # no progress worth another try here
                raise error
            continue
        found = md5_of(part) if md5 else None
        if found == md5:
            break
        _remove([part])
        if not inherited:
            raise ValueError(f'{path.name} has the MD5 {found}, expected {md5}')
        inherited = False  # what an earlier run left may be to blame: once more, from the start
    with _writing(path):
        os.replace(part, path)


def _transfer(url, part, stall_timeout):
    """Appends to `part` what is still missing; whether it is whole then."""
    start = _size(part)
    try:
        response = _open(url, stall_timeout, {'Range': f'bytes={start}-'} if start else {})
    except urllib.error.HTTPError as error:
        if error.code != 416:  # there is nothing beyond what we have
            raise
        if error.headers.get('Content-Range') == f'bytes */{start}':
            return True
        _remove([part])
        return _transfer(url, part, stall_timeout) if start else False
    with response:
        length = response.headers.get('Content-Length')
        resumed = response.headers.get('Content-Range', '').startswith(f'bytes {start}-')
        if response.status != 206 or not resumed:
            if response.status == 206:
                raise ConnectionError('the server sent another part of the file')
            start = 0  # it sends the whole file, whatever was asked
        total = start + int(length) if length else None
        bar = _Bar(part.name.removesuffix('.part'), start, total)
        with _writing(part):
            file = open(part, 'ab' if start else 'wb')  # noqa: SIM115
        try:
            while chunk := response.read1(2**18):
                with _writing(part):
                    file.write(chunk)
                bar.add(len(chunk))
        finally:
            bar.close()
            with _writing(part):
                file.close()
    return total is None or bar.done == total


class _Bar:
    """A line on standard error that tells how far a download is."""

    def __init__(self, name, done, total):
        self.name, self.done, self.total = name, done, total
        self.first, self.start = done, time.monotonic()
        self.terminal = sys.stderr.isatty()
        self.next = self.start + (0.0 if self.terminal else 10.0)

    def add(self, count):
        self.done += count
        if time.monotonic() >= self.next:
            self._show()

    def _show(self, last=False):
        now = time.monotonic()
        self.next = now + (0.2 if self.terminal else 10.0)
        rate = (self.done - self.first) / max(now - self.start, 1e-9)
        text = f'{self.name}: {self.done / 1e6:.1f}'
        if self.total:
            share = self.done / self.total
            text += f' of {self.total / 1e6:.1f} MB [{"#" * int(20 * share):20}] {share:4.0%}'
        else:
            text += ' MB'
        text += f' {rate / 1e6:.2f} MB/s'
        start, end = ('\r', '\n' if last else '\x1b[K') if self.terminal else ('', '\n')
        print(f'{start}{text}', end=end, file=sys.stderr, flush=True)

    def close(self):
        """Leaves the last state on the screen."""
        self._show(last=True)
