"""What is set on the parts of a block stays with its config, a saved model, a clone."""

import json
import re

import keras
import numpy as np
import pytest
from keras import ops

from fenwicks import layers, models

IMAGE = (8, 8, 4)


def _ghost():
    return layers.GhostBatchNormalization(2)


CASES = {
    'ConvBN': (lambda: layers.ConvBN(4, pool=keras.layers.AveragePooling2D(2)), IMAGE),
    'ConvBlk': (lambda: layers.ConvBlk(4, convs=2, normalization=_ghost()), IMAGE),
    'ConvBlk-pool': (lambda: layers.ConvBlk(4, pool=layers.ConvBN(4, strides=2)), IMAGE),
    'ConvResBlk': (lambda: layers.ConvResBlk(4, pool_first=True, activation='gelu'), IMAGE),
    'DenseBN': (lambda: layers.DenseBN(4, drop_rate=0.2), (4,)),
    'Classifier': (lambda: layers.Classifier(3), (4,)),
    'FastAiHead': (lambda: layers.FastAiHead(3), IMAGE),
    'Sequential': (lambda: layers.Sequential([layers.ConvBN(4), layers.ConvBlk(4)]), IMAGE),
    'Residual': (lambda: layers.Residual([layers.ConvBN(4)]), IMAGE),
    'Parallel': (
        lambda: layers.Parallel([layers.ConvBN(4), layers.Residual([layers.ConvBN(4)])]),
        IMAGE,
    ),
}


def model_of(make, shape):
    inputs = keras.Input(shape)
    return keras.Model(inputs, make()(inputs))


def leaves(model):
    return [
        part
        for part in model._flatten_layers()
        if not hasattr(part, 'layers') and not isinstance(part, keras.layers.InputLayer)
    ]


def change(model):
    """Another value for everything that the parts offer."""
    changed = 0
    for part in leaves(model):
        for name, value in (('momentum', 0.77), ('rate', 0.35), ('weight', 2.0), ('epsilon', 0.1)):
            if isinstance(getattr(part, name, None), float):
                setattr(part, name, value)
                changed += 1
        if isinstance(part, keras.layers.BatchNormalization):
            part.trainable = False
            part.dtype_policy = 'mixed_bfloat16'
            changed += 1
    return changed


def without_numbers(name):
    """Automatic names end in a running number."""
    return re.sub(r'_\d+(?=/|$)', '', name)


def paths(weights):
    return [without_numbers(weight.path) for weight in weights if 'seed' not in weight.path]


def settings(model):
    return [
        (type(part), {**part.get_config(), 'name': without_numbers(part.name)})
        for part in leaves(model)
    ]


def assert_same(twin, model):
    assert settings(twin) == settings(model)
    assert paths(twin.trainable_weights) == paths(model.trainable_weights)
    shape = (4, *model.input_shape[1:])
    inputs = np.random.default_rng(0).standard_normal(shape, np.float32)
    twin.set_weights(model.get_weights())
    np.testing.assert_array_equal(
        ops.convert_to_numpy(ops.cast(twin(inputs), 'float32')),
        ops.convert_to_numpy(ops.cast(model(inputs), 'float32')),
    )


@pytest.mark.parametrize('case', CASES)
def test_settings_of_parts_are_kept(case, tmp_path):
    model = model_of(*CASES[case])
    assert change(model)
    model.save(tmp_path / 'model.keras')
    assert_same(keras.saving.load_model(tmp_path / 'model.keras'), model)
    assert_same(keras.models.clone_model(model), model)
    layer = model.layers[-1]
    config = json.loads(json.dumps(layer.get_config()))
    twin = type(layer).from_config(config)
    assert json.loads(json.dumps(twin.get_config())) == config
    again = keras.models.clone_model(keras.models.clone_model(model))
    assert_same(again, model)


@pytest.mark.parametrize('case', ['ConvBlk', 'ConvResBlk', 'FastAiHead', 'Residual'])
def test_trainable_parts_of_a_frozen_block(case):
    model = model_of(*CASES[case])
    layer = model.layers[-1]
    layer.trainable = False
    if case in ('ConvBlk', 'FastAiHead'):  # blocks of blocks, without containers
        assert 'part_configs' not in layer.get_config()
    norms = [p for p in leaves(model) if isinstance(p, keras.layers.BatchNormalization)]
    norms[-1].trainable = True
    twin = keras.models.clone_model(model)
    assert settings(twin) == settings(model)
    layer.trainable = True
    assert settings(keras.models.clone_model(model)) == settings(model)


