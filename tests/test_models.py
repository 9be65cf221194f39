"""The networks: sizes, options and bad input; ResNet-9 against an independent torch network."""

import itertools

import keras
import layer_contract
import numpy as np
import pytest
from keras import ops

from fenwicks.layers import (
    CELU,
    GELU,
    BatchNormalization,
    PartialIdentity,
    PyTorchUniform,
    Scaling,
    init_pytorch,
    whitening_filters,
)
from fenwicks.models import backbone, check_model, preact_resnet18, resnet9, speednet

WIDTHS = (4, 8, 8, 16)


def test_parameter_count():
    model = resnet9(kernel_initializer='zeros')  # drawing millions of numbers takes time
    convs = 9 * (3 * 64 + 64 * 128 + 2 * 128**2 + 128 * 256 + 256 * 512 + 2 * 512**2)
    norms = 2 * (64 + 3 * 128 + 256 + 3 * 512)  # a scale and an offset a channel
    trainable = sum(np.prod(v.shape) for v in model.trainable_variables)
    assert trainable == convs + norms + 512 * 10 == 6_573_120
    assert model.count_params() == 6_573_120 + norms == 6_577_600
    assert model.input_shape == (None, 32, 32, 3)
    assert model.output_shape == (None, 10)


def test_stages():
    model = resnet9((16, 24, 1), num_classes=7, widths=WIDTHS, kernel_initializer='zeros')
    shapes = [tuple(layer.output.shape) for layer in model.layers]
    assert shapes == [
        (None, 16, 24, 1),
        (None, 16, 24, 4),
        (None, 8, 12, 8),
        (None, 4, 6, 8),
        (None, 2, 3, 16),
        (None, 16),
        (None, 7),
    ]


def test_resnet9_with_whitening():
    model = resnet9((8, 12, 3), widths=WIDTHS, whitening=3, pool_first=True)
    shapes = {layer.name: tuple(layer.output.shape) for layer in model.layers[1:4]}
    assert shapes == {
        'whitening': (None, 8, 12, 27),
        'prep': (None, 8, 12, 4),
        'stage_1': (None, 4, 6, 8),
    }
    kernels = {v.path: tuple(v.shape) for v in model.variables if v.path.endswith('kernel')}
    assert kernels['whitening/kernel'] == (3, 3, 3, 27)
    assert kernels['prep/conv/kernel'] == (1, 1, 27, 4)
    assert 'whitening/kernel' not in {v.path for v in model.trainable_variables}
    whitening = model.get_layer('whitening')
    assert (whitening.epsilon, whitening.padding) == (1e-2, 'same')
    assert (whitening.negatives, whitening.use_bias) == (False, False)
    for name in ('stage_1', 'stage_2', 'stage_3'):
        assert model.get_layer(name).pool_first
    plain = resnet9((8, 12, 3), widths=WIDTHS)
    assert not any(plain.get_layer(name).pool_first for name in ('stage_1', 'stage_2', 'stage_3'))
    names = {v.path for v in model.trainable_variables}
    assert names == {v.path for v in plain.trainable_variables}


def test_speednet_parameters():
    model = speednet(kernel_initializer='zeros')
    convs = 9 * (24 * 64 + 64 * 64 + 64 * 256 + 3 * 256**2)
    offsets = 24 + 2 * (64 + 256 + 256)
    trainable = sum(np.prod(v.shape) for v in model.trainable_variables)
    assert trainable == convs + offsets + 256 * 10 == 1_971_352
    fixed = 12 * 24 + 2 * 2 * (64 + 256 + 256)  # filters and running statistics
    assert model.count_params() == trainable + fixed


def test_residual_speednet_parameters():
    model = speednet(widths=(128, 384, 512), residual=True, kernel_initializer='zeros')
    convs = 24 * 128 + 128 * 384 + 384 * 512 + 2 * (128**2 + 384**2 + 512**2)
    offsets = 24 + 3 * (128 + 384 + 512)
    trainable = sum(np.prod(v.shape) for v in model.trainable_variables)
    assert trainable == 9 * convs + offsets + 512 * 10
    assert sum(isinstance(part, GELU) for part in model._flatten_layers()) == 1 + 3 * 3
    assert [model.get_layer(f'group_{i}').output.shape[1] for i in (1, 2, 3)] == [15, 7, 3]


