"""UPGRADING.md holds every name of the original library, and its successors are there."""

import importlib
import pathlib
import re

import keras

import fenwicks as fw

HERE = pathlib.Path(__file__).parent
PAGE = HERE.parent / 'UPGRADING.md'


def rows():
    """`(originals, successors)` of each row: the names between backticks in two columns."""
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip('|').split('|')]
        if len(cells) == 3 and '`' in cells[0]:
            yield tuple(re.findall(r'`([^`]+)`', cell) for cell in cells[:2])


def test_every_name_of_the_original_stands_there_once():
    originals = [name for names, _ in rows() for name in names]
    assert sorted(originals) == sorted((HERE / 'fenwicks_v0.txt').read_text().split())


def test_every_successor_is_there():
    public = set((HERE / 'public_names.txt').read_text().split())
    for originals, successors in rows():
        assert successors, originals
        for name in successors:
            root, *path = name.split('.')
            if root == 'google':  # is in Colab alone
                continue
            found = {'fw': fw, 'keras': keras}.get(root) or importlib.import_module(root)
            for place, attribute in enumerate(path):
                if root == 'matplotlib' and not place:
                    found = importlib.import_module(f'{root}.{attribute}')
                else:
                    found = getattr(found, attribute)
            if root == 'fw':
                assert '.'.join(['fenwicks', *path[:2]]) in public, name
