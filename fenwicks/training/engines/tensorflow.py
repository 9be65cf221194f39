"""The TensorFlow engine: the steps of an epoch as one compiled program.

The training images lie on the device as uint8. Shuffling, augmentation, forward and backward
pass, update, averages and metrics all happen inside a `tf.while_loop`; the host is heard from once
a call.
"""

from __future__ import annotations

import functools

import numpy as np
import tensorflow as tf

from fenwicks import augment as augmentation
from fenwicks.training.engines.base import Engine


class TensorFlowEngine(Engine):
    """The `Engine` on TensorFlow.

    Args:
        *arguments: as of `Engine`.
        replicas: a `mirroring.Replicas`.
        jit_compile: whether XLA compiles the program, where `replicas` leave it the choice; on a
            CPU the plain graph is faster, since its convolutions are oneDNN's.
    """

    def __init__(self, *arguments, replicas, jit_compile):
        super().__init__(*arguments)
        self.replicas = replicas
        replicas.own(self.optimizer)
        self.loss = replicas.loss_of_share(self.loss)
        self._average = _nothing if self.averages.rule is None else self._update_averages
        # TensorFlow counts tracings by a function's code, which all engines share, and warns of
        # many; a partial has no code and is counted by itself.
        jit_compile = jit_compile and replicas.jit
        function = functools.partial(tf.function, jit_compile=jit_compile, autograph=False)
        self._run = function(functools.partial(replicas.program(self._run_steps)))
        self._take_step = replicas.step(self._train_step)
        self._inputs = replicas.compiled(self._inputs_of)
        self._predict = function(
            functools.partial(replicas.infer(self._logits)), reduce_retracing=True
        )

    def load(self, images, labels):
        self._count = len(images)
        data = tf.convert_to_tensor(images), tf.convert_to_tensor(labels)
        self._images, self._labels = self.replicas.place(data)

    def compile(self):
        self.run(epoch=0, start=0, stop=0)

    def run(self, epoch, start, stop, loss_sum=0.0):
        totals = self._run(
            self._images,
            self._labels,
            tf.constant(epoch, tf.int32),
            tf.constant(start, tf.int32),
            tf.constant(stop, tf.int32),
            tf.constant(loss_sum, tf.float32),
        )
        return tuple(total.numpy().item() for total in totals)

    def predict(self, images, views):
        images = self.normalize(tf.convert_to_tensor(images))
        return np.stack([self._predict(view(images)).numpy() for view in views])

    def _run_steps(self, images, labels, epoch, start, stop, loss_sum):
        epoch_seed, order = self.epoch_seed(epoch), self.order(self._count, epoch)

        def goes_on(step, loss_sum, correct, last_loss):
            return (step < stop) & tf.math.is_finite(last_loss)

        def train_step(step, loss_sum, correct, last_loss):
            batch = self.batch(order, step)
            loss, found = self._take_step(images, labels, batch, epoch, epoch_seed, step)
            return step + 1, loss_sum + loss, correct + found, loss

        state = (start, loss_sum, tf.zeros([], tf.int32), tf.zeros([], tf.float32))
        end, loss_sum, correct, last_loss = tf.while_loop(
            goes_on, train_step, state, parallel_iterations=1
        )
        weights = self.model.trainable_variables
        finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(w.value)) for w in weights])
        return loss_sum, correct, end - start, last_loss, finite

    def order(self, count, epoch):
        """The numbers of the images, as an epoch takes them."""
        # Sorting random numbers is a shuffle that every device compiles; integers, since XLA makes
        # other floats of the same bits than the plain kernel.
        numbers = tf.random.stateless_uniform(
            [count], self.epoch_seed(epoch), None, None, dtype=tf.int32, alg='philox'
        )
        return tf.argsort(numbers)

    def batch(self, order, step):
        """The numbers of the images of a step."""
        # Not order[a:b]: XLA wants a slice's size to be a constant.
        return tf.slice(order, [step * self.batch_size], [self.batch_size])

    def _train_step(self, images, labels, batch, epoch, epoch_seed, step):
        """Trains on the images with the numbers `batch`; the loss and the number of hits."""
        batch = self.replicas.share(batch)
        targets = tf.gather(labels, batch)
        step_seed = self.replicas.seed(augmentation.fold(epoch_seed, step))
        inputs = self._inputs(images, batch, epoch, step_seed)
        loss, logits = self._update_weights(inputs, targets)
        self._average(epoch * (self._count // self.batch_size) + step)
        return loss, self.replicas.total(hits(logits, targets))

    def _inputs_of(self, images, batch, epoch, step_seed):
        return self.inputs(tf.gather(images, batch), batch, epoch, step_seed)

    def _update_weights(self, inputs, targets):
        """Loss and logits of a batch, and a step down the loss's gradient."""
        gradients, loss, logits = self.gradients(inputs, targets)
        loss, gradients = self.replicas.agree(loss, gradients, self.model.non_trainable_variables)
        # At once, what the update makes of weights and velocities alone would wait in memory.
        with tf.control_dependencies([gradient for gradient in gradients if gradient is not None]):
            self.optimizer.apply(gradients, self.model.trainable_variables)
        return loss, logits

    def gradients(self, inputs, targets):
        """Gradients of the scaled loss of a batch, the loss itself, and the logits."""
        weights = [variable.value for variable in self.model.trainable_variables]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            with self.replicas.normalizing(self.model):
                logits = self.model(inputs, training=True)
            loss = self._total_loss(targets, logits)
            scaled_loss = self.optimizer.scale_loss(loss)
        return tape.gradient(scaled_loss, weights), loss, logits

    def _total_loss(self, targets, logits):
        loss = tf.cast(self.loss(targets, logits), tf.float32)
        if loss.shape.rank != 0:
            raise ValueError(f'`loss` must return a scalar. Received: shape={tuple(loss.shape)}')
        # Those of regularizers; a layer's own may come in its compute precision.
        return loss + sum(tf.cast(extra, tf.float32) for extra in self.model.losses)

    def _update_averages(self, step):
        """Follows the weights with their averages, after every `every`-th step of the training."""
        rule, sources, variables = (
            self.averages.rule,
            self.averages.sources,
            self.averages.variables,
        )

        def update():
            averages, values = rule.update(
                [tf.convert_to_tensor(variable.value) for variable in variables],
                [tf.convert_to_tensor(source.value) for source in sources],
                step,
            )
            _assign(variables, averages)
            if rule.replaces_values:
                _assign(sources, values)
            return True

        tf.cond((step + 1) % rule.every == 0, update, lambda: False)

    def _logits(self, images):
        return tf.cast(self.model(images, training=False), tf.float32)


def hits(logits, targets):
    """How many labels have the largest logit."""
    found = tf.math.argmax(logits, -1, output_type=targets.dtype) == targets
    return tf.math.count_nonzero(found, dtype=tf.int32)


def _nothing(step):
    pass


def _assign(variables, values):
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