@pytest.mark.parametrize(
    ('sides', 'after'),
    [((32, 32), [31, 31, 15, 7, 3]), ((9, 9), [8, 8, 4, 2, 1]), ((16, 16), [15, 15, 7, 3, 1])],
)
def test_speednet_shapes(sides, after):
    model = speednet((*sides, 3), num_classes=7, widths=(4, 6, 8), kernel_initializer='zeros')
    assert [(layer.name, *layer.output.shape[1:]) for layer in model.layers[1:]] == [
        ('whitening', after[0], after[0], 24),
        ('activation', after[1], after[1], 24),
        ('group_1', after[2], after[2], 4),
        ('group_2', after[3], after[3], 6),
        ('group_3', after[4], after[4], 8),
        ('global_pool', 8),
        ('classifier', 7),
    ]


def test_speednet_start():
    model = speednet(widths=(4, 6, 8), num_classes=1000)
    settings = model.get_layer('whitening').get_config()
    assert settings['kernel_size'] == 2
    assert settings['epsilon'] == 5e-4
    assert settings['padding'] == 'valid'
    assert settings['negatives']
    assert settings['use_bias']
    bias = array(model.get_layer('whitening').bias)  # of 24 filters of 12 inputs each
    assert len(np.unique(bias)) == 24
    assert 0.15 < np.abs(bias).max() <= 1 / np.sqrt(12)
    for unit in (part for part in model._flatten_layers() if type(part).__name__ == 'ConvBN'):
        assert isinstance(unit.kernel_initializer, PartialIdentity)
        norm = unit.normalization
        assert (norm.momentum, norm.epsilon, norm.scale) == (0.6, 1e-12, False)
        kernel = array(unit.layers[0].kernel)
        count = min(kernel.shape[2:])
        np.testing.assert_array_equal(kernel[1, 1, :count, :count], np.eye(count))
    assert sum(isinstance(part, GELU) for part in model._flatten_layers()) == 7
    head = array(model.get_layer('classifier').trainable_variables[0])
    assert abs(head.std() - 1) < 0.02
    assert np.abs(head).max() <= np.sqrt(3)
    assert model.get_layer('classifier').weight == 1 / 8


def test_speednet_of_the_record_with_sgd():
    model = speednet(
        widths=(4, 6, 8),
        logit_scale=1 / 9,
        head_initializer=init_pytorch,
        whitening_bias_initializer='zeros',
    )
    assert not array(model.get_layer('whitening').bias).any()
    classifier = model.get_layer('classifier')
    assert classifier.weight == 1 / 9
    assert isinstance(classifier.kernel_initializer, PyTorchUniform)


def test_preact_resnet18():
    model = preact_resnet18(kernel_initializer='zeros')
    inside = [(64, 64), *[(64, 64)] * 3, (64, 128), *[(128, 128)] * 3]
    inside += [(128, 256), *[(256, 256)] * 3, *[(256, 256)] * 4]
    convs = 9 * (3 * 64 + sum(a * b for a, b in inside))
    convs += 64 * 128 + 128 * 256 + 256 * 256  # the shortcuts
    norms = 2 * (64 * 4 + 64 + 128 * 3 + 128 + 256 * 3 + 256 * 4)
    assert sum(np.prod(v.shape) for v in model.trainable_variables) == convs + norms + 513 * 10
    shapes = [(layer.name, *layer.output.shape[1:3]) for layer in model.layers[1:]]
    assert shapes[:3] == [('stem', 32, 32), ('stage_1_1', 32, 32), ('stage_1_2', 32, 32)]
    assert shapes[3:5] == [('stage_2_1', 16, 16), ('stage_2_2', 16, 16)]
    assert shapes[7:] == [
        ('stage_4_1', 4, 4),
        ('stage_4_2', 4, 4),
        ('pools', 512),
        ('classifier', 10),
    ]


def test_the_stem_of_preact_resnet18_is_normalized_twice_where_asked():
    once, twice = (
        preact_resnet18((8, 8, 3), widths=WIDTHS, stem_activation=stem) for stem in (False, True)
    )
    added = {w.path for w in twice.weights} ^ {w.path for w in once.weights}
    norm = ('gamma', 'beta', 'moving_mean', 'moving_variance')
    assert added == {f'stem/norm/{name}' for name in norm}
    activations = [model.get_layer('stem').layers[-1].activation for model in (once, twice)]
    assert activations == [keras.activations.linear, keras.activations.relu]


def all_stages():
    for count in range(4):
        yield from itertools.combinations((1, 2, 3), count)


def test_resnet9_is_one_of_the_backbones():
    one = resnet9(widths=WIDTHS, pool_first=True, activation='gelu', whitening=3)
    other = backbone(
        widths=WIDTHS,
        residual=(1, 3),
        pool_first=True,
        activation='gelu',
        whitening=3,
        name='resnet9',
    )
    assert one.get_config() == other.get_config()
    assert [w.path for w in one.weights] == [w.path for w in other.weights]
    other.set_weights(one.get_weights())
    np.testing.assert_array_equal(check_model(one), check_model(other))


