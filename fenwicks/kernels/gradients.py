"""Gradients written by hand: how graphs trace them, and how their operations are named."""

from __future__ import annotations

import functools
from collections.abc import Callable

import tensorflow as tf

from fenwicks.kernels import device


def custom_gradient(function: Callable) -> Callable:
    """`tf.custom_gradient`, with the gradient's operations in the name scope of their layer.

    The scope is `gradient_tape/` and that in which the decorated function was called. A profile
    tells from it to which layer an operation belongs.

    Args:
        function: takes tensors and returns outputs and the function of their gradients, as
            `tf.custom_gradient` takes it.

    Returns:
        A function of the same tensors, which returns the outputs.
    """

    @functools.wraps(function)
    def scoped(*args, **kwargs):
        outputs, gradient = function(*args, **kwargs)
        scope = tf.get_current_name_scope()

        @functools.wraps(gradient)
        def named(*upstream, **kwargs):
            with tf.name_scope(f'gradient_tape/{scope}/'):
                return gradient(*upstream, **kwargs)

        return outputs, named if scope else gradient

    return tf.custom_gradient(scoped)


def traced_apart(function: Callable) -> Callable:
    """Decorates a function that uses `tf.custom_gradient`: graphs call it as a separate function.

    A gradient defined by `tf.custom_gradient` while a graph is traced stays registered until the
    process ends, and with it that graph and all that it captured: every model ever trained. Here
    the gradient is traced in a separate graph, once for each combination of shapes. That graph
    captures nothing.

    Args:
        function: takes tensors as positional arguments and constants by keyword; returns tensors.

    Returns:
        A function with the same arguments, results and gradient, which takes variables, too.
    """
    programs = {launched: tf.function(function, autograph=False) for launched in (False, True)}

    @functools.wraps(function)
    def call(*tensors, **constants):
        # A graph would capture a mirrored variable, and give it to whoever calls it next.
        tensors = tuple(tf.convert_to_tensor(tensor) for tensor in tensors)
        in_place = tf.executing_eagerly() or device.traces_in_place()
        traced = function if in_place else programs[device.launches()]
        return traced(*tensors, **constants)

    return call
