"""ResNet-9: its size, and every number of a training step against an independent torch network."""

import keras
import layer_contract
import numpy as np
import pytest
from keras import ops

from fenwicks.layers import BatchNormalization, Scaling
from fenwicks.models import check_model, resnet9

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


def test_save_and_load(tmp_path):
    model = resnet9((8, 8, 3), widths=WIDTHS, kernel_initializer='zeros')
    layer_contract.randomize(model)
    model.save(tmp_path / 'model.keras')
    twin = keras.saving.load_model(tmp_path / 'model.keras')
    assert [w.path for w in twin.weights] == [w.path for w in model.weights]
    np.testing.assert_array_equal(check_model(twin, (8, 8, 3)), check_model(model, (8, 8, 3)))


def test_mixed_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy('mixed_bfloat16')
    try:
        model = resnet9(widths=WIDTHS, input_shape=(8, 8, 3))
    finally:
        keras.config.set_dtype_policy(before)
    assert check_model(model, (8, 8, 3)).dtype == np.float32
    assert model.get_layer('stage_3').compute_dtype == 'bfloat16'
    assert {v.dtype for v in model.trainable_variables} == {'float32'}


def test_check_model():
    with pytest.raises(ValueError, match=r"^`model` must return finite .*model='overflow'"):
        check_model(Scaling(1e38, name='overflow'), (128, 128, 3))


@pytest.mark.parametrize(
    ('arguments', 'name'),
    [
        ({'input_shape': (32, 32)}, 'input_shape'),
        ({'input_shape': (7, 32, 3)}, 'input_shape'),
        ({'num_classes': 0}, 'num_classes'),
        ({'widths': (4, 8, 8)}, 'widths'),
        ({'widths': (4, 8, 8, 0)}, 'widths'),
        ({'logit_scale': float('nan')}, 'logit_scale'),
    ],
)
def test_bad_arguments(arguments, name):
    with pytest.raises(ValueError, match=f'^`{name}` must .*Received: {name}=') as error:
        resnet9(**{'widths': WIDTHS, 'kernel_initializer': 'zeros', **arguments})
    assert '\n' not in str(error.value)
