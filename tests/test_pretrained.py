"""Pretrained networks: normalisers, weights from files, freezing and rates by stage."""

import importlib
import importlib.util

import keras
import numpy as np
import pytest

import fenwicks as fw
from fenwicks.models import backbones

pytestmark = pytest.mark.backend('tensorflow', 'jax')

SIDE = 16


def tiny(include_top=True, weights=None, input_shape=None, classes=7):
    """A network of three stages with batch norms, in the form of `keras.applications`."""
    if weights == 'imagenet':
        raise Exception('URL fetch failure on\n https://host/file.h5')  # as Keras does
    images = h = keras.Input(input_shape or (SIDE, SIDE, 3))
    for stage, strides in enumerate((1, 2, 2), 1):
        h = keras.layers.Conv2D(
            4, 3, strides=strides, padding='same', use_bias=False, name=f'conv{stage}'
        )(h)
        h = keras.layers.BatchNormalization(name=f'bn{stage}')(h)
        h = keras.layers.ReLU(name=f'relu{stage}')(h)
    if include_top:
        h = keras.layers.GlobalAveragePooling2D()(h)
        h = keras.layers.Dense(classes, name='predictions')(h)
    return keras.Model(images, h, name='tiny')


@pytest.fixture
def tiny_network(monkeypatch):
    """`tiny` stands for MobileNet, whose normaliser is 'tf'."""
    monkeypatch.setattr(keras.applications, 'MobileNet', tiny)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (8, SIDE, SIDE, 3), np.uint8)


def adapted(input_shape, **_):
    """A network that normalises pixels itself, as EfficientNetB0 does."""
    images = keras.Input(input_shape)
    h = keras.layers.Normalization(name='normalization')(images)
    return keras.Model(images, keras.layers.Conv2D(4, 3, name='conv')(h), name='adapted')


def make(**settings):
    return fw.models.pretrained(
        'mobilenet', 4, **{'input_shape': (SIDE, SIDE, 3), 'weights': None, **settings}
    )


def backbone(model):
    return model.get_layer('tiny')


def values(variables):
    return {each.path: np.array(keras.ops.convert_to_numpy(each)) for each in variables}


@pytest.mark.backend('tensorflow')
@pytest.mark.parametrize('name', backbones.applications())
def test_each_network_has_the_normaliser_that_keras_has_for_it(name):
    module = importlib.import_module(getattr(keras.applications, name).__module__)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 2, 2, 3)).astype('float32')
    expected = module.preprocess_input(pixels.copy())
    mode, _ = backbones._family(name)
    made = fw.layers.ImageNetNormalization(mode)(pixels) if mode else pixels
    np.testing.assert_allclose(made, expected, atol=1e-4)
    if not mode:  # Keras's function leaves it to the network
        np.testing.assert_array_equal(expected, pixels)


