"""Figures without a display, in colours that can be read on light paper, on dark and in grey."""

from __future__ import annotations

import dataclasses
import io
import os
import pathlib
import shutil
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure

from fenwicks._files import check_target, written_whole


@dataclasses.dataclass(frozen=True)
class Theme:
    """The colours of a figure, as `#rrggbb`.

    Attributes:
        paper: the background.
        ink: text, and lines that stand for no data set.
        faint: grid lines and frames.
        series: one colour for each data set. Their luminances differ by a third at least, and all
            of them differ from the paper's by a contrast of 3 or more.
    """

    paper: str
    ink: str
    faint: str
    series: tuple[str, ...]


THEMES = {
    'light': Theme(
        paper='#ffffff',
        ink='#1c2128',
        faint='#c9d1d9',
        series=('#0e2c5f', '#e7640c', '#7f2057', '#13856e', '#733dcf'),
    ),
    'dark': Theme(
        paper='#14181d',
        ink='#e6edf3',
        faint='#444c56',
        series=('#e1effd', '#f06f0d', '#f8bee0', '#50c59e', '#925bf2'),
    ),
}
DASHES = ('-', '--', '-.', ':')
MARKERS = ('o', 's', '^', 'D', 'v', 'P', 'X')
# Of a text that users chose, whose `$` are letters.
PLAIN: dict[str, Any] = {'parse_math': False}
_SHOWN = '\u2060'  # before a label, where no name begins with it
_LONG_LABEL = 30  # letters of a legend's entry
_LONGEST = 24, 60  # letters of a name beside the data, and of a legend's entry


class NotebookFigure(Figure):
    """A figure that a notebook shows even where `pyplot` was never imported."""

    def _repr_png_(self):
        with io.BytesIO() as file:
            self.savefig(file, format='png')
            return file.getvalue()


def find_theme(name: str) -> Theme:
    """The theme of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in THEMES:
        raise ValueError(f'`theme` must be one of {", ".join(THEMES)}. Received: theme={name!r}')
    return THEMES[name]


def new_axes(size: tuple[float, float]) -> Axes:
    """The axes of a new figure of that width and height, in inches."""
    return NotebookFigure(figsize=size, layout='constrained').subplots()


def prepare(axes: Axes | None, theme: str, size: tuple[float, float]) -> tuple[Axes, Theme]:
    """The axes to draw into, in the theme's colours.

    Args:
        axes: the caller's; `None` for those of a new figure.
        theme: a key of `THEMES`.
        size: width and height of a new figure, in inches.

    Returns:
        The axes and the theme.
    """
    colours = find_theme(theme)
    if axes is None:
        axes = new_axes(size)
        figure_of(axes).set_facecolor(colours.paper)
    axes.set_facecolor('none')  # the paper is the figure's
    axes.tick_params(colors=colours.ink)
    for text in (axes.xaxis.label, axes.yaxis.label, axes.title):
        text.set_color(colours.ink)
    for side, spine in axes.spines.items():
        spine.set_color(colours.faint)
        spine.set_visible(side in ('left', 'bottom'))
    return axes, colours


def figure_of(axes: Axes) -> Figure:
    """The figure that holds the axes."""
    figure = axes.get_figure(root=True)
    assert figure is not None  # axes that were removed have none; nothing can be drawn into them
    return figure


def grid(axes: Axes, theme: Theme, axis: Literal['both', 'x', 'y'] = 'both') -> None:
    """Faint grid lines behind the data."""
    axes.grid(visible=True, axis=axis, color=theme.faint, linewidth=0.6)
    axes.set_axisbelow(True)


def legend(axes: Axes, theme: Theme, **settings: Any) -> None:
    """A legend on the paper's colour; below the axes where its words would hide the data."""
    _, labels = axes.get_legend_handles_labels()
    if max(map(len, labels), default=0) > _LONG_LABEL:
        settings = {**settings, 'loc': 'upper center', 'bbox_to_anchor': (0.5, -0.18)}
    made = axes.legend(
        labelcolor=theme.ink, facecolor=theme.paper, edgecolor=theme.faint, framealpha=1, **settings
    )
    for text in made.get_texts():
        words = text.get_text().removeprefix(_SHOWN)
        text.set(text=shortened(words, _LONGEST[1]), **PLAIN)


def label_of(name: object) -> str:
    """A label for `legend`, which shows it whatever its first letter.

    Matplotlib leaves labels out that begin with an underscore.
    """
    return f'{_SHOWN}{name}'


def shortened(text: object, most: int = _LONGEST[0]) -> str:
    """A text whose end is left out where it would take the room of the data."""
    words = str(text)
    return words if len(words) <= most else f'{words[: most - 1]}…'


def line_style(number: int, theme: Theme) -> dict:
    """Colour and dashes of the n-th line; no two of the first twenty are alike."""
    return {
        'color': theme.series[number % len(theme.series)],
        'linestyle': DASHES[number % len(DASHES)],
    }


def marker_style(number: int, theme: Theme) -> dict:
    """Colour and marker of the n-th point; no two of the first 35 are alike."""
    return {
        'color': theme.series[number % len(theme.series)],
        'marker': MARKERS[number % len(MARKERS)],
    }


def check_path(path: str | os.PathLike[str]) -> pathlib.Path:
    """Raises what would keep `save` from writing a figure there, to be called before the work.

    Returns:
        The path of the file, with the home folder for `~`.

    Raises:
        ValueError: Matplotlib doesn't know the file's suffix, or there is no such folder, or the
            path is one.
    """
    path = check_target(path)
    known = set(FigureCanvasBase.get_supported_filetypes())
    if shutil.which('xelatex') is None:  # which Matplotlib runs for it
        known -= {'pgf'}
    if _kind(path) not in known:
        raise ValueError(
            f'`path` must end in one of {", ".join(f".{kind}" for kind in sorted(known))}. '
            f'Received: path={path}'
        )
    return path


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes a figure to a file of the kind that its suffix names, PNG where it has none.

    The file appears whole or not at all.

    Raises:
        ValueError: as `check_path`.
        OSError: the file can't be written.
    """
    path = check_path(path)
    with written_whole(path) as part:
        figure.savefig(part, format=_kind(path))


def _kind(path):
    return path.suffix[1:].lower() or 'png'