def test_the_family_of_fifteen():
    """Convolutions and parameters of each; all of them compute and none is another one."""
    convs = set()
    for kind, count in (('extra', 1), ('residual', 2)):
        for stages in all_stages():
            model = backbone((8, 8, 3), widths=WIDTHS, kernel_initializer='zeros', **{kind: stages})
            kernels = [tuple(v.shape) for v in model.trainable_variables if len(v.shape) == 4]
            added = [(3, 3, WIDTHS[s], WIDTHS[s]) for s in stages for _ in range(count)]
            plain = [(3, 3, a, b) for a, b in itertools.pairwise((3, *WIDTHS))]
            assert sorted(kernels) == sorted(plain + added)
            assert check_model(model, (8, 8, 3)).shape == (1, 10)
            convs.add(tuple((layer.name, type(layer).__name__) for layer in model.layers))
    assert len(convs) == 15


def test_extra_convolutions_come_after_the_pooling():
    model = backbone(widths=WIDTHS, extra=(2,), residual=(1,))
    extra = model.get_layer('extra_2')
    assert tuple(extra.input.shape) == (None, 8, 8, WIDTHS[2])
    assert extra.input is model.get_layer('stage_2').output


@pytest.mark.parametrize(
    ('arguments', 'name'),
    [
        ({'extra': (0,)}, 'extra'),
        ({'extra': 2}, 'extra'),
        ({'residual': (1, 1)}, 'residual'),
        ({'residual': (4,)}, 'residual'),
        ({'residual': (1, 2), 'extra': (2, 3)}, 'residual'),
    ],
)
def test_bad_stages(arguments, name):
    with pytest.raises(ValueError, match=f'^`{name}` must hold .*Received: {name}='):
        backbone(widths=WIDTHS, **arguments)


def test_speednet_style():
    model = speednet(
        widths=(4, 6, 8), normalization=BatchNormalization(scale=True), activation=CELU(0.3)
    )
    assert sum(v.path.endswith('gamma') for v in model.variables) == 6
    assert sum(isinstance(part, CELU) for part in model._flatten_layers()) == 7


def test_networks_differ_by_seed_only():
    """Templates in the signature bring no state along."""
    heads = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        model = speednet(widths=(4, 6, 8))
        heads.append([array(v) for v in model.trainable_variables])
    same, again, other = heads
    for one, two in zip(same, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert not np.array_equal(same[-1], other[-1])


def test_style_reaches_every_stage():
    model = resnet9(
        widths=WIDTHS,
        kernel_initializer='zeros',
        normalization=BatchNormalization(scale=False),
        activation='silu',
    )
    assert not [v.path for v in model.variables if v.path.endswith('gamma')]
    activations = [
        layer.activation
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.Activation)
    ]
    assert len(activations) == 8
    assert set(activations) == {keras.activations.silu}


def test_against_torch():
    """Logits, loss, gradients and running statistics of one training step."""
    torch = pytest.importorskip('torch')
    keras.utils.set_random_seed(0)
    model = resnet9(widths=WIDTHS, logit_scale=0.5, kernel_initializer='zeros')
    layer_contract.randomize(model)
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:  # of the size a real start has
        if variable.path.endswith('kernel'):
            variable.assign(array(variable) / np.sqrt(np.prod(variable.shape[:-1])))
    images = rng.standard_normal((6, 32, 32, 3)).astype(np.float32)
    labels = np.array([0, 1, 2, 3, 9, 9])

    reference = TorchResNet9(torch, model)
    inferred = reference.logits(images, training=False)
    np.testing.assert_allclose(array(model(images)), inferred, rtol=1e-4, atol=1e-5)

    loss, grads, statistics = reference.train_step(images, labels)
    losses = []

    def loss_fn(logits):
        one_hot = ops.one_hot(labels, 10)
        value = ops.mean(keras.losses.categorical_crossentropy(one_hot, logits, from_logits=True))
        losses.append(value)
        return value

    ours = layer_contract.gradients(model, images, loss_fn)
    assert len(ours) == len(grads) == 8 * 3 + 1
    for variable, grad, expected in zip(model.trainable_variables, ours, grads, strict=True):
        tolerance = 1e-4 * np.abs(expected).max()
        np.testing.assert_allclose(grad, expected, rtol=0, atol=tolerance, err_msg=variable.path)
    moving = [v for v in model.non_trainable_variables if 'moving' in v.path]
    assert len(moving) == len(statistics) == 16
    for variable, expected in zip(moving, statistics, strict=True):
        np.testing.assert_allclose(
            array(variable), expected, rtol=1e-4, atol=1e-5, err_msg=variable.path
        )
    if keras.backend.backend() != 'jax':  # there it is a tracer
        np.testing.assert_allclose(array(losses[0]), loss, rtol=1e-5)


