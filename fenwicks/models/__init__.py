"""Networks: functional Keras models made of `fenwicks.layers`."""

from fenwicks.models.backbones import pretrained
from fenwicks.models.check import check_model
from fenwicks.models.preact import preact_resnet18
from fenwicks.models.resnet import backbone, resnet9
from fenwicks.models.speed import speednet
from fenwicks.models.stages import backbone_stages, unfreeze

__all__ = [
    'backbone',
    'backbone_stages',
    'check_model',
    'preact_resnet18',
    'pretrained',
    'resnet9',
    'speednet',
    'unfreeze',
]
