"""Keras layers for image networks, from single layers to blocks and heads, and initializers."""

from fenwicks.layers.activations import CELU, GELU, SiLU
from fenwicks.layers.blocks import PYTORCH_PARAMS, ConvBlk, ConvBN, ConvResBlk
from fenwicks.layers.containers import Parallel, Residual, Sequential
from fenwicks.layers.convolution import Conv2D
from fenwicks.layers.frozen import FrozenBatchNormalization
from fenwicks.layers.heads import Classifier, DenseBN, FastAiHead, GlobalPools2D, Scaling
from fenwicks.layers.initializers import PartialIdentity, PyTorchUniform, init_pytorch
from fenwicks.layers.labels import ClassNames
from fenwicks.layers.normalization import BatchNormalization, GhostBatchNormalization
from fenwicks.layers.pixels import ImageNetNormalization
from fenwicks.layers.pooling import MaxPooling2D
from fenwicks.layers.preactivation import PreActBlk
from fenwicks.layers.whitening import PatchWhitening, whitening_filters

__all__ = [
    'CELU',
    'GELU',
    'PYTORCH_PARAMS',
    'BatchNormalization',
    'ClassNames',
    'Classifier',
    'Conv2D',
    'ConvBN',
    'ConvBlk',
    'ConvResBlk',
    'DenseBN',
    'FastAiHead',
    'FrozenBatchNormalization',
    'GhostBatchNormalization',
    'GlobalPools2D',
    'ImageNetNormalization',
    'MaxPooling2D',
    'Parallel',
    'PartialIdentity',
    'PatchWhitening',
    'PreActBlk',
    'PyTorchUniform',
    'Residual',
    'Scaling',
    'Sequential',
    'SiLU',
    'init_pytorch',
    'whitening_filters',
]