@pytest.mark.backend('tensorflow')
def test_efficientnets_scale_is_in_front_where_keras_leaves_it_out():
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 2, 2, 3)).astype('float32')
    mean, std = np.array(backbones._MEAN), np.array(backbones._STD)
    divisor = np.sqrt(std)  # the layer `normalization` of the weights has them as its variances

    def network(x):
        return (x / 255 - mean) / divisor

    np.testing.assert_allclose(
        network(np.asarray(backbones._efficientnet_scale()(pixels))),
        network(pixels) / divisor,
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.backend('tensorflow')
def test_a_network_of_keras_from_pixels_to_logits(images):
    model = fw.models.pretrained(
        'MobileNetV3Small', 4, input_shape=(32, 32, 3), weights=None, head='linear'
    )
    assert model.input_shape == (None, 32, 32, 3)
    assert model.output_shape == (None, 4)
    stages = fw.models.backbone_stages(model)
    assert len(stages) == 5
    inner = next(layer for layer in model.layers if isinstance(layer, keras.Model))
    assert {id(layer) for stage in stages for layer in stage} == {
        id(layer) for layer in inner.layers if layer.weights
    }
    assert backbones.default_image_size('efficientnetv2b3') == 300


def test_the_model_normalises_pixels_and_ends_in_the_head(tiny_network, images):
    keras.utils.set_random_seed(1)
    model = make()
    features = backbone(model)(images / np.float32(127.5) - 1)
    expected = model.get_layer('head')(features)
    np.testing.assert_allclose(model(images), expected, atol=1e-5)
    assert isinstance(model.get_layer('head'), fw.layers.FastAiHead)
    assert isinstance(make(head='linear').get_layer('head'), fw.layers.Classifier)
    assert make(input_shape=None).input_shape == (None, 224, 224, 3)


@pytest.mark.parametrize('stages', [0, 1, None])
def test_only_unfrozen_stages_are_trained_and_batch_norm_never(tiny_network, images, stages):
    model = make(trainable_stages=stages)
    trained = {variable.path for variable in backbone(model).trainable_variables}
    names = [f'conv{n}/kernel' for n in (1, 2, 3)]
    assert trained == set(names[len(names) - (3 if stages is None else stages) :])
    before = values(backbone(model).variables)
    trainer = fw.training.Trainer(
        model,
        fw.optimizers.SGD(0.1, groups=fw.optimizers.stage_groups(model)),
        batch_size=4,
        normalize=lambda images: keras.ops.cast(images, 'float32'),
    )
    trainer.fit(images, np.arange(8) % 4, epochs=1)
    after = values(backbone(model).variables)
    assert {path for path in before if (before[path] != after[path]).any()} == trained


def test_stock_fit_leaves_batch_norm_alone_too(tiny_network, images, tmp_path):
    model = make(trainable_stages=1)
    frozen = [each for each in backbone(model).variables if each.path != 'conv3/kernel']
    before = values(frozen)
    groups = fw.optimizers.stage_groups(model, 0.25)
    assert [(group.match, group.learning_rate) for group in groups] == [('(conv3).*', 0.25)]
    model.compile(fw.optimizers.SGD(0.1, groups=groups), fw.losses.CrossEntropy())
    model.fit(images, np.arange(8) % 4, batch_size=4, verbose=0)
    for path, value in values(frozen).items():
        np.testing.assert_array_equal(value, before[path])
    model.save(tmp_path / 'model.keras')
    loaded = keras.saving.load_model(tmp_path / 'model.keras')
    np.testing.assert_allclose(
        loaded.predict(images, verbose=0), model.predict(images, verbose=0), atol=1e-5
    )
    assert len(loaded.trainable_variables) == len(model.trainable_variables)


def test_freezing_again(tiny_network):
    model = make()
    fw.models.unfreeze(model, 0)
    assert not backbone(model).trainable_variables
    assert not fw.optimizers.stage_groups(model)
    fw.models.unfreeze(model, 2)
    assert [each.path for each in backbone(model).trainable_variables] == [
        'conv2/kernel',
        'conv3/kernel',
    ]


def test_a_head_that_was_frozen_with_all_the_rest_learns_again(tiny_network):
    model = make(head='linear')
    everything = [each.path for each in model.trainable_variables]
    model.trainable = False
    fw.models.unfreeze(model, 0)
    assert [each.path for each in model.trainable_variables] == ['head/dense/kernel']
    fw.models.unfreeze(model)
    assert 'head/dense/kernel' in everything
    assert [each.path for each in model.trainable_variables] == everything


def test_stages_learn_at_rates_of_their_own(tiny_network):
    model = make(head='linear')
    before = values(model.trainable_variables)
    rule = fw.optimizers.SGD(1.0, groups=fw.optimizers.stage_groups(model, 0.5))
    rule.build(model.trainable_variables)
    rule.apply([keras.ops.ones(each.shape) for each in model.trainable_variables])
    moved = {
        path: float((before[path] - value).mean())
        for path, value in values(model.trainable_variables).items()
    }
    rates = {'conv1': 0.125, 'conv2': 0.25, 'conv3': 0.5, 'head': 1.0}
    assert moved == pytest.approx({path: rates[path.partition('/')[0]] for path in moved}, abs=1e-5)


def test_patterns_tell_the_stages_of_names_that_begin_alike():
    from fenwicks.optimizers.stage_rates import _patterns

    own = ['conv2d_1/kernel', 'block1/a/kernel']
    others = ['conv2d_10/kernel', 'conv2d_11/kernel', 'block10/a/kernel', 'block1x/kernel']
    groups = [fw.optimizers.ParameterGroup(match) for match in _patterns(own, others)]
    assert all(any(group.matches(path) for group in groups) for path in own)
    assert not any(group.matches(path) for group in groups for path in others)
    many = [f'layer{n:03d}/kernel' for n in range(200)]  # too many for one pattern
    patterns = _patterns(many, ['layer200/kernel'])
    groups = [fw.optimizers.ParameterGroup(match) for match in patterns]
    assert len(groups) > 1
    assert all(sum(group.matches(path) for group in groups) == 1 for path in many)


@pytest.mark.parametrize('kind', ['backbone', 'whole', 'model'])
def test_weights_from_a_file(tiny_network, images, tmp_path, kind):
    keras.utils.set_random_seed(2)
    path = tmp_path / ('own.keras' if kind == 'model' else 'some.weights.h5')
    if kind == 'model':
        source = make()
        source.save(path)
        source = backbone(source)
    else:
        source = tiny(include_top=kind == 'whole', input_shape=(SIDE, SIDE, 3))
        source.save_weights(path)
    keras.utils.set_random_seed(3)
    model = make(weights=path, input_shape=(32, 32, 3))
    for ours, theirs in zip(backbone(model).weights, source.weights, strict=False):
        np.testing.assert_array_equal(ours, theirs)


def test_a_normalisation_computes_by_the_statistics_of_the_file(monkeypatch, images, tmp_path):
    monkeypatch.setattr(keras.applications, 'MobileNet', adapted)
    source = make()
    source.get_layer('adapted').get_layer('normalization').adapt(images.astype('float32'))
    source.save(tmp_path / 'own.keras')
    model = make(weights=tmp_path / 'own.keras')
    pixels = images.astype('float32')
    found, expected = (each.get_layer('adapted')(pixels) for each in (model, source))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_bad_arguments_are_one_line(tiny_network, tmp_path):
    def refused(kind=ValueError, name='MobileNet', **settings):
        with pytest.raises(kind) as raised:
            fw.models.pretrained(name, 4, **{'input_shape': (SIDE, SIDE, 3), **settings})
        assert '\n' not in str(raised.value)
        return str(raised.value)

    assert 'ResNet50, ' in refused(name='resnet51', weights=None)
    assert "such as 'ResNet50'" in refused(name=keras.applications.MobileNet, weights=None)
    line = refused(OSError, weights='imagenet')
    assert line.startswith("`weights` can't be downloaded (URL fetch failure on https://host/")
    assert 'existing file' in refused(FileNotFoundError, weights=tmp_path / 'none.h5')
    (tmp_path / 'bad.weights.h5').write_bytes(b'no weights')
    assert 'weights of tiny' in refused(weights=tmp_path / 'bad.weights.h5')
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(tmp_path / 'a.keras')
    assert 'weights of tiny' in refused(weights=tmp_path / 'a.keras')
    assert '`head` must be one of' in refused(weights=None, head='tail')
    assert '3 channels' in refused(weights=None, input_shape=(SIDE, SIDE, 1))
    assert '`stages` must be at most the 3' in refused(weights=None, trainable_stages=4)
    with pytest.raises(ValueError, match='must contain one backbone'):
        fw.models.unfreeze(fw.models.resnet9(widths=(4, 4, 4, 4)), 1)
    for call in (fw.models.backbone_stages, fw.models.unfreeze, fw.optimizers.stage_groups):
        for model in (3, keras.Model, keras.layers.Dense(1)):
            with pytest.raises(ValueError, match=r'^`model` must be a Keras model\. Received: mod'):
                call(model)


@pytest.mark.skipif(importlib.util.find_spec('keras_hub') is not None, reason='it is installed')
def test_keras_hub_is_named_where_it_is_missing():
    with pytest.raises(ImportError, match='pip install keras-hub'):
        fw.models.pretrained('keras_hub:resnet_18_imagenet', 4)


def test_a_preset_of_keras_hub(tmp_path, images):
    hub = pytest.importorskip('keras_hub')
    net = hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64, 64],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type='basic_block',
        image_shape=(SIDE, SIDE, 3),
    )
    net.save_to_preset(str(tmp_path / 'preset'))
    hub.layers.ImageConverter(scale=1 / 127.5, offset=-1).save_to_preset(str(tmp_path / 'preset'))
    model = fw.models.pretrained(f'keras_hub:{tmp_path}/preset', 4)
    np.testing.assert_allclose(
        model(images), model.get_layer('head')(net(images / np.float32(127.5) - 1)), atol=1e-4
    )
    assert len(fw.models.backbone_stages(model)) == 3
