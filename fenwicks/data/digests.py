"""Digests of files and of labelled images, and the comparison with published ones."""

from __future__ import annotations

import hashlib
import pathlib

import numpy as np


def md5_of(path: pathlib.Path) -> str | None:
    """The MD5 of a file, read in pieces; None if there is no such file.

    Args:
        path: the file.

    Returns:
        32 hexadecimal digits, or None.

    >>> md5_of(pathlib.Path('no-such-file'))
    """
    if not path.is_file():
        return None
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'md5').hexdigest()


def check_md5(where: pathlib.Path | str, found: str | None, expected: str) -> None:
    """Raises unless a file has the expected MD5.

    Args:
        where: the file, for the message.
        found: its MD5.
        expected: the published MD5.

    Raises:
        ValueError: they differ.

    >>> check_md5('test_batch', 'aa', 'bb')
    Traceback (most recent call last):
    ValueError: test_batch: the file is truncated or altered: MD5 is aa, expected bb
    """
    if found != expected:
        raise ValueError(
            f'{where}: the file is truncated or altered: MD5 is {found}, expected {expected}'
        )


def content_digest(images: np.ndarray, labels: np.ndarray) -> str:
    """SHA-256 of a set of labelled images; their order does not matter.

    `sha256(sorted(sha256(label as one byte + pixels) for each image))`

    Args:
        images: uint8 `(n, height, width, channels)`.
        labels: integers `(n,)`, 0 to 255.

    Returns:
        64 hexadecimal digits.

    >>> images = np.arange(8, dtype=np.uint8).reshape(2, 2, 2, 1)
    >>> content_digest(images, [0, 1]) == content_digest(images[::-1], [1, 0])
    True
    """
    images = np.ascontiguousarray(images)
    parts = sorted(
        hashlib.sha256(bytes([label]) + image.tobytes()).digest()
        for image, label in zip(images, labels, strict=True)
    )
    return hashlib.sha256(b''.join(parts)).hexdigest()
