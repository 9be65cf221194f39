"""A training from a stream that `test_kills.py` kills: its checkpoint, and its numbers at the end.

python stream_kills_run.py FOLDER
"""

import os
import pathlib
import sys
import time

import keras
import numpy as np
from training_toys import BATCH, conv_model, make, toy

from fenwicks import augment, data, optimizers

EPOCHS = 40


class Slow(data.ImageBatches):
    """As a disk is, so that kills fall into the fetching of a chunk too."""

    def stored_batch(self, index):
        time.sleep(0.01)
        return super().stored_batch(index)


def main(folder):
    trainer = make(
        conv_model(),
        augment=augment.compose([augment.random_crop, augment.alternating_flip]),
        averaging=optimizers.EMA(0.8, every=3),
        accumulate=2,
    )
    batches = Slow(*toy(), BATCH, shuffle=True, seed=5, drop_remainder=True)
    trainer.fit(batches, epochs=EPOCHS, checkpoint=folder / 'checkpoint.npz', resume=True)
    values = [keras.ops.convert_to_numpy(variable) for variable in trainer.variables]
    values = {str(n): np.asarray(value, 'float64') for n, value in enumerate(values)}
    values['losses'] = np.array([epoch['train_loss'] for epoch in trainer.records])
    np.savez(folder / 'part.npz', **values)
    os.replace(folder / 'part.npz', folder / 'result.npz')


if __name__ == '__main__':
    main(pathlib.Path(sys.argv[1]))
