"""What a page shows besides numbers: predictions, and a few images."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import zipfile
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fenwicks import evaluate
from fenwicks._files import written_whole
from fenwicks.data.limits import damage_named, read_array

FILE = 'report.npz'
_MOST_BYTES = 2**28  # of an array; a thousand pictures of 256x256 pixels have fewer

# Shape and type of each array; `n` test images, `k` mistakes, `m` samples, `v` versions of each.
_ARRAYS = {
    'labels': ('n', 'integer'),
    'predictions': ('n', 'integer'),
    'mistakes': ('k', 'integer'),
    'confidences': ('k', 'floating'),
    'mistake_images': ('k height width channels', 'uint8'),
    'samples': ('m height width channels', 'uint8'),
    'augmented': ('v m rows columns channels', 'uint8'),  # crops may have another size
}


@dataclasses.dataclass(frozen=True, eq=False)
class Material:
    """Predictions on the test images, the most confident mistakes, and augmented samples.

    Attributes:
        labels: integers `(n,)`, the classes of the test images.
        predictions: integers `(n,)`.
        mistakes: integers `(k,)`, positions of misclassified test images, the most confident
            first.
        confidences: floats `(k,)`, the predicted probabilities of those.
        mistake_images: uint8 `(k, height, width, channels)`.
        samples: uint8 `(m, height, width, channels)`, some training images.
        augmented: uint8 `(v, m, rows, columns, channels)`, v augmented versions of each.

    Raises:
        ValueError: the arrays don't fit each other.
    """

    labels: np.ndarray
    predictions: np.ndarray
    mistakes: np.ndarray
    confidences: np.ndarray
    mistake_images: np.ndarray
    samples: np.ndarray
    augmented: np.ndarray

    def __post_init__(self):
        sizes: dict[str, int] = {}
        for name, (shape, kind) in _ARRAYS.items():
            array, wanted = getattr(self, name), shape.split()
            fits = array.ndim == len(wanted) and np.issubdtype(array.dtype, getattr(np, kind))
            if not fits or any(
                sizes.setdefault(axis, size) != size
                for axis, size in zip(wanted, array.shape, strict=True)
            ):
                raise ValueError(
                    f'`{name}` must be {kind} ({", ".join(wanted)}), sizes as in the other arrays. '
                    f'Received: {array.dtype} {array.shape}'
                )
            if array.nbytes > _MOST_BYTES:
                raise ValueError(
                    f'`{name}` must take at most {_MOST_BYTES >> 20} MiB: keep fewer images. '
                    f'Received: {array.dtype} {array.shape}'
                )
        for name, end in (('labels', None), ('predictions', None), ('mistakes', sizes['n'])):
            array = getattr(self, name)
            if array.size and (array.min() < 0 or (end is not None and array.max() >= end)):
                raise ValueError(
                    f'`{name}` must be from 0 on{f" and below {end}" if end else ""}. '
                    f'Received: {array.min()} to {array.max()}'
                )

    @classmethod
    def of(
        cls,
        logits: ArrayLike,
        labels: ArrayLike,
        images: ArrayLike,
        samples: ArrayLike,
        augmented: ArrayLike,
        mistakes: int = 12,
    ) -> Material:
        """Makes it from what a script has after a training.

        Args:
            logits: floats `(n, classes)` of the test images, as `Trainer.predict` returns them.
            labels: integers `(n,)`.
            images: uint8 `(n, height, width, channels)`, of which only mistakes are kept.
            samples: uint8 `(m, height, width, channels)`, some training images.
            augmented: pixels 0 ... 255 `(v, m, rows, columns, channels)`: what the augmentation
                makes of the samples in v epochs.
            mistakes: how many mistakes to keep at most.
        """
        logits, labels = np.asarray(logits), np.asarray(labels)
        positions, confidences = evaluate.most_confident_mistakes(logits, labels, mistakes)
        pixels = np.rint(np.clip(np.asarray(augmented), 0, 255)).astype(np.uint8)
        return cls(
            labels=np.asarray(labels, np.int32),
            predictions=logits.argmax(axis=1).astype(np.int32),
            mistakes=positions,
            confidences=confidences,
            mistake_images=np.asarray(images)[positions],
            samples=np.asarray(samples),
            augmented=pixels,
        )

    def save(self, folder: str | os.PathLike) -> None:
        """Writes `report.npz` into the folder of a run."""
        arrays: dict[str, Any] = {name: getattr(self, name) for name in _ARRAYS}
        with written_whole(pathlib.Path(folder).expanduser() / FILE) as part:
            np.savez_compressed(part, **arrays)


def load_material(folder: str | os.PathLike) -> Material | None:
    """What `report.npz` in a folder holds; `None` where there is no such file.

    Raises:
        ValueError: the file is damaged or another kind of file.
    """
    path = pathlib.Path(folder) / FILE
    if not path.exists():
        return None
    rule = 'be a Material that fenwicks.report saved: remove it, or train again'
    with damage_named(path, rule), zipfile.ZipFile(path) as archive:
        return Material(**{name: read_array(archive, name, _MOST_BYTES) for name in _ARRAYS})
