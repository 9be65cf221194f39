"""The TensorFlow engine: the steps of an epoch as one compiled program.

The training images lie on the device as uint8. Shuffling, augmentation, forward and backward pass,
update, averages and metrics all happen inside one `tf.while_loop`; the host gets the five values of
`StepTotals` a call. On a CPU TensorFlow runs the loop as a graph, whose convolutions are oneDNN's;
elsewhere XLA compiles it.
"""

from __future__ import annotations

import functools

import keras
import numpy as np
import tensorflow as tf

from fenwicks import _keras_optimizers
from fenwicks import augment as augmentation
from fenwicks.kernels.device import on_cpu, override
from fenwicks.training.engines.base import Engine, Epoch, Settings, StepTotals
from fenwicks.training.engines.tensorflow_accumulation import in_parts
from fenwicks.training.engines.tensorflow_data import Chunk, WholeSet
from fenwicks.training.engines.tensorflow_scores import Scorer
from fenwicks.training.replicas.tensorflow import TensorFlowReplicas


class TensorFlowEngine(Engine):
    """The `Engine` on TensorFlow.

    Args:
        settings: a `Settings` whose replicas are `TensorFlowReplicas`.
    """

    replicas: TensorFlowReplicas
    data_attributes = '_count', '_data'

    def __init__(self, settings: Settings):
        super().__init__(settings)
        self.on_cpu = on_cpu()
        self._device = tf.zeros(()).device  # for threads that place chunks: their default differs
        jit_compile = not self.on_cpu if settings.jit_compile is None else settings.jit_compile
        replicas = self.replicas
        self.loss = replicas.local_loss(self.loss)
        self._differentiate_share = in_parts(self._differentiate, settings.accumulate)
        self._average = _nothing if self.averages.rule is None else self._update_averages
        # TensorFlow counts tracings by a function's code, which all engines share, and warns of
        # many; a partial has no code and is counted by itself.
        jit_compile = jit_compile and replicas.supports_jit
        self._launched = self.on_cpu and not jit_compile
        function = functools.partial(tf.function, jit_compile=jit_compile, autograph=False)
        self._run = function(functools.partial(replicas.wrap_program(self._run_steps)))
        self._take_step = replicas.wrap_step(self._train_step)
        self._inputs = replicas.wrap_augmentation(self._inputs_of)
        self._predict = function(
            functools.partial(replicas.wrap_inference(self._logits)), reduce_retracing=True
        )
        self._gradients = function(functools.partial(self._gradients_of), reduce_retracing=True)
        self._measure = self._update_metrics if self.metrics.metrics else _nothing
        self._scorer = Scorer(self, function, self._logits, self._predict)

    def load(self, images, targets):
        self._count = len(images)
        data = WholeSet(tf.convert_to_tensor(images), tuple(map(tf.convert_to_tensor, targets)))
        self._data = self.replicas.place(data)

    def place_chunk(self, chunk):
        with tf.device(self._device):
            arrays = [chunk.images, chunk.indices, *chunk.targets]
            images, indices, *targets = self.replicas.place_parts(arrays)
            first = tf.constant(chunk.first)
        return {'_count': 0, '_data': Chunk(images, tuple(targets), indices, first)}

    def compile(self):
        self.run(epoch=0, start=0, stop=0, steps_before=0)

    def run(self, epoch, start, stop, steps_before, loss_sum=0.0):
        numbers = [tf.constant(n, tf.int32) for n in (epoch, steps_before, start, stop)]
        totals = self._run(self._data, *numbers, tf.constant(loss_sum, tf.float32))
        return StepTotals(*(total.numpy().item() for total in totals))

    def graph(self):
        counters = [tf.constant(0, tf.int32)] * 4
        arguments = (self._data, *counters, tf.constant(0.0))
        return self._run.get_concrete_function(*arguments).graph

    def predict(self, images, views):
        images = self.normalize(tf.convert_to_tensor(images))
        return np.stack([self._predict(view(images)).numpy() for view in views])

    def hold(self, images, targets):
        return tf.convert_to_tensor(images), tuple(map(tf.convert_to_tensor, targets))

    def score(self, held, batch_size):
        images, targets = held
        return self._scorer.score(images, targets, batch_size)

    def gradients(self, images, labels):
        loss, gradients = self._gradients(
            tf.convert_to_tensor(images), tf.convert_to_tensor(labels)
        )
        return loss.numpy().item(), [gradient.numpy() for gradient in gradients]

    def program(self, count, image_shape):
        """The program that trains, as a pure function for one device of any kind.

        TensorFlow lowers a function for a TPU that isn't there only if no variable is captured. So
        the variables' values go through the loop as tensors, and a `keras.StatelessScope` puts them
        in the variables' place. The engine can't train by itself afterwards.
        """
        _keras_optimizers.make_stateless(self.optimizer)
        self._count = count
        self._average = _nothing if self.averages.rule is None else self._select_averages
        variables = [*self.model.variables, *self.optimizer.variables, *self.averages.variables]

        def scope(state):
            values = [tf.cast(x, v.dtype) for x, v in zip(state, variables, strict=True)]
            return keras.StatelessScope(list(zip(variables, values, strict=True)))

        def take_step(state, *arguments):
            with scope(state):
                loss, correct = self._train_step(*arguments)
                return loss, correct, _values(variables)

        def program(state, images, targets, *numbers):
            state, totals = self._loop(take_step, state, WholeSet(images, targets), *numbers)
            with scope(state):
                return state, (*totals, self._all_finite())

        state = [tf.TensorSpec(value.shape, value.dtype) for value in _values(variables)]
        images = tf.TensorSpec((count, *image_shape), tf.uint8)
        labels = tf.TensorSpec((count,), tf.int32)
        integer, number = tf.TensorSpec((), tf.int32), tf.TensorSpec((), tf.float32)
        arguments = (state, images, (labels,), *[integer] * 4, number)
        return tf.function(program, jit_compile=True, autograph=False), arguments

    def _run_steps(self, *arguments):
        """A call of the loop: data, epoch, steps before it, start, stop and the losses so far."""

        def take_step(_, *arguments):
            return *self._take_step(*arguments), []

        with override(launched=self._launched):
            _, totals = self._loop(take_step, [], *arguments)
        return *totals, self._all_finite()

    def _loop(self, take_step, state, data, epoch, steps_before, start, stop, loss_sum):
        """The steps from `start` to before `stop`, and what `StepTotals` says of them.

        Args:
            take_step: from a state and the arguments of `_train_step` to the loss, the number of
                correct predictions and the next state.
            state: list of tensors; empty where the step assigns to variables.
        """
        epoch = Epoch(epoch, self.seed, steps_before)
        epoch_seed = self.epoch_seed(epoch)
        order = data.order(epoch_seed, self._count)

        def goes_on(step, loss_sum, correct, last_loss, *state):
            return (step < stop) & tf.math.is_finite(last_loss)

        def body(step, loss_sum, correct, last_loss, *state):
            batch = data.batch(order, step, self.batch_size)
            loss, found, state = take_step(state, data, batch, epoch, epoch_seed, step)
            return step + 1, loss_sum + loss, correct + found, loss, *state

        counts = (start, loss_sum, tf.zeros([], tf.int32), tf.zeros([], tf.float32))
        end, loss_sum, correct, last_loss, *state = tf.while_loop(
            goes_on, body, (*counts, *state), parallel_iterations=1
        )
        return state, (loss_sum, correct, end - start, last_loss)

    def _all_finite(self):
        variables = [*self.model.variables, *self.optimizer.variables, *self.averages.variables]
        floats = [v for v in variables if keras.backend.is_float_dtype(v.dtype)]
        return tf.reduce_all([tf.reduce_all(tf.math.is_finite(v.value)) for v in floats])

    def _train_step(self, data, batch, epoch, epoch_seed, step):
        """Trains on a batch, as `data.batch` describes it.

        Returns:
            The loss and the number of correct predictions.
        """
        rows = data.rows(batch, self.batch_size, self.replicas)
        labels, *weights = data.targets_of(rows)
        step_seed = self.replicas.local_seed(augmentation.fold(epoch_seed, step))
        places = data.places(rows)
        inputs, labels = self._inputs(data.images, labels, rows, places, epoch, step_seed)
        loss, (labels, logits) = self._update_weights(inputs, (labels, *weights))
        self._average(epoch.steps_before + step)
        self._measure(labels, logits)
        return loss, self.replicas.all_reduce_sum(self.count_correct(logits, labels))

    def _update_metrics(self, labels, logits):
        self.metrics.update(labels, tf.cast(logits, tf.float32))

    def _inputs_of(self, images, labels, rows, indices, epoch, step_seed):
        return self.inputs(tf.gather(images, rows), labels, indices, epoch, step_seed)

    def _update_weights(self, inputs, targets):
        """Takes a step down the loss's gradient; returns the loss, labels and logits."""
        loss, outputs, gradients = self._differentiate_share(inputs, targets)
        loss, gradients = self.replicas.all_reduce_mean(
            loss, gradients, self.model.non_trainable_variables
        )
        weights = self.model.trainable_variables
        # Otherwise TensorFlow would compute what depends on weights and velocities alone at the
        # start of the step, and keep it in memory until the gradients come.
        present = [gradient for gradient in gradients if gradient is not None]
        # Its own sum would come after clipping, while `all_reduce_mean` comes before. And on one
        # device that sum is a `tf.custom_gradient`, which TensorFlow keeps registered until the
        # process ends, with the graph that it was traced in.
        means = _keras_optimizers.without_gradient_sum(self.optimizer)
        with tf.control_dependencies(present), means:
            self.optimizer.apply(self._trained(gradients), self._trained(weights))
        return loss, outputs

    def _differentiate(self, inputs, targets):
        """The loss of a batch, its labels and logits, and the gradients of the scaled loss."""
        weights = [variable.value for variable in self.model.trainable_variables]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self._trained(weights))
            with self.replicas.batch_norm_scope(self.model):
                inputs, targets, further_loss = self.choose(inputs, targets)
                logits = self.model(inputs, training=True)
            loss = self._total_loss(targets, logits)
            scaled_loss = self.optimizer.scale_loss(loss + further_loss)
        return loss, (targets[0], logits), tape.gradient(scaled_loss, weights)

    def _trained(self, of_each):
        """Of one thing for each trainable variable, those of the variables that aren't frozen."""
        return [x for place, x in enumerate(of_each) if place not in self.frozen]

    def _total_loss(self, targets, logits):
        labels, *weights = targets
        loss = tf.cast(self.loss(labels, logits, *weights), tf.float32)
        if loss.shape.rank != 0:
            raise ValueError(f'`loss` must return a scalar. Received: shape={tuple(loss.shape)}')
        # Those of regularizers; a layer's own may come in its compute precision.
        return loss + sum(tf.cast(extra, tf.float32) for extra in self.model.losses)

    def _update_averages(self, step):
        """Updates the averages after every `every`-th step of the training."""

        def update():
            averages, values = self._next_averages(step)
            _assign(self.averages.variables, averages)
            if self.averages.rule.replaces_values:
                _assign(self.averages.sources, values)
            return True

        tf.cond((step + 1) % self.averages.rule.every == 0, update, lambda: False)

    def _select_averages(self, step):
        """As `_update_averages`, without a branch: what a branch assigns in a scope is lost."""
        rule, variables = self.averages.rule, self.averages.variables
        sources = self.averages.sources if rule.replaces_values else []
        averages, values = self._next_averages(step)
        due = (step + 1) % rule.every == 0
        for variable, new in zip([*variables, *sources], [*averages, *values], strict=False):
            variable.assign(tf.where(due, tf.cast(new, variable.dtype), variable.value))

    def _next_averages(self, step):
        return self.averages.rule.update(
            [tf.convert_to_tensor(variable.value) for variable in self.averages.variables],
            [tf.convert_to_tensor(source.value) for source in self.averages.sources],
            step,
        )

    def _gradients_of(self, images, labels):
        """The loss of a uint8 batch as it is, and its gradients; changes no variable."""
        variables = self.model.variables
        # As tensors: a strategy's variables can be watched only where a device's step runs.
        values = [tf.convert_to_tensor(variable.value) for variable in variables]
        pairs = list(zip(variables, values, strict=True))
        with keras.StatelessScope(pairs, collect_losses=True):
            loss, _, gradients = self._differentiate(self.normalize(images), (labels,))
            scale = self.optimizer.scale_loss(tf.ones([]))
            weights = [variable.value for variable in self.model.trainable_variables]
        return loss, [
            tf.zeros_like(weight) if gradient is None else gradient / tf.cast(scale, gradient.dtype)
            for weight, gradient in zip(weights, gradients, strict=True)
        ]

    def _logits(self, images):
        # This program runs here and isn't exported: it may use the CPU kernels.
        with override(in_inference=True, launched=self._launched):
            return tf.cast(self.model(images, training=False), tf.float32)


def in_one_call(function):
    """A function of tensors and variables as one graph."""
    return tf.function(functools.partial(function), autograph=False)


def _nothing(*arguments):
    pass


def _assign(variables, values):
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _values(variables):
    """Tensors of at most 32 bits: JAX, which compiles the program, has no 64-bit integers."""
    values = [tf.convert_to_tensor(variable.value) for variable in variables]
    return [tf.cast(value, tf.int32) if value.dtype == tf.int64 else value for value in values]
