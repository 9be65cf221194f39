"""The JAX engine: the steps of an epoch as one compiled program.

The twin of `fenwicks.training.engines.tensorflow`: the same steps on the same data, with the state
of model and optimizer passed through a `lax.while_loop` and its memory used again (donated).
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import keras
import numpy as np
from jax import lax

from fenwicks import augment as augmentation
from fenwicks.training.engines.base import Engine


class JaxEngine(Engine):
    """The `Engine` on JAX.

    Args:
        *arguments: as of `Engine`.
        replicas: a `sharding.Replicas`.
    """

    def __init__(self, *arguments, replicas):
        super().__init__(*arguments)
        self.replicas = replicas
        # Where new arrays go: 'cpu', 'gpu' or 'tpu'.
        self.device = jnp.zeros(()).device.platform
        self._compute_dtypes = _compute_dtypes(self.model)
        self._average = _unchanged if self.averages.rule is None else self._update_averages
        # XLA's loops on a CPU miss its fast convolutions: one step there takes as long as twenty
        # outside of a loop.
        self._run = self._single_steps if self.device == 'cpu' else self._whole_loop
        self._predict = jax.jit(self._logits)
        self._shuffle = jax.jit(self._order)
        self._all_finite = jax.jit(_all_finite)
        self._compiled = self._compiled_for = self._compiled_shardings = None

    def load(self, images, labels):
        # In rows: a TPU would pad the three channels, or the columns, of images to whole tiles.
        self._images = self.replicas.place(jnp.asarray(images).reshape(len(images), -1))
        self._image_shape = images.shape[1:]
        self._labels = self.replicas.place(jnp.asarray(labels))
        self._epoch = self._epoch_order = None

    def compile(self):
        program, arguments = self.program(len(self._images), self._image_shape)
        if self.device == 'cpu':
            program, arguments = self._step_program(arguments)
        compiled_for = arguments, self._image_shape
        if compiled_for != self._compiled_for:
            self._compiled = program.lower(*arguments).compile()
            self._compiled_for = compiled_for
            self._compiled_shardings = self._shardings()  # here, not before each call
            state = self._state()
            if self.device == 'cpu':  # the parts of the program that surround its steps
                self._shuffle(self._labels, jnp.int32(0))
                jax.block_until_ready(self._all_finite(state[0]))
            self._assign(state)  # what brings it there and back compiles too

    def program(self, count, image_shape):
        """The program that trains, for compiling it ahead of time, on whatever device.

        Args:
            count: number of training images.
            image_shape: `(height, width, channels)` of each.

        Returns:
            A function under `jax.jit` and the tuple of its abstract arguments
            (`jax.ShapeDtypeStruct`): the state, whose memory is used again, the images in rows,
            the labels, and the epoch, the first step, the step to stop before, and the sum of
            losses so far. It returns the new state and what `run` returns.
        """
        self._image_shape = tuple(image_shape)
        everywhere = self.replicas.everywhere

        def argument(shape, dtype, sharding=everywhere):
            return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

        shardings = self._shardings()
        state = tuple(
            [
                argument(variable.shape, variable.dtype, sharding)
                for variable, sharding in zip(*part, strict=True)
            ]
            for part in zip(self._variables(), shardings, strict=True)
        )
        images = argument((count, math.prod(image_shape)), 'uint8')
        labels = argument((count,), 'int32')
        integer, number = argument((), 'int32'), argument((), 'float32')
        program = jax.jit(self._run_steps, donate_argnums=0, out_shardings=(shardings, everywhere))
        return program, (state, images, labels, integer, integer, integer, number)

    def run(self, epoch, start, stop, loss_sum=0.0):
        if self._compiled is None:
            self.compile()
        totals = self._run(self._state(), epoch, start, stop, loss_sum)
        return tuple(total.item() for total in totals)

    def predict(self, images, views):
        trainable, fixed, _, _ = self._variables()
        values = [[variable.value for variable in part] for part in (trainable, fixed)]
        count = len(images)
        values, images = self.replicas.spread(values, images)
        images = self.normalize(images)
        logits = [self._predict(*values, view(images)) for view in views]
        return np.stack([np.asarray(view)[:count] for view in logits])

    def _variables(self):
        """The parts of the state: trainable and other variables of the model, slots, averages."""
        model = self.model
        return (
            model.trainable_variables,
            model.non_trainable_variables,
            self.optimizer.variables,
            self.averages.variables,
        )

    def _axes(self):
        """For each variable of the state the axis along which the devices divide it, or None.

        What the optimizer doesn't say to update number by number is whole everywhere, as are
        variables that it doesn't update at all. An average is divided like what it follows.
        """
        axis = self.replicas.axis if getattr(self.optimizer, 'elementwise', False) else _no_axis
        weights, fixed, slots, _ = self._variables()
        weight_axes, slot_axes = ([axis(v.shape) for v in part] for part in (weights, slots))
        axes = {id(weight): axis for weight, axis in zip(weights, weight_axes, strict=True)}
        average_axes = [axes.get(id(source)) for source in self.averages.sources]
        return weight_axes, [None] * len(fixed), slot_axes, average_axes

    def _shardings(self):
        return tuple([self.replicas.sharding(axis) for axis in part] for part in self._axes())

    def _state(self):
        """The variables' values, where the program finds them."""
        state = tuple([variable.value for variable in part] for part in self._variables())
        return self.replicas.place(state, self._compiled_shardings)

    def _assign(self, state):
        for part, values in zip(self._variables(), self.replicas.take(state), strict=True):
            for variable, value in zip(part, values, strict=True):
                variable.assign(value)
        self.replicas.settle()

    def _whole_loop(self, state, epoch, start, stop, loss_sum):
        numbers = [jnp.int32(number) for number in (epoch, start, stop)] + [jnp.float32(loss_sum)]
        numbers = self.replicas.place(numbers)
        state, totals = self._compiled(state, self._images, self._labels, *numbers)
        self._assign(state)
        return totals

    def _single_steps(self, state, epoch, start, stop, loss_sum):
        """What `_run_steps` does, with its loop in Python."""
        place = self.replicas.place
        if epoch != self._epoch:
            self._epoch, self._epoch_order = epoch, self._shuffle(self._labels, jnp.int32(epoch))
        epoch = place(jnp.int32(epoch))
        carry = _first_carry(state, *place([jnp.int32(start), jnp.float32(loss_sum)]))
        carry = (*carry[:3], *place(list(carry[3:])))
        try:
            for _ in range(start, stop):
                carry = self._compiled(carry, self._images, self._labels, self._epoch_order, epoch)
                if not math.isfinite(carry[-1].item()):
                    break
        except BaseException:
            # The memory of the state before has been used again. (Several processes would wait
            # for each other here, and go on from the checkpoint anyway.)
            if self.replicas.processes == 1:
                self._assign(carry[0])
            raise
        self._assign(carry[0])
        state, end, loss_sum, correct, last_loss = carry
        return loss_sum, correct, end - start, last_loss, self._all_finite(state[0])

    def _step_program(self, arguments):
        """The program of one step and its arguments, from those of `_run_steps`."""
        state, images, labels, epoch, start, _, loss_sum = arguments
        everywhere = self.replicas.everywhere

        def whole(leaf):
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere)

        _, *counts = jax.eval_shape(_first_carry, state, start, loss_sum)
        carry = (state, *map(whole, counts))
        order = whole(jax.eval_shape(self._order, labels, epoch))
        shardings = (self._shardings(), *[everywhere] * len(counts))
        program = jax.jit(self._train_step, donate_argnums=0, out_shardings=shardings)
        return program, (carry, images, labels, order, epoch)

    def _run_steps(self, state, images, labels, epoch, start, stop, loss_sum):
        order = self._order(labels, epoch)

        def goes_on(carry):
            _, step, _, _, last_loss = carry
            return (step < stop) & jnp.isfinite(last_loss)

        def train_step(carry):
            return self._train_step(carry, images, labels, order, epoch)

        carry = _first_carry(state, start, loss_sum)
        state, end, loss_sum, correct, last_loss = lax.while_loop(goes_on, train_step, carry)
        return state, (loss_sum, correct, end - start, last_loss, _all_finite(state[0]))

    def _order(self, labels, epoch):
        key = jax.random.wrap_key_data(self.epoch_seed(epoch).astype('uint32'), impl='threefry2x32')
        return jnp.argsort(jax.random.uniform(key, labels.shape))

    def _train_step(self, carry, images, labels, order, epoch):
        (trainable, fixed, slots, averages), step, loss_sum, correct, _ = carry
        batch = lax.dynamic_slice_in_dim(order, step * self.batch_size, self.batch_size)
        weight_axes, *_ = self._axes()
        differentiate = self.replicas.shared(self._gradients_of_share, weight_axes)
        gradients, (fixed, loss, hits) = differentiate(
            trainable, fixed, self._loss_scale(slots), images, labels, batch, epoch, step
        )
        trainable, slots = self.optimizer.stateless_apply(slots, gradients, trainable)
        global_step = epoch * (len(labels) // self.batch_size) + step
        state = self._average((trainable, fixed, slots, averages), global_step)
        return state, step + 1, loss_sum + loss, correct + hits, loss

    def _gradients_of_share(self, weights, fixed, scale, images, labels, batch, epoch, step):
        """What a device finds on its share of a batch, in agreement with the others.

        Args:
            weights: the device's parts of them.
            fixed, scale, images, labels, batch, epoch, step: all there is of them.

        Returns:
            Its parts of the scaled loss's gradients; and the other variables, the loss, and the
            number of hits, of the whole batch.
        """
        weight_axes, *_ = self._axes()
        weights = self.replicas.whole(weights, weight_axes, self._compute_dtypes)
        batch = self.replicas.share(batch)
        targets = labels[batch]
        step_seed = self.replicas.seed(augmentation.fold(self.epoch_seed(epoch), step))
        pixels = images[batch].reshape(-1, *self._image_shape)
        inputs = self.inputs(pixels, batch, epoch, step_seed)
        differentiate = jax.grad(self._scaled_loss, has_aux=True)
        gradients, (loss, logits, fixed) = differentiate(weights, fixed, scale, inputs, targets)
        gradients = self.replicas.mean_gradients(gradients, weight_axes, self._compute_dtypes)
        hits = jnp.count_nonzero(jnp.argmax(logits, -1) == targets).astype('int32')
        loss, fixed = self.replicas.mean((loss, fixed))
        return gradients, (fixed, loss, self.replicas.total(hits))

    def _scaled_loss(self, trainable, fixed, scale, inputs, targets):
        logits, fixed, extras = self._call(trainable, fixed, inputs, training=True)
        loss = self.loss(targets, logits).astype('float32')
        if loss.ndim:
            raise ValueError(f'`loss` must return a scalar. Received: shape={loss.shape}')
        loss = loss + sum(extra.astype('float32') for extra in extras)
        return loss * scale, (loss, logits, fixed)

    def _loss_scale(self, slots):
        """What the optimizer multiplies the loss by: a variable of its own, in `slots`, or 1."""
        with keras.StatelessScope(list(zip(self.optimizer.variables, slots, strict=True))):
            return self.optimizer.scale_loss(jnp.float32(1))

    def _update_averages(self, state, step):
        """Follows the weights with their averages, after every `every`-th step of the training."""
        trainable, fixed, slots, averages = state
        rule = self.averages.rule
        variables = self.model.trainable_variables + self.model.non_trainable_variables
        place = {id(variable): n for n, variable in enumerate(variables)}
        places = [place[id(source)] for source in self.averages.sources]
        values = [*trainable, *fixed]

        def update(averages, sources):
            averages, changed = rule.update(averages, sources, step)
            return averages, changed if rule.replaces_values else None

        def keep(averages, sources):
            return averages, sources if rule.replaces_values else None

        sources = [values[n] for n in places]
        averages, changed = lax.cond((step + 1) % rule.every == 0, update, keep, averages, sources)
        for n, value in zip(places, changed or sources, strict=True):
            values[n] = value
        count = len(trainable)
        return values[:count], values[count:], slots, averages

    def _logits(self, trainable, fixed, images):
        logits, _, _ = self._call(trainable, fixed, images, training=False)
        return logits.astype('float32')

    def _call(self, trainable, fixed, inputs, training):
        """What the model returns with these values, its other variables after that, its losses.

        A plain call: Keras's `stateless_call` doesn't tell the layers within a subclass of `Model`
        whether they are being trained, unless the subclass hands it on.
        """
        model = self.model
        variables = zip(
            [*model.trainable_variables, *model.non_trainable_variables],
            [*trainable, *fixed],
            strict=True,
        )
        with keras.StatelessScope(list(variables), collect_losses=True) as scope:
            outputs, losses = model(inputs, training=training), model.losses
        fixed = [scope.get_current_value(v) for v in model.non_trainable_variables]
        return outputs, fixed, losses


def _compute_dtypes(model):
    """For each trainable weight the dtype in which its layer computes with it."""
    # Layers come before the layers in them, which know better; the model itself is the first.
    dtypes = {
        id(weight): layer.compute_dtype if layer.autocast else layer.variable_dtype
        for layer in model._flatten_layers()
        for weight in layer.variables
    }
    return [
        dtypes[id(weight)] if weight._autocast else weight.dtype
        for weight in model.trainable_variables
    ]


def _no_axis(shape):
    return None


def _unchanged(state, step):
    return state


def _first_carry(state, start, loss_sum):
    return state, start, loss_sum, jnp.int32(0), jnp.float32(0)


def _all_finite(weights):
    return jnp.stack([jnp.isfinite(weight).all() for weight in weights]).all()
