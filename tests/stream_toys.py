"""Sources of batches for the tests of streaming, and trainings in the resident order."""

import keras
import numpy as np
from training_toys import BATCH, STEPS, order_of, toy


class Resident:
    """The batches that a training on the arrays of `toy()` takes, in the order of each epoch, with
    other labels, or with weights of the images."""

    def __init__(self, labels=None, weights=None):
        self.images, self.labels = toy()
        self.labels = self.labels if labels is None else labels
        self.weights = weights
        self.epoch = None

    def __len__(self):
        return STEPS

    def stored_batch(self, index):
        rows = order_of(self.epoch or 0)[index * BATCH : (index + 1) * BATCH]
        weights = () if self.weights is None else (self.weights[rows],)
        return self.images[rows], self.labels[rows], rows, *weights

    def __getitem__(self, index):
        images, labels, _, *weights = self.stored_batch(index)
        return images, labels, *weights


class Shuffled(keras.utils.PyDataset):
    """Shuffles itself between passes, by a generator of its own; without an `epoch`."""

    def __init__(self, workers=1):
        super().__init__(workers=workers)
        self.images, self.labels = toy()
        self.generator = np.random.default_rng(5)
        self.order = self.generator.permutation(len(self.images))

    def __len__(self):
        return STEPS

    def __getitem__(self, index):
        rows = self.order[index * BATCH : (index + 1) * BATCH]
        return self.images[rows], self.labels[rows]

    def on_epoch_end(self):
        self.order = self.generator.permutation(len(self.images))


class Changed:
    """Batches of `toy()` in order, one of which is changed."""

    def __init__(self, number, change, steps=STEPS, dtype=np.uint8, labels=None, weights=None):
        self.images, self.labels = toy()
        self.labels = self.labels if labels is None else labels
        self.number, self.change, self.steps, self.dtype = number, change, steps, dtype
        self.weights = weights

    def __len__(self):
        return self.steps

    def __getitem__(self, index):
        rows = slice(index * BATCH, (index + 1) * BATCH)
        weights = () if self.weights is None else (self.weights[rows],)
        batch = self.images[rows].astype(self.dtype), self.labels[rows], *weights
        return self.change(*batch) if index == self.number else batch
