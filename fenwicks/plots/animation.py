"""Grids of images that change: the same batch as an augmentation makes it, epoch by epoch."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import ArrayLike
from PIL import Image

from fenwicks import augment as augmentations
from fenwicks._checks import finite_number, positive_integer
from fenwicks._files import check_target, written_whole
from fenwicks.plots.grids import draw_grid, pixels


class Animation:
    """A figure whose images change from frame to frame; a notebook plays it.

    Args:
        figure: the figure, which shows the first frame.
        shown: the images drawn in it.
        frames: for each frame, the pixels of each of `shown`.
        seconds_per_frame: how long a frame is shown.
    """

    def __init__(
        self,
        figure: Figure,
        shown: Sequence[AxesImage],
        frames: Sequence[Sequence[np.ndarray]],
        seconds_per_frame: float,
    ):
        self.figure = figure
        self.shown = shown
        self.frames = frames
        self.seconds_per_frame = seconds_per_frame

    def draw(self, number: int) -> Figure:
        """The figure with the n-th frame in it."""
        for image, tile in zip(self.shown, self.frames[number], strict=True):
            image.set_data(tile)
        return self.figure

    def gif(self) -> bytes:
        """All frames as a GIF that starts over at its end."""
        try:
            drawn = [self._render(number) for number in range(len(self.frames))]
        finally:
            self.draw(0)
        with io.BytesIO() as file:
            drawn[0].save(
                file,
                format='GIF',
                save_all=True,
                append_images=drawn[1:],
                duration=round(1000 * self.seconds_per_frame),
                loop=0,
            )
            return file.getvalue()

    def save(self, path: str | os.PathLike) -> None:
        """Writes the GIF to a file."""
        path = check_target(path)
        content = self.gif()
        with written_whole(path) as part:
            part.write_bytes(content)

    def _render(self, number):
        with io.BytesIO() as file:
            self.draw(number).savefig(file, format='png')
            return Image.open(file).convert('RGB')

    def _repr_html_(self):
        content = base64.b64encode(self.gif()).decode()
        return f'<img alt="animation" src="data:image/gif;base64,{content}">'


def animate(
    frames: Iterable[ArrayLike],
    columns: int | None = None,
    *,
    seconds_per_frame: float = 0.5,
    axes: Axes | None = None,
    theme: str = 'light',
) -> Animation:
    """Shows batches of images one after the other, in one grid.

    Args:
        frames: pixels 0 ... 255, `(frames, count, height, width, channels)` of 1 or 3 channels:
            what an input pipeline yields in one epoch after the other, for instance.
        columns: images in a row; `None` for all in one row, up to eight.
        seconds_per_frame: how long a batch is shown.
        axes, theme: see `fenwicks.plots`.

    Returns:
        An `Animation`, whose `figure` shows the first batch, and whose `save` writes a GIF.

    Raises:
        ValueError: an argument breaks its rule.

    Example:

    >>> import numpy as np
    >>> from fenwicks import plots
    >>> frames = np.linspace(0, 255, 5 * 2 * 8 * 8 * 3).reshape(5, 2, 8, 8, 3)
    >>> animation = plots.animate(frames)
    >>> len(animation.frames)
    5
    """
    seconds_per_frame = finite_number('seconds_per_frame', seconds_per_frame, above=0)
    batches = [pixels('frames', frame) for frame in frames]
    if not batches or len({tuple(tile.shape for tile in batch) for batch in batches}) > 1:
        raise ValueError(
            '`frames` must be one or more batches of the same shape. '
            f'Received: {len(batches)} frames'
        )
    count = len(batches[0])
    columns = 8 if columns is None else columns
    figure, (_, shown) = draw_grid(batches[0], [''] * count, columns, axes, theme)
    return Animation(figure, shown, batches, seconds_per_frame)


def animate_augmentation(
    images: ArrayLike,
    augment: Callable,
    mean: ArrayLike,
    std: ArrayLike,
    versions: int = 8,
    *,
    seed: tuple[int, int] = (0, 0),
    seconds_per_frame: float = 0.5,
    axes: Axes | None = None,
    theme: str = 'light',
) -> Animation:
    """Shows what an augmentation makes of a batch in one epoch after the other.

    Args:
        images: uint8 `(count, height, width, channels)`, drawn above their augmented versions.
        augment, mean, std, versions, seed: see `augmentation`.
        seconds_per_frame: how long a version is shown.
        axes, theme: see `fenwicks.plots`.

    Returns:
        An `Animation`: the first row of its grid stays, the second changes.

    Raises:
        ValueError: an argument breaks its rule.
    """
    versions = positive_integer('versions', versions)
    made = augmentations.preview(images, augment, mean, std, versions, seed)
    originals = np.asarray(images)
    if made.shape[2:] != originals.shape[1:]:
        raise ValueError(
            f"`augment` must keep the images' shape {originals.shape[1:]} to stand below them. "
            f'Received: {made.shape[2:]}'
        )
    frames = [np.concatenate([originals, version]) for version in made]
    return animate(
        frames, len(originals), seconds_per_frame=seconds_per_frame, axes=axes, theme=theme
    )
