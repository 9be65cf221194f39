"""Patch whitening: a fixed first convolution that decorrelates small patches of the images."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from fenwicks._checks import channels_last, finite_number, flag, positive_integer
from fenwicks._typing import Config, Shape, Tensor
from fenwicks.kernels.products import exact_products

# Images whose patches are in memory at once: 12 MB for 3x3 patches of 32x32x3 images, in float64.
_IMAGES_AT_A_TIME = 64

# A direction counts as missing from the patches if its eigenvalue is less than this fraction of the
# largest. The smallest fraction of CIFAR-10's 3x3 patches is 1e-5. That of colour in grey images is
# 1e-16, a rounding error.
_MISSING = 1e-8


def whitening_filters(
    images: np.ndarray, kernel_size: int = 3, epsilon: float = 1e-2
) -> np.ndarray:
    """Computes filters whose outputs are uncorrelated and of similar size on patches of `images`.

    ```
    second_moment = mean over all patches of outer(patch, patch)
    filter_i = eigenvector_i / sqrt(eigenvalue_i + epsilon)
    ```

    On the patches of the same images, the outputs of filter i have the mean square
    `eigenvalue_i / (eigenvalue_i + epsilon)`, and the products of two filters' outputs have mean 0.
    Means are not subtracted: those of normalized images are near 0.

    Directions that don't occur in the patches (grey images have no colour) get no filter. In their
    places the other filters are repeated, in order.

    Args:
        images: NumPy floats `(images, height, width, channels)`, normalized.
        kernel_size: side of a patch in pixels, at least 1 and at most the images' sides.
        epsilon: added to the eigenvalues, above 0, so that rare directions aren't amplified much.

    Returns:
        float32 `(kernel_size, kernel_size, channels, kernel_size * kernel_size * channels)`, in
        descending order of the eigenvalues. The sign of each filter is the one that makes the first
        large number of its eigenvector positive.

    Raises:
        ValueError: if an argument breaks the rules above, or a number in `images` isn't finite.

    Example:

    >>> import numpy as np
    >>> from fenwicks.layers import whitening_filters
    >>> images = np.random.default_rng(0).standard_normal((10, 8, 8, 3))
    >>> whitening_filters(images, kernel_size=2).shape
    (2, 2, 3, 12)

    Reference:
        https://myrtle.ai/learn/how-to-train-your-resnet-8-bag-of-tricks/
    """
    size = positive_integer('kernel_size', kernel_size)
    epsilon = finite_number('epsilon', epsilon, above=0)
    images = np.asarray(images)
    _check_images(images, size)
    eigenvalues, eigenvectors = np.linalg.eigh(_second_moment(images, size))  # ascending
    eigenvalues, eigenvectors = eigenvalues[::-1], eigenvectors[:, ::-1]
    # "Large" is at least half the largest number, so that rounding can't decide between two equal
    # ones.
    magnitude = np.abs(eigenvectors)
    first = np.argmax(magnitude >= 0.5 * magnitude.max(axis=0), axis=0)
    signs = np.sign(eigenvectors[first, np.arange(len(first))])
    filters = eigenvectors * signs / np.sqrt(np.maximum(eigenvalues, 0) + epsilon)
    # A filter for a direction that doesn't occur would return rounding errors, and a batch
    # normalization after it would amplify them.
    found = max(1, int(np.count_nonzero(eigenvalues > _MISSING * eigenvalues[0])))
    filters = filters[:, np.arange(len(filters)) % found]
    return filters.reshape(size, size, images.shape[-1], -1).astype(np.float32)


@keras.saving.register_keras_serializable(package='fenwicks')
class PatchWhitening(keras.layers.Layer):
    """Fixed convolution with whitening filters of the training images, as a first layer.

    ```
    y = conv(x, kernel) + bias        # kernel: whitening_filters(images), not trained
    ```

    Call `adapt` before training: it computes the filters. They are saved with the model, which then
    loads without the images. Until `adapt` is called, each filter returns one number of the patch.

    In mixed precision the layer computes in float32 and rounds only its outputs. Those of rare
    directions are small differences of large pixels: with bfloat16 products the errors would be 6 %
    in the last filters of CIFAR-10's 2x2 patches and 16 % in those of 3x3 patches. And the gradient
    of the bias is a sum of many numbers. (On a TPU, TensorFlow multiplies float32 numbers in
    bfloat16; JAX computes this layer in full precision.)

    Args:
        kernel_size: side of a patch in pixels, at least 1.
        epsilon: added to the eigenvalues, above 0.
        padding: `same` (with zeros) or `valid`.
        negatives: whether to append the negated filters, for an activation after the layer that
            sets negative values to zero.
        use_bias: whether to add a trained bias, called `bias`.
        bias_initializer: any Keras initializer, for the bias.
        **kwargs: `name`, `dtype`, `trainable` of `keras.layers.Layer`.

    Call arguments:
        inputs: `(batch, height, width, channels)`.

    Returns:
        `(batch, height, width, filters)`, the sides `kernel_size - 1` shorter with `valid`. There
        are `kernel_size * kernel_size * channels` filters, twice as many with `negatives`.

    Raises:
        ValueError: if an argument breaks the rules above.

    Example:

    >>> import numpy as np
    >>> from fenwicks.layers import PatchWhitening
    >>> whitening = PatchWhitening(3)
    >>> whitening.adapt(np.random.default_rng(0).standard_normal((10, 32, 32, 3)))
    >>> whitening.compute_output_shape((None, 32, 32, 3))
    (None, 32, 32, 27)

    Reference:
        https://myrtle.ai/learn/how-to-train-your-resnet-8-bag-of-tricks/
    """

    def __init__(
        self,
        kernel_size: int = 3,
        epsilon: float = 1e-2,
        padding: str = 'same',
        negatives: bool = False,
        use_bias: bool = False,
        bias_initializer: Any = 'zeros',
        **kwargs: Any,
    ) -> None:
        channels_last(type(self).__name__, keras.config.image_data_format())
        super().__init__(autocast=False, **kwargs)
        self.kernel_size = positive_integer('kernel_size', kernel_size)
        self.epsilon = finite_number('epsilon', epsilon, above=0)
        if padding not in ('same', 'valid'):
            raise ValueError(f"`padding` must be 'same' or 'valid'. Received: padding={padding!r}")
        self.padding = padding
        self.negatives = flag('negatives', negatives)
        self.use_bias = flag('use_bias', use_bias)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.bias = None
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def build(self, input_shape: Shape) -> None:
        _, *sides, channels = input_shape
        if channels is None:
            raise ValueError(
                '`inputs` must have a known number of channels. '
                f'Received: shape={tuple(input_shape)}'
            )
        _check_sides(sides, self.kernel_size)
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={-1: channels})
        filters = self._filters(channels)
        self.kernel = self.add_weight(
            name='kernel',
            shape=(self.kernel_size, self.kernel_size, channels, filters),
            initializer=_pick_pixels,
            trainable=False,
            autocast=False,
        )
        if self.use_bias:
            self.bias = self.add_weight(
                name='bias',
                shape=(filters,),
                initializer=self.bias_initializer,
                autocast=False,
            )

    def adapt(self, images: np.ndarray) -> None:
        """Sets the kernel to the whitening filters of `images`, see `whitening_filters`.

        Args:
            images: NumPy floats `(images, height, width, channels)`, normalized like the inputs.
                A few thousand are enough.

        Raises:
            ValueError: as `whitening_filters`, or if the layer was built for another number of
                channels.
        """
        filters = whitening_filters(images, self.kernel_size, self.epsilon)
        channels = filters.shape[2]
        if not self.built:
            self.build((None, None, None, channels))
        if self.kernel.shape[2] != channels:
            raise ValueError(
                f'`images` must have the {self.kernel.shape[2]} channels of the inputs. '
                f'Received: images of {channels}'
            )
        self.kernel.assign(np.concatenate([filters, -filters], -1) if self.negatives else filters)

    @property
    def is_adapted(self) -> bool:
        """Whether the kernel holds whitening filters: after `adapt`, or loaded with the model."""
        if not self.built:
            return False
        initial = _pick_pixels(self.kernel.shape, self.kernel.dtype)
        return not np.array_equal(*map(ops.convert_to_numpy, (self.kernel, initial)))

    def call(self, inputs: Tensor) -> Tensor:
        images = ops.cast(inputs, self.variable_dtype)
        with exact_products():
            outputs = ops.conv(
                images, self.kernel, padding=self.padding, data_format='channels_last'
            )
        if self.bias is not None:
            outputs = ops.add(outputs, self.bias)
        return ops.cast(outputs, self.compute_dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, *sides, channels = input_shape
        if self.padding == 'valid':
            sides = [side and side - self.kernel_size + 1 for side in sides]
        return (batch, *sides, self._filters(channels))

    def _filters(self, channels):
        return self.kernel_size**2 * channels * (2 if self.negatives else 1)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            'kernel_size': self.kernel_size,
            'epsilon': self.epsilon,
            'padding': self.padding,
            'negatives': self.negatives,
            'use_bias': self.use_bias,
            'bias_initializer': keras.initializers.serialize(self.bias_initializer),
        }


def _pick_pixels(shape, dtype):
    """Filters that return one number of the patch each; the second half returns it negated."""
    numbers_in_patch = math.prod(shape[:3])
    pick = np.eye(numbers_in_patch)
    if shape[3] > numbers_in_patch:
        pick = np.concatenate([pick, -pick], axis=-1)
    return ops.convert_to_tensor(pick.reshape(shape), dtype)


def _second_moment(images, size):
    """Mean outer product of the patches, flattened as (row, column, channel), in float64."""
    height, width = (side - size + 1 for side in images.shape[1:3])
    total, count = 0, len(images) * height * width
    for start in range(0, len(images), _IMAGES_AT_A_TIME):
        part = images[start : start + _IMAGES_AT_A_TIME].astype(np.float64)
        shifted = [
            part[:, row : row + height, column : column + width]
            for row in range(size)
            for column in range(size)
        ]
        # One product per row of patches: BLAS would divide one long, thin product among threads,
        # which takes ten times as long where they have to wait for each other.
        patches = np.concatenate(shifted, axis=-1)  # (images, height, width, numbers in a patch)
        total = total + (patches.swapaxes(2, 3) @ patches).sum(axis=(0, 1))
    return total / count


def _check_images(images, size):
    if images.ndim != 4 or not np.issubdtype(images.dtype, np.floating) or not len(images):
        raise ValueError(
            '`images` must be normalized floats (images, height, width, channels). '
            f'Received: {images.dtype} of shape {images.shape}'
        )
    _check_sides(images.shape[1:3], size)
    if not np.isfinite(images).all():
        raise ValueError('`images` must be finite. Received: images with NaN or infinity')


def _check_sides(sides, size):
    if any(side is not None and side < size for side in sides):
        raise ValueError(
            f'`kernel_size` must be at most the sides {tuple(sides)} of the images. '
            f'Received: kernel_size={size}'
        )
