"""The JAX engine: the steps of an epoch as one compiled program.

The twin of `fenwicks.training.tensorflow_engine`: the same steps on the same data, with the state
of model and optimizer passed through a `lax.while_loop` and its memory used again (donated).
"""

from __future__ import annotations

import functools
import inspect

import jax
import jax.numpy as jnp
import keras
from jax import lax

from fenwicks import augment as augmentation


class JaxEngine:
    """Runs steps of training and inference batches for the `Trainer`.

    Args:
        model, optimizer, loss, normalize, augment, batch_size, seed: as the `Trainer` has them.
    """

    def __init__(self, model, optimizer, loss, normalize, augment, batch_size, seed):
        self.model, self.optimizer, self.loss = model, optimizer, loss
        self.normalize, self.augment = normalize, augment
        self.batch_size, self.seed = batch_size, seed
        self.device = jnp.zeros(()).device.platform  # where new arrays go: 'cpu', 'gpu' or 'tpu'
        self._run = functools.partial(jax.jit, donate_argnums=0)(self._run_steps)
        self._predict = jax.jit(self._logits)

    def load(self, images, labels):
        """Places the training data on the device."""
        self._images = jnp.asarray(images)
        self._labels = jnp.asarray(labels)

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
        variables = self._variables()
        state = tuple([variable.value for variable in part] for part in variables)
        counters = (jnp.int32(number) for number in (epoch, start, stop))
        state, totals = self._run(
            state, self._images, self._labels, *counters, jnp.float32(loss_sum)
        )
        for part, values in zip(variables, state, strict=True):
            for variable, value in zip(part, values, strict=True):
                variable.assign(value)
        return tuple(total.item() for total in totals)

    def predict(self, images):
        """Logits of a uint8 batch as a NumPy array."""
        trainable, fixed, _ = self._variables()
        values = [[variable.value for variable in part] for part in (trainable, fixed)]
        return keras.ops.convert_to_numpy(self._predict(*values, jnp.asarray(images)))

    def _variables(self):
        model = self.model
        return model.trainable_variables, model.non_trainable_variables, self.optimizer.variables

    def _run_steps(self, state, images, labels, epoch, start, stop, loss_sum):
        epoch_seed = augmentation.fold((self.seed, 0), epoch)
        key = jax.random.wrap_key_data(epoch_seed.astype('uint32'), impl='threefry2x32')
        order = jnp.argsort(jax.random.uniform(key, labels.shape))

        def goes_on(carry):
            _, step, _, _, last_loss = carry
            return (step < stop) & jnp.isfinite(last_loss)

        def train_step(carry):
            (trainable, fixed, slots), step, loss_sum, correct, _ = carry
            batch = lax.dynamic_slice_in_dim(order, step * self.batch_size, self.batch_size)
            targets = labels[batch]
            inputs = self.augment(
                self.normalize(images[batch]), augmentation.fold(epoch_seed, step)
            )
            differentiate = jax.value_and_grad(self._scaled_loss, has_aux=True)
            (_, (loss, logits, fixed)), gradients = differentiate(
                trainable, fixed, slots, inputs, targets
            )
            trainable, slots = self.optimizer.stateless_apply(slots, gradients, trainable)
            correct += jnp.count_nonzero(jnp.argmax(logits, -1) == targets).astype('int32')
            return (trainable, fixed, slots), step + 1, loss_sum + loss, correct, loss

        carry = (state, start, loss_sum, jnp.int32(0), jnp.float32(0))
        state, end, loss_sum, correct, last_loss = lax.while_loop(goes_on, train_step, carry)
        return state, (loss_sum, correct, end - start, last_loss)

    def _scaled_loss(self, trainable, fixed, slots, inputs, targets):
        logits, fixed, extras = self.model.stateless_call(
            trainable, fixed, inputs, **self._mode(training=True), return_losses=True
        )
        loss = self.loss(targets, logits).astype('float32')
        if loss.ndim:
            raise ValueError(f'`loss` must return a scalar. Received: shape={loss.shape}')
        loss = loss + sum(extra.astype('float32') for extra in extras)
        # The scale is a variable of the optimizer, whose value here is one of `slots`.
        with keras.StatelessScope(list(zip(self.optimizer.variables, slots, strict=True))):
            scaled_loss = self.optimizer.scale_loss(loss)
        return scaled_loss, (loss, logits, fixed)

    def _logits(self, trainable, fixed, images):
        logits, _ = self.model.stateless_call(
            trainable, fixed, self.normalize(images), **self._mode(training=False)
        )
        return logits.astype('float32')

    def _mode(self, training):
        # Unlike a plain call, a stateless one hands it on to models that don't ask for it.
        asks = 'training' in inspect.signature(self.model.call).parameters
        return {'training': training} if asks else {}
