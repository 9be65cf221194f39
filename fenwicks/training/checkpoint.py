"""Checkpoints: the whole state of a training in one file."""

from __future__ import annotations

import json
import zipfile

import numpy as np

from fenwicks.files import written_whole


def save(path, variables, state: dict):
    """Writes the values of `variables` and the JSON-able `state` to `path`, whole or not at all."""
    arrays = {f'variable_{i}': np.asarray(variable) for i, variable in enumerate(variables)}
    with written_whole(path) as part, open(part, 'wb') as file:
        np.savez(file, state=np.array(json.dumps(state)), **arrays)


def load(path) -> tuple[dict, list[np.ndarray]]:
    """The state and the variables' values that `save` wrote.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            state = json.loads(str(file['state']))
            return state, [file[f'variable_{i}'] for i in range(len(file.files) - 1)]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f'the checkpoint must be whole: delete it to start anew. Received: {path} ({error})'
        ) from error


def assign(variables, values):
    """Sets `variables` to `values`.

    Raises:
        ValueError: number or shapes differ, as they do between models.
    """
    expected = [tuple(variable.shape) for variable in variables]
    found = [value.shape for value in values]
    if expected != found:
        raise ValueError(
            f'the checkpoint must fit the model and its optimizer: {len(expected)} variables. '
            f'Received: {len(found)} variables, or other shapes'
        )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
