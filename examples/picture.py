"""Renders a page of HTML to a small picture, in a headless Chromium.

    python examples/picture.py out/my_run/report.html --out=examples/results/report.png

The README shows the upper part of a run's page so. Needs Chromium (`apt install chromium`) or
Chrome; `CHROMIUM` names another path.
"""

from __future__ import annotations

import startup  # noqa: F401

import io
import os
import pathlib
import shutil
import subprocess
import tempfile

from PIL import Image

from fenwicks import command, runlog

NAME = 'picture.py'
BROWSERS = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')
COLOURS = 128  # of the picture: photographs in it stay recognisable, and the file small


def browser():
    """The path of a Chromium.

    Raises:
        FileNotFoundError: there is none.
    """
    for name in (os.environ.get('CHROMIUM'), *BROWSERS):
        found = shutil.which(name) if name else None
        if found:
            return found
    raise FileNotFoundError(
        'a Chromium must be installed (apt install chromium), or named by CHROMIUM. Received: none'
    )


def render(page, width, height):
    """A page of a local file as an image of `width` x `height` pixels, from its top."""
    with tempfile.TemporaryDirectory() as folder:
        shot = pathlib.Path(folder, 'shot.png')
        flags = ['--headless', '--no-sandbox', '--disable-gpu', '--hide-scrollbars']
        flags += [f'--user-data-dir={folder}', f'--window-size={width},{height}']
        run = subprocess.run(
            [browser(), *flags, f'--screenshot={shot}', pathlib.Path(page).resolve().as_uri()],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if not shot.exists():
            raise RuntimeError(f'Chromium must render {page}. Received: {run.stderr[-300:]}')
        return Image.open(io.BytesIO(shot.read_bytes())).convert('RGB')


def main(argv=None):
    parser = command.ArgumentParser(NAME, description=__doc__.partition('\n')[0])
    parser.add_argument('page', metavar='PAGE', help='an HTML file')
    parser.add_argument('--out', required=True, metavar='FILE', help='the PNG file to write')
    parser.add_argument('--size', default='900x1150', help='in pixels; default: 900x1150')
    arguments = parser.parse_args(argv)

    def work():
        width, height = size_of(arguments.size)
        if not pathlib.Path(arguments.page).is_file():
            raise ValueError(f'PAGE must be a file. Received: {arguments.page}')
        if pathlib.Path(arguments.out).suffix.lower() != '.png':
            raise ValueError(f'`out` must end in .png. Received: out={arguments.out}')
        image = render(arguments.page, width, height).quantize(COLOURS)
        with runlog.written_whole(arguments.out) as part:
            image.save(part, 'png', optimize=True)
        print(arguments.out)

    command.call(work, NAME)


def size_of(text):
    """Width and height of a text such as 900x1150."""
    sides = text.split('x')
    if len(sides) != 2 or not all(side.isdigit() and int(side) for side in sides):
        raise ValueError(f'`size` must be WIDTHxHEIGHT in pixels. Received: size={text}')
    return tuple(map(int, sides))


if __name__ == '__main__':
    main()
