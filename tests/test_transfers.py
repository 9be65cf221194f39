"""The JAX engine's loop moves nothing between host and device but the numbers it is called with."""

import keras
import pytest
from training_toys import conv_model, make, toy


@pytest.mark.backend('jax')
def test_the_loop_transfers_only_what_is_placed_explicitly():
    import jax

    images, labels = toy()
    trainer = make(conv_model(), jit_compile=True)
    trainer.load(images, labels)
    trainer.compile()
    trainer.run_steps(0, 0, 2)
    iterations = int(keras.ops.convert_to_numpy(trainer.optimizer.iterations))
    with jax.transfer_guard('disallow'):
        trainer.run_steps(0, 2, 4)
    assert int(keras.ops.convert_to_numpy(trainer.optimizer.iterations)) == iterations + 2
