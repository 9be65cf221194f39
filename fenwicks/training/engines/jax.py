"""The JAX engine: compiled training steps.

It takes the same steps as `fenwicks.training.engines.tensorflow`. The state goes through a
`lax.while_loop`, its memory donated. On a CPU the loop of a step that holds convolutions is
Python's: XLA's fast ones aren't used within its loops.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
from jax import lax

from fenwicks import _keras
from fenwicks import augment as augmentation
from fenwicks.training.engines.base import Engine, Epoch, Settings, StepTotals
from fenwicks.training.engines.jax_accumulation import in_parts
from fenwicks.training.engines.jax_averages import averages_update
from fenwicks.training.engines.jax_data import Chunk, WholeSet
from fenwicks.training.engines.jax_scores import Scorer
from fenwicks.training.engines.jax_state import (
    all_finite,
    divided_axes,
    evaluated,
    first_carry,
    holds_convolution,
    infer,
    measuring,
)
from fenwicks.training.interrupts import deferred_interrupts
from fenwicks.training.replicas.jax_base import JaxReplicas, default_device


class JaxEngine(Engine):
    """The `Engine` on JAX.

    Args:
        settings: a `Settings` whose replicas are `JaxReplicas`.
    """

    data_attributes = '_data', '_image_shape', '_epoch', '_epoch_order'
    replicas: JaxReplicas

    def __init__(self, settings: Settings):
        super().__init__(settings)
        self._device = default_device()  # for threads that place chunks: theirs may differ
        self.on_cpu = self._device.platform == 'cpu'
        self._compute_dtypes = _keras.compute_dtypes(self.model)
        self._average = averages_update(self.model, self.averages)
        # Whether one program holds the loop over the steps; `None` where the step decides.
        self._in_one_program = True if not self.on_cpu else None
        if settings.jit_compile is not None:
            self._in_one_program = settings.jit_compile
        self._differentiate = in_parts(
            jax.grad(self._scaled_loss, has_aux=True),
            self.replicas.split,
            settings.accumulate,
            unrolled=not self._in_one_program,
        )
        self._predict = jax.jit(self._logits)
        self._shuffle = jax.jit(self._order)
        self._all_finite = jax.jit(all_finite)
        self._gradients = jax.jit(self._gradients_of)
        self._outcome, self._measure = measuring(self.replicas, self.metrics, self.count_correct)
        self._scorer = Scorer(self, self._logits, in_one_program=bool(self._in_one_program))
        self._run = self._whole_loop
        self._compiled: Any = None
        self._compiled_for: Any = None
        self._compiled_shardings: Any = None

    def load(self, images, targets):
        rows = jnp.asarray(images).reshape(len(images), -1)
        data = WholeSet(rows, tuple(map(jnp.asarray, targets)))
        self._data, self._image_shape = self.replicas.place(data), images.shape[1:]
        self._epoch = self._epoch_order = None

    def place_chunk(self, chunk):
        with jax.default_device(self._device):
            data = Chunk.placed(chunk, self.replicas)
        shape = chunk.images.shape[2:]
        return dict(zip(self.data_attributes, (data, shape, None, None), strict=True))

    def compile(self):
        program, arguments = self._abstract_program(self._data)
        compiled_for = arguments, self._image_shape
        if compiled_for != self._compiled_for:
            self._run, lowered = self._lower(program, arguments)
            self._compiled, self._compiled_for = lowered.compile(), compiled_for
            self._compiled_shardings = self._shardings()  # here, not before each call
            if self._run == self._single_steps:  # compiles what runs before the steps
                self._shuffle(self._data, Epoch(*map(jnp.int32, (0, self.seed, 0))))
            with deferred_interrupts():  # the variables have no values meanwhile
                state = self._state()
                if self._run == self._single_steps:  # and what runs after them
                    jax.block_until_ready(self._all_finite(state))
                self._assign(state)  # moving the state compiles too

    def _lower(self, program, arguments):
        """The method that takes the steps, and the program that it calls.

        Args:
            program, arguments: of the whole loop.
        """
        if self._in_one_program:
            return self._whole_loop, program.lower(*arguments)
        step, step_arguments = self._step_program(type(self._data), arguments)
        lowered = step.lower(*step_arguments)
        # A convolution in XLA's loop on a CPU takes as long as twenty outside of it. Other steps
        # are as fast there, without Python's work between them.
        if self._in_one_program is None and not holds_convolution(lowered):
            return self._whole_loop, program.lower(*arguments)
        return self._single_steps, lowered

    def program(self, count, image_shape):
        self._image_shape = tuple(image_shape)
        images = jax.ShapeDtypeStruct((count, math.prod(image_shape)), 'uint8')
        return self._abstract_program(WholeSet(images, (jax.ShapeDtypeStruct((count,), 'int32'),)))

    def _abstract_program(self, data):
        """The program for data of these shapes, and its abstract arguments."""
        replicated = self.replicas.replicated

        def argument(leaf, sharding=replicated):
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

        def program(state, *arguments):
            return self._run_steps(state, kind(*arguments[:-4]), *arguments[-4:])

        kind, shardings = type(data), self._shardings()
        state = tuple(
            [argument(leaf, sharding) for leaf, sharding in zip(*part, strict=True)]
            for part in zip(self._variables(), shardings, strict=True)
        )
        data = [
            jax.tree.map(functools.partial(argument, sharding=sharding), part)
            for part, sharding in zip(data, kind.shardings(self.replicas), strict=True)
        ]
        integer, number = (argument(jax.ShapeDtypeStruct((), d)) for d in ('int32', 'float32'))
        program = jax.jit(program, donate_argnums=0, out_shardings=(shardings, replicated))
        return program, (state, *data, Epoch(*[integer] * 3), integer, integer, number)

    def run(self, epoch, start, stop, steps_before, loss_sum=0.0):
        if self._compiled is None:
            self.compile()
        numbers = Epoch(epoch, self.seed, steps_before)
        totals = self._run(numbers, start, stop, loss_sum)
        return StepTotals(*(total.item() for total in totals))

    def gradients(self, images, labels):
        state = [[variable.value for variable in part] for part in self._variables()]
        loss, gradients = self._gradients(*state[:3], jnp.asarray(images), jnp.asarray(labels))
        return loss.item(), [np.asarray(gradient) for gradient in gradients]

    def predict(self, images, views):
        count = len(images)
        values, images = self.replicas.place_for_inference(self._model_values(), images)
        images = self.normalize(images)
        logits = [self._predict(*values, view(images)) for view in views]
        return np.stack([np.asarray(view)[:count] for view in logits])

    def hold(self, images, targets):
        return self._scorer.hold(images, targets)

    def score(self, held, batch_size):
        return self._scorer.score(self._model_values(), held, batch_size)

    def _model_values(self):
        trainable, fixed, *_ = self._variables()
        return [[variable.value for variable in part] for part in (trainable, fixed)]

    def _variables(self):
        """The parts of the state: the variables of the model, the optimizer, averages and metrics.

        Their values are called, in this order, `trainable`, `fixed` (the model's others, in which
        batch norms keep their moving statistics), `slots`, `averages` and `counts`.
        """
        model = self.model
        return (
            model.trainable_variables,
            model.non_trainable_variables,
            self.optimizer.variables,
            self.averages.variables,
            self.metrics.variables,
        )

    def _axes(self):
        """For each variable of the state the axis along which the devices divide it, or `None`."""
        sources = self.averages.sources
        return divided_axes(self._variables(), sources, self.optimizer, self.replicas)

    def _shardings(self):
        return tuple([self.replicas.sharding(axis) for axis in part] for part in self._axes())

    def _state(self):
        """The variables' values, on the program's devices. The variables may lose their memory to
        it: nothing may interrupt before `_assign`."""
        state = tuple([variable.value for variable in part] for part in self._variables())
        return self.replicas.place(state, self._compiled_shardings)

    def _assign(self, state):
        for part, values in zip(self._variables(), self.replicas.unreplicate(state), strict=True):
            for variable, value in zip(part, values, strict=True):
                variable.assign(value)
        self.replicas.wait_for_unreplicated()

    def _whole_loop(self, epoch, start, stop, loss_sum):
        numbers = *jax.tree.map(np.int32, (epoch, start, stop)), np.float32(loss_sum)
        numbers = self.replicas.place(jax.device_put(numbers))
        with deferred_interrupts():
            state, totals = self._compiled(self._state(), *self._data, *numbers)
            self._assign(state)
        return totals

    def _single_steps(self, epoch, start, stop, loss_sum):
        """As `_run_steps`, with the loop in Python."""
        numbers = jax.tree.map(jnp.int32, epoch)
        if epoch != self._epoch:
            self._epoch, self._epoch_order = epoch, self._shuffle(self._data, numbers)
        epoch = self.replicas.place(numbers)
        _, *counts = first_carry(None, jnp.int32(start), jnp.float32(loss_sum))
        counts, carry = self.replicas.place(counts), None
        try:
            with deferred_interrupts():
                carry = self._state(), *counts
            for _ in range(start, stop):
                with deferred_interrupts():
                    carry = self._compiled(carry, self._data, self._epoch_order, epoch)
                if not math.isfinite(carry[-1].item()):
                    break
            with deferred_interrupts():
                self._assign(carry[0])
        except BaseException:
            # Several processes would wait for each other here; they go on from the checkpoint.
            if self.replicas.processes == 1 and carry is not None:
                with deferred_interrupts():
                    self._assign(carry[0])
            raise
        state, end, loss_sum, correct, last_loss = carry
        return loss_sum, correct, end - start, last_loss, self._all_finite(state)

    def _step_program(self, kind, arguments):
        """The program of one step and its arguments, from those of the whole loop."""
        state, *data, epoch, start, _, loss_sum = arguments
        data = kind(*data)
        replicated = self.replicas.replicated

        def on_all(leaf):
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated)

        _, *counts = jax.eval_shape(first_carry, state, start, loss_sum)
        carry = (state, *map(on_all, counts))
        order = jax.tree.map(on_all, jax.eval_shape(self._order, data, epoch))
        shardings = (self._shardings(), *[replicated] * len(counts))
        program = jax.jit(self._train_step, donate_argnums=0, out_shardings=shardings)
        return program, (carry, data, order, epoch)

    def _run_steps(self, state, data, epoch, start, stop, loss_sum):
        order = self._order(data, epoch)

        def goes_on(carry):
            _, step, _, _, last_loss = carry
            return (step < stop) & jnp.isfinite(last_loss)

        def train_step(carry):
            return self._train_step(carry, data, order, epoch)

        carry = first_carry(state, start, loss_sum)
        state, end, loss_sum, correct, last_loss = lax.while_loop(goes_on, train_step, carry)
        return state, (loss_sum, correct, end - start, last_loss, all_finite(state))

    def _order(self, data, epoch):
        return data.order(self.epoch_seed(epoch))

    def _train_step(self, carry, data, order, epoch):
        (trainable, fixed, slots, averages, counts), step, loss_sum, correct, _ = carry
        batch = data.batch(order, step, self.batch_size)
        weight_axes, *_ = self._axes()
        differentiate = self.replicas.map_replicas(
            self._replica_gradients, weight_axes, data.shardings(self.replicas)
        )
        gradients, (fixed, loss, outcome) = differentiate(
            trainable, data, fixed, self._loss_scale(slots), batch, epoch, step
        )
        weights, slots = self.optimizer.stateless_apply(slots, gradients, trainable)
        trainable = self.keep_frozen(trainable, weights)
        state = self._average((trainable, fixed, slots, averages), epoch.steps_before + step)
        found, counts = self._measure(counts, outcome)
        return (*state, counts), step + 1, loss_sum + loss, correct + found, loss

    def _replica_gradients(self, weights, data, fixed, scale, batch, epoch, step):
        """The gradients of the whole batch, computed on this device's part of it.

        Args:
            weights: this device's parts of the trainable variables.
            data: what this device holds of the data.
            fixed, scale, batch, epoch, step: whole, the same on all devices.

        Returns:
            This device's parts of the gradients of the scaled loss; then the other variables, the
            loss, and what is counted of the whole batch.
        """
        weight_axes, *_ = self._axes()
        weights = self.replicas.all_gather(weights, weight_axes, self._compute_dtypes)
        pixels, (labels, *image_weights), indices = data.take(batch, self.batch_size, self.replicas)
        step_seed = self.replicas.local_seed(augmentation.fold(self.epoch_seed(epoch), step))
        pixels = pixels.reshape(-1, *self._image_shape)
        inputs, labels = self.inputs(pixels, labels, indices, epoch, step_seed)
        gradients, (loss, outputs, fixed) = self._differentiate(
            weights, fixed, scale, inputs, (labels, *image_weights)
        )
        gradients = self.replicas.mean_gradients(gradients, weight_axes, self._compute_dtypes)
        loss, fixed = self.replicas.all_reduce_mean((loss, fixed))
        return gradients, (fixed, loss, self._outcome(*outputs))

    def _gradients_of(self, trainable, fixed, slots, images, labels):
        """The loss of a uint8 batch as it is, and its gradients."""
        scale = self._loss_scale(slots)
        differentiate = jax.grad(self._scaled_loss, has_aux=True)
        inputs = self.normalize(images)
        gradients, (loss, *_) = differentiate(trainable, fixed, scale, inputs, (labels,))
        return loss, [gradient / scale.astype(gradient.dtype) for gradient in gradients]

    def _scaled_loss(self, trainable, fixed, scale, inputs, targets):
        trainable = self.keep_frozen([lax.stop_gradient(weight) for weight in trainable], trainable)

        def forward():
            chosen, their_targets, further_loss = self.choose(inputs, targets)
            return self.model(chosen, training=True), their_targets, further_loss

        outputs, fixed, extras = evaluated(self.model, trainable, fixed, forward)
        logits, (labels, *image_weights), further_loss = outputs
        loss = self.loss(labels, logits, *image_weights).astype('float32')
        if loss.ndim:
            raise ValueError(f'`loss` must return a scalar. Received: shape={loss.shape}')
        loss = loss + sum(extra.astype('float32') for extra in extras)
        return (loss + further_loss) * scale, (loss, (labels, logits), fixed)

    def _loss_scale(self, slots):
        """The optimizer's factor on the loss: 1, or one of its variables, in `slots`."""
        with keras.StatelessScope(list(zip(self.optimizer.variables, slots, strict=True))):
            return self.optimizer.scale_loss(jnp.float32(1))

    def _logits(self, trainable, fixed, images):
        return infer(self.model, trainable, fixed, images).astype('float32')
