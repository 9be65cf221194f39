"""Finds a data set on this machine, or brings it here."""

from __future__ import annotations

import logging
import os
import pathlib

from fenwicks.data import cifar, formats
from fenwicks.data.dataset import Dataset
from fenwicks.data.download import download as download_files
from fenwicks.data.sample import load_digits

DATASETS = ('auto', 'cifar10', 'cifar100', 'digits')

_log = logging.getLogger('fenwicks')


def load(dataset='auto', data_dir=None, download=None):
    """Loads a data set as NumPy arrays, checked against published digests.

    CIFAR is looked for in `data_dir` alone where that is given; else in `$FENWICKS_DATA`,
    `~/.cache/fenwicks`, Keras's cache and TFDS's cache, and at last downloaded, into
    `$FENWICKS_DATA` where that is set, else into `~/.cache/fenwicks`. It may lie there as the
    folder `cifar-10-batches-py` or `cifar-10-batches-bin`, as the archive of one
    (`cifar-10-python.tar.gz`), as `cifar10.npz` (x_train, y_train, x_test, y_test), or as TFDS's
    folder `cifar10/3.0.2`; CIFAR-100 likewise.

    Files are checked before anything in them is unpickled. A damaged file in `data_dir` or
    `$FENWICKS_DATA` is an error; one in a cache is reported and passed over.

    All forms but TFDS's keep the original order of the images.

    Args:
        dataset: 'cifar10'; 'cifar100'; 'digits', the embedded sample; or 'auto': CIFAR-10 if it
            can be had, else the sample. The `name` of what comes back says which it is.
        data_dir: folder (or archive or .npz file) in which the data set must be; not for 'digits'.
        download: whether it may be downloaded; None for yes, unless `$FENWICKS_OFFLINE` is set.

    Returns:
        A Dataset: uint8 images `(n, 32, 32, 3)`, int32 labels `(n,)`.

    Raises:
        ValueError: an unknown data set, a damaged file, or a `data_dir` for the digits.
        FileNotFoundError: the data set, or one of its files, is not there; says what was tried
            and which file to put where.

    >>> load('digits').name
    'digits'
    """
    if dataset not in DATASETS:
        raise ValueError(
            f'`dataset` must be one of {", ".join(DATASETS)}. Received: dataset={dataset!r}'
        )
    if dataset == 'digits':
        if data_dir is not None:
            raise ValueError(
                "`data_dir` must be left out with dataset='digits', which fenwicks itself holds. "
                f'Received: data_dir={str(data_dir)!r}'
            )
        return load_digits()
    spec = cifar.SPECS['cifar10' if dataset == 'auto' else dataset]
    if data_dir is not None:
        return _from_folder(spec, pathlib.Path(data_dir).expanduser())
    if download is None:
        download = not os.environ.get('FENWICKS_OFFLINE')
    tried = []
    found = _search(spec, tried)
    if found is None and download:
        found = _download(spec, tried)
    elif found is None:
        tried.append('no download (not allowed)')
    if found is not None:
        return found
    missing = f'{spec.title} was not found. Tried: {"; ".join(tried)}.'
    advice = (
        f'To have it, put {next(iter(spec.layouts[0].archives))} (or the folder '
        f'{spec.layouts[0].folder}) into {_cache()}, or name its folder with `data_dir`'
    )
    if dataset == 'auto':
        _log.warning(
            '%s %s. Going on with the embedded sample instead: 1,797 handwritten digits.',
            missing,
            advice,
        )
        return load_digits()
    raise FileNotFoundError(f'{missing} {advice}')


def _home(variable, default):
    return pathlib.Path(os.environ.get(variable) or default).expanduser()


def _cache():
    """Where downloads go."""
    return _home('FENWICKS_DATA', '~/.cache/fenwicks')


def _places(spec):
    """Folders to search, in order, and whether the user named it."""
    yield _cache(), 'FENWICKS_DATA' in os.environ
    if 'FENWICKS_DATA' in os.environ:
        yield pathlib.Path('~/.cache/fenwicks').expanduser(), False
    keras = _home('KERAS_HOME', '~/.keras') / 'datasets'
    yield keras / f'{spec.layouts[0].folder}-target', False  # Keras 3
    yield keras, False
    yield _home('TFDS_DATA_DIR', '~/tensorflow_datasets'), False


def _dataset(spec, path, arrays):
    return Dataset(spec.name, *arrays, class_names=spec.class_names, source=str(path))


def _from_folder(spec, folder):
    """The data set in a folder that the user named, or an error."""
    if not folder.exists():
        raise FileNotFoundError(
            f'`data_dir` must be an existing folder or file. Received: data_dir={str(folder)!r}'
        )
    found = formats.find(folder, spec)
    if not found:
        layout = spec.layouts[0]
        raise FileNotFoundError(
            f'`data_dir` must hold {spec.title}, as {layout.folder}/, '
            f"{next(iter(layout.archives))}, {spec.layouts[1].folder}/, {spec.name}.npz or TFDS's "
            f'{spec.name}/3.0.2/. '
            f'Received: data_dir={str(folder)!r}'
        )
    path, read = found[0]
    return _dataset(spec, path, read())


def _search(spec, tried):
    """The data set from the first usual place that has it whole, or None."""
    for folder, named in _places(spec):
        try:
            found = formats.find(folder, spec)
            if not found:
                tried.append(f'{folder} (nothing there)')
        except OSError as error:  # a folder of another user's
            _pass_over(error, named, tried)
            continue
        for path, read in found:
            try:
                return _dataset(spec, path, read())
            except (ValueError, OSError) as error:
                _pass_over(error, named, tried)
    return None


def _pass_over(error, named, tried):
    """Notes what is wrong with a usual place; what the user named must be right."""
    if named:
        raise error
    _log.warning('passed over: %s', error)
    tried.append(str(error))


def _download(spec, tried):
    """The data set from a mirror, or None."""
    folder = _cache()

    def verify(work):
        found = formats.find(work, spec)
        if not found:
            raise ValueError(f'what came is no {spec.title}')
        for _, read in found:
            read()

    try:
        source = download_files(spec.sources, folder, verify)
    except OSError as error:
        tried.append(f'download ({error})')
        return None
    first = next(iter(source.files))
    for path, read in formats.find(folder, spec):
        if (folder / first).is_relative_to(path):
            return _dataset(spec, path, read())
    raise AssertionError(f'{folder / first} was downloaded but is not recognised')
