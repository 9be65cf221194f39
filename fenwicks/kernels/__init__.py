"""The fast kernels underneath the layers; README.md lists where each is used and what it gains.

`activations`, `batch_norm`, `convolution` and `pooling` are written in TensorFlow, for processors:
they exist only where Keras runs on TensorFlow. Layers ask `device.on_cpu()` before they call one.
"""

import keras

from fenwicks.kernels import batch_norm_jax, device, products

if keras.backend.backend() == 'tensorflow':
    from fenwicks.kernels import activations, batch_norm, convolution, pooling

__all__ = [
    'activations',
    'batch_norm',
    'batch_norm_jax',
    'convolution',
    'device',
    'pooling',
    'products',
]