def test_a_config_without_changes_can_be_edited():
    """No part's config stands in it: the arguments decide."""
    config = layers.ConvResBlk(4).get_config()
    assert 'part_configs' not in config
    twin = layers.ConvResBlk.from_config({**config, 'filters': 6, 'dtype': 'mixed_bfloat16'})
    twin.build((None, 8, 8, 3))
    assert {tuple(w.shape) for w in twin.weights if w.path.endswith('gamma')} == {(6,)}
    assert {part.compute_dtype for part in twin._flatten_layers()} == {'bfloat16'}


@pytest.mark.parametrize('case', [case for case in CASES if case != 'Residual'])
def test_a_policy_set_on_the_block_alone(case, tmp_path):
    """As in Keras's Sequential, its parts keep theirs."""
    model = model_of(*CASES[case])
    model.layers[-1].dtype_policy = 'mixed_bfloat16'
    assert {part.compute_dtype for part in leaves(model)} == {'float32'}
    model.save(tmp_path / 'model.keras')
    assert_same(keras.saving.load_model(tmp_path / 'model.keras'), model)
    assert_same(keras.models.clone_model(keras.models.clone_model(model)), model)


def test_rates_and_factors_set_on_a_head_take_effect():
    dropping = layers.DenseBN(4, drop_rate=0.5)
    dropping.drop_rate = 0.0
    inputs = np.ones((2, 4), np.float32)
    assert ops.convert_to_numpy(dropping(inputs, training=True)).tolist() == [[0.0] * 4] * 2
    assert layers.DenseBN.from_config(dropping.get_config()).drop_rate == 0.0
    scaled = layers.Classifier(3, weight=0.5)
    before = ops.convert_to_numpy(scaled(inputs))
    scaled.weight = 2.0
    np.testing.assert_allclose(ops.convert_to_numpy(scaled(inputs)), 4 * before, rtol=1e-6)
    assert layers.Classifier.from_config(scaled.get_config()).weight == 2.0
    for head, name, value in ((dropping, 'drop_rate', 1.0), (scaled, 'weight', float('nan'))):
        with pytest.raises(ValueError, match=f'^`{name}` must be'):
            setattr(head, name, value)


def test_settings_of_a_part_that_is_not_made_yet():
    """The shortcut of a PreActBlk is made when the block is built."""
    block = layers.PreActBlk(8)
    block.build((None, 8, 8, 4))
    assert block.layers[4].name == 'shortcut'
    block.layers[4].trainable = False
    for _ in range(3):
        block = layers.PreActBlk.from_config(block.get_config())
    block.build((None, 8, 8, 4))
    assert not block.layers[4].trainable


def test_a_part_of_another_class():
    layer = layers.ConvBN(4)
    layer.layers[-1] = keras.layers.LeakyReLU(negative_slope=0.3)
    twin = layers.ConvBN.from_config(json.loads(json.dumps(layer.get_config())))
    assert type(twin.layers[-1]) is keras.layers.LeakyReLU
    assert twin.layers[-1].negative_slope == pytest.approx(0.3)


def test_frozen_norms_of_a_network(tmp_path):
    model = models.resnet9((16, 16, 3), widths=(4, 4, 4, 4))
    for part in leaves(model):
        if isinstance(part, keras.layers.BatchNormalization):
            part.trainable = False
    assert len(model.trainable_variables) == 9
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), 'mse')
    inputs = np.random.default_rng(0).standard_normal((4, 16, 16, 3), np.float32)
    model.fit(inputs, np.zeros((4, 10), np.float32), verbose=0)
    model.save(tmp_path / 'model.keras')
    twin = keras.saving.load_model(tmp_path / 'model.keras')
    assert [v.path for v in twin.trainable_variables] == [v.path for v in model.trainable_variables]
    for one, other in zip(twin.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(one), ops.convert_to_numpy(other))


