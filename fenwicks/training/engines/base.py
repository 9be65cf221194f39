"""What the two engines share: their interface, and what is chosen before the first step."""

from __future__ import annotations

from fenwicks import augment as augmentation


class Engine:
    """Runs steps of training and batches of inference for the `Trainer`.

    What a step depends on is settled here, so that the step itself holds no options.

    Args:
        model, optimizer, loss, normalize, augment, batch_size, seed: as the `Trainer` has them.
        averages: the `Averages` that it keeps.
    """

    def __init__(self, model, optimizer, loss, normalize, augment, batch_size, seed, averages):
        self.model, self.optimizer, self.loss = model, optimizer, loss
        self.normalize, self.augment = normalize, augmentation.with_context(augment)
        self.batch_size, self.seed, self.averages = batch_size, seed, averages

    def load(self, images, labels):
        """Places uint8 images and int32 labels on the device."""
        raise NotImplementedError

    def compile(self):
        """Traces and compiles the training program for the loaded data, without taking a step."""
        raise NotImplementedError

    def run(self, epoch: int, start: int, stop: int, loss_sum: float = 0.0):
        """Trains from step `start` to before step `stop` of `epoch`.

        Returns:
            `loss_sum` plus the losses of the steps taken (added up in one order, however the
            epoch is cut into calls), number of correct predictions, steps taken, the last loss,
            and whether all trainable weights are finite. A loss that is not finite ends the call
            after its step.
        """
        raise NotImplementedError

    def predict(self, images, views):
        """Logits of a uint8 batch seen in several ways.

        Args:
            images: uint8 `(batch, height, width, channels)`.
            views: functions of batches of normalised images.

        Returns:
            A float32 NumPy array `(views, batch, classes)`.
        """
        raise NotImplementedError

    def epoch_seed(self, epoch):
        """The seed of an epoch's shuffle, of which those of its steps are made."""
        return augmentation.fold((self.seed, 0), epoch)

    def inputs(self, images, indices, epoch, step_seed):
        """What the model sees in training of the uint8 `images`, numbers `indices` of the data."""
        return self.augment(self.normalize(images), step_seed, epoch, indices, (self.seed, 1))
