"""Checkpoints: the whole state of a training in one file."""

from __future__ import annotations

import json

import numpy as np

from fenwicks._files import written_whole


def save(path, variables, state: dict):
    """Writes the values of `variables` and the JSON-able `state` to `path`, whole or not at all."""
    arrays = {f'variable_{i}': _storable(variable) for i, variable in enumerate(variables)}
    with written_whole(path) as part, open(part, 'wb') as file:
        np.savez(file, state=np.array(json.dumps(state)), **arrays)


def _storable(variable):
    array = np.asarray(variable)
    # NumPy's files don't know bfloat16; every bfloat16 is a float32.
    return array.astype(np.float32) if array.dtype.name == 'bfloat16' else array


def load(path) -> tuple[dict, list[np.ndarray]]:
    """The state and the variables' values that `save` wrote.

    Raises:
        ValueError: the file is damaged.
        OSError: it cannot be read.
    """
    with open(path, 'rb') as file:  # here, since NumPy leaves a damaged file open
        try:
            with np.load(file, allow_pickle=False) as arrays:
                state = json.loads(str(arrays['state']))
                return state, [arrays[f'variable_{i}'] for i in range(len(arrays.files) - 1)]
        except (OSError, MemoryError):  # no fault of the file's
            raise
        except Exception as error:  # a damaged archive raises nearly anything
            raise ValueError(
                f'the checkpoint must be whole: delete it to start anew. '
                f'Received: {path} ({" ".join(str(error).split())})'
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


def check_settings(where: str, made: dict, now: dict):
    """Raises unless a training goes on with the settings with which it began.

    Args:
        where: what holds the former settings, for the message.
        made: dict that holds the former settings, among other things.
        now: nested dict of settings; what JSON doesn't tell apart is the same.

    Raises:
        ValueError: they differ; it says where.
    """
    made = {key: made[key] for key in now if key in made}
    made, now = (_flat(json.loads(json.dumps(settings))) for settings in (made, now))
    if made != now:
        differences = ', '.join(
            f'{key}={now.get(key, "nothing")} instead of {made.get(key, "nothing")}'
            for key in {**made, **now}
            if made.get(key) != now.get(key)
        )
        raise ValueError(
            f'`resume` must go on with the settings of {where}. Received: {differences}'
        )


def _flat(settings, path=''):
    """A nested dict as one of what values look like, by dotted paths: innermost keys alone would
    hide one another."""
    if not isinstance(settings, dict):
        return {path: repr(settings)}
    flat = {}
    for key, value in settings.items():
        flat.update(_flat(value, f'{path}.{key}' if path else key))
    return flat
