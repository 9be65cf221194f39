"""How PyTorch starts its convolutions and dense layers, as a Keras initializer."""

from __future__ import annotations

import keras


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
        seed: an integer, a `keras.random.SeedGenerator`, or None for a new draw at each
            construction (which `keras.utils.set_random_seed` makes reproducible). As with every
            Keras initializer, one instance gives one and the same tensor each time it is asked
            for one shape: hand the class, not an instance, to several plain Keras layers. The
            blocks of `fenwicks.layers` copy an unseeded instance for each of their kernels.

    Example:

    >>> import keras
    >>> kernel = PyTorchUniform(seed=0)((3, 3, 4, 8))
    >>> bool(keras.ops.max(keras.ops.abs(kernel)) <= 1 / 6)
    True

    Reference:
        https://docs.pytorch.org/docs/stable/generated/torch.nn.Conv2d.html
    """

    def __init__(self, seed=None):
        super().__init__(scale=1 / 3, mode='fan_in', distribution='uniform', seed=seed)

    def get_config(self):
        return {'seed': super().get_config()['seed']}


# The class itself: Keras makes a new instance, and so a new draw, wherever it is given.
init_pytorch = PyTorchUniform
