"""Writes an HTML page from the folders of training runs; see `fenwicks.report`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from fenwicks import command, report

NAME = 'fenwicks.report'


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments of the command line."""
    parser = command.ArgumentParser(NAME, prog=f'python -m {NAME}', description=__doc__)
    parser.add_argument('runs', nargs='+', metavar='RUN', help='folder of a run, or of several')
    parser.add_argument(
        '-o', '--out', metavar='PAGE', help='file to write; default: report.html in the one folder'
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the page and says where it is."""
    arguments = parse_arguments(argv)

    def work():
        with command.renamed({'path': 'out'}):
            print(report.write(arguments.runs, arguments.out))

    command.call(work, NAME)


if __name__ == '__main__':
    main()
