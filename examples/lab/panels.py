"""Panels of a figure that look alike in all experiments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

THEME = 'light'


def new(size: tuple[float, float], ratios: Sequence[float] = (1, 1), rows: int = 1) -> Any:
    """A figure, its panels row by row, and their theme.

    Args:
        size: width and height in inches.
        ratios: of the panels' widths in a row.
        rows: how many rows of them.
    """
    from matplotlib.figure import Figure

    from fenwicks.plots import canvas

    theme = canvas.find_theme(THEME)
    figure = Figure(figsize=size, layout='constrained', facecolor=theme.paper)
    panels = figure.subplots(rows, len(ratios), width_ratios=ratios, squeeze=False).ravel()
    for axes in panels:
        canvas.prepare(axes, THEME, (0, 0))
        canvas.grid(axes, theme)
    return figure, panels, theme


def finish(axes: Any, title: str, legend: dict[str, Any] | None = None, **settings: Any) -> None:
    """Gives a panel its title, the labels and scales in `settings`, and a legend if it is to be."""
    from fenwicks.plots import canvas

    theme = canvas.find_theme(THEME)
    axes.set(**settings)
    axes.set_title(title, fontsize=10, color=theme.ink)
    if legend is not None:
        canvas.legend(axes, theme, **{'fontsize': 8, **legend})


def style(number: int) -> dict[str, Any]:
    """Colour, dashes and marker of the n-th series."""
    from fenwicks.plots import canvas

    theme = canvas.find_theme(THEME)
    return {**canvas.line_style(number, theme), **canvas.marker_style(number, theme)}
