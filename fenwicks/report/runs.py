"""Reads the folders of runs, and finds which of them differ in nothing but their seed."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fenwicks import recipes
from fenwicks.recipes import Recipe
from fenwicks.report.material import Material, load_material

RESULT = 'result.json'

# The keys that a page can't do without, and those that must be of a type where they are there.
_REQUIRED = {
    'recipe': str,
    'dataset': str,
    'test_accuracy': float,
    'train_seconds': float,
    'history': list,
}
_OPTIONAL = {
    'epochs': float,
    'train_images': int,
    'test_images': int,
    'batch_size': int,
    'seed': int,
    'replicas': int,
    'test_accuracy_plain': float,
    'test_loss': float,
    'compile_seconds': float,
    'preprocess_seconds': float,
    'eval_seconds': float,
    'first_step_seconds': float,
    'images_per_second': float,
    'peak_memory_mb': float,
    'precision': str,
    'backend': str,
    'device': str,
    'hardware': str,
    'test_time_augmentation': str,
    'commit': str,
    'command': str,
    'date': str,
    'clean': bool,
    'settings': dict,
    'versions': dict,
    'class_names': list,
}
_WORDS = {
    str: 'a text',
    float: 'a finite number',
    int: 'an integer',
    list: 'a list',
    dict: 'an object',
    bool: 'true or false',
}

_ILLEGIBLE = re.compile('[\0-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]')


@dataclasses.dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        folder: where it lies.
        result: its `result.json`, without keys whose value is null.
        recipe: its settings; `None` where they aren't there, or are of another version.
        material: predictions and images, where they were kept.
    """

    folder: pathlib.Path
    result: Mapping[str, Any]
    recipe: Recipe | None
    material: Material | None

    @property
    def accuracy(self) -> float:
        """Test accuracy in percent."""
        return 100 * self.result['test_accuracy']

    @property
    def history(self) -> list[dict[str, float]]:
        """A dict an epoch."""
        return self.result['history']

    def settings(self) -> dict[str, Any]:
        """All that tells the run from others, seed, fold, times and results aside."""
        settings = dict(self.result.get('settings') or {})
        recipe = settings.pop('recipe', {})
        for key in ('dataset', 'data_digest', 'epochs', 'train_images', 'batch_size', 'precision',
                    'backend', 'device', 'replicas', 'hardware'):  # fmt: skip
            if key in self.result:
                settings.setdefault(key, self.result[key])
        match settings.get('split'):
            case [seed, _, int(folds)] if folds > 1:  # each fold trains on other images
                settings['split'] = [seed, folds]
                for key in ('data_digest', 'train_images'):
                    settings.pop(key, None)
        return {**settings, **(recipe if isinstance(recipe, dict) else {})}

    def class_names(self) -> list[str]:
        """The names of the classes; `class 0` and so on where the run kept none."""
        names = [str(name) for name in self.result.get('class_names') or ()]
        if self.material is None:
            return names
        labels, predictions = self.material.labels, self.material.predictions
        highest = max(labels.max(initial=-1), predictions.max(initial=-1))
        return (
            names if highest < len(names) else [f'class {number}' for number in range(highest + 1)]
        )


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but their seed.

    Attributes:
        name: the recipe's, with what tells it from other groups of the same recipe.
        runs: one or more.
    """

    name: str
    runs: tuple[Run, ...]


def find_runs(folders: Sequence[str | os.PathLike]) -> list[Run]:
    """The runs in some folders; of a folder without one, those in the folders within it.

    Raises:
        ValueError: there is none, or one is damaged.
    """
    found: list[pathlib.Path] = []
    for folder in (pathlib.Path(each).expanduser() for each in folders):
        if folder.name == RESULT and folder.is_file():
            folder = folder.parent
        within = [folder] if (folder / RESULT).exists() else [
            path.parent for path in sorted(folder.glob(f'*/{RESULT}'))
        ]  # fmt: skip
        if not within:
            what = 'no such folder' if not folder.exists() else f'no {RESULT} in it'
            raise ValueError(f'a run must be a folder with a {RESULT}. Received: {folder}, {what}')
        found += within
    first: dict[pathlib.Path, pathlib.Path] = {}
    for path in found:
        first.setdefault(path.resolve(), path)
    return [read_run(folder) for folder in first.values()]


def read_run(folder: pathlib.Path) -> Run:
    """The run in a folder.

    Raises:
        ValueError: it is damaged; the message names the file.
    """
    path = folder / RESULT
    try:
        text = path.read_text(encoding='utf-8')
        result = json.loads(text, parse_constant=lambda _: None)  # NaN is no JSON
        _check(result)
    except (ValueError, RecursionError) as error:  # of JSON, of UTF-8, and those of `_check`
        what = f'no JSON ({error})' if isinstance(error, json.JSONDecodeError) else error
        raise ValueError(f'{path} must be the result of a training. Received: {what}') from None
    result = {key: _legible(value) for key, value in result.items() if value is not None}
    return Run(folder, result, _recipe(result), load_material(folder))


def _legible(value):
    """A JSON value whose texts have escapes for what neither SVG nor UTF-8 can hold."""
    if isinstance(value, str):
        return _ILLEGIBLE.sub(lambda match: repr(match[0])[1:-1], value)
    if isinstance(value, list):
        return [_legible(each) for each in value]
    if isinstance(value, dict):
        return {_legible(key): _legible(each) for key, each in value.items()}
    return value


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """The runs by their settings, in the order in which they came."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        key = json.dumps([run.result['recipe'], len(run.history), run.settings()], sort_keys=True)
        groups.setdefault(key, []).append(run)
    names = _names([members[0] for members in groups.values()])
    return [
        Group(name, tuple(members)) for name, members in zip(names, groups.values(), strict=True)
    ]


