"""Gradients written by hand, whose operations are named as TensorFlow names automatic ones."""

from __future__ import annotations

import functools
from collections.abc import Callable

import tensorflow as tf


def custom_gradient(function: Callable) -> Callable:
    """`tf.custom_gradient`, with the gradient's operations in the name scope of their layer.

    That is `gradient_tape/` and the scope in which the decorated function was called. By it a
    profile finds the layer of an operation.

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

        return outputs, named

    return tf.custom_gradient(scoped)
