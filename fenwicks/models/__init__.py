"""Networks: functional Keras models made of `fenwicks.layers`."""

from fenwicks.models.resnet9 import check_model, resnet9
from fenwicks.models.speednet import speednet

__all__ = ['check_model', 'resnet9', 'speednet']
