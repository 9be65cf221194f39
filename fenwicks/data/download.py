"""Downloads from mirrors: resumable, verified, and visible only when complete."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import importlib.util
import os
import pathlib
import queue
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence

from fenwicks._errors import one_line
from fenwicks.data.digests import md5_of
from fenwicks.data.progress import progress_bar

try:
    import fcntl
except ImportError:  # Windows: two downloads at once are then not kept apart
    fcntl = None  # type: ignore[assignment]

_HEADERS = {'User-Agent': 'Mozilla/5.0 (compatible; fenwicks)'}  # some hosts refuse Python's
MOST_BYTES = 2**29  # no file of the data sets has half as many
SECONDS_FOR_BETTER = 1.0  # how long sources before the first that answered may still answer
_NETWORK_ERRORS = (OSError, http.client.HTTPException)


@dataclasses.dataclass(frozen=True)
class Source:
    """A server that offers a data set.

    Args:
        files: maps each name in the cache to its URL.
        md5: maps names to MD5s. A source with a file that has none is verified by its content.
        needs: module that reads its files; without that module the source is skipped.
    """

    files: dict[str, str]
    md5: dict[str, str] = dataclasses.field(default_factory=dict)
    needs: str = ''

    @property
    def host(self) -> str:
        """Name of the host, for messages."""
        return urllib.parse.urlsplit(next(iter(self.files.values()))).netloc


class DiskError(OSError):
    """Writing to the disk failed; another mirror would not help."""


@contextlib.contextmanager
def _writing(path):
    """Raises an error of the file system as one line that names the file."""
    try:
        yield
    except OSError as error:
        raise DiskError(f'cannot write {path}: {error.strerror or error}') from None


def _reason(error):
    """What went wrong, in a few words on one line."""
    if isinstance(error, urllib.error.HTTPError):
        return f'HTTP {error.code}'
    if isinstance(error, urllib.error.URLError):
        return (
            _reason(error.reason) if isinstance(error.reason, Exception) else one_line(error.reason)
        )
    if isinstance(error, TimeoutError):
        return 'timed out'
    return one_line(error)


def download_files(
    sources: Sequence[Source],
    folder: pathlib.Path | str,
    verify: Callable[[pathlib.Path], object],
    connect_timeout: float = 8.0,
    stall_timeout: float = 20.0,
) -> Source:
    """Downloads the files of the first source that works into a folder.

    All sources are probed at the same time. Those that answer are tried in the given order, then
    those that were slow to answer. Files are written to `folder/.download/` and moved into
    `folder` when they are complete and verified; a later call continues an interrupted download.
    A transfer ends when no byte arrives for `stall_timeout`, and only then: a slow one goes on.

    Args:
        sources: the mirrors, best first.
        folder: created if it does not exist.
        verify: callable that takes a folder and raises ValueError unless it holds the data set.
            Called for sources with files that have no MD5.
        connect_timeout: seconds to wait for the first answer of all sources together.
        stall_timeout: seconds without a byte after which a transfer ends.

    Returns:
        The Source that was used.

    Raises:
        ConnectionError: no source worked; the message says why, for each.
        OSError: the folder cannot be written to, or the disk is full.
    """
    folder = pathlib.Path(folder)
    work = folder / '.download'
    with _writing(work):
        work.mkdir(parents=True, exist_ok=True)
    failures: list[str] = []
    with _lock(work / 'lock'):
        for source in sources:  # another process may have finished while this one waited
            if source.md5 and all(md5_of(folder / name) == md5 for name, md5 in source.md5.items()):
                return source
        for source in _reachable(sources, connect_timeout, failures):
            try:
                for name, url in source.files.items():
                    _fetch(url, work / name, source.md5.get(name), stall_timeout)
                # `verify` must not see the complete files of a source that failed halfway.
                foreign = {name for other in sources for name in other.files} - source.files.keys()
                _remove(work / name for name in foreign)
                if source.files.keys() - source.md5.keys():
                    verify(work)
            except DiskError:
                raise
            except (*_NETWORK_ERRORS, ValueError) as error:
                if isinstance(error, ValueError):  # complete, but wrong: no use in keeping it
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
    """Waits until no other process downloads into the same folder."""
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
    """Sources in the order to try: those that answered, then those that were slow."""
    answers: dict[int, str] = {}
    arrived: queue.Queue[tuple[int, str]] = queue.Queue()

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
        # Daemon threads: a name server that never answers must not delay the end of the program.
        url = next(iter(source.files.values()))
        threading.Thread(target=ask, args=(index, url), daemon=True).start()
    deadline = time.monotonic() + timeout
    while len(answers) < len(sources):
        try:
            index, answer = arrived.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        answers[index] = answer
        if not answer:  # one is enough
            deadline = min(deadline, time.monotonic() + SECONDS_FOR_BETTER)
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
        error.close()  # the error holds an open connection
        raise


def _size(path):
    return path.stat().st_size if path.exists() else 0


def _fetch(url, path, md5, stall_timeout):
    """Downloads one file to `path`; continues `path`.part if that exists."""
    if path.is_file() and md5 in (None, md5_of(path)):
        return  # an earlier run got this file and then stopped
    part = path.with_name(path.name + '.part')
    with _writing(part):
        part.parent.mkdir(parents=True, exist_ok=True)
    inherited = _size(part) > 0
    while True:
        before = _size(part)
        try:
            whole = _transfer(url, part, stall_timeout)
            error: Exception = ConnectionError('the transfer was cut off')
        except DiskError:
            _remove([part])  # or the disk would stay full
            raise
        except _NETWORK_ERRORS as caught:
            whole, error = False, caught
        if not whole:
            if _size(part) < before + 2**16:  # too little progress to try the same source again
                raise error
            continue
        found = md5_of(part) if md5 else None
        if found == md5:
            break
        _remove([part])
        if not inherited:
            raise ValueError(f'{path.name} has the MD5 {found}, expected {md5}')
        inherited = False  # the damage may be an earlier run's: once more, from the start
    with _writing(path):
        os.replace(part, path)


def _transfer(url, part, stall_timeout):
    """Appends the missing bytes to `part`; returns whether the file is complete."""
    start = _size(part)
    try:
        response = _open(url, stall_timeout, {'Range': f'bytes={start}-'} if start else {})
    except urllib.error.HTTPError as error:
        if error.code != 416:  # no bytes after those that we have
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
            start = 0  # the server ignores ranges and sends the whole file
        total = start + int(length) if length else None
        done = start
        bar = progress_bar(part.name.removesuffix('.part'), total, start, unit='B')
        with _writing(part):
            file = open(part, 'ab' if start else 'wb')  # noqa: SIM115
        try:
            while chunk := response.read1(2**18):
                with _writing(part):
                    file.write(chunk)
                bar.update(len(chunk))
                done += len(chunk)
                if done > MOST_BYTES:
                    _remove([part])
                    raise ConnectionError(f'the file has more than {MOST_BYTES} bytes')
        finally:
            bar.close()
            with _writing(part):
                file.close()
    return total is None or done == total
