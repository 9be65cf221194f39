"""Runs tests of what promises to work on JAX again, with Keras on JAX.

Left out are the long ones, of `assemble` and the script: KERAS_BACKEND=jax pytest runs those too.
"""

import importlib.util
import os
import pathlib
import subprocess
import sys

import keras
import pytest

TESTS = pathlib.Path(__file__).parent
FILES = (
    'test_augment.py',
    'test_augment_choices.py',
    'test_augment_draws.py',
    'test_checkpoint.py',
    'test_export.py',
    'test_diagnostics.py',
    'test_layers_contract.py',
    'test_layers_frozen.py',
    'test_layers_whitening.py',
    'test_losses.py',
    'test_models.py',
    'test_batch_norm_jax.py',
    'test_optimizers.py',
    'test_pretrained.py',
    'test_rate_finder.py',
    'test_schedules.py',
    'test_devices.py',
    'test_accumulation.py',
    'test_trainer.py',
    'test_trainer_averaging.py',
    'test_trainer_checkpoints.py',
    'test_trainer_freezing.py',
    'test_trainer_fit.py',
    'test_trainer_targets.py',
    'test_trainer_models.py',
    'test_trainer_streams.py',
    'test_transfers.py',
    'test_tta.py',
)


@pytest.mark.skipif(keras.backend.backend() != 'tensorflow', reason='these are the tests on JAX')
@pytest.mark.skipif(importlib.util.find_spec('jax') is None, reason='JAX is not installed')
def test_on_jax():
    command = [sys.executable, '-m', 'pytest', '-x', *(str(TESTS / name) for name in FILES)]
    environment = {**os.environ, 'KERAS_BACKEND': 'jax'}
    run = subprocess.run(
        command, env=environment, cwd=TESTS.parent, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
