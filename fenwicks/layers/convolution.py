"""2-D convolution."""

from __future__ import annotations

import operator

import keras

from fenwicks import kernels
from fenwicks._typing import Tensor


@keras.saving.register_keras_serializable(package='fenwicks')
class Conv2D(keras.layers.Conv2D):
    """2-D convolution with the arguments and results of `keras.layers.Conv2D`.

    In training on TensorFlow's CPU it uses `fenwicks.kernels.convolution`, which is faster, for
    stride 1, `same` padding, an odd kernel and more than three channels. In training, also on JAX,
    it computes only the outputs that the pooling after it reads.

    Args:
        As `keras.layers.Conv2D`.

    Call arguments:
        inputs: `(batch, height, width, channels)`.
        training: whether to use the faster kernels, whose operations other runtimes don't have.
        windows: height and width of the windows of a pooling that follows, where they don't
            overlap. Rows and columns at the end that fill no window may be left out.

    Returns:
        `(batch, new_height, new_width, filters)`.

    Example:

    >>> from fenwicks.layers import Conv2D
    >>> Conv2D(64, 3, padding='same').compute_output_shape((None, 32, 32, 3))
    (None, 32, 32, 64)
    """

    def call(
        self,
        inputs: Tensor,
        training: bool | None = None,
        windows: tuple[int, int] | None = None,
    ) -> Tensor:
        sides = self._sides(inputs, windows)
        if not self._has_fast_kernel(inputs):
            return super().call(inputs)
        if kernels.device.takes_shortcuts(training):
            outputs = kernels.convolution.conv2d(inputs, self.kernel, sides)
        elif training and sides is not None and kernels.device.on_jax():
            outputs = kernels.convolution_jax.conv2d(inputs, self.kernel, sides)
        else:
            return super().call(inputs)
        if self.use_bias:
            outputs = keras.ops.add(outputs, self.bias)
        return outputs if self.activation is None else self.activation(outputs)

    def _has_fast_kernel(self, inputs):
        # Up to three channels are those of images. They make the rotated convolution slow, and its
        # result, the gradient with respect to the images, isn't needed.
        return (
            self.strides == (1, 1)
            and self.dilation_rate == (1, 1)
            and self.groups == 1
            and self.padding == 'same'
            and self.data_format == 'channels_last'
            and all(size % 2 for size in self.kernel_size)
            and inputs.shape[-1] > 3
        )

    def _sides(self, inputs, windows):
        """Rows and columns of the output that windows cover; None for all."""
        height, width = inputs.shape[1:3]
        if windows is None or height is None or width is None:
            return None  # the sides aren't known, or all are wanted
        sides = height // windows[0] * windows[0], width // windows[1] * windows[1]
        left_out = height - sides[0], width - sides[1]
        reaches = (size // 2 for size in self.kernel_size)
        return sides if all(map(operator.le, left_out, reaches)) and all(sides) else None
