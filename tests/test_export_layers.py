"""Every layer after quantization and conversion: LiteRT in int8, ONNX, and Keras's own int8."""

import keras
import numpy as np
import pytest
from keras import ops
from test_layers_contract import CASES

from fenwicks import export

pytestmark = [pytest.mark.slow, pytest.mark.backend('tensorflow')]

NETWORK_SIDE = 16


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


def int8_error(model, folder):
    """By how much the converter's int8 is off, with scales from examples."""
    import tensorflow as tf

    inputs = inputs_of(model)
    model.export(folder, verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([each[None]] for each in inputs)
    interpreter = tf.lite.Interpreter(model_content=converter.convert())
    (place,), (end,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(place['index'], inputs.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(place['index'], inputs)
    interpreter.invoke()
    return relative_error(interpreter.get_tensor(end['index']), outputs_of(model, inputs))


def celu(inputs):
    return keras.activations.celu(inputs, 0.3)


def pool_first(h):
    """What the case ConvBlk-pool-first computes, of Keras's layers."""
    for pool in (False, True):
        h = keras.layers.Conv2D(4, 3, padding='same', use_bias=False)(h)
        h = keras.layers.MaxPooling2D()(h) if pool else h
        h = keras.layers.BatchNormalization(epsilon=1e-5)(h)
        h = keras.layers.Activation(celu)(h)
    return h


def fastai_head(h):
    """What FastAiHead computes, of Keras's layers."""
    pools = keras.layers.GlobalMaxPooling2D()(h), keras.layers.GlobalAveragePooling2D()(h)
    h = keras.layers.BatchNormalization(epsilon=1e-5)(keras.layers.Concatenate()(pools))
    h = keras.layers.Dense(512, use_bias=False, activation='relu')(h)
    h = keras.layers.BatchNormalization(epsilon=1e-5)(h)
    return keras.layers.Dense(4, use_bias=False)(h)


# Where the converter's int8 is off by more than 10 %: the same computation of Keras's layers.
OF_KERAS_LAYERS = {'ConvBlk-pool-first': pool_first, 'FastAiHead': fastai_head}


@pytest.mark.parametrize('case', CASES)
@pytest.mark.filterwarnings('ignore:.*tf.lite.Interpreter is deprecated.*')
def test_litert_in_int8(case, tmp_path):
    model = model_of(case)
    error = int8_error(model, tmp_path / 'model')
    if case not in OF_KERAS_LAYERS:
        assert error < 0.1
        return
    first = model.layers[1].output
    twin = keras.Model(model.input, OF_KERAS_LAYERS[case](first))
    twin.set_weights(model.get_weights())
    inputs = inputs_of(model)
    assert relative_error(outputs_of(twin, inputs), outputs_of(model, inputs)) < 1e-5
    expected = int8_error(twin, tmp_path / 'twin')
    print(f"{case}: off by {error:.3f}, of Keras's layers {expected:.3f}")
    assert 0.1 < error < 1.1 * expected


@pytest.mark.parametrize('case', CASES)
def test_onnx(case, tmp_path):
    """Operations of ONNX alone, and the same numbers."""
    onnx, runtime = pytest.importorskip('onnx'), pytest.importorskip('onnxruntime')
    pytest.importorskip('tf2onnx')
    model = model_of(case)
    inputs = inputs_of(model, 5)
    (path,) = export.write(model, tmp_path, ['onnx'])
    session = runtime.InferenceSession(str(path))
    (wanted,) = session.get_inputs()
    found = session.run(None, {wanted.name: inputs})[0]
    assert relative_error(found, outputs_of(model, inputs)) < 1e-4
    assert {node.domain for node in onnx.load(path).graph.node} <= {'', 'ai.onnx'}
