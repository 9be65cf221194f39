"""A recipe by the flags of a command: the same flags with the same meaning in every command."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from absl import flags

from fenwicks.command import renamed
from fenwicks.recipes.files import load
from fenwicks.recipes.presets import PRESETS, get
from fenwicks.recipes.recipe import Recipe
from fenwicks.recipes.tricks import patched

CHANGES = ('set', 'width', 'epochs', 'batch_size')  # the flags of `define_changes`


def define(default: str, more: str = '') -> None:
    """Defines the flags that choose a recipe, and those of `define_changes`.

    For `--help` to show them a script also calls `flags.adopt_module_key_flags` of this module.

    Args:
        default: name of the recipe without flags.
        more: what the help of `--recipe` says besides the names.
    """
    flags.DEFINE_string('recipe', default, f'One of {", ".join(PRESETS)}. {more}'.strip())
    flags.DEFINE_string(
        'recipe_file',
        None,
        'Take the recipe from this file instead: a Python file that defines `recipe`, or a '
        'result.json.',
    )
    flags.DEFINE_list('with', [], 'Tricks to add to the recipe, by commas.', allow_overwrite=False)
    flags.DEFINE_list(
        'without', [], 'Tricks to remove from the recipe, by commas.', allow_overwrite=False
    )
    define_changes()


def define_changes() -> None:
    """Defines the flags that change settings of whatever recipe."""
    flags.DEFINE_multi_string(
        'set', [], 'Set a field of the recipe, as in --set momentum=0.85; may be repeated.'
    )
    flags.DEFINE_float('width', None, 'Factor on the number of filters in each stage.')
    flags.DEFINE_float(
        'epochs',
        None,
        'Passes over the training images, to which the schedule is stretched; default: the '
        "recipe's.",
    )
    flags.DEFINE_integer(
        'batch_size', None, "Images in a step, at the same learning rates; default: the recipe's."
    )


def chosen(values: flags.FlagValues) -> Recipe:
    """The recipe by the flags of `define`.

    Raises:
        ValueError: a flag breaks a rule.
        OSError: the recipe's file can't be read.
    """
    added, removed = _value(values, 'with'), _value(values, 'without')
    if _value(values, 'recipe_file') is None:
        with renamed({'name': 'recipe', 'added': 'with', 'removed': 'without'}):
            recipe = get(_value(values, 'recipe'), added, removed)
        return changed(recipe, values)
    for flag in ('recipe', 'without'):
        if values[flag].present:
            raise ValueError(
                f'`{flag}` must not be given with `recipe_file`. '
                f'Received: {flag}={_value(values, flag)}'
            )
    with renamed({'path': 'recipe_file'}):
        recipe = load(_value(values, 'recipe_file'))
    if added:
        recipe = patched(recipe, added, recipe.name + ''.join(f'+{trick}' for trick in added))
    return changed(recipe, values)


def changed(recipe: Recipe, values: flags.FlagValues, scale_rate: bool = False) -> Recipe:
    """A recipe with the changes by the flags of `define_changes`.

    Fields that are set become part of the recipe's name, since results are filed under it.

    Args:
        recipe: to be changed.
        values: of the flags.
        scale_rate: whether another batch size changes SGD's rates in proportion.

    Raises:
        ValueError: a flag breaks a rule.
    """
    settings = parse_settings(_value(values, 'set'))
    for field in settings:
        if field in ('epochs', 'batch_size') and _value(values, field) is not None:
            raise ValueError(
                f'`{field}` must be given once, by `{field}` or by `set`. '
                f'Received: {field}={_value(values, field)}, set={field}={settings[field]}'
            )
    if settings:
        named = ''.join(f'+{field}={_short(value)}' for field, value in settings.items())
        recipe = dataclasses.replace(recipe, **{'name': recipe.name + named, **settings})
    if _value(values, 'width') is not None:
        with renamed({'factor': 'width'}):
            recipe = recipe.with_width(_value(values, 'width'))
    if _value(values, 'epochs') is not None:
        recipe = recipe.with_epochs(_value(values, 'epochs'))
    if _value(values, 'batch_size') is not None:
        recipe = recipe.with_batch_size(_value(values, 'batch_size'), scale_rate)
    return recipe


def for_dataset(recipe: Recipe, dataset: str, values: flags.FlagValues) -> Recipe:
    """The recipe for a data set: with small batches for the sample, unless a flag says how large.

    Args:
        recipe: as `chosen` or `changed` returned it.
        dataset: name of the data set.
        values: of the flags.
    """
    if dataset != 'digits' or batch_size_given(values):
        return recipe
    return recipe.for_small_data()


def batch_size_given(values: flags.FlagValues) -> bool:
    """Whether a flag says how large batches are."""
    by_set = any(text.startswith('batch_size=') for text in _value(values, 'set'))
    return by_set or _value(values, 'batch_size') is not None


def check_image_sizes(recipe: Recipe, height: int, width: int) -> None:
    """Raises where a recipe's images grow beyond those that its network is tested on.

    Args:
        recipe: as `for_dataset` returned it.
        height: of the images of the data set, in pixels.
        width: of the images of the data set, in pixels.

    Raises:
        ValueError: they are smaller, or aren't square.
    """
    if recipe.image_sizes and not max(recipe.image_sizes) <= height == width:
        raise ValueError(
            '`image_sizes` must be at most the sides of the images, which must be square, since '
            'they are tested as they are: pass --set image_sizes=..., or empty for none. '
            f'Received: image_sizes={recipe.image_sizes}, for images of {height} x {width}'
        )


def parse_settings(texts: Iterable[str]) -> dict[str, Any]:
    """The values of fields of a recipe, from texts such as `momentum=0.85`.

    Raises:
        ValueError: a text is no such setting, or a field is set twice.
    """
    settings: dict[str, Any] = {}
    for text in texts:
        field, _, value = text.partition('=')
        if field in settings:
            raise ValueError(f'`set` must set a field once. Received: set={text}')
        settings[field] = _parsed(text, field, value)
    return settings


def _parsed(text, field, value):
    """The value of a field from what was written for it; the recipe checks what it says."""
    fields = {each.name: each for each in dataclasses.fields(Recipe)}
    if field not in fields:
        raise ValueError(
            f'`set` must be field=value, with a field of a recipe ({", ".join(fields)}). '
            f'Received: set={text}'
        )
    kind = str(fields[field].type)
    try:
        if not value and fields[field].default == ():  # where empty means none
            return ()
        if kind == 'bool':
            return {'true': True, 'false': False}[value.lower()]
        if kind == 'tuple[int, ...]':
            return tuple(int(part) for part in value.split(','))
        if kind == 'tuple[float, ...]':
            return tuple(float(part) for part in value.split(','))
        if kind == 'tuple[str, ...]':
            return tuple(part.strip() for part in value.split(';') if part.strip())
        if kind.endswith('None') and value.lower() == 'none':
            return None
        if kind.startswith(('float', 'int |')):
            return int(value) if value.lstrip('-').isdigit() else float(value)
        return int(value) if kind == 'int' else value
    except (KeyError, ValueError):
        wanted = {
            'bool': 'true or false',
            'int': 'an integer',
            'tuple[int, ...]': 'integers with commas between them',
            'tuple[float, ...]': 'numbers with commas between them',
            'float | None': 'a number or none',
        }
        raise ValueError(
            f'`set` must give `{field}` {wanted.get(kind, "a number")}, as in {field}=... '
            f'Received: set={text}'
        ) from None


def _short(value) -> str:
    if isinstance(value, tuple):
        return ','.join(map(str, value))
    return f'{value:g}' if isinstance(value, float) else str(value)


def _value(values: flags.FlagValues, name: str) -> Any:
    """The value of a flag, whose type its definition says."""
    return values[name].value
