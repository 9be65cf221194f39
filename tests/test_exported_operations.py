"""What a program traced for inference holds: operations that other runtimes have too."""

import keras
import numpy as np
import pytest
from keras import ops

if keras.backend.backend() != 'tensorflow':
    pytest.skip("TensorFlow's kernels", allow_module_level=True)

import tensorflow as tf

from fenwicks import layers, models
from fenwicks.kernels import device

# Those of LiteRT's built-in conversion that the networks need, as TensorFlow calls them.
STANDARD = {
    *('AddV2', 'Cast', 'ConcatV2', 'Const', 'Conv2D', 'Elu', 'Erf', 'Erfc', 'Expm1', 'Identity'),
    *('MatMul', 'Max', 'MaxPool', 'Maximum', 'Mean', 'Minimum', 'Mul', 'Neg', 'NoOp', 'Pack'),
    *('Placeholder', 'Pow', 'RealDiv', 'Relu', 'Reshape', 'Rsqrt', 'Select', 'SelectV2'),
    *(
        'Shape',
        'Sqrt',
        'Square',
        'SquaredDifference',
        'StridedSlice',
        'Sub',
        'BiasAdd',
        'LeakyRelu',
    ),
    *('BroadcastTo', 'Exp', 'Greater', 'GreaterEqual', 'LessEqual', 'ReadVariableOp', 'Tanh'),
    *(
        'StatefulPartitionedCall',
        'PartitionedCall',
        'Relu6',
        'Sigmoid',
        'AvgPool',
        'Fill',
        'Squeeze',
    ),
}

SHAPE = (16, 16, 3)


def of(*blocks):
    inputs = h = keras.Input(SHAPE)
    for block in blocks:
        h = block(h)
    return keras.Model(inputs, h)


MODELS = {
    'resnet9': lambda: models.resnet9(SHAPE, widths=(8, 8, 8, 8)),
    'resnet9-page': lambda: models.resnet9(
        SHAPE,
        widths=(8, 8, 8, 8),
        whitening=3,
        pool_first=True,
        activation=layers.CELU(0.3),
        normalization=layers.GhostBatchNormalization(2),
    ),
    'resnet9-wide': lambda: models.resnet9(SHAPE, widths=(128, 128, 128, 128)),
    'speednet': lambda: models.speednet(SHAPE, widths=(8, 8, 8)),
    'speednet-residual': lambda: models.speednet(SHAPE, widths=(8, 8, 8), residual=True),
    'conv': lambda: of(layers.Conv2D(8, 3, padding='same'), layers.Conv2D(8, 3, padding='same')),
    'gelu': lambda: of(layers.GELU()),
    'silu': lambda: of(layers.SiLU()),
    'celu': lambda: of(layers.CELU()),
    'pool': lambda: of(layers.MaxPooling2D()),
    'heads': lambda: of(layers.ConvBlk(8), layers.FastAiHead(3)),
    'parallel': lambda: of(
        layers.Parallel([layers.ConvBN(8), layers.Residual([layers.ConvBN(3)])])
    ),
}


def operations(graph_def):
    nodes = list(graph_def.node)
    for function in graph_def.library.function:
        nodes.extend(function.node_def)
    return {node.op for node in nodes}


def traced(model, batch):
    function = tf.function(lambda images: model(images, training=False), autograph=False)
    return function.get_concrete_function(tf.TensorSpec((batch, *SHAPE)))


@pytest.mark.parametrize('batch', [None, 4])
@pytest.mark.parametrize('case', MODELS)
def test_inference_is_traced_as_standard_operations(case, batch):
    graph = traced(MODELS[case](), batch).graph.as_graph_def()
    assert operations(graph) <= STANDARD
    compiled = [f for f in graph.library.function if f.attr['_XlaMustCompile'].b]
    assert not compiled


@pytest.mark.parametrize('case', ['resnet9-page', 'speednet', 'heads'])
def test_an_exported_saved_model(case, tmp_path):
    model = MODELS[case]()
    model.export(tmp_path / 'model', verbose=False)
    loaded = tf.saved_model.load(tmp_path / 'model')
    graph = loaded.signatures['serving_default'].graph.as_graph_def()
    assert operations(graph) <= STANDARD | {'VarHandleOp', 'AssignVariableOp'}
    images = np.random.default_rng(0).standard_normal((5, *SHAPE), np.float32)
    np.testing.assert_allclose(loaded.serve(images), model(images), rtol=1e-4, atol=1e-5)


@pytest.mark.thorough
@pytest.mark.parametrize('case', MODELS)
@pytest.mark.filterwarnings('ignore:.*tf.lite.Interpreter is deprecated.*')
def test_litert(case, tmp_path):
    """The plain interpreter, without operations of TensorFlow, gives the same numbers."""
    model = MODELS[case]()
    model.export(tmp_path / 'model.tflite', format='litert', verbose=False)
    interpreter = tf.lite.Interpreter(model_path=str(tmp_path / 'model.tflite'))
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]['index'], (2, *SHAPE))
    interpreter.allocate_tensors()
    images = np.random.default_rng(0).standard_normal((2, *SHAPE), np.float32)
    interpreter.set_tensor(interpreter.get_input_details()[0]['index'], images)
    interpreter.invoke()
    found = interpreter.get_tensor(interpreter.get_output_details()[0]['index'])
    expected = ops.convert_to_numpy(model(images, training=False))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_training_takes_the_shortcuts():
    model = models.resnet9(SHAPE, widths=(128, 128, 128, 128), activation=layers.GELU())
    function = tf.function(lambda images: model(images, training=True), autograph=False)
    graph = function.get_concrete_function(tf.TensorSpec((4, *SHAPE))).graph.as_graph_def()
    with device.override(in_inference=True):
        inference = traced(model, 4).graph.as_graph_def()
    for found in (graph, inference):
        assert any(f.attr['_XlaMustCompile'].b for f in found.library.function)
        assert 'RightShift' in operations(found)
    assert 'RightShift' not in operations(traced(model, 4).graph.as_graph_def())


@pytest.mark.parametrize('activation', [None, 'relu', keras.activations.gelu])
@pytest.mark.parametrize('use_bias', [False, True])
def test_a_convolution_in_training_is_the_one_at_inference(activation, use_bias):
    layer = layers.Conv2D(8, 3, padding='same', activation=activation, use_bias=use_bias)
    images = np.random.default_rng(0).standard_normal((2, 6, 6, 4), np.float32)
    layer.build(images.shape)
    layer.set_weights([np.random.default_rng(1).standard_normal(w.shape) for w in layer.weights])
    np.testing.assert_allclose(
        layer(images, training=True), layer(images, training=False), rtol=1e-4, atol=1e-4
    )