@pytest.mark.parametrize('case', ['DenseBN', 'Classifier', 'FastAiHead', 'ConvBlk'])
@pytest.mark.filterwarnings('ignore:.*quantiz.*')
def test_quantized_parts(case, tmp_path):
    model = model_of(*CASES[case])
    model.quantize('int8')
    model.save(tmp_path / 'model.keras')
    twin = keras.saving.load_model(tmp_path / 'model.keras')
    assert [w.dtype for w in twin.weights] == [w.dtype for w in model.weights]
    assert any(w.dtype == 'int8' for w in twin.weights) == (case != 'ConvBlk')
    inputs = np.random.default_rng(0).standard_normal((4, *CASES[case][1]), np.float32)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(twin(inputs)), ops.convert_to_numpy(model(inputs))
    )


class WithoutConfig(keras.layers.Layer):
    """Neither `get_config` nor `compute_output_shape`."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(4)

    def call(self, inputs):
        return self.dense(inputs)


class Closed(keras.layers.Layer):
    def __init__(self):
        super().__init__()

    def call(self, inputs):
        return inputs


@pytest.mark.parametrize(
    'make',
    [
        lambda: layers.ConvBlk(4, pool=keras.layers.Identity()),
        lambda: layers.ConvBN(4, pool=WithoutConfig(), pool_first=False),
        lambda: layers.ConvBN(4, activation=WithoutConfig()),
        lambda: layers.ConvResBlk(4, activation=keras.layers.Identity(), pool_first=True),
        lambda: layers.DenseBN(4, normalization=WithoutConfig()),
        lambda: layers.Sequential([layers.ConvBN(4), WithoutConfig(), layers.ConvBN(4)]),
        lambda: layers.Residual([WithoutConfig()]),
        lambda: layers.Parallel([WithoutConfig(), layers.ConvBN(4)]),
        lambda: layers.Sequential([layers.Sequential([WithoutConfig()]), WithoutConfig()]),
    ],
)
@pytest.mark.parametrize(
    'policy', ['float32', pytest.param('mixed_bfloat16', marks=pytest.mark.thorough)]
)
def test_layers_without_config_or_output_shape(make, policy, tmp_path):
    keras.config.set_dtype_policy(policy)
    keras.saving.get_custom_objects().update(WithoutConfig=WithoutConfig)
    shape = (4,) if isinstance(make(), layers.DenseBN) else IMAGE
    model = model_of(make, shape)
    inputs = np.random.default_rng(0).standard_normal((4, *shape), np.float32)
    assert tuple(model(inputs).shape) == (4, *model.output_shape[1:])
    eager = make()
    assert tuple(eager(inputs).shape) == (4, *model.output_shape[1:])
    assert paths(eager.weights) == paths(model.weights)
    model.compile('sgd', 'mse')
    model.fit(inputs, np.zeros((4, *model.output_shape[1:]), np.float32), verbose=0)
    model.save(tmp_path / 'model.keras')
    twin = keras.saving.load_model(tmp_path / 'model.keras')
    assert_same(twin, model)
    assert_same(keras.models.clone_model(model), model)


class WithFunction(keras.layers.Layer):
    """Keras can make no config of it."""

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def call(self, inputs):
        return self.function(inputs)


@pytest.mark.parametrize('template', [Closed(), WithFunction(ops.abs)])
@pytest.mark.parametrize('argument', ['activation', 'normalization', 'pool'])
def test_a_template_that_its_config_does_not_restore(template, argument):
    message = f'^a template must be .*Received: {type(template).__name__} '
    with pytest.raises(ValueError, match=message) as error:
        layers.ConvBN(4, **{argument: template})
    assert '\n' not in str(error.value)


def test_templates_without_config_under_a_map_of_policies():
    policy = keras.dtype_policies.DTypePolicyMap(default_policy='float32')
    block = layers.ConvBlk(4, pool=keras.layers.Identity(), dtype=policy)
    twin = layers.ConvBlk.from_config(block.get_config())
    assert twin.compute_output_shape((None, *IMAGE)) == (None, 8, 8, 4)


class Two(keras.layers.Layer):
    def call(self, inputs):
        return inputs, 2 * inputs


@pytest.mark.parametrize('outputs', [tuple, list])
def test_layers_that_hand_on_two_tensors(outputs):
    class Several(Two):
        def call(self, inputs):
            return outputs(super().call(inputs))

    layer = layers.Sequential([Several(), keras.layers.Add()])
    inputs = keras.Input((3,))
    assert keras.Model(inputs, layer(inputs)).output_shape == (None, 3)
    assert ops.convert_to_numpy(layer(np.ones((2, 3), np.float32))).tolist() == [[3.0] * 3] * 2
    assert layer.compute_output_shape((None, 3)) == (None, 3)
