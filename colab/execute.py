"""Runs the notebooks from top to bottom and stores them with their outputs.

    python colab/execute.py                                # all, on the data that this machine has
    python colab/execute.py cifar10_in_two_minutes         # one of them
    python colab/execute.py --text                         # only makes the notebooks of their texts

The cells come from the text, `NAME.py`; a cell that fails ends the command with its error, and the
stored notebooks stay as they were. Run it in a clean clone, since the outputs name its commit. It
needs `.[cpu,test]`. Environment variables such as `FENWICKS_EPOCHS` override the settings;
`FENWICKS_DATA` says where CIFAR-10 lies.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import tempfile

import jupytext
import nbclient
import nbformat

FOLDER = pathlib.Path(__file__).resolve().parent
NAMES = ('cifar10_in_two_minutes', 'your_images', 'bag_of_tricks')


def of_text(name):
    """The notebook of a text, without outputs; cells have the same ids each time."""
    notebook = jupytext.read(FOLDER / f'{name}.py')
    notebook.metadata.get('jupytext', {}).pop('text_representation', None)
    for number, cell in enumerate(notebook.cells):
        cell.id = f'cell-{number}'
    return notebook


def executed(notebook, environment, timeout=3600):
    """Runs the cells in a fresh kernel, beside the texts; adds their outputs to the notebook.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    client = nbclient.NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name='python3',
        resources={'metadata': {'path': str(FOLDER)}},
    )
    client.execute(env=environment)
    for cell in notebook.cells:
        cell.metadata.pop('execution', None)  # times of each cell
        if cell.cell_type == 'code':
            cell.outputs = joined(cell.outputs)
    return notebook


def joined(outputs):
    """The outputs of a cell, in which texts that follow each other are one."""
    together = []
    for output in outputs:
        last = together[-1] if together else {}
        if 'text' in output and output.get('name') == last.get('name'):
            last.text += output.text
        else:
            together.append(output)
    for output in together:
        if output.output_type == 'stream':
            output.text = on_screen(output.text)
    return together


def on_screen(text):
    """What a terminal shows in the end: lines are written over, and one bar is left at most."""
    lines = [
        line.rstrip('\r').split('\r')[-1].rstrip()
        for line in text.replace('\r\n', '\n').split('\n')
    ]
    bars = [number for number, line in enumerate(lines) if '%|' in line]
    kept = [line for number, line in enumerate(lines) if number not in bars[:-1]]
    return '\n'.join(line for line in kept if line) + '\n'


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('names', nargs='*', metavar='NAME', default=NAMES, help=' or '.join(NAMES))
    parser.add_argument('--text', action='store_true', help='without running the cells')
    arguments = parser.parse_args()
    notebooks = {name: of_text(name) for name in arguments.names}
    if not arguments.text:
        for name, notebook in notebooks.items():
            with tempfile.TemporaryDirectory() as folder:  # for the files that the cells write
                environment = {
                    'FENWICKS_MODEL_FILE': f'{folder}/{name}.keras',
                    'FENWICKS_FOLDER': f'{folder}/pictures',
                    **os.environ,
                }
                executed(notebook, environment)
    for name, notebook in notebooks.items():  # the clone stays as it was committed until here
        nbformat.write(notebook, FOLDER / f'{name}.ipynb')
        print(FOLDER / f'{name}.ipynb')


if __name__ == '__main__':
    main()
