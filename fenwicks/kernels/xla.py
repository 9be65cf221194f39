"""Compilation of single functions by XLA, within a graph that TensorFlow runs as it is.

TensorFlow computes a formula step by step, each step a pass over memory. XLA fuses pointwise
operations, and sums over channels, into one pass. A whole training step compiled by XLA takes five
times as long on a CPU, because its convolutions are slow there; so the kernels of this package
compile small functions only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import tensorflow as tf

from fenwicks.kernels import device

AttrValue = tf.compat.v1.AttrValue


def compiled(function: Callable) -> Callable:
    """Decorates a function of tensors: XLA compiles it, once for each combination of shapes.

    Where a shape isn't fully known the function runs as ordinary TensorFlow operations, since XLA
    needs every shape.

    Args:
        function: takes tensors as positional arguments and constants (numbers, strings) by
            keyword; returns tensors.

    Returns:
        A function with the same arguments and results.
    """
    program = tf.function(function, jit_compile=True, autograph=False)
    traced = tf.function(function, autograph=False)

    @functools.partial(tf.function, autograph=False)
    def launched(*tensors, **constants):
        return _launch(traced.get_concrete_function(*tensors, **constants), tensors)

    @functools.wraps(function)
    def call(*tensors, **constants):
        if not all(tensor.shape.is_fully_defined() for tensor in tensors):
            return function(*tensors, **constants)
        if tf.executing_eagerly() or not device.launches():
            return program(*tensors, **constants)
        specs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in tensors]
        return _in_any_order(launched.get_concrete_function(*specs, **constants), tensors)

    return call


def rounded(values: tf.Tensor, dtype: tf.DType | str) -> tf.Tensor:
    """Returns `tf.cast(values, dtype)`, to the bit; for the results of compiled functions.

    XLA's own rounding to bfloat16 takes longer on a CPU than most of what comes before it: a CELU
    takes twice as long with it. This one leaves out what XLA does for each value in case it is NaN;
    the processor's NaN and those of bfloat16 stay NaN without it. The gradient is that of a cast.

    Args:
        values: floats of any shape.
        dtype: of the result.
    """
    if dtype != tf.bfloat16 or values.dtype != tf.float32 or not values.shape.is_fully_defined():
        return tf.cast(values, dtype)
    return _rounded_to_bfloat16(values)


@tf.custom_gradient  # TensorFlow has none through the integers
def _rounded_to_bfloat16(values):
    # A bfloat16 is the upper half of a float32. Half a unit of its last place is added, or slightly
    # less where that place is even: then ties are rounded to even, as the standard has it.
    bits = tf.bitcast(values, tf.int32)
    last_place = tf.bitwise.bitwise_and(tf.bitwise.right_shift(bits, 16), 1)
    upper = tf.bitwise.right_shift(bits + (0x7FFF + last_place), 16)
    results = tf.bitcast(tf.cast(upper, tf.int16), tf.bfloat16)
    return results, lambda upstream: tf.cast(upstream, tf.float32)


def _launch(program, tensors):
    """Adds the operation to the present graph that has XLA compile and run a function."""
    graph = tf.compat.v1.get_default_graph()
    program.add_to_graph(graph)
    attributes = {
        'Tconstants': _types([]),
        'Targs': _types(tensors),
        'Nresources': AttrValue(i=0),
        'Tresults': _types(program.outputs),
        'function': AttrValue(func={'name': program.function_def.signature.name}),
    }
    dtypes = [output.dtype for output in program.outputs]
    launch = graph.create_op('XlaLaunch', list(tensors), dtypes, attrs=attributes)
    return _structured(program, launch.outputs)


def _in_any_order(program, tensors):
    """Calls a function from the present graph as one without side effects.

    TensorFlow takes XlaLaunch for an operation with side effects, and runs all such operations of a
    graph in the order in which they were traced: replicas on one processor would take turns.
    """
    dtypes = [output.dtype for output in program.outputs]
    inputs = [tf.convert_to_tensor(tensor) for tensor in tensors]
    return _structured(program, tf.raw_ops.PartitionedCall(args=inputs, Tout=dtypes, f=program))


def _structured(program, results):
    for result, output in zip(results, program.outputs, strict=True):
        result.set_shape(output.shape)
    return tf.nest.pack_sequence_as(program.structured_outputs, results)


def _types(tensors):
    return AttrValue(list={'type': [tensor.dtype.as_datatype_enum for tensor in tensors]})