class TorchResNet9:
    """The network in torch, from a Keras model's weights, in float64 for a reference's sake."""

    def __init__(self, torch, model):
        self.torch = torch
        # Keras: trainable weights are kernel, gamma, beta a ConvBN and the dense kernel at the end.
        trainable = [torch.tensor(array(v)).double() for v in model.trainable_variables]
        self.parameters = [p.requires_grad_() for p in trainable]
        moving = [v for v in model.non_trainable_variables if 'moving' in v.path]
        self.statistics = [torch.tensor(array(v)).double() for v in moving]

    def logits(self, images, training):
        torch, functional = self.torch, self.torch.nn.functional
        units = iter(range(8))

        def conv_bn(x):
            i = next(units)
            kernel, gamma, beta = self.parameters[3 * i : 3 * i + 3]
            mean, variance = self.statistics[2 * i : 2 * i + 2]
            x = functional.conv2d(x, kernel.permute(3, 2, 0, 1), padding=1)
            moving = mean.clone(), variance.clone()
            x = functional.batch_norm(x, *moving, gamma, beta, training, 0.1, 1e-5)
            if training:
                # torch moves the variance by the unbiased estimate, n / (n - 1) times Keras's.
                n = x.numel() / x.shape[1]
                unbiased = (moving[1] - 0.9 * variance) / 0.1
                biased = unbiased * (n - 1) / n
                self.statistics[2 * i : 2 * i + 2] = moving[0], 0.9 * variance + 0.1 * biased
            return functional.relu(x)

        x = torch.tensor(images).double().permute(0, 3, 1, 2)
        x = conv_bn(x)
        x = functional.max_pool2d(conv_bn(x), 2)
        x = x + conv_bn(conv_bn(x))
        x = functional.max_pool2d(conv_bn(x), 2)
        x = functional.max_pool2d(conv_bn(x), 2)
        x = x + conv_bn(conv_bn(x))
        logits = 0.5 * (x.amax((2, 3)) @ self.parameters[-1])
        return logits if training else logits.detach().numpy()

    def train_step(self, images, labels):
        logits = self.logits(images, training=True)
        loss = self.torch.nn.functional.cross_entropy(logits, self.torch.tensor(labels))
        grads = self.torch.autograd.grad(loss, self.parameters)
        return (
            loss.item(),
            [grad.numpy() for grad in grads],
            [statistic.numpy() for statistic in self.statistics],
        )


def array(tensor):
    return ops.convert_to_numpy(tensor).copy()


NETWORKS = {
    'resnet9': lambda: resnet9((9, 9, 3), widths=WIDTHS),
    'resnet9-page': lambda: resnet9(
        (9, 9, 3), widths=WIDTHS, whitening=3, pool_first=True, activation=CELU(0.3)
    ),
    'backbone': lambda: backbone((9, 9, 3), widths=WIDTHS, extra=(1, 2), residual=(3,)),
    'preact_resnet18': lambda: preact_resnet18((9, 9, 3), widths=(4, 6, 8, 8)),
    'speednet': lambda: speednet((9, 9, 3), widths=(4, 6, 8)),
    'residual_speednet': lambda: speednet((9, 9, 3), widths=(4, 6, 8), residual=True),
}


@pytest.mark.parametrize('make', NETWORKS.values(), ids=NETWORKS)
def test_save_and_load(make, tmp_path):
    """Without the images that the whitening was adapted to."""
    model = make()
    layer_contract.randomize(model)
    if model.layers[1].name == 'whitening':
        images = np.random.default_rng(0).standard_normal((4, 9, 9, 3))
        whitening = model.get_layer('whitening')
        whitening.adapt(images)
        expected = whitening_filters(images, whitening.kernel_size, whitening.epsilon)
        np.testing.assert_array_equal(array(whitening.kernel)[..., : expected.shape[-1]], expected)
    model.save(tmp_path / 'model.keras')
    twin = keras.saving.load_model(tmp_path / 'model.keras')
    assert [w.path for w in twin.weights] == [w.path for w in model.weights]
    for one, two in zip(model.weights, twin.weights, strict=True):
        np.testing.assert_array_equal(array(one), array(two))
    np.testing.assert_array_equal(check_model(twin, (9, 9, 3)), check_model(model, (9, 9, 3)))


