"""Trained models for other runtimes, and the card that describes a run.

    python examples/cifar10.py --export=saved_model,litert,onnx,safetensors     # after the training
    python -m fenwicks.export out/my_run --formats=litert                       # any time later

| format | file | runs in | with Keras on TensorFlow | on JAX |
| --- | --- | --- | --- | --- |
| `saved_model` | `saved_model/` | TensorFlow and its Serving | yes | if TensorFlow is there too |
| `litert` | `model.tflite` | LiteRT (TensorFlow Lite) | yes | no |
| `onnx` | `model.onnx` | ONNX Runtime and others | with tf2onnx | no |
| `safetensors` | `model.safetensors` | weights alone, for any framework | yes | yes |

All take what `model.keras` takes, batches of pixels from 0 to 255 as float32, and give logits. What
TensorFlow writes holds standard operations only. A SavedModel from JAX holds one operation of
TensorFlow, `XlaCallModule`, with the whole network in it.

A file of Keras belongs to no backend, so a model that was trained on JAX is exported from the run's
folder by `KERAS_BACKEND=tensorflow python -m fenwicks.export`. On JAX itself Keras can't write
LiteRT, and writes ONNX by jax2onnx, whose max pooling ONNX Runtime refuses (jax2onnx 0.17.1).
"""

from fenwicks.export.card import model_card
from fenwicks.export.formats import FORMATS, check_formats, write

__all__ = ['FORMATS', 'check_formats', 'model_card', 'write']
