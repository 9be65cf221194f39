"""Exports the models of finished runs, and writes their cards anew; see `fenwicks.export`.

A card that was edited stays as it is.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
from collections.abc import Sequence

import keras

from fenwicks import command, export, runlog
from fenwicks.export.card import own_text

NAME = 'fenwicks.export'


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments of the command line."""
    parser = command.ArgumentParser(NAME, prog=f'python -m {NAME}', description=__doc__)
    parser.add_argument('runs', nargs='+', metavar='RUN', help='folder of a run')
    parser.add_argument(
        '--formats',
        type=lambda text: [name for name in text.split(',') if name],
        default=[],
        help=f'separated by commas, of {", ".join(export.FORMATS)}; default: the card alone',
    )
    return parser.parse_args(argv)


def export_run(folder: str, formats: Sequence[str]) -> None:
    """Exports one run, and says what was written.

    Raises:
        ValueError: the folder holds no finished run.
        OSError: it can't be written to.
    """
    path, result = pathlib.Path(folder).expanduser(), _finished(folder)
    if formats:
        model = _loaded(path / 'model.keras')
        for written in export.write(model, path, formats):
            print(written, flush=True)
    card, readme = _card(path, result), path / 'README.md'
    if readme.exists() and own_text(readme.read_text('utf-8', 'replace')) != own_text(card):
        print(f'{NAME}: {readme} was edited and stays as it is', file=sys.stderr, flush=True)
        return
    runlog.write_text(readme, card)
    print(readme, flush=True)


def _card(path, result):
    with command.renamed({'result': 'result.json'}):
        return export.model_card(result, os.listdir(path))


def _finished(folder):
    """What is in the result of a finished run, in whose folder files can be written."""
    path = pathlib.Path(folder).expanduser()
    missing = [name for name in ('model.keras', 'result.json') if not (path / name).is_file()]
    if missing and (path / '0' / missing[0]).is_file():
        raise ValueError(
            f'RUN must be one of the runs in this folder, such as {path / "0"}. Received: {path}'
        )
    if missing:
        raise ValueError(
            f'RUN must be the folder of a finished run. Received: {path}, no {missing[0]}'
        )
    result = runlog.read_json(path / 'result.json')
    with command.renamed({'folder': 'RUN'}):
        runlog.check_writable(path)
    return result


def _loaded(path):
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # Keras raises many kinds
        raise ValueError(
            f'RUN must hold a model as Keras saves it. Received: {path}, which is damaged, cut '
            f'short or of another version ({error})'
        ) from error


def main(argv: Sequence[str] | None = None) -> None:
    """Exports all the runs."""
    arguments = parse_arguments(argv)

    def work():
        export.check_formats(arguments.formats)
        for folder in arguments.runs:  # all of them before the first is exported
            _finished(folder)
        for folder in arguments.runs:
            export_run(folder, arguments.formats)

    command.call(work, NAME)


if __name__ == '__main__':
    main()
