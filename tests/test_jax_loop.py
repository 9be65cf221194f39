"""The JAX engine's loop on a CPU: one program where the step convolves nothing, else Python's."""

import keras
import pytest
from stream_toys import Resident
from training_toys import assert_same, make, toy

import fenwicks
from fenwicks import augment, optimizers

pytestmark = pytest.mark.backend('jax')


def dense_model():
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(8, activation='relu', kernel_regularizer='l2'),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5, seed=3),
            fenwicks.layers.Classifier(3),
        ]
    )


def takes_whole_loop(trainer):
    engine = trainer._engines.at(0)
    return engine._run == engine._whole_loop


@pytest.mark.parametrize(
    ('data', 'accumulate'), [(toy, 2), (lambda: (Resident(),), 1)], ids=['arrays', 'stream']
)
def test_one_program_makes_the_numbers_of_a_loop_in_python(data, accumulate):
    options = {
        'augment': augment.alternating_flip,
        'averaging': optimizers.Lookahead(0.8, every=3),
        'accumulate': accumulate,
    }
    whole, single = (make(dense_model(), jit_compile=j, **options) for j in (None, False))
    for trainer in (whole, single):
        trainer.fit(*data(), epochs=2)
    assert takes_whole_loop(whole)
    assert not takes_whole_loop(single)
    assert_same(whole, single)


def test_convolutions_stay_outside_of_the_loop():
    """Those of an augmentation too."""
    blurred = make(dense_model(), augment=blur)
    blurred.load(*toy())
    blurred.compile()
    assert not takes_whole_loop(blurred)


def blur(images, seed):
    kernel = keras.ops.ones((3, 3, 3, 1)) / 9
    return keras.ops.depthwise_conv(images, kernel, padding='same')
