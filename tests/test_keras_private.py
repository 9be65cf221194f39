"""The private parts of Keras that the library uses: where, and for which versions of Keras.

`test_structure.py` says that no other file of the library takes an underscored attribute.
"""

import re

import keras
import numpy as np
import pytest

import fenwicks
from fenwicks import _keras, _keras_optimizers, _keras_saving, optimizers


def model():
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name='inner')])
    return keras.Sequential([keras.Input((4,)), inner, keras.layers.BatchNormalization()])


def built(optimizer, network):
    optimizer.build(network.trainable_variables)
    return optimizer


def test_the_installed_keras_is_one_that_was_checked():
    assert re.match(r'\d+\.\d+', keras.__version__)[0] in _keras.VERSIONS


def test_setup_admits_no_other_keras():
    import pathlib

    setup = (pathlib.Path(fenwicks.__file__).parent.parent / 'setup.py').read_text()
    lowest, highest = (
        tuple(map(int, v.split('.'))) for v in re.findall(r'keras>=([\d.]+),<([\d.]+)', setup)[0]
    )
    releases = [tuple(map(int, version.split('.'))) for version in _keras.VERSIONS]
    assert min(releases) == lowest
    assert max(releases) == (highest[0], highest[1] - 1)


def test_layers_come_before_the_layers_in_them():
    network = model()
    found = _keras.flatten_layers(network)
    assert found[0] is network
    names = [layer.name for layer in found]
    assert names.index(network.layers[0].name) < names.index('inner')
    assert network.layers[1] in found


def test_weights_are_cast_and_statistics_are_not():
    network = model()
    assert all(map(_keras.is_autocast, network.layers[0].trainable_variables))
    assert not any(map(_keras.is_autocast, network.layers[1].non_trainable_variables))


@pytest.mark.parametrize(
    'make', [lambda: keras.optimizers.Adam(0.1), lambda: optimizers.SGD(0.1, momentum=0.9)]
)
def test_what_an_optimizer_holds(make):
    network = model()
    optimizer = built(make(), network)
    weights = network.trainable_variables
    assert list(map(id, _keras_optimizers.optimized_variables(optimizer))) == list(map(id, weights))
    assert [_keras_optimizers.variable_index(optimizer, weight) for weight in weights] == [
        *range(4)
    ]
    assert float(_keras_optimizers.constant_or_schedule(optimizer)) == pytest.approx(0.1)
    assert int(_keras_optimizers.update_count(optimizer)) == 0
    optimizer.apply([keras.ops.ones(weight.shape) for weight in weights])
    assert int(_keras_optimizers.update_count(optimizer)) == 1


def test_a_schedule_is_held_as_it_is():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
    assert _keras_optimizers.constant_or_schedule(keras.optimizers.SGD(schedule)) is schedule


def test_decay_outside_the_velocity_is_left_out():
    class Decaying(_keras_optimizers.WithoutDecoupledDecay, keras.optimizers.SGD):
        pass

    for kind, factor in ((keras.optimizers.SGD, 0.95), (Decaying, 1.0)):
        network = model()
        optimizer = built(kind(0.1, weight_decay=0.5), network)
        weights = network.trainable_variables
        before = keras.ops.convert_to_numpy(weights[0])
        optimizer.apply([keras.ops.zeros(weight.shape) for weight in weights])
        assert keras.ops.convert_to_numpy(weights[0]) == pytest.approx(factor * before, rel=1e-5)


@pytest.mark.backend('tensorflow')
def test_gradients_are_not_summed_over_the_replicas():
    import tensorflow as tf

    strategy = tf.distribute.OneDeviceStrategy('CPU:0')
    with strategy.scope():
        optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1))
    gradients = [tf.ones(3)]
    for each in (optimizer, optimizer.inner_optimizer):
        assert hasattr(each, '_all_reduce_sum_gradients')
    with _keras_optimizers.without_gradient_sum(optimizer):
        for each in (optimizer, optimizer.inner_optimizer):
            assert each._all_reduce_sum_gradients(gradients) == gradients
    for each in (optimizer, optimizer.inner_optimizer):  # for Keras's own `fit`
        assert '_all_reduce_sum_gradients' not in vars(each)


@pytest.mark.backend('tensorflow')
@pytest.mark.parametrize(
    'make',
    [
        lambda: keras.optimizers.Adam(0.1),
        lambda: optimizers.SGD(0.1, momentum=0.9),
        lambda: optimizers.Muon(0.1, others=optimizers.SGD(0.2), others_match=['.*norm.*']),
    ],
)
def test_a_stateless_optimizer_assigns_within_the_scope_only(make):
    network = model()
    optimizer = built(make(), network)
    _keras_optimizers.make_stateless(optimizer)
    weights = network.trainable_variables
    variables = [*weights, *optimizer.variables]
    before = [keras.ops.convert_to_numpy(variable) for variable in variables]
    with keras.StatelessScope([(v, v.value) for v in variables]) as scope:
        optimizer.apply([keras.ops.ones(weight.shape) for weight in weights])
    for variable, value in zip(variables, before, strict=True):
        assert keras.ops.convert_to_numpy(variable) == pytest.approx(value)
    changed = [keras.ops.convert_to_numpy(scope.get_current_value(weight)) for weight in weights]
    assert any((new != old).any() for new, old in zip(changed, before, strict=False))


def test_models_are_known_to_be_loading(tmp_path):
    seen = []

    @keras.saving.register_keras_serializable(package='fenwicks_tests')
    class Noting(keras.optimizers.SGD):
        def build(self, variables):
            seen.append(_keras_saving.is_loading())
            super().build(variables)

    network = model()
    network.compile(Noting(0.1), 'mse')
    network.optimizer.build(network.trainable_variables)
    network.save(tmp_path / 'model.keras')
    keras.models.load_model(tmp_path / 'model.keras')
    assert seen == [False, True]
    assert not _keras_saving.is_loading()


def test_where_a_backup_has_training_begin(tmp_path):
    network = model()
    network.compile('sgd', 'mse')
    assert _keras.resumed_epoch(network) == 0
    begun = []

    class Stops(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            begun.append((epoch, _keras.resumed_epoch(self.model)))
            if epoch == 2:
                raise InterruptedError

    def fit():
        backup = keras.callbacks.BackupAndRestore(str(tmp_path / 'backup'))
        data = [np.zeros((4, size), 'float32') for size in (4, 3)]
        network.fit(*data, epochs=3, verbose=0, callbacks=[backup, Stops()])

    for _ in range(2):
        with pytest.raises(InterruptedError):
            fit()
    assert begun == [(0, 0), (1, 0), (2, 0), (2, 2)]


@pytest.mark.backend('tensorflow', 'torch')
def test_softmax_marks_its_outputs():
    found: dict = {}

    class Looks(keras.losses.Loss):
        def __call__(self, y_true, y_pred, sample_weight=None):
            found.setdefault(activation, set()).add(_keras.is_softmax_output(y_pred))
            return super().__call__(y_true, y_pred, sample_weight)

        def call(self, y_true, y_pred):
            return keras.ops.sum(y_pred, axis=-1)

    for activation in (None, 'softmax'):
        network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation)])
        network.compile('sgd', Looks())
        network.fit(np.zeros((4, 4), 'float32'), np.zeros((4, 1), 'float32'), verbose=0)
    assert found[None] == {False}
    assert True in found['softmax']  # PyTorch also has a run in which nothing is computed
