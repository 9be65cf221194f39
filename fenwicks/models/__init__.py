"""Networks: functional Keras models made of `fenwicks.layers`."""

from fenwicks.models.check import check_model
from fenwicks.models.resnet import resnet9
from fenwicks.models.speed import speednet

__all__ = ['check_model', 'resnet9', 'speednet']
