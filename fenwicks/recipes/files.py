"""Recipes from files: a Python file that defines `recipe`, or JSON."""

from __future__ import annotations

import json
import os
import pathlib
import runpy
from typing import Any

from fenwicks._errors import one_line
from fenwicks.recipes.recipe import Recipe


def load(path: str | os.PathLike[str]) -> Recipe:
    """The recipe in a file.

    A Python file defines it as `recipe`, and is run to get it; so it must come from somebody you
    trust. A JSON file holds its fields, alone or as a `result.json` does, which
    `examples/cifar10.py` writes.

    Args:
        path: of a file that ends in `.py` or `.json`.

    Raises:
        OSError: the file can't be read.
        ValueError: it holds no recipe, or one that breaks a rule.
    """
    if not isinstance(path, str | os.PathLike):
        raise ValueError(f'`path` must be the path of a file. Received: path={path!r}')
    path = pathlib.Path(path).expanduser()
    if path.suffix not in ('.py', '.json'):
        raise ValueError(f'`path` must end in .py or .json. Received: path={path}')
    if not path.is_file():
        raise FileNotFoundError(f'`path` must be a file that exists. Received: path={path}')
    return _from_python(path) if path.suffix == '.py' else _from_json(path)


def _from_python(path) -> Recipe:
    try:
        found = runpy.run_path(str(path)).get('recipe')
    except OSError:
        raise
    except (Exception, SystemExit) as error:  # whatever the file does
        raise ValueError(
            f'{path} must be a Python file that runs. '
            f'Received: {type(error).__name__}: {one_line(error)}'
        ) from error
    if not isinstance(found, Recipe):
        raise ValueError(
            f'{path} must define `recipe`, a fenwicks.recipes.Recipe. '
            f'Received: recipe of type {type(found).__name__}'
        )
    return found


def _from_json(path) -> Recipe:
    try:
        value: Any = json.loads(path.read_text())
        if not isinstance(value, dict):
            raise ValueError(f'a {type(value).__name__}')
        settings = value.get('settings')
        fields = settings.get('recipe') if isinstance(settings, dict) else value
        if not isinstance(fields, dict):
            raise ValueError('no fields of a recipe')
        return Recipe.from_dict(fields)
    except (ValueError, RecursionError) as error:  # no text, no JSON, no recipe
        raise ValueError(
            f'{path} must hold the fields of a recipe as JSON. Received: {one_line(error, 3000)}'
        ) from error
