"""The tests of augmentation, layers, losses and optimizers, with Keras on JAX."""

import pytest
from on_jax import PARTS, marks, run_on_jax

<<<<<<< HEAD
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
=======
pytestmark = marks
>>>>>>> 7b6a048 (A process that loses its fellow ends in one line within a minute; the tests on JAX in two files, which run side by side)


@pytest.mark.parametrize('group', PARTS)
def test_on_jax(group):
    run_on_jax(PARTS[group])