def differing(settings: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """What differs among some runs' settings: the value of each run, `None` where it has none."""
    keys = dict.fromkeys(key for each in settings for key in each if key != 'name')
    values = {key: [each.get(key) for each in settings] for key in keys}
    return {key: row for key, row in values.items() if any(value != row[0] for value in row)}


def preset_of(recipe: Recipe) -> Recipe | None:
    """The published recipe that another one was made from, by its name; `None` where there is none.

    Of `page10-whitening` that is `page10-whitening` as published: the preset with its tricks.
    """
    named = _named(recipe)
    if named is None:
        return None
    preset, added, removed = named
    try:
        return recipes.get(preset, added, removed)
    except ValueError:  # a name that only looks like one of these
        return recipes.get(preset)


def tricks_of(recipe: Recipe) -> list[str]:
    """The tricks by which a recipe was made, by its name; see `changes` for what was set since."""
    named = _named(recipe)
    if named is None:
        return []
    preset, added, removed = named
    tricks = (*recipes.PRESETS[preset].tricks, *added)
    return [trick for trick in tricks if trick not in removed]


def _named(recipe: Recipe) -> tuple[str, list[str], list[str]] | None:
    """The preset of which a recipe's name begins, and the tricks that it adds and removes."""
    preset = preset_name(recipe)
    if preset is None:
        return None
    tricks = re.findall(r'([+-])(\w+)(?=[+-]|$)', recipe.name[len(preset) :])
    added = [trick for sign, trick in tricks if sign == '+' and trick in recipes.TRICKS]
    removed = [trick for sign, trick in tricks if sign == '-' and trick in recipes.TRICKS]
    return preset, added, removed


def preset_name(recipe: Recipe) -> str | None:
    """The name of a preset with which a recipe's name begins, if it does."""
    match = re.match(r'\w+', recipe.name)
    return match[0] if match is not None and match[0] in recipes.PRESETS else None


def changes(recipe: Recipe, base: Recipe) -> dict[str, tuple[Any, Any]]:
    """The settings in which a recipe differs from another: (the other's, its own)."""
    ours, theirs = dataclasses.asdict(recipe), dataclasses.asdict(base)
    return {
        field: (theirs[field], value)
        for field, value in ours.items()
        if field != 'name' and value != theirs[field]
    }


def _names(runs: Sequence[Run]) -> list[str]:
    """A name for each group: its recipe's, with settings where recipes of one name differ."""
    names = []
    for run in runs:
        alike = [other for other in runs if other.result['recipe'] == run.result['recipe']]
        told = differing([other.settings() for other in alike])
        settings = run.settings()
        about = ', '.join(f'{key} {_short(settings.get(key))}' for key in list(told)[:3])
        names.append(run.result['recipe'] + (f' ({about})' if about else ''))
    # Those that still share a name get a number.
    return [
        name if names.count(name) == 1 else f'{name} [{names[: place + 1].count(name)}]'
        for place, name in enumerate(names)
    ]


def _short(value):
    if isinstance(value, list):
        return '/'.join(map(str, value))
    return f'{value:.4g}' if isinstance(value, float) else str(value)


def _recipe(result: Mapping[str, Any]) -> Recipe | None:
    """The settings as a `Recipe`, if this version of the library knows them all."""
    values = (result.get('settings') or {}).get('recipe')
    if not isinstance(values, dict):
        return None
    try:
        return Recipe.from_dict(values)
    except ValueError:
        return None


def _check(result):
    """Raises unless the keys that are there are what they should be."""
    if not isinstance(result, dict):
        raise ValueError(f'a {type(result).__name__} instead of an object')
    missing = [key for key in _REQUIRED if key not in result]
    if missing:
        raise ValueError(f'no `{missing[0]}`')
    for key, kind in {**_REQUIRED, **_OPTIONAL}.items():
        value = result.get(key)
        if value is None and key not in _REQUIRED:
            continue
        if not _is(value, kind):
            raise ValueError(f'`{key}` that is not {_WORDS[kind]}')
    if not 0 <= result['test_accuracy'] <= 1:
        raise ValueError(f'`test_accuracy` of {result["test_accuracy"]}, not in [0, 1]')
    if not result['history']:
        raise ValueError('`history` without an epoch')
    for number, record in enumerate(result['history'], start=1):
        if not isinstance(record, dict) or record.get('epoch') != number:
            raise ValueError(f'`history` without the record of epoch {number}')
        if not all(value is None or _is(value, float) for value in record.values()):
            raise ValueError(f'`history` with other things than finite numbers in epoch {number}')


def _is(value, kind):
    if kind is float:
        kind = int | float
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, kind) and not (isinstance(value, float) and not math.isfinite(value))
