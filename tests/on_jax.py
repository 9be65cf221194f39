"""Runs test files again, with Keras on JAX.

Each group is a process of its own, and each file that runs groups is one for pytest-xdist, so that
they run side by side. Left out are the long ones, of `assemble` and the script: KERAS_BACKEND=jax
pytest runs those too. And `test_checkpoint.py`, since files know no backend; what a Trainer writes
and reads is in `test_trainer_checkpoints.py`.
"""

import importlib.util
import os
import pathlib
import subprocess
import sys
import tempfile

import keras
import pytest

TESTS = pathlib.Path(__file__).parent
PARTS = {
    'augment': ('test_augment.py', 'test_augment_choices.py', 'test_augment_draws.py'),
    'layers': (
        'test_layers_contract.py',
        'test_layers_whitening.py',
        'test_batch_norm_jax.py',
        'test_layers_frozen.py',
        'test_layers_templates.py',
    ),
    'optimizers': (
        'test_losses.py',
        'test_optimizers.py',
        'test_optimizers_contract.py',
        'test_schedules.py',
    ),
}
NETWORKS = {
    'models': ('test_models.py', 'test_pretrained.py', 'test_export.py', 'test_export_jax.py'),
    'around': ('test_devices.py', 'test_tta.py', 'test_diagnostics.py', 'test_rate_finder.py'),
}
TRAINING = {
    'trainer': (
        'test_trainer.py',
        'test_trainer_fit.py',
        'test_trainer_targets.py',
        'test_trainer_models.py',
        'test_trainer_moved.py',
        'test_trainer_freezing.py',
        'test_transfers.py',
    ),
    'state': (
        'test_trainer_averaging.py',
        'test_trainer_checkpoints.py',
        'test_jax_loop.py',
    ),
    'streams': (
        'test_trainer_streams.py',
        'test_trainer_loaders.py',
        'test_trainer_evaluate.py',
        'test_accumulation.py',
    ),
}

marks = [
    pytest.mark.skipif(keras.backend.backend() != 'tensorflow', reason='these are tests on JAX'),
    pytest.mark.skipif(importlib.util.find_spec('jax') is None, reason='JAX is not installed'),
]


def run_on_jax(files):
    """Asserts that the tests of the files pass on JAX."""
    command = [sys.executable, '-m', 'pytest', '-x', *(str(TESTS / name) for name in files)]
    # Tests make many a network anew that another has made before: JAX compiles it once.
    with tempfile.TemporaryDirectory() as programs:
        environment = {
            **os.environ,
            'KERAS_BACKEND': 'jax',
            'JAX_COMPILATION_CACHE_DIR': programs,
            'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
        }
        run = subprocess.run(
            command, env=environment, cwd=TESTS.parent, capture_output=True, text=True, check=False
        )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
