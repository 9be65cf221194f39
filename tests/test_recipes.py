"""Recipes: the published settings, budgets that stretch the schedule, and no framework."""

import dataclasses
import itertools
import pathlib
import subprocess
import sys

import pytest

from fenwicks import recipes
from fenwicks.recipes import FENWICKS24


def test_fenwicks24_holds_the_published_settings():
    assert dataclasses.asdict(FENWICKS24) == {
        'name': 'fenwicks24',
        'crop_padding': 4,
        'flip': True,
        'cutout': 8,
        'widths': (64, 128, 256, 512),
        'logit_scale': 0.125,
        'label_smoothing': 0.0,
        'momentum': 0.9,
        'weight_decay': 0.000125,
        'batch_size': 512,
        'epochs': 24,
        'knots': ((0, 0.0), (5, 0.4), (24, 0.0)),
    }
    # 97 steps an epoch, 2,328 in all: the log of the original run.
    assert FENWICKS24.steps_per_epoch(50_000) == 97
    assert FENWICKS24.step_knots(97) == [(0, 0.0), (485, 0.4), (2328, 0.0)]


def test_every_recipe_can_be_got_by_its_name_and_ends_with_its_schedule():
    for name, recipe in recipes.RECIPES.items():
        assert recipes.get(name) is recipe
        assert recipe.name == name
        assert recipe.knots[-1][0] == recipe.epochs
        with pytest.raises(dataclasses.FrozenInstanceError):
            recipe.epochs = 1


def test_unknown_recipe():
    message = '`recipe` must be one of fenwicks24. Received: recipe=fast'
    with pytest.raises(ValueError) as raised:
        recipes.get('fast')
    assert str(raised.value) == message


def test_the_schedule_stretches_with_the_epochs():
    short = FENWICKS24.with_epochs(6)
    assert short.knots == ((0, 0.0), (1.25, 0.4), (6, 0.0))
    assert short == dataclasses.replace(FENWICKS24, epochs=6, knots=short.knots)
    assert short.with_epochs(24) == FENWICKS24
    assert FENWICKS24.knots[1] == (5, 0.4)


def test_the_batch_size_changes_nothing_else():
    small = FENWICKS24.with_batch_size(128)
    assert small == dataclasses.replace(FENWICKS24, batch_size=128)


@pytest.mark.parametrize(('epochs', 'steps'), [(1, 1), (1, 2), (1, 3), (2, 1), (3, 2), (100, 97)])
def test_step_knots_rise_strictly_however_short_the_run(epochs, steps):
    knots = FENWICKS24.with_epochs(epochs).step_knots(steps)
    places = [step for step, _ in knots]
    assert places[0] == 0
    assert all(before < after for before, after in itertools.pairwise(places))
    assert [rate for _, rate in knots] == [0.0, 0.4, 0.0]
    if epochs * steps >= 2:
        assert places[-1] == epochs * steps


@pytest.mark.parametrize('value', [0, -3, 2.5, 3.0, True, '6', None])
@pytest.mark.parametrize('name', ['epochs', 'batch_size'])
def test_budgets_that_are_no_positive_integers(name, value):
    with pytest.raises(ValueError) as raised:
        getattr(FENWICKS24, f'with_{name}')(value)
    assert str(raised.value) == f'`{name}` must be a positive integer. Received: {name}={value!r}'


def test_a_batch_must_not_exceed_the_data():
    assert FENWICKS24.steps_per_epoch(512) == 1
    assert FENWICKS24.steps_per_epoch(1023) == 1
    with pytest.raises(ValueError, match=r'at most the 511 training .* batch_size=512$'):
        FENWICKS24.steps_per_epoch(511)


def test_no_framework_is_imported():
    """The file alone, since the package's own __init__ imports Keras."""
    file = pathlib.Path(recipes.__file__)
    code = (
        'import runpy, sys\n'
        f'runpy.run_path({str(file)!r})\n'
        'print(sorted({"keras", "tensorflow", "jax", "torch", "numpy"} & set(sys.modules)))'
    )
    output = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert output.stdout.strip() == '[]', output.stderr


def test_small_data_keeps_the_rate_per_image():
    """A summed gradient of an eighth of the images, at an eighth of the rate."""
    small = recipes.FENWICKS24.for_small_data()
    assert small.batch_size == 64
    assert small.knots == ((0, 0.0), (5, 0.4 * 64 / 512), (24, 0.0))
    assert small.epochs == 24
