"""Recipes: every setting of a training as data; tricks as patches; presets by name.

Nothing here uses a framework; `fenwicks.assemble` turns a recipe into a model and a trainer.
"""

from fenwicks.recipes.files import load
from fenwicks.recipes.presets import BUDGET, FENWICKS24, PAGE, PRESETS, Preset, get, listing
from fenwicks.recipes.recipe import Recipe
from fenwicks.recipes.tricks import TRICKS, Trick, patched

__all__ = [
    'BUDGET',
    'FENWICKS24',
    'PAGE',
    'PRESETS',
    'TRICKS',
    'Preset',
    'Recipe',
    'Trick',
    'get',
    'listing',
    'load',
    'patched',
]
