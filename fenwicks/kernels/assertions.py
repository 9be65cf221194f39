"""Checks of shapes that TensorFlow knows only when a traced program runs.

Each returns its tensor, so that what is computed from it waits for the check. A program that fails
one raises `tf.errors.InvalidArgumentError` with the message given.
"""

from __future__ import annotations

import tensorflow as tf


def batch_is_multiple(inputs: tf.Tensor, divisor: int, message: str) -> tf.Tensor:
    """Returns `inputs`, whose first axis must be a multiple of `divisor`."""
    check = tf.debugging.assert_equal(tf.shape(inputs)[0] % divisor, 0, message)
    with tf.control_dependencies([check]):
        return tf.identity(inputs)


def same_shape(outputs: tf.Tensor, inputs: tf.Tensor, message: str) -> tf.Tensor:
    """Returns `outputs`, whose shape must be that of `inputs`."""
    check = tf.debugging.assert_equal(tf.shape(outputs), tf.shape(inputs), message)
    with tf.control_dependencies([check]):
        return tf.ensure_shape(outputs, inputs.shape)
