"""Products of the Hessian of a model's loss with vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import numpy as np

from fenwicks import _keras
from fenwicks._checks import flag, instance, no_class, positive_integer
from fenwicks._typing import Tensor
from fenwicks.kernels import device
from fenwicks.layers import BatchNormalization
from fenwicks.training.targets import as_loss

Loss = Callable[..., Tensor] | str


class Hessian:
    """The Hessian of a model's mean loss over given examples, by its products with vectors.

    ```
    H = d**2 L / d weights**2,    L(weights) = mean over the examples of the loss + model.losses
    hessian.product(v) = H @ v
    ```

    A product costs about as much as two gradients, and the matrix is never formed. The vectors hold
    all trainable weights, flattened and joined in the order of `model.trainable_variables`.

    In training mode the statistics of batch norm are those of each batch, and its moving statistics
    stay as they are; dropout draws the same masks in each product. TensorFlow differentiates the
    statistics of Keras's normalizations wrongly the second time (`tf.nn.moments` holds the mean
    fixed): there only `fenwicks.layers.BatchNormalization` on images is taken, on JAX all are.

    Args:
        model: a built Keras model with one output. Derivatives are as exact as its precision:
            give it float32.
        loss: a `keras.losses.Loss` that is a mean over the batch, its name, or a function of labels
            and outputs that returns the mean or a value for each example.
        inputs: what the model takes: normalised floats `(count, ...)`.
        labels: what the loss takes, `(count, ...)`.
        batch_size: examples of a pass; `None` for all at once.
        training: whether the model is called in training mode.

    Raises:
        ValueError: the model isn't built or has no trainable weights, the loss is a sum or no
            scalar, `inputs` and `labels` differ in their lengths, the backend is neither TensorFlow
            nor JAX, or TensorFlow doesn't differentiate a normalization twice.

    Attributes:
        size: number of trainable weights, the length of the vectors.
        weights: the variables, those that were trainable when the object was made.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    >>> hessian = Hessian(
    ...     model, keras.losses.MeanSquaredError(), np.array([[1.0], [3.0]]), np.zeros((2, 1))
    ... )
    >>> hessian.product(np.array([1.0])).tolist()  # the loss is w**2 * (1 + 9) / 2
    [10.0]

    Reference:
        Pearlmutter, Fast exact multiplication by the Hessian, Neural Computation 6, 1994.
    """

    def __init__(
        self,
        model: keras.Model,
        loss: Loss,
        inputs: np.ndarray,
        labels: np.ndarray,
        *,
        batch_size: int | None = None,
        training: bool = False,
    ) -> None:
        instance('model', model, keras.layers.Layer, 'a Keras model')
        no_class('loss', loss)
        training = flag('training', training)
        if not model.built or not model.trainable_variables:
            raise ValueError(
                f'`model` must be built and have trainable weights. Received: model={model.name}'
            )
        for name in ('inputs', 'outputs'):
            if len(getattr(model, name, None) or [None]) > 1:
                raise ValueError(
                    f'`model` must have one input and one output. '
                    f'Received: {len(getattr(model, name))} {name}'
                )
        if len(inputs) != len(labels) or not len(inputs):
            raise ValueError(
                '`labels` must be as many as the inputs, one at least. '
                f'Received: {len(labels)} labels for {len(inputs)} inputs'
            )
        _check_normalizations(model, training)
        self.model, self.loss, self.training = model, as_loss(loss), training
        self.inputs = np.asarray(inputs, model.variable_dtype)
        self.labels = np.asarray(labels)
        if self.labels.dtype.kind == 'f':
            self.labels = self.labels.astype(self.inputs.dtype)
        self.batch_size = len(inputs)
        if batch_size is not None:
            self.batch_size = positive_integer('batch_size', batch_size)
        # A list of its own: layers may be frozen later.
        self.weights = list(model.trainable_variables)
        _check_loss(self)
        self._shapes = [tuple(v.shape) for v in self.weights]
        self._ends = np.cumsum([int(np.prod(shape)) for shape in self._shapes])
        self.size = int(self._ends[-1])
        self._products, self._gradients = _functions(self)

    def product(self, vector: np.ndarray) -> np.ndarray:
        """The Hessian times a vector, at the model's present weights.

        Args:
            vector: floats `(size,)`.

        Returns:
            float64 `(size,)`.

        Raises:
            ValueError: the vector has another shape.
        """
        if np.shape(vector) != (self.size,):
            raise ValueError(
                f'`vector` must have the shape ({self.size},), a number for each trainable weight. '
                f'Received: shape={np.shape(vector)}'
            )
        parts = np.split(np.asarray(vector), self._ends[:-1])
        parts = [
            part.reshape(shape).astype(variable.dtype)
            for part, shape, variable in zip(parts, self._shapes, self.weights, strict=True)
        ]
        return self._mean(lambda inputs, labels: self._products(inputs, labels, parts))

    def gradient(self) -> np.ndarray:
        """The gradient of the loss at the model's present weights, float64 `(size,)`."""
        return self._mean(self._gradients)

    def _mean(self, function):
        """The mean of flattened results over the batches, each by its number of examples."""
        total = np.zeros(self.size)
        for start in range(0, len(self.inputs), self.batch_size):
            inputs = self.inputs[start : start + self.batch_size]
            parts = function(inputs, self.labels[start : start + self.batch_size])
            flat = np.concatenate([np.ravel(keras.ops.convert_to_numpy(part)) for part in parts])
            total += flat.astype(np.float64) * (len(inputs) / len(self.inputs))
        return total

    def total_loss(
        self,
        inputs: Tensor,
        labels: Tensor,
        values: Sequence[tuple[keras.Variable, Tensor]] = (),
    ) -> Tensor:
        """The loss of a batch and the model's own losses, a float32 scalar; changes no variable.

        Args:
            inputs, labels: of the batch.
            values: pairs of a variable and the value to take in its place.
        """
        # The kernels of the CPU can be differentiated once; standard operations, as often as asked.
        kernels = device.override(on_cpu=False)
        # A scope that collects losses knows no weights but those that it is given.
        present = [(weight, weight.value) for weight in self.weights]
        with kernels, keras.StatelessScope([*present, *values], collect_losses=True):
            outputs = self.model(inputs, training=self.training)
            extras = [keras.ops.cast(extra, 'float32') for extra in self.model.losses]
            return keras.ops.cast(self.loss(labels, outputs), 'float32') + sum(extras)


