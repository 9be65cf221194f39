"""Networks: functional Keras models made of `fenwicks.layers`."""

from fenwicks.models.check import check_model
from fenwicks.models.class_names import read_class_names, write_class_names
from fenwicks.models.resnet import resnet9
from fenwicks.models.speed import speednet

__all__ = ['check_model', 'read_class_names', 'resnet9', 'speednet', 'write_class_names']
