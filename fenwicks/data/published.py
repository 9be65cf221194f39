"""Reads CIFAR as its authors published it: folders of pickles or binary records, and archives."""

from __future__ import annotations

import gzip
import hashlib
import pathlib
import tarfile
from collections.abc import Callable, Iterator

import numpy as np

from fenwicks.data import unpickle
from fenwicks.data.cifar import Layout, Spec
from fenwicks.data.digests import check_md5, md5_of
from fenwicks.data.limits import LimitedReader, check_size, damage_named

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def missing_file(path: pathlib.Path, spec: Spec) -> FileNotFoundError:
    """The error about a file of a data set that is not there."""
    return FileNotFoundError(f'{path}: this file of {spec.title} is missing')


def most_bytes(spec: Spec) -> int:
    """Bytes that a file of a data set may have: twice those of all pixels, and a mebibyte."""
    return 2 * 3072 * (spec.train_size + spec.test_size) + 2**20


def read_folder(folder: pathlib.Path, spec: Spec, layout: Layout) -> Arrays:
    """Reads the files of a published folder.

    Args:
        folder: the folder.
        spec: the data set.
        layout: its form.

    Returns:
        `(train_images, train_labels, test_images, test_labels)`.

    Raises:
        ValueError: a file is truncated or altered.
        OSError: a file is missing or can't be read.
    """

    def read(name, md5):
        path = folder / name
        if not path.is_file():
            raise missing_file(path, spec)
        check_size(path, most_bytes(spec))
        check_md5(path, md5_of(path), md5)
        return path.read_bytes()

    return _read_layout(spec, layout, read, folder)


def read_archive(path: pathlib.Path, spec: Spec, layout: Layout, md5: str) -> Arrays:
    """Reads the archive of a published folder, without unpacking it to the disk.

    Args:
        path: a tar.gz file.
        spec: the data set.
        layout: the form of the folder in it.
        md5: the published MD5 of the archive.

    Returns:
        `(train_images, train_labels, test_images, test_labels)`.

    Raises:
        ValueError: the archive is truncated or altered.
        OSError: a file is missing in it, or it can't be read.
    """
    check_size(path, most_bytes(spec))
    check_md5(path, md5_of(path), md5)
    wanted = {f'{layout.folder}/{name}' for name in (*layout.train, *layout.test)}
    members = {}
    for name, raw in tar_members(path, wanted.__contains__, most_bytes(spec), most_bytes(spec)):
        members[name.rpartition('/')[2]] = raw

    def read(name, md5):
        if name not in members:
            raise missing_file(path / name, spec)
        raw = members.pop(name)
        check_md5(path / name, hashlib.md5(raw).hexdigest(), md5)
        return raw

    return _read_layout(spec, layout, read, path)


def tar_members(
    path: pathlib.Path, wanted: Callable[[str], object], most: int, most_each: int
) -> Iterator[tuple[str, bytes]]:
    """Yields (name, bytes) of the wanted regular files of a tar.gz; nothing touches the disk.

    Args:
        path: the archive.
        wanted: tells from a name whether to read the file.
        most: bytes that the archive may unpack to.
        most_each: bytes that a wanted file may have.

    Raises:
        ValueError: the archive is damaged, or larger than that.
    """
    with open(path, 'rb') as raw, damage_named(path, 'be a whole tar.gz archive'):
        stream = LimitedReader(gzip.GzipFile(fileobj=raw), most)
        with tarfile.open(fileobj=stream, mode='r|') as archive:
            for member in archive:
                if not member.isreg() or not wanted(member.name.removeprefix('./')):
                    continue
                if member.issparse() or member.size > most_each:
                    raise ValueError(f'{member.name} claims {member.size} bytes')
                file = archive.extractfile(member)
                if file is not None:
                    yield member.name.removeprefix('./'), file.read()


def _read_layout(spec, layout, read, where):
    """Decodes the published files, whose digests `read` has checked."""
    arrays = []
    for split, files in (('train', layout.train), ('test', layout.test)):
        size = spec.train_size if split == 'train' else spec.test_size
        images, labels = np.empty((size, 32, 32, 3), np.uint8), np.empty(size, np.int32)
        start = 0
        for name, md5 in files.items():
            source = pathlib.Path(where) / name
            pixels, batch_labels = _decode(read(name, md5), layout, source)
            stop = start + len(pixels)
            if pixels.shape[1:] != (3072,) or len(batch_labels) != len(pixels) or stop > size:
                raise ValueError(f'{source}: images of an unexpected number or shape')
            images[start:stop] = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            labels[start:stop] = batch_labels
            start = stop
        if start != size:
            raise ValueError(f'{where}: {spec.title} has {size} {split} images. Received: {start}')
        arrays += [images, labels]
    return tuple(arrays)


def _decode(raw, layout, source):
    """(pixels `(n, 3072)`, labels `(n,)`) of one published file."""
    if not isinstance(layout.label, bytes):
        records = np.frombuffer(raw, np.uint8).reshape(-1, layout.label_bytes + 3072)
        return records[:, layout.label_bytes :], records[:, layout.label]
    batch = unpickle.loads(raw, source)
    try:
        return np.asarray(batch[b'data'], np.uint8), np.asarray(batch[layout.label], np.int32)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise ValueError(f'{source}: no data and labels in it') from None
