"""Every public layer against the contract in `layer_contract.py`."""

import keras
import layer_contract as contract
import pytest

from fenwicks import layers

# As few different shapes as will do: JAX compiles each operation for each shape.
IMAGE = (4, 4, 4)
FEATURES = (4,)


def _sequential():
    return layers.Sequential([layers.ConvBN(4), layers.Scaling(0.5), layers.GlobalPools2D()])


def _residual():
    return layers.Residual([layers.ConvBN(4), layers.ConvBN(4)])


def _parallel():
    return layers.Parallel([layers.ConvBN(4), layers.ConvBN(4, kernel_size=1)])


def _conv_bn_with_templates():
    return layers.ConvBN(
        4,
        kernel_size=2,
        strides=2,
        kernel_initializer=layers.init_pytorch,
        normalization=layers.BatchNormalization(momentum=0.6, scale=False),
        activation=keras.layers.LeakyReLU(negative_slope=0.1),
        pool=keras.layers.AveragePooling2D(2),
    )


CASES = {
    'Conv2D': (lambda: layers.Conv2D(4, 3, padding='same'), IMAGE),
    'BatchNormalization': (layers.BatchNormalization, IMAGE),
    'MaxPooling2D': (layers.MaxPooling2D, IMAGE),
    'ConvBN': (lambda: layers.ConvBN(4, **layers.PYTORCH_PARAMS), IMAGE),
    'ConvBN-templates': (_conv_bn_with_templates, IMAGE),
    'ConvBlk': (lambda: layers.ConvBlk(4, convs=2), IMAGE),
    'ConvBlk-kernel-size': (lambda: layers.ConvBlk(4, kernel_size=1), IMAGE),
    'ConvResBlk-kernel-size': (lambda: layers.ConvResBlk(4, kernel_size=5), IMAGE),
    'ConvBlk-pool': (lambda: layers.ConvBlk(4, pool=keras.layers.AveragePooling2D(2)), IMAGE),
    'ConvBlk-pool-first': (
        lambda: layers.ConvBlk(4, convs=2, activation=layers.CELU(0.3), pool_first=True),
        IMAGE,
    ),
    'ConvResBlk': (lambda: layers.ConvResBlk(4, res_convs=1, activation='gelu'), IMAGE),
    'PreActBlk': (lambda: layers.PreActBlk(6, strides=2, activation='gelu'), IMAGE),
    'DenseBN': (lambda: layers.DenseBN(4, drop_rate=0.2), FEATURES),
    'DenseBN-after': (lambda: layers.DenseBN(4, bn_before_relu=False), FEATURES),
    'GhostBatchNormalization': (lambda: layers.GhostBatchNormalization(2), IMAGE),
    'FrozenBatchNormalization': (
        lambda: layers.FrozenBatchNormalization(
            mean_initializer='normal', variance_initializer=keras.initializers.Constant(0.3)
        ),
        IMAGE,
    ),
    'CELU': (layers.CELU, IMAGE),
    'GELU': (layers.GELU, IMAGE),
    'SiLU': (layers.SiLU, IMAGE),
    'ClassNames': (lambda: layers.ClassNames(['a', 'b', 'c', 'd']), IMAGE),
    'Scaling': (lambda: layers.Scaling(0.125), IMAGE),
    'Classifier': (lambda: layers.Classifier(4, weight=0.125), FEATURES),
    'ImageNetNormalization': (lambda: layers.ImageNetNormalization('caffe'), (4, 4, 3)),
    'GlobalPools2D': (layers.GlobalPools2D, IMAGE),
    'PatchWhitening': (lambda: layers.PatchWhitening(3), IMAGE),
    'PatchWhitening-bias': (
        lambda: layers.PatchWhitening(2, 5e-4, 'valid', negatives=True, use_bias=True),
        IMAGE,
    ),
    'FastAiHead': (lambda: layers.FastAiHead(4), IMAGE),
    'Sequential': (_sequential, IMAGE),
    'Residual': (_residual, IMAGE),
    'Parallel': (_parallel, IMAGE),
}
IN_FLOAT32 = {'Classifier', 'FastAiHead', 'ClassNames', 'ImageNetNormalization'}


@pytest.fixture(params=CASES)
def case(request):
    keras.utils.set_random_seed(0)
    return request.param


@pytest.mark.parametrize(
    'check',
    [
        contract.check_shape,
        contract.check_config,
        contract.check_compiled,
        contract.check_modes,
        contract.check_frozen,
        contract.check_gradients,
        contract.check_fit,
    ],
    ids=lambda check: check.__name__.removeprefix('check_'),
)
def test_contract(case, check):
    check(*CASES[case])


def test_contract_save(case, tmp_path):
    contract.check_save(*CASES[case], tmp_path)


def test_contract_mixed_precision(case):
    contract.check_mixed_precision(*CASES[case], 'float32' if case in IN_FLOAT32 else 'bfloat16')


@pytest.mark.parametrize('layer', [layers.GELU, layers.SiLU, layers.GlobalPools2D])
def test_a_policy_for_the_dtype_of_a_layer_without_arguments(layer):
    policy = keras.DTypePolicy('mixed_bfloat16')
    twin = layer.from_config(layer(dtype=policy).get_config())
    assert twin.dtype_policy.name == 'mixed_bfloat16'


def test_every_layer_has_a_case():
    public = {
        name
        for name in layers.__all__
        if isinstance(getattr(layers, name), type)
        and issubclass(getattr(layers, name), keras.layers.Layer)
    }
    assert public == {name.split('-')[0] for name in CASES}