@pytest.mark.parametrize('make', NETWORKS.values(), ids=NETWORKS)
def test_mixed_precision(make):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy('mixed_bfloat16')
    try:
        model = make()
    finally:
        keras.config.set_dtype_policy(before)
    assert check_model(model, (9, 9, 3)).dtype == np.float32
    computing = {part.name: part.compute_dtype for part in model._flatten_layers()}
    ends = {'classifier', 'dense', 'scaling'} & set(computing)
    if model.name == 'speednet':
        ends.add('whitening')
    assert {computing.pop(part) for part in ends} == {'float32'}
    del computing['images'], computing[model.name]
    assert set(computing.values()) == {'bfloat16'}
    assert {v.dtype for v in model.variables if 'seed' not in v.path} == {'float32'}


@pytest.mark.parametrize(
    ('arguments', 'name'),
    [
        ((3,), 'model'),
        ((Scaling,), 'model'),
        ((Scaling(1.0), (0, 8, 3)), 'input_shape'),
        ((Scaling(1.0), (None, 8, 3)), 'input_shape'),
        ((Scaling(1.0), 8), 'input_shape'),
    ],
)
def test_bad_check_model(arguments, name):
    with pytest.raises(ValueError, match=f'^`{name}` must .*Received: {name}=') as error:
        check_model(*arguments)
    assert '\n' not in str(error.value)


def test_check_model_of_several_outputs():
    inputs = keras.Input((8, 8, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(inputs)
    model = keras.Model(inputs, [keras.layers.Dense(3)(pooled), keras.layers.Dense(4)(pooled)])
    with pytest.raises(ValueError, match=r'^`model` must have one output. Received: 2$'):
        check_model(model, (8, 8, 3))


def test_check_model():
    with pytest.raises(ValueError, match=r"^`model` must return finite .*model='overflow'"):
        check_model(Scaling(1e38, name='overflow'), (128, 128, 3))


@pytest.mark.parametrize(
    ('arguments', 'name'),
    [
        ({'input_shape': (32, 32)}, 'input_shape'),
        ({'input_shape': (7, 32, 3)}, 'input_shape'),
        ({'input_shape': (32, 32, 0)}, 'input_shape'),
        ({'input_shape': 32}, 'input_shape'),
        ({'num_classes': 0}, 'num_classes'),
        ({'widths': (4, 8, 8)}, 'widths'),
        ({'widths': (4, 8, 8, 0)}, 'widths'),
        ({'logit_scale': float('nan')}, 'logit_scale'),
        ({'whitening': -1}, 'whitening'),
        ({'whitening': 3.0}, 'whitening'),
        ({'whitening': True}, 'whitening'),
        ({'whitening': 40}, 'whitening'),
        ({'input_shape': (8, 32, 3), 'whitening': 9}, 'whitening'),
        ({'input_shape': (None, 8, 3), 'whitening': 9}, 'whitening'),
        ({'activation': keras.layers.ReLU}, 'activation'),
        ({'pool_first': 'no'}, 'pool_first'),
    ],
)
def test_bad_arguments(arguments, name):
    with pytest.raises(ValueError, match=f'^`{name}` must .*Received: {name}=') as error:
        resnet9(**{'widths': WIDTHS, 'kernel_initializer': 'zeros', **arguments})
    assert '\n' not in str(error.value)


def test_bad_preact_resnet18():
    for classes in (0, None, -1.5):
        with pytest.raises(ValueError, match=r'^`num_classes` must be a positive integer\. Rec'):
            preact_resnet18(num_classes=classes)
    rule = r"^`stem_activation` must be True or False\. Received: stem_activation='no'$"
    with pytest.raises(ValueError, match=rule):
        preact_resnet18(stem_activation='no')


@pytest.mark.parametrize(
    ('arguments', 'name'),
    [
        ({'input_shape': (32, 32)}, 'input_shape'),
        ({'input_shape': (8, 32, 3)}, 'input_shape'),
        ({'num_classes': 0}, 'num_classes'),
        ({'widths': (4, 8, 8, 16)}, 'widths'),
        ({'widths': (4, 8, 0)}, 'widths'),
        ({'logit_scale': float('nan')}, 'logit_scale'),
        ({'normalization': 'batch'}, 'normalization'),
        ({'residual': 'no'}, 'residual'),
        ({'first_activation': keras.layers.ReLU}, 'first_activation'),
    ],
)
def test_bad_speednet(arguments, name):
    with pytest.raises(ValueError, match=f'^`{name}` must .*Received: {name}=') as error:
        speednet(**{'widths': (4, 6, 8), 'kernel_initializer': 'zeros', **arguments})
    assert '\n' not in str(error.value)
