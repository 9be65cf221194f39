"""Blocks of layers, heads and initializers, each a Keras layer that works in any Keras model."""

from fenwicks.layers.blocks import PYTORCH_PARAMS, ConvBlk, ConvBN, ConvResBlk
from fenwicks.layers.composite import Parallel, Residual, Sequential
from fenwicks.layers.heads import Classifier, DenseBN, FastAiHead, GlobalPools2D, Scaling
from fenwicks.layers.initializers import PyTorchUniform, init_pytorch
from fenwicks.layers.primitives import BatchNormalization, Conv2D, MaxPooling2D

__all__ = [
    'PYTORCH_PARAMS',
    'BatchNormalization',
    'Classifier',
    'Conv2D',
    'ConvBN',
    'ConvBlk',
    'ConvResBlk',
    'DenseBN',
    'FastAiHead',
    'GlobalPools2D',
    'MaxPooling2D',
    'Parallel',
    'PyTorchUniform',
    'Residual',
    'Scaling',
    'Sequential',
    'init_pytorch',
]
