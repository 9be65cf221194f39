"""A training from a stream that `test_kills.py` kills: its checkpoint, and its numbers at the end.

python stream_kills_run.py FOLDER
"""

import os
import pathlib
import sys
import time

import keras
import numpy as np
from training_toys import BATCH, make, toy

import fenwicks
from fenwicks import augment, data, optimizers, training

EPOCHS = 40


def pooled_model():
    """Takes images of any size."""
    return keras.Sequential(
        [
            keras.Input((None, None, 3)),
            fenwicks.layers.ConvBN(4),
            keras.layers.GlobalMaxPooling2D(),
            keras.layers.Dense(3, dtype='float32'),
        ]
    )


class Slow(data.ImageBatches):
    """As a disk is, so that kills fall into the fetching of a chunk too."""

    def stored_batch(self, index):
        time.sleep(0.01)
        return super().stored_batch(index)


def main(folder):
    trainer = make(
        pooled_model(),
        optimizers.SGD(0.05, momentum=0.9),
        augment=augment.compose([augment.random_crop, augment.alternating_flip]),
        averaging=optimizers.EMA(0.8, every=3),
        accumulate=2,
        metrics=[keras.metrics.AUC(from_logits=True, num_thresholds=20)],
        image_sizes=((0, 6), (15, 8), (25, 10)),
        freeze=((10.6, '.*beta'),),
    )
    plateau = keras.callbacks.ReduceLROnPlateau('val_loss', patience=2, cooldown=1)
    best = training.callbacks.BestWeights('val_loss')
    stopping = keras.callbacks.EarlyStopping('loss', patience=EPOCHS, restore_best_weights=True)
    trainer.fit(
        Slow(*toy(), BATCH, shuffle=True, seed=5, drop_remainder=True),
        epochs=EPOCHS,
        validation_data=toy(9, seed=3),
        callbacks=[plateau, best, stopping],
        class_weight={0: 2.0},
        checkpoint=folder / 'checkpoint.npz',
        resume=True,
    )
    known = [plateau.best, plateau.wait, plateau.cooldown_counter, best.best, best.best_epoch]
    known += [stopping.best, stopping.best_epoch, stopping.wait]
    values = [keras.ops.convert_to_numpy(variable) for variable in trainer.variables]
    values = {str(n): np.asarray(value, 'float64') for n, value in enumerate(values)}
    values['callbacks'] = np.array(known, 'float64')
    for name, numbers in trainer.history.history.items():
        values[name] = np.array(numbers)
    np.savez(folder / 'part.npz', **values)
    os.replace(folder / 'part.npz', folder / 'result.npz')


if __name__ == '__main__':
    main(pathlib.Path(sys.argv[1]))
