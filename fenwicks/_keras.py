"""Everything private of Keras that the library touches, but for what stands in `_keras_*.py`.

Names with an underscore and methods replaced on Keras's objects may change with any release.
`tests/test_keras_private.py` says for which releases they hold, and `tests/test_structure.py`
that no other file of the library uses such a name; `setup.py` admits no later ones.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras.src.backend.common import global_state

from fenwicks._checks import channels_last

VERSIONS = ('3.15',)  # the releases whose private parts were checked


def flatten_layers(model: keras.Model) -> list:
    """The model and all layers in it, nested ones included, each before the layers in it."""
    return list(model._flatten_layers())


def steps_from_input(model: keras.Model) -> list | None:
    """The layers and operations of a model in the order in which an image passes them, those of
    nested models in their place; `None` where a subclass of Model hides them."""
    if isinstance(model, keras.Sequential):
        found = list(model.layers)
    elif getattr(model, 'operations', None) is not None and model._nodes_by_depth:
        depths = sorted(model._nodes_by_depth, reverse=True)
        found = [node.operation for depth in depths for node in model._nodes_by_depth[depth]]
    else:
        return None
    steps: list = []
    for step in found:
        if isinstance(step, keras.layers.Pipeline):
            steps += step.layers
        elif isinstance(step, keras.Model):
            steps += steps_from_input(step) or [step]
        else:
            steps.append(step)
    return steps


def input_like_that_of(model: keras.Model, name: str) -> keras.KerasTensor:
    """A new input of a model's image shape and dtype; raises unless it is of images to logits."""
    if not model.built or getattr(model, 'inputs', None) is None:
        raise ValueError(
            '`model` must know its input shape: begin it with keras.Input(shape). '
            f'Received: {model.name}, which does not'
        )
    shapes = [tuple(tensor.shape) for tensor in (*model.inputs, *model.outputs)]
    if [len(shape) for shape in shapes] != [4, 2]:
        raise ValueError(
            '`model` must be from one batch of images to their logits, (batch, classes). Received: '
            f'{", ".join(map(str, shapes))} as its inputs and outputs'
        )
    return keras.Input(model.input_shape[1:], dtype=model.inputs[0].dtype, name=name)


def check_channels_last(name: str, model: keras.Model) -> None:
    """Raises where Keras's configuration, or a layer of the model, has images channels first.

    Args:
        name: the class or function that takes the model, for the message.
        model: a Keras model.
    """
    channels_last(name, keras.config.image_data_format())
    for layer in flatten_layers(model):
        if getattr(layer, 'data_format', None) == 'channels_first':
            raise ValueError(
                f'`model` must take images with channels last: {name} needs layers with '
                f"data_format='channels_last'. Received: {layer.name} with channels_first"
            )


def is_autocast(variable: keras.Variable) -> bool:
    """Whether a layer in mixed precision reads the variable in its compute dtype."""
    return variable._autocast


def compute_dtypes(model: keras.Model) -> list[str]:
    """For each trainable weight the dtype in which its layer computes with it."""
    # Later layers override earlier ones: a layer comes before the layers in it.
    dtypes = {
        id(weight): layer.compute_dtype if layer.autocast else layer.variable_dtype
        for layer in flatten_layers(model)
        for weight in layer.variables
    }
    return [
        dtypes[id(weight)] if is_autocast(weight) else weight.dtype
        for weight in model.trainable_variables
    ]


def is_softmax_output(tensor: Any) -> bool:
    """Whether a tensor is known to come from Keras's softmax; on JAX that is never known."""
    return hasattr(tensor, '_keras_logits')


def resumed_epoch(model: keras.Model) -> int:
    """The epoch at which `BackupAndRestore` has `fit` begin, 0 without it."""
    return getattr(model, '_initial_epoch', 0) or 0


def call_after_last_epoch(model: keras.Model, act: Callable[[], None]) -> bool:
    """Has the `fit` that begins call `act` after its last epoch, before any `on_train_end`.

    There Keras lets an optimizer replace the weights by its own averages. On JAX `act` is called
    after an interruption as well; elsewhere that leaves the hook, which no other `fit` obeys.
    Returns `False`, and does nothing, where something else is to be called there already.
    """
    optimizer, history = model.optimizer, getattr(model, 'history', None)
    if optimizer is None:
        return True
    other = vars(optimizer).get('finalize_variable_values')
    if history is not None and getattr(other, 'history', None) is history:
        return False

    def finalize_variable_values(variables):
        vars(optimizer).pop('finalize_variable_values', None)
        optimizer.finalize_variable_values(variables)
        if getattr(model, 'history', None) is history:  # each `fit` has its own
            act()

    vars(finalize_variable_values)['history'] = history
    optimizer.finalize_variable_values = finalize_variable_values
    return True


