"""Operations of TensorFlow that tf2onnx doesn't know, in those of ONNX."""

from __future__ import annotations

import numpy as np


def register() -> None:
    """Tells tf2onnx of the operations below."""
    from tf2onnx.handler import tf_op

    tf_op('Erfc')(_Erfc)


class _Erfc:
    """`1 - Erf(x)`. Keras's exact GELU, as in its ConvNeXt, is written with `Erfc`."""

    @classmethod
    def version_9(cls, graph, node, **kwargs):
        from tf2onnx.utils import make_name, map_onnx_to_numpy_type

        dtype = map_onnx_to_numpy_type(graph.get_dtype(node.output[0]))
        one = graph.make_const(make_name('one'), np.array(1, dtype))
        node.type = 'Erf'
        erf = node.output[0]
        graph.insert_new_node_on_output('Sub', erf, inputs=[one.output[0], erf])
