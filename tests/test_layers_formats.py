"""Precisions, image formats and number types, over all layers."""

import json

import keras
import numpy as np
import pytest
from keras import ops
from test_layers_contract import CASES, IN_FLOAT32

from fenwicks import assemble, augment, data, evaluate, layers, models, optimizers, training


@pytest.fixture
def _channels_first():
    keras.config.set_image_data_format('channels_first')
    yield
    keras.config.set_image_data_format('channels_last')


IMAGE_LAYERS = {
    'ConvBN': lambda: layers.ConvBN(4),
    'ConvBlk': lambda: layers.ConvBlk(4),
    'ConvResBlk': lambda: layers.ConvResBlk(4),
    'FastAiHead': lambda: layers.FastAiHead(3),
    'GlobalPools2D': layers.GlobalPools2D,
    'PatchWhitening': layers.PatchWhitening,
    'resnet9': lambda: models.resnet9((16, 16, 3)),
    'speednet': lambda: models.speednet((16, 16, 3)),
}


@pytest.mark.usefixtures('_channels_first')
@pytest.mark.parametrize('name', IMAGE_LAYERS)
def test_channels_first_is_refused(name):
    message = f"^`image_data_format` must be 'channels_last' for {name}: .*: channels_first$"
    with pytest.raises(ValueError, match=message) as error:
        IMAGE_LAYERS[name]()
    assert '\n' not in str(error.value)


def trainer(model):
    return training.Trainer(model, optimizers.SGD(0.1), batch_size=4)


OF_A_MODEL = {
    'the Trainer': trainer,
    'tta_model': lambda model: evaluate.tta_model(model, evaluate.FLIP),
    'with_normalization': lambda model: assemble.with_normalization(model, [0.0], [1.0]),
}


def flat_model(**options):
    parts = [keras.Input((8, 8, 1)), keras.layers.Flatten(**options), keras.layers.Dense(3)]
    return keras.Sequential(parts)


@pytest.mark.backend('tensorflow', 'jax')
@pytest.mark.usefixtures('_channels_first')
@pytest.mark.parametrize('name', OF_A_MODEL)
def test_channels_first_is_refused_with_any_model(name):
    message = f"^`image_data_format` must be 'channels_last' for {name}: .*: channels_first$"
    with pytest.raises(ValueError, match=message):
        OF_A_MODEL[name](flat_model(data_format='channels_last'))


@pytest.mark.parametrize('wrap', [lambda pool: pool, lambda pool: layers.Sequential([pool])])
@pytest.mark.parametrize('wrap_again', [lambda pool: pool, lambda pool: keras.Sequential([pool])])
def test_a_template_with_channels_first_in_it_is_refused(wrap, wrap_again):
    pool = wrap_again(wrap(keras.layers.MaxPooling2D(2, data_format='channels_first')))
    with pytest.raises(ValueError, match=r"^`pool` must have data_format='channels_last'\. "):
        layers.ConvBlk(3, pool=pool)


@pytest.mark.backend('tensorflow', 'jax')
@pytest.mark.parametrize('name', OF_A_MODEL)
def test_a_model_with_channels_first_is_refused(name):
    model = flat_model(data_format='channels_first')
    message = rf'^`model` must take images with channels last: {name} needs .*: flatten\S* with'
    with pytest.raises(ValueError, match=message):
        OF_A_MODEL[name](model)


@pytest.mark.usefixtures('_channels_first')
def test_a_layer_of_augmentations_refuses_channels_first():
    with pytest.raises(ValueError, match=r'^`image_data_format` .* for augment\.layer: '):
        augment.layer(augment.random_flip)


def functions_of_arrays():
    """What functions whose docstrings fix the order of axes make of a batch of images."""
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
    floats, seed = ops.convert_to_tensor(images.astype('float32')), np.int32([3, 4])
    # Resizing, rotating and blurring: what Keras's own operations would do by the configuration.
    changed = [
        augment.resize(floats, 5, 6),
        augment.random_crop(floats, seed, padding=2),
        augment.random_resized_crop(floats, seed, 6, 6),
        augment.random_rotate(floats, seed),
        evaluate.FLIP_TRANSLATE.transforms[1](floats),
    ]
    arrays = [ops.convert_to_numpy(each) for each in changed]
    return [*arrays, *data.mean_std(images)]


