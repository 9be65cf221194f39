"""Initializers of kernels: PyTorch's default, and a partial identity."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from fenwicks._typing import Config, Tensor


@keras.saving.register_keras_serializable(package='fenwicks')
class PyTorchUniform(keras.initializers.VarianceScaling):
    """Uniform in `+-1 / sqrt(fan_in)`, the default of PyTorch's `Conv2d` and `Linear`.

    ```
    limit = 1 / sqrt(fan_in)        # fan_in = kernel height * kernel width * input channels
    kernel ~ uniform(-limit, limit)
    ```

    PyTorch calls it `kaiming_uniform_(a=sqrt(5))`. It is exactly
    `VarianceScaling(scale=1/3, mode='fan_in', distribution='uniform')`, whose limit is
    `sqrt(3 * scale / fan_in)`.

    Args:
        seed: an integer, a `keras.random.SeedGenerator`, or None for a random seed, which
            `keras.utils.set_random_seed` makes reproducible. As with every Keras initializer, one
            instance returns the same numbers each time it is called with the same shape, unless
            `seed` is a generator: pass the class, not an instance, to several Keras layers. The
            blocks of `fenwicks.layers` copy an unseeded instance for each of their kernels.

    Example:

    >>> import keras
    >>> kernel = PyTorchUniform(seed=0)((3, 3, 4, 8))
    >>> bool(keras.ops.max(keras.ops.abs(kernel)) <= 1 / 6)
    True

    Reference:
        https://docs.pytorch.org/docs/stable/generated/torch.nn.Conv2d.html
    """

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(scale=1 / 3, mode='fan_in', distribution='uniform', seed=seed)

    def get_config(self) -> Config:
        return {'seed': super().get_config()['seed']}


# The class, not an instance: each layer it is passed to creates an instance, with its own seed.
init_pytorch = PyTorchUniform


@keras.saving.register_keras_serializable(package='fenwicks')
class PartialIdentity(keras.initializers.Initializer):
    """The first filters copy their input channel; another initializer draws the others.

    ```
    kernel = rest(shape)
    kernel[..., i] = 0;  kernel[center, center, i, i] = 1        # for i < min(inputs, filters)
    ```

    A deep stack of such convolutions is initially close to a shallow one, which trains faster. It
    is `torch.nn.init.dirac_` on the first filters, as many as there are input channels.

    Args:
        rest: the initializer of the other filters; None for `PyTorchUniform()`.

    Raises:
        ValueError: when called with a shape of fewer than two axes.

    Example:

    >>> import keras
    >>> from fenwicks.layers import PartialIdentity
    >>> kernel = PartialIdentity()((3, 3, 4, 8))
    >>> keras.ops.convert_to_numpy(kernel)[1, 1, :, :4]
    array([[1., 0., 0., 0.],
           [0., 1., 0., 0.],
           [0., 0., 1., 0.],
           [0., 0., 0., 1.]], dtype=float32)

    Reference:
        Jordan, 94% on CIFAR-10 in 3.29 Seconds on a Single GPU, https://arxiv.org/abs/2404.00498
    """

    def __init__(self, rest: Any = None) -> None:
        self.rest = PyTorchUniform() if rest is None else keras.initializers.get(rest)

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Tensor:
        if len(shape) < 2:
            raise ValueError(
                f'`shape` must be (..., input channels, filters). Received: shape={tuple(shape)}'
            )
        kernel = self.rest(shape, dtype=dtype)
        count = min(shape[-2:])
        identity = np.zeros((*shape[:-1], count), np.float32)
        center = [side // 2 for side in shape[:-2]]
        identity[*center] = np.eye(shape[-2], count)
        return ops.concatenate([ops.cast(identity, kernel.dtype), kernel[..., count:]], axis=-1)

    def get_config(self) -> Config:
        return {'rest': keras.initializers.serialize(self.rest)}
