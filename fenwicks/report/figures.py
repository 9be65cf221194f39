"""Figures and images as parts of a page: SVG in the reader's colours, PNG as data."""

from __future__ import annotations

import base64
import io
import re
from html import escape
from xml.etree import ElementTree

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from fenwicks.plots import THEMES

_SVG = '{http://www.w3.org/2000/svg}'
_XLINK = '{http://www.w3.org/1999/xlink}href'
_LIGHT = THEMES['light']
_EXACT, _LARGEST = 64, 128  # sides of images in pixels

# The colours of a figure in the light theme, as the page's variables, which know the dark ones.
COLOURS = {
    _LIGHT.paper: 'paper',
    _LIGHT.ink: 'ink',
    _LIGHT.faint: 'faint',
    **{colour: f'series{number}' for number, colour in enumerate(_LIGHT.series)},
}


def colour_variables(theme: str) -> str:
    """The variables of `COLOURS` in a theme, as CSS declarations."""
    colours = THEMES[theme]
    values = (colours.paper, colours.ink, colours.faint, *colours.series)
    return ' '.join(
        f'--{name}: {value};' for name, value in zip(COLOURS.values(), values, strict=True)
    )


def svg(figure: Figure, description: str, prefix: str) -> str:
    """A figure in the light theme as an `<svg>` element that follows the page's colours.

    Args:
        figure: the figure.
        description: what it shows, for those who don't see it.
        prefix: made part of all its ids, which must differ throughout a page.
    """
    with (
        io.StringIO() as file,
        matplotlib.rc_context({'svg.fonttype': 'none', 'svg.hashsalt': prefix}),
    ):
        unknown = dict.fromkeys(('Date', 'Creator', 'Format', 'Type'))
        figure.savefig(file, format='svg', transparent=True, metadata=unknown)
        root = ElementTree.fromstring(file.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag == f'{_SVG}metadata' or not isinstance(child.tag, str):
                parent.remove(child)
    for element in root.iter():
        _adapt(element, prefix)
    for name in ('width', 'height', 'version'):
        root.attrib.pop(name, None)
    root.set('role', 'img')
    root.set('aria-label', description)
    text = ElementTree.tostring(root, encoding='unicode')
    # HTML knows both namespaces and wants no prefixes.
    return re.sub(r'(</?)ns\d+:', r'\1', re.sub(r' xmlns:\w+="[^"]*"', '', text))


def _adapt(element, prefix):
    """Renames ids, and replaces colours and fonts by the page's."""
    for name, value in list(element.attrib.items()):
        if name == 'id':
            element.set(name, f'{prefix}-{value}')
        elif name == _XLINK:
            del element.attrib[name]
            element.set('href', re.sub('^#', f'#{prefix}-', value))
        elif name in ('clip-path', 'style', 'fill', 'stroke'):
            value = value.replace('url(#', f'url(#{prefix}-')
            value = re.sub(r"(font: [^']*)'[^;]*sans-serif", r'\1sans-serif', value)
            if name == 'style':
                value = re.sub('#[0-9a-f]{6}', _variable, value)
            element.set(name, value)
    if element.tag == f'{_SVG}image':
        element.set('style', 'image-rendering: pixelated')


def _variable(match):
    name = COLOURS.get(match[0])
    return f'var(--{name})' if name else match[0]


def image(pixels: np.ndarray, description: str) -> str:
    """Pixels, uint8 `(height, width, channels)`, as an `<img>` element.

    Small images keep every pixel; larger ones are reduced, for the page's size.
    """
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    kind, settings = 'png', {'optimize': 1}
    if max(picture.size) > _EXACT:
        picture.thumbnail((_LARGEST, _LARGEST))
        kind, settings = 'jpeg', {'quality': 85}
    with io.BytesIO() as file:
        picture.convert('RGB').save(file, format=kind, **settings)
        content = base64.b64encode(file.getvalue()).decode()
    width, height = picture.size
    smooth = '' if kind == 'png' else ' class="smooth"'
    return (
        f'<img src="data:image/{kind};base64,{content}" width="{width}" height="{height}" '
        f'alt="{escape(description)}"{smooth}>'
    )
