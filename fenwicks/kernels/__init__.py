"""The fast kernels underneath the layers; README.md lists where each is used and what it gains.

`activations`, `assertions`, `batch_norm`, `convolution` and `pooling` are written in TensorFlow and
are loaded only where Keras runs on it. Layers ask `device` before they call one.
"""

import keras

from fenwicks.kernels import batch_norm_jax, convolution_jax, device, products

if keras.backend.backend() == 'tensorflow':
    from fenwicks.kernels import activations, assertions, batch_norm, convolution, pooling

__all__ = [
    'activations',
    'assertions',
    'batch_norm',
    'batch_norm_jax',
    'convolution',
    'convolution_jax',
    'device',
    'pooling',
    'products',
]