@contextlib.contextmanager
def changed_variables() -> Iterator[list[str]]:
    """A context that notes whether Keras variables are created or assigned in it, and undoes that.

    Yields a list that is filled at the end: with the paths of created variables, or `'a variable'`.
    """
    changed: list[str] = []
    new = global_state.get_global_attribute('uninitialized_variables') or []
    before = len(new)
    with keras.StatelessScope(initialize_variables=False) as scope:
        try:
            yield changed
        except ValueError as error:  # of a variable with a value, which can't wait for its own
            if 'create a variable while in a stateless scope' not in str(error):
                raise
            changed.append('a variable')
    new = global_state.get_global_attribute('uninitialized_variables') or []
    changed += [variable.path for variable in new[before:]]
    del new[before:]
    if scope.state_mapping and not changed:
        changed.append('a variable')


def compile_for_callbacks(model, optimizer, loss, metrics, labels, outputs):
    """Compiles a model as callbacks expect it, with metrics that know whether more is better.

    Args:
        model, optimizer, loss, metrics: as of `keras.Model.compile`.
        labels: an array like those of a batch.
        outputs: how many numbers the model returns for an image.
    """
    model.compile(optimizer, loss, metrics=metrics, auto_scale_loss=False)
    if metrics:
        model._compile_metrics.build(
            keras.KerasTensor((None, *labels.shape[1:]), labels.dtype.name),
            keras.KerasTensor((None, outputs), 'float32'),
        )


def output_layer(model, through=()):
    """The layer that a model's one output comes from, before any of the class `through`, which hand
    on what they get; `None` where that isn't known."""
    outputs = getattr(model, 'outputs', None)
    if not outputs or len(outputs) > 1:
        return None
    layer = outputs[0]._keras_history.operation
    while isinstance(layer, through):
        layer = layer.input._keras_history.operation
    return output_layer(layer, through) if isinstance(layer, keras.Model) else layer


def outputs_of_last_layers(
    model: keras.Model, rows: int, draw: Callable[[tuple[int, ...]], np.ndarray]
) -> np.ndarray | None:
    """What a model's last layers return, from the last with weights on, for numbers that are drawn.

    Args:
        model: a built Keras model with one output. Nothing in it is changed.
        rows: of the output.
        draw: function from a shape to an array; it stands for what comes before these layers.

    Returns:
        A float32 array `(rows, outputs)`; `None` where the layers aren't known, as of a subclass,
        or don't take the numbers.
    """
    output, *others = getattr(model, 'outputs', None) or [None]
    if output is None or others:
        return None
    try:
        with keras.StatelessScope():
            values = keras.ops.cast(_LastLayers(rows, draw).value(output), 'float32')
            return keras.ops.convert_to_numpy(values)
    except Exception:  # a layer may raise anything for a side that is unknown, or for integers
        return None


class _LastLayers:
    """Computes the tensors of a model, with drawn numbers for the inputs of layers with weights."""

    def __init__(self, rows, draw):
        self.rows, self.draw = rows, draw
        self.values = {}  # by the ids of the tensors, one for all layers that take it

    def value(self, tensor):
        operation, node_index, place = tensor._keras_history
        node = operation._inbound_nodes[node_index]
        if id(tensor) in self.values or not node.input_tensors:
            return self.drawn(tensor)
        has_weights = bool(getattr(operation, 'weights', ()))
        if has_weights and getattr(operation, 'outputs', None):  # a model, with last layers itself
            return self.value(operation.outputs[place])
        of_input = self.drawn if has_weights else self.value
        arguments, options = node.arguments.fill_in(
            {id(each): of_input(each) for each in node.input_tensors}
        )
        outputs = keras.tree.flatten(operation(*arguments, **options))
        self.values |= zip(map(id, node.outputs), outputs, strict=True)
        return self.values[id(tensor)]

    def drawn(self, tensor):
        if id(tensor) not in self.values:
            sides = [8 if side is None else side for side in tensor.shape[1:]]
            numbers = self.draw((self.rows, *sides))
            self.values[id(tensor)] = keras.ops.convert_to_tensor(numbers, tensor.dtype)
        return self.values[id(tensor)]


def profiles_batches(callback: keras.callbacks.TensorBoard) -> bool:
    """Whether it was made with a `profile_batch`."""
    return callback._should_trace


@contextlib.contextmanager
def noted_outputs(layers: Sequence[keras.layers.Layer]) -> Iterator[list[tuple[Any, Any]]]:
    """A context in which each call of these layers adds a pair (layer, outputs) to a list."""
    noted: list[tuple[Any, Any]] = []

    def noting(layer, call):
        def noted_call(*args, **kwargs):
            outputs = call(*args, **kwargs)
            noted.append((layer, outputs))
            return outputs

        return noted_call

    of_users = [vars(layer).get('call') for layer in layers]  # such as `tf.function(layer.call)`
    try:
        for layer in layers:
            layer.call = noting(layer, layer.call)
        yield noted
    finally:
        for layer, call in zip(layers, of_users, strict=True):
            vars(layer).pop('call', None)
            if call is not None:
                layer.call = call
