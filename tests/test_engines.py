"""The two engines: the same numbers from the same weights and batches."""

import functools
import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = pathlib.Path(__file__).with_name('engine_run.py')


@functools.cache
def run(backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f'{backend} is not installed')
    environment = {**os.environ, 'KERAS_BACKEND': backend, 'PYTHONPATH': str(SCRIPT.parent.parent)}
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.thorough
def test_both_engines_agree_over_several_steps():
    ours, twin = run('tensorflow'), run('jax')
    assert (ours['backend'], twin['backend']) == ('tensorflow', 'jax')
    # The loss moves by far more than the two may differ.
    assert abs(ours['losses'][-1] - ours['losses'][0]) > 0.1
    assert ours['rates'] == pytest.approx(twin['rates'], rel=1e-6)
    assert ours['losses'] == pytest.approx(twin['losses'], rel=1e-5)
    assert ours['accuracies'] == twin['accuracies']
    # With the averaged weights, which are not those of the last step.
    np.testing.assert_allclose(ours['logits'], twin['logits'], atol=2e-5)
    np.testing.assert_allclose(ours['views'], twin['views'], atol=2e-5)
    np.testing.assert_allclose(ours['views'][0], ours['logits'], atol=1e-6)
    assert np.abs(np.subtract(ours['views'][1], ours['logits'])).max() > 0.01
    for one, other in zip(ours['weights'], twin['weights'], strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5, rtol=2e-5)


@pytest.mark.thorough
def test_a_backend_without_an_engine_is_an_error():
    pytest.importorskip('torch')
    environment = {**os.environ, 'KERAS_BACKEND': 'torch', 'PYTHONPATH': str(SCRIPT.parent.parent)}
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert 'ValueError: the Trainer must run on the tensorflow or the jax' in done.stderr