def test_functions_of_arrays_do_not_ask_the_configuration(request):
    expected = functions_of_arrays()
    request.getfixturevalue('_channels_first')
    for mine, theirs in zip(functions_of_arrays(), expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_template_with_channels_first_is_refused():
    pool = keras.layers.AveragePooling2D(2, data_format='channels_first')
    with pytest.raises(ValueError, match=r"^`pool` must have data_format='channels_last'"):
        layers.ConvBlk(4, pool=pool)


@pytest.mark.usefixtures('_channels_first')
@pytest.mark.parametrize('kind', ['Conv2D', 'MaxPooling2D'])
def test_layers_with_a_data_format_are_as_their_parents(kind):
    arguments = {'Conv2D': (4, 3), 'MaxPooling2D': (2,)}[kind]
    one, other = (getattr(module, kind)(*arguments) for module in (layers, keras.layers))
    shape = (None, 3, 8, 10)
    assert one.compute_output_shape(shape) == other.compute_output_shape(shape)
    if keras.backend.backend() != 'tensorflow':  # whose CPU has no such convolution
        images = np.random.default_rng(0).standard_normal((2, 3, 8, 10), np.float32)
        assert one(images, training=True).shape == other(images).shape


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
@pytest.mark.parametrize('case', CASES)
def test_half_precision_throughout(case, dtype):
    """Variables too, unlike in mixed precision."""
    make, shape = CASES[case]
    keras.config.set_dtype_policy(dtype)
    layer = make()
    images = np.random.default_rng(0).standard_normal((4, *shape), np.float32)
    for trains in (True, False):
        outputs = layer(ops.cast(images, dtype), training=trains)
        assert np.isfinite(ops.convert_to_numpy(ops.cast(outputs, 'float32'))).all()
        found = keras.backend.standardize_dtype(outputs.dtype)
        assert found == ('float32' if case in IN_FLOAT32 - {'ClassNames'} else dtype)
    keras.config.set_dtype_policy('float32')
    exact = make()
    exact.build((None, *shape))
    exact.set_weights([np.asarray(w, np.float32) for w in map(_numpy, layer.weights)])
    outputs, expected = (_numpy(each(images, training=False)) for each in (layer, exact))
    scale = np.abs(expected).max()
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=0.06 * scale)


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
@pytest.mark.parametrize('kind', ['BatchNormalization', 'GhostBatchNormalization'])
def test_moving_statistics_in_half_precision(kind, dtype):
    arguments = {'GhostBatchNormalization': (4,), 'BatchNormalization': ()}[kind]
    layer = getattr(layers, kind)(*arguments, dtype=dtype)
    expected = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, dtype=dtype)
    images = 1 + np.random.default_rng(0).standard_normal((4, 4, 4, 3), np.float32)
    for each in (layer, expected):
        each(ops.cast(images, dtype), training=True)
    for one, other in zip(layer.weights, expected.weights, strict=True):
        assert one.dtype == other.dtype == dtype
        np.testing.assert_allclose(_numpy(one), _numpy(other), rtol=0.01, atol=1e-3)


@pytest.mark.parametrize(
    'make',
    [
        lambda: layers.ConvBN(np.int64(4), np.int32(3), np.int64(1)),
        lambda: layers.ConvResBlk(np.int64(4), convs=np.int64(1), res_convs=np.int8(1)),
        lambda: layers.DenseBN(np.int64(4), np.float32(0.25)),
        lambda: layers.Classifier(np.int64(4), weight=np.float32(0.125)),
        lambda: layers.FastAiHead(np.int64(4)),
        lambda: layers.Scaling(np.float32(0.5)),
        lambda: layers.CELU(np.float32(0.5)),
        lambda: layers.BatchNormalization(momentum=np.float32(0.75), epsilon=np.float64(1e-3)),
        lambda: layers.GhostBatchNormalization(np.int64(4), np.float32(0.75)),
        lambda: layers.PatchWhitening(np.int64(2), np.float32(0.01)),
        lambda: models.resnet9(
            (16, 16, 3),
            np.int64(10),
            widths=np.array([4, 4, 4, 4]),
            logit_scale=np.float32(0.5),
            whitening=np.int64(3),
        ),
        lambda: models.speednet(
            np.array([16, 16, 3]), widths=np.int64([4, 4, 4]), logit_scale=np.float32(0.5)
        ),
    ],
)
def test_numbers_of_numpy(make):
    layer = make()
    text = json.dumps(keras.saving.serialize_keras_object(layer))
    twin = keras.saving.deserialize_keras_object(json.loads(text))
    assert json.loads(json.dumps(twin.get_config())) == json.loads(json.dumps(layer.get_config()))


def _numpy(tensor):
    return ops.convert_to_numpy(ops.cast(tensor, 'float32'))
