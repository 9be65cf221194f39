"""Kills at random instants, and the same seed again: each in processes of its own.

    python -m pytest -m slow tests/test_under_fire.py                       # 10 kills of each kind
    FENWICKS_KILLS=200 python -m pytest -m slow tests/test_under_fire.py    # as many as one likes

What `under_fire.py` found with more is in README.md beside this file.
"""

import json
import os
import subprocess
import sys

import pytest
from scripts import ROOT
from under_fire import PRECISIONS, TRAININGS

pytestmark = [pytest.mark.slow, pytest.mark.backend('tensorflow', 'jax')]

KILLS = int(os.environ.get('FENWICKS_KILLS', '10'))


def under_fire(*flags):
    """The line of JSON that the script prints."""
    run = subprocess.run(
        [sys.executable, str(ROOT / 'tests' / 'under_fire.py'), *flags],
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize('training', TRAININGS)
def test_kills(training):
    found = under_fire('kills', f'--kills={KILLS}', f'--training={training}')
    assert (found['n'], found['different']) == (KILLS, 0)


@pytest.mark.parametrize('precision', PRECISIONS)
def test_the_same_seed_three_times(precision):
    found = under_fire('seeds', f'--precision={precision}')
    assert (found['n'], found['different']) == (3, 0)
