"""The TensorFlow engine: the steps of an epoch as one compiled program.

The training images lie on the device as uint8. Shuffling, augmentation, forward and backward
pass, update and metrics all happen inside a `tf.while_loop`; the host is heard from once a call.
"""

from __future__ import annotations

import tensorflow as tf

from fenwicks import augment as augmentation


class TensorFlowEngine:
    """Runs steps of training and inference batches for the `Trainer`.

    Args:
        model, optimizer, loss, normalize, augment, batch_size, seed: as the `Trainer` has them.
        jit_compile: whether XLA compiles the program; on a CPU the plain graph is faster, since
            its convolutions are oneDNN's.
    """

    def __init__(
        self, model, optimizer, loss, normalize, augment, batch_size, seed, *, jit_compile
    ):
        self.model, self.optimizer, self.loss = model, optimizer, loss
        self.normalize, self.augment = normalize, augment
        self.batch_size, self.seed = batch_size, seed
        self._run = tf.function(self._run_steps, jit_compile=jit_compile, autograph=False)
        self._predict = tf.function(
            self._logits, jit_compile=jit_compile, autograph=False, reduce_retracing=True
        )

    def load(self, images, labels):
        """Places the training data on the device."""
        self._images = tf.convert_to_tensor(images)
        self._labels = tf.convert_to_tensor(labels)

    def compile(self):
        """Traces and compiles the training program, without taking a step."""
        self.run(epoch=0, start=0, stop=0)

    def run(self, epoch: int, start: int, stop: int, loss_sum: float = 0.0):
        """Trains from step `start` to before step `stop` of `epoch`.

        Returns:
            `loss_sum` plus the losses of the steps taken (added up in one order, however the
            epoch is cut into calls), number of correct predictions, steps taken, and the last
            loss. A loss that is not finite ends the call after its step.
        """
        totals = self._run(
            self._images,
            self._labels,
            tf.constant(epoch, tf.int32),
            tf.constant(start, tf.int32),
            tf.constant(stop, tf.int32),
            tf.constant(loss_sum, tf.float32),
        )
        return tuple(total.numpy().item() for total in totals)

    def predict(self, images):
        """Logits of a uint8 batch as a NumPy array."""
        return self._predict(tf.convert_to_tensor(images)).numpy()

    def _run_steps(self, images, labels, epoch, start, stop, loss_sum):
        epoch_seed = augmentation.fold((self.seed, 0), epoch)
        # Sorting random numbers is a shuffle that every device compiles; integers, since XLA makes
        # other floats of the same bits than the plain kernel.
        numbers = tf.random.stateless_uniform(
            tf.shape(labels), epoch_seed, None, None, dtype=tf.int32, alg='philox'
        )
        order = tf.argsort(numbers)

        def goes_on(step, loss_sum, correct, last_loss):
            return (step < stop) & tf.math.is_finite(last_loss)

        def train_step(step, loss_sum, correct, last_loss):
            # Not order[a:b]: XLA wants a slice's size to be a constant.
            batch = tf.slice(order, [step * self.batch_size], [self.batch_size])
            targets = tf.gather(labels, batch)
            inputs = self.normalize(tf.gather(images, batch))
            inputs = self.augment(inputs, augmentation.fold(epoch_seed, step))
            variables = self.model.trainable_variables
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch([variable.value for variable in variables])
                logits = self.model(inputs, training=True)
                loss = self._total_loss(targets, logits)
                scaled_loss = self.optimizer.scale_loss(loss)
            gradients = tape.gradient(scaled_loss, [variable.value for variable in variables])
            self.optimizer.apply(gradients, variables)
            hits = tf.math.argmax(logits, -1, output_type=labels.dtype) == targets
            correct += tf.math.count_nonzero(hits, dtype=tf.int32)
            return step + 1, loss_sum + loss, correct, loss

        state = (start, loss_sum, tf.zeros([], tf.int32), tf.zeros([], tf.float32))
        end, loss_sum, correct, last_loss = tf.while_loop(
            goes_on, train_step, state, parallel_iterations=1
        )
        return loss_sum, correct, end - start, last_loss

    def _total_loss(self, targets, logits):
        loss = tf.cast(self.loss(targets, logits), tf.float32)
        if loss.shape.rank != 0:
            raise ValueError(f'`loss` must return a scalar. Received: shape={tuple(loss.shape)}')
        # Those of regularizers; a layer's own may come in its compute precision.
        return loss + sum(tf.cast(extra, tf.float32) for extra in self.model.losses)

    def _logits(self, images):
        return tf.cast(self.model(self.normalize(images), training=False), tf.float32)
