"""Finds a data set on this machine or downloads it."""

from __future__ import annotations

import logging
import os
import pathlib

from fenwicks.data import cifar, formats
from fenwicks.data.dataset import Dataset
from fenwicks.data.download import download_files
from fenwicks.data.sample import load_digits
from fenwicks.data.storage import may_download, usual_folder
from fenwicks.data.tfds import PREFIX, load_tfds

DATASETS = ('auto', 'cifar10', 'cifar100', 'digits')

_log = logging.getLogger('fenwicks')


def load(
    dataset: str = 'auto',
    data_dir: str | os.PathLike[str] | None = None,
    download: bool | None = None,
) -> Dataset:
    """Loads a data set as NumPy arrays, verified by digests.

    With `data_dir`, CIFAR is looked for there and nowhere else. Without, it is looked for in
    `$FENWICKS_DATA`, `~/.cache/fenwicks`, Keras's cache and TFDS's cache, and downloaded if none
    of them has it: to `$FENWICKS_DATA` if that is set, else to `~/.cache/fenwicks`. These forms are
    read: the folders `cifar-10-batches-py` and `cifar-10-batches-bin`, the archives of either
    (`cifar-10-python.tar.gz`), `cifar10.npz` (x_train, y_train, x_test, y_test), TFDS's folder
    `cifar10/3.0.2`, and Hugging Face's Parquet files in `cifar10-parquet`; the same for CIFAR-100.
    Of CIFAR-10 also fast.ai's `cifar10.tgz`.

    The folders and archives are checked against their published MD5s before they are read; other
    forms of CIFAR-10 against a SHA-256 of images and labels. Of CIFAR-100 no such digest is known:
    in other forms its content is not verified, which a warning says. A damaged file in `data_dir`
    or `$FENWICKS_DATA` is an error; a damaged file in a cache is logged and skipped.

    All forms but TFDS's keep the original order of the images.

    Args:
        dataset: 'cifar10'; 'cifar100'; 'digits', the embedded sample; or 'auto': CIFAR-10 if it
            is found or can be downloaded, else the sample. The result's `name` says which it is.
            Or 'tfds:NAME' for a data set of TensorFlow Datasets whose images have one size, which
            that package downloads to `data_dir` or to a place of its own.
        data_dir: folder, archive or .npz file that holds the data set; not for 'digits'.
        download: whether to download it if it is not found; None means yes, unless
            `$FENWICKS_OFFLINE` is set (to something other than 0).

    Returns:
        A Dataset: uint8 images `(n, 32, 32, 3)`, with 'tfds:NAME' of their own size, and int32
        labels `(n,)`.

    Raises:
        ValueError: `dataset` is unknown, a file is damaged, or `data_dir` is given for 'digits'.
        FileNotFoundError: the data set or one of its files is missing; the message says which
            places were tried and which file to put where.

    >>> load('digits').name
    'digits'
    """
    if isinstance(dataset, str) and dataset.startswith(PREFIX):
        return load_tfds(dataset, data_dir, download)
    if not isinstance(dataset, str) or dataset not in DATASETS:
        raise ValueError(
            f'`dataset` must be one of {", ".join(DATASETS)}, or {PREFIX}NAME. '
            f'Received: dataset={dataset!r}'
        )
    if dataset == 'digits':
        if data_dir is not None:
            raise ValueError(
                "`data_dir` must be left out with dataset='digits', which is part of fenwicks. "
                f'Received: data_dir={str(data_dir)!r}'
            )
        return load_digits()
    spec = cifar.SPECS['cifar10' if dataset == 'auto' else dataset]
    if data_dir is not None:
        return _from_folder(spec, pathlib.Path(data_dir).expanduser())
    download = may_download(download)
    tried: list[str] = []
    found = _search(spec, tried)
    if found is None and download:
        found = _download(spec, tried)
    elif found is None:
        tried.append('no download (not allowed)')
    if found is not None:
        return found
    missing = f'{spec.title} was not found. Tried: {"; ".join(tried)}.'
    advice = (
        f'Put {next(iter(spec.layouts[0].archives))} (or the folder '
        f'{spec.layouts[0].folder}) into {usual_folder()}, or name its folder with `data_dir`'
    )
    if dataset == 'auto':
        _log.warning(
            '%s %s. The embedded sample is used instead: 1,797 handwritten digits.',
            missing,
            advice,
        )
        return load_digits()
    raise FileNotFoundError(f'{missing} {advice}')


def _home(variable, default):
    return pathlib.Path(os.environ.get(variable) or default).expanduser()


def _places(spec):
    """Yields each folder to search, in order, and whether the user named it."""
    named = bool(os.environ.get('FENWICKS_DATA'))
    yield usual_folder(), named
    if named:
        yield pathlib.Path('~/.cache/fenwicks').expanduser(), False
    keras = _home('KERAS_HOME', '~/.keras') / 'datasets'
    yield keras / f'{spec.layouts[0].folder}-target', False  # Keras 3
    yield keras, False
    yield _home('TFDS_DATA_DIR', '~/tensorflow_datasets'), False


def _dataset(spec, path, arrays):
    train_images, train_labels, test_images, test_labels = arrays
    return Dataset(
        spec.name,
        train_images,
        train_labels,
        test_images,
        test_labels,
        class_names=spec.class_names,
        source=str(path),
    )


def _from_folder(spec, folder):
    """The data set in the folder that the user named."""
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
    """The data set from the first of the usual places that has all of it, or None."""
    for folder, named in _places(spec):
        try:
            found = formats.find(folder, spec)
            if not found:
                tried.append(f'{folder} (nothing there)')
        except OSError as error:  # a folder that may not be read
            _skip(error, named, tried)
            continue
        for path, read in found:
            try:
                return _dataset(spec, path, read())
            except (ValueError, OSError) as error:
                _skip(error, named, tried)
    return None


def _skip(error, named, tried):
    """Logs what is wrong with a place; raises if the user named it."""
    if named:
        raise error
    _log.warning('skipped: %s', error)
    tried.append(str(error))


def _download(spec, tried):
    """The data set, downloaded from a mirror, or None."""
    folder = usual_folder()

    def verify(work):
        found = formats.find(work, spec)
        if not found:
            raise ValueError(f'what was downloaded is not {spec.title}')
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