def _check_loss(hessian):
    """Raises unless the loss of a batch is one number, a mean over its examples."""
    loss = hessian.loss
    if not callable(loss):
        raise ValueError(f'`loss` must be a loss, its name or a function. Received: loss={loss!r}')
    if getattr(loss, 'reduction', None) == 'sum':
        raise ValueError("`loss` must be a mean over the batch. Received: reduction='sum'")
    size = hessian.batch_size  # a smaller batch may be none that the model takes
    shape = tuple(hessian.total_loss(hessian.inputs[:size], hessian.labels[:size]).shape)
    if shape:
        raise ValueError(f'`loss` must return a scalar. Received: shape={shape}')


def _check_normalizations(model, training):
    """Raises where TensorFlow would compute another matrix than the Hessian."""
    if keras.backend.backend() != 'tensorflow':
        return
    for layer in _keras.flatten_layers(model):
        by_moments = keras.layers.GroupNormalization, keras.layers.LayerNormalization
        wrong = isinstance(layer, by_moments)
        if isinstance(layer, keras.layers.BatchNormalization):
            wrong = training and layer.trainable and not _is_fused(layer)
        if wrong:
            raise ValueError(
                '`model` must normalize by fenwicks.layers.BatchNormalization, images with the '
                'channels last, in float32 and without renorm, for TensorFlow to differentiate the '
                f'statistics twice; JAX takes all. Received: {layer.name}, a {type(layer).__name__}'
            )


def _is_fused(layer):
    """Whether a batch norm computes its statistics in TensorFlow's fused operation."""
    return (
        type(layer) is BatchNormalization
        and layer.input_spec is not None
        and layer.input_spec.ndim == 4
        and layer.axis in (-1, 3)
        and not (layer.synchronized or layer.renorm)
        and layer.compute_dtype != 'float64'
    )


def _functions(hessian):
    backend = keras.backend.backend()
    if backend == 'tensorflow':
        return _tensorflow_functions(hessian)
    if backend == 'jax':
        return _jax_functions(hessian)
    raise ValueError(
        'the Hessian must be that of a model on the tensorflow or the jax backend. '
        f'Received: KERAS_BACKEND={backend}'
    )


def _tensorflow_functions(hessian):
    """Compiled functions of a batch to products and to gradients."""
    import tensorflow as tf

    none = tf.UnconnectedGradients.ZERO
    weights = [variable.value for variable in hessian.weights]

    @tf.function(autograph=False, reduce_retracing=True)
    def gradients(inputs, labels):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            loss = hessian.total_loss(inputs, labels)
        return tape.gradient(loss, weights, unconnected_gradients=none)

    @tf.function(autograph=False, reduce_retracing=True)
    def products(inputs, labels, vectors):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            slope = sum(
                tf.reduce_sum(gradient * vector)
                for gradient, vector in zip(gradients(inputs, labels), vectors, strict=True)
            )
        return tape.gradient(slope, weights, unconnected_gradients=none)

    return products, gradients


def _jax_functions(hessian):
    """As `_tensorflow_functions`, on JAX."""
    import jax
    import jax.numpy as jnp

    variables = hessian.weights
    ids = set(map(id, variables))
    others = [variable for variable in hessian.model.variables if id(variable) not in ids]

    def loss(weights, fixed, inputs, labels):
        pairs = zip(others, fixed, strict=True)
        values = [*zip(variables, weights, strict=True), *pairs]
        return hessian.total_loss(inputs, labels, values)

    def slope(weights, vectors, *arguments):
        gradients = jax.grad(loss)(weights, *arguments)
        return sum(jnp.vdot(g, v) for g, v in zip(gradients, vectors, strict=True))

    compiled_products, compiled_gradients = jax.jit(jax.grad(slope)), jax.jit(jax.grad(loss))

    def values():
        fixed = [variable.value for variable in others]
        return [variable.value for variable in variables], fixed

    def products(inputs, labels, vectors):
        weights, fixed = values()
        return compiled_products(weights, vectors, fixed, inputs, labels)

    def gradients(inputs, labels):
        return compiled_gradients(*values(), inputs, labels)

    return products, gradients
