"""Checks image files before a training: what they are, which are damaged, which are there twice."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import os
from collections.abc import Sequence

import numpy as np

from fenwicks.data.dataset import check_indices
from fenwicks.data.folders import printable
from fenwicks.data.images import LYING, RULE, open_image, reduced, turn_of
from fenwicks.data.limits import damage_named
from fenwicks.data.listing import ImageList, check_listed
from fenwicks.data.progress import progress_bar
from fenwicks.data.threads import in_order


@dataclasses.dataclass(frozen=True, eq=False)
class ImageReport:
    """What `check_images` found.

    Args:
        images: the list that was looked through.
        formats: number of images of each file format, such as 'JPEG'.
        modes: number of images of each of Pillow's modes, such as 'RGB', 'L', 'CMYK', 'I;16'.
        sizes: number of images of each `(height, width)`, as stored.
        animated: indices of images with more than one frame.
        rotated: indices of images whose EXIF or XMP data have them turned or mirrored.
        damaged: maps indices of images that can't be decoded to the reason.
        duplicates: groups of indices of images with the same pixels, each sorted.
    """

    images: ImageList
    formats: dict[str, int]
    modes: dict[str, int]
    sizes: dict[tuple[int, int], int]
    animated: tuple[int, ...]
    rotated: tuple[int, ...]
    damaged: dict[int, str]
    duplicates: tuple[tuple[int, ...], ...]

    @property
    def contradictions(self) -> tuple[tuple[int, ...], ...]:
        """The groups of duplicates that have different labels."""
        labels = self.images.labels
        if labels is None:
            return ()
        return tuple(group for group in self.duplicates if len({*labels[list(group)].tolist()}) > 1)

    def shared(
        self, train: Sequence[int] | np.ndarray, test: Sequence[int] | np.ndarray
    ) -> list[tuple[int, int]]:
        """Pairs of images with the same pixels, of which one is on each side of a split.

        Args:
            train: indices of one side, or a boolean for each image.
            test: the same of the other side.

        Returns:
            List of (index in `train`, index in `test`), one pair for each such test image.

        Raises:
            ValueError: the indices are neither, or there is none on one side.
        """
        first, second = (
            {*check_indices(indices, len(self.images), name).tolist()}
            for name, indices in (('train', train), ('test', test))
        )
        pairs = []
        for group in self.duplicates:
            trained = [index for index in group if index in first]
            if trained:
                pairs += [(trained[0], index) for index in group if index in second]
        return pairs

    def __str__(self) -> str:
        def counted(counts):
            ordered = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
            rest = f', {len(ordered) - 5} others' if len(ordered) > 5 else ''
            return ', '.join(f'{key} {count}' for key, count in ordered[:5]) + rest

        heights = sorted(height for height, _ in self.sizes)
        widths = sorted(width for _, width in self.sizes)
        lines = [
            f'{len(self.images)} images in {self.images.root}',
            f'formats: {counted(self.formats)}',
            f'modes: {counted(self.modes)}',
            f'sizes: {heights[0]} to {heights[-1]} high, {widths[0]} to {widths[-1]} wide'
            if heights
            else 'sizes: none',
            f'animated: {len(self.animated)}; turned by metadata: {len(self.rotated)}',
            f'damaged: {len(self.damaged)}',
            *(f'  {reason}' for reason in list(self.damaged.values())[:10]),
            f'with the same pixels as another: {sum(len(g) - 1 for g in self.duplicates)}, '
            f'of these with another label: {len(self.contradictions)}',
        ]
        for group in self.duplicates[:10]:
            lines.append('  ' + ', '.join(self.images.paths[index] for index in group))
        return '\n'.join(map(printable, lines))


def check_images(
    images: ImageList, workers: int | None = None, show_progress: bool = True
) -> ImageReport:
    """Decodes every image whole, and reports what there is.

    Args:
        images: what to look through.
        workers: number of threads; by default one for each processor, at most 16.
        show_progress: whether to show a bar.

    Returns:
        An ImageReport; print it to read it.

    Raises:
        OSError: a file can't be read.
    """
    check_listed(images)
    counts: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    animated: list[int] = []
    rotated: list[int] = []
    damaged: dict[int, str] = {}
    by_digest: dict[bytes, list[int]] = collections.defaultdict(list)
    with progress_bar('checking', len(images), shown=show_progress) as bar:
        for index, found in enumerate(in_order(_looked_at, images.files, workers)):
            bar.update()
            if isinstance(found, str):
                damaged[index] = found
                continue
            for name in ('format', 'mode', 'size'):
                counts[name][found[name]] += 1
            if found['animated']:
                animated.append(index)
            if found['rotated']:
                rotated.append(index)
            by_digest[found['digest']].append(index)
    return ImageReport(
        images,
        dict(counts['format']),
        dict(counts['mode']),
        dict(counts['size']),
        tuple(animated),
        tuple(rotated),
        damaged,
        tuple(sorted(tuple(group) for group in by_digest.values() if len(group) > 1)),
    )


def _looked_at(path):
    """What one file is; or, as a string, why it can't be decoded."""
    try:
        with open_image(path) as image, damage_named(os.fspath(path), RULE):
            turn, (width, height) = turn_of(image), image.size
            if image.format == 'TIFF' and turn in LYING:
                width, height = height, width  # Pillow gives the size of the turned image
            mode, frames = image.mode, getattr(image, 'n_frames', 1)
            pixels = reduced(image)
            pixels = pixels.convert('RGBA') if mode == 'P' else pixels
            digest = hashlib.sha256(repr((pixels.mode, image.size)).encode())
            digest.update(pixels.tobytes())
            return {
                'format': image.format,
                'mode': mode,
                'size': (height, width),
                'animated': frames > 1,
                'rotated': turn is not None,
                'digest': digest.digest(),
            }
    except ValueError as error:
        return str(error)
