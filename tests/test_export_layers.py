"""Every layer after quantization and conversion: LiteRT in int8, ONNX, and Keras's own int8."""

import keras
import numpy as np
import pytest
from keras import ops
from test_layers_contract import CASES

pytestmark = [pytest.mark.slow, pytest.mark.backend('tensorflow')]

NETWORK_SIDE = 16


def cases(known, reason):
    """All cases; those that are known to fail are marked."""
    mark = pytest.mark.xfail(reason=reason, strict=True)
    return [pytest.param(case, marks=mark if case in known else ()) for case in CASES]


def model_of(case):
    """A model of the layer, behind a convolution for images, with weights that were trained a bit:
    batch norms have other statistics than 0 and 1."""
    make, shape = CASES[case]
    images = len(shape) == 3
    inputs = keras.Input((NETWORK_SIDE, NETWORK_SIDE, 3) if images else shape)
    h = keras.layers.Conv2D(shape[-1], 3, padding='same')(inputs) if images else inputs
    model = keras.Model(inputs, make()(h))
    random = np.random.default_rng(0)
    for variable in model.variables:
        if 'moving_mean' in variable.path or variable.path.endswith('beta'):
            variable.assign(random.uniform(-0.2, 0.2, variable.shape))
    return model


def inputs_of(model, count=64):
    shape = (count, *model.input_shape[1:])
    return np.random.default_rng(1).standard_normal(shape, np.float32)


def relative_error(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


def outputs_of(model, inputs):
    return ops.convert_to_numpy(ops.cast(model(inputs, training=False), 'float32'))


@pytest.mark.parametrize('case', CASES)
@pytest.mark.filterwarnings('ignore:.*quantiz.*')
def test_quantized_by_keras(case, tmp_path):
    """What `quantize` made is saved whole, and near what it was."""
    model = model_of(case)
    inputs = inputs_of(model)
    expected = outputs_of(model, inputs)
    model.quantize('int8')
    found = outputs_of(model, inputs)
    assert relative_error(found, expected) < 0.05
    model.save(tmp_path / 'model.keras')
    twin = keras.saving.load_model(tmp_path / 'model.keras')
    assert [w.dtype for w in twin.weights] == [w.dtype for w in model.weights]
    np.testing.assert_array_equal(outputs_of(twin, inputs), found)


@pytest.mark.parametrize(
    'case', cases({'ConvBlk-pool-first', 'FastAiHead'}, 'off by 14 % and by 25 %')
)
@pytest.mark.filterwarnings('ignore:.*tf.lite.Interpreter is deprecated.*')
def test_litert_in_int8(case, tmp_path):
    """The converter's int8, with scales from examples."""
    import tensorflow as tf

    model = model_of(case)
    inputs = inputs_of(model)
    model.export(tmp_path / 'model', verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / 'model'))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([each[None]] for each in inputs)
    interpreter = tf.lite.Interpreter(model_content=converter.convert())
    (place,), (end,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(place['index'], inputs.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(place['index'], inputs)
    interpreter.invoke()
    found = interpreter.get_tensor(end['index'])
    assert relative_error(found, outputs_of(model, inputs)) < 0.1


@pytest.mark.parametrize(
    'case', cases({'GELU', 'ConvResBlk'}, 'tf2onnx 1.17 does not know the exact GELU, by Erfc')
)
def test_onnx(case, tmp_path):
    """Operations of ONNX alone, and the same numbers."""
    onnx, runtime = pytest.importorskip('onnx'), pytest.importorskip('onnxruntime')
    pytest.importorskip('tf2onnx')
    model = model_of(case)
    inputs = inputs_of(model, 5)
    path = tmp_path / 'model.onnx'
    model(inputs[:1])  # Keras exports models that were called
    model.export(str(path), format='onnx', verbose=False)
    session = runtime.InferenceSession(str(path))
    (wanted,) = session.get_inputs()
    found = session.run(None, {wanted.name: inputs})[0]
    assert relative_error(found, outputs_of(model, inputs)) < 1e-4
    assert {node.domain for node in onnx.load(path).graph.node} <= {'', 'ai.onnx'}
