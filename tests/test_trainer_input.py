"""Images in other forms than arrays of pixels, and steps on other data than those before."""

import keras
import numpy as np
import pytest
from training_toys import BATCH, dense_model, make, sgd, toy

from fenwicks import evaluate

pytestmark = pytest.mark.backend('tensorflow', 'jax')
IMAGES, LABELS = toy(16)


@pytest.mark.parametrize('form', ['list', 'tensor'])
def test_what_numpy_takes_for_an_array_is_one(form):
    change = {'list': list, 'tensor': keras.ops.convert_to_tensor}[form]
    of_arrays, other = (make(dense_model(), sgd(0.01)) for _ in range(2))
    for trainer, images in ((of_arrays, IMAGES), (other, change(IMAGES))):
        trainer.fit(images, LABELS, 1, validation_data=(images, LABELS), verbose=0)
    assert other.records[0]['val_loss'] == of_arrays.records[0]['val_loss']
    expected = of_arrays.evaluate(IMAGES, LABELS, tta=evaluate.DOUBTFUL)
    assert other.evaluate(change(IMAGES), LABELS, tta=evaluate.DOUBTFUL) == expected
    loss, _ = other.gradients(change(IMAGES[:4]), LABELS[:4])
    assert loss == of_arrays.gradients(IMAGES[:4], LABELS[:4])[0]


def test_pixels_that_tf_data_has_divided_are_not_divided_again():
    tf = pytest.importorskip('tensorflow')
    pixels = np.concatenate([np.zeros_like(IMAGES[:BATCH]), IMAGES]) / np.float32(255)
    labels = np.concatenate([LABELS[:BATCH], LABELS])
    batches = tf.data.Dataset.from_tensor_slices((pixels, labels)).batch(BATCH, True)
    with pytest.raises(ValueError, match=r'`images` must be pixels in \[0, 255\]'):
        make(dense_model()).fit(batches, epochs=1, verbose=0)


class Loader:
    """Like a PyTorch loader over an IterableDataset: its sampler has no length."""

    batch_size, drop_last, sampler, dataset = BATCH, False, object(), IMAGES

    def __len__(self):
        return 4

    def __iter__(self):
        for start in range(0, len(IMAGES), BATCH):
            yield IMAGES[start : start + BATCH], LABELS[start : start + BATCH]


def test_a_loader_whose_sampler_has_no_length():
    trainer = make(dense_model())
    trainer.fit(Loader(), epochs=1, verbose=0)
    assert int(trainer.optimizer.iterations.value) == 4


def test_single_steps_on_other_data_than_before():
    trainer = make(dense_model(), sgd(0.01))
    for count in (8, 16):
        trainer.load(IMAGES[:count], LABELS[:count])
        assert trainer.run_steps(0, count // BATCH - 1, count // BATCH).steps == 1


@pytest.mark.backend('jax')  # on TensorFlow a Trainer can't train afterwards
def test_a_program_for_other_data_leaves_the_loaded_ones_alone():
    trainer = make(dense_model(), sgd(0.01))
    trainer.load(IMAGES, LABELS)
    trainer.program(400, (8, 8, 3))
    with pytest.raises(ValueError, match=r'0 <= start <= stop <= 4, the steps of an epoch'):
        trainer.run_steps(0, 0, 50)


def test_epochs_before_the_first():
    trainer = make(dense_model(), sgd(0.01))
    trainer.load(IMAGES, LABELS)
    for call in (trainer.compile, lambda epoch: trainer.program(16, (8, 8, 3), epoch)):
        with pytest.raises(ValueError, match=r'^`epoch` must be .* Received: epoch=-1'):
            call(-1)
