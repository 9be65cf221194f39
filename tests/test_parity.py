"""Whole training steps of the recipes' networks against independent ones in PyTorch.

Forward, loss, gradients, optimizer and running statistics; the references compute in float64 with
PyTorch's own functions, optimizers included, and share nothing with the package but the weights.
"""

import layer_contract
import numpy as np
import pytest
from keras import ops

from fenwicks.layers import CELU, GhostBatchNormalization
from fenwicks.losses import cross_entropy
from fenwicks.models import resnet9, speednet
from fenwicks.optimizers import SGD, ParameterGroup

torch = pytest.importorskip('torch')
functional = torch.nn.functional

STEPS = 2  # the second one takes the velocity along


class Reference:
    """A network as functions of tensors in PyTorch's order; batch norms without scales."""

    def __init__(self, model, ghost, momentum, epsilon, activation):
        self.ghost, self.momentum, self.epsilon = ghost, momentum, epsilon
        self.activation = activation
        self.tensors = {v.path: torch.tensor(array(v)).double() for v in model.variables}
        self.trainable = [v.path for v in model.trainable_variables]
        for path in self.trainable:
            self.tensors[path].requires_grad_()

    def conv(self, x, path, padding):
        return functional.conv2d(x, self.tensors[path].permute(3, 2, 0, 1), padding=padding)

    def batch_norm(self, x, path, training):
        moving = [self.tensors[f'{path}/moving_{name}'] for name in ('mean', 'variance')]
        beta = self.tensors[f'{path}/beta'][:, None, None]
        if not training:
            mean, variance = (statistic[:, None, None] for statistic in moving)
            return (x - mean) / torch.sqrt(variance + self.epsilon) + beta
        size = self.ghost or len(x)
        groups = list(x.split(size))
        assert {len(group) for group in groups} == {size}
        means = [group.mean((0, 2, 3)) for group in groups]
        variances = [group.var((0, 2, 3), correction=0) for group in groups]
        outputs = []
        for group, mean, variance in zip(groups, means, variances, strict=True):
            scale = 1 / torch.sqrt(variance + self.epsilon)
            outputs.append((group - mean[:, None, None]) * scale[:, None, None] + beta)
        for statistic, batch in zip(moving, (means, variances), strict=True):
            new = torch.stack(batch).mean(0).detach()
            statistic.mul_(self.momentum).add_((1 - self.momentum) * new)
        return torch.cat(outputs)

    def unit(self, x, path, training, *, pool=False, padding=1):
        x = self.conv(x, f'{path}/conv/kernel', padding)
        if pool:
            x = functional.max_pool2d(x, 2)
        return self.activation(self.batch_norm(x, f'{path}/norm', training))

    def logits(self, images, training):
        x = torch.tensor(images).double().permute(0, 3, 1, 2)
        return self.features(x, training).amax((2, 3)) @ self.head()

    def head(self):
        (path,) = (path for path in self.trainable if path.startswith('classifier/'))
        return self.tensors[path] * self.logit_scale

    def losses(self, images, labels):
        """0.8 of the cross-entropy and 0.2 of the mean over all classes, as if all were right."""
        log_probabilities = self.logits(images, True).log_softmax(-1)
        of_label = log_probabilities[torch.arange(len(labels)), torch.tensor(labels)]
        return -(0.8 * of_label + 0.2 * log_probabilities.mean(-1))


class PageNetwork(Reference):
    logit_scale = 1 / 16

    def features(self, x, training):
        x = self.conv(x, 'whitening/kernel', 1)
        x = self.unit(x, 'prep', training, padding=0)
        x = self.residual(x, 'stage_1', training)
        x = self.unit(x, 'stage_2/conv_bn_1', training, pool=True)
        return self.residual(x, 'stage_3', training)

    def residual(self, x, path, training):
        x = self.unit(x, f'{path}/conv_bn_1', training, pool=True)
        h = self.unit(x, f'{path}/residual/conv_bn_1', training)
        return x + self.unit(h, f'{path}/residual/conv_bn_2', training)


class RecordNetwork(Reference):
    logit_scale = 1 / 12

    def features(self, x, training):
        x = self.conv(x, 'whitening/kernel', 0) + self.tensors['whitening/bias'][:, None, None]
        x = self.activation(x)
        for group in ('group_1', 'group_2', 'group_3'):
            x = self.unit(x, f'{group}/down/conv_bn_1', training, pool=True)
            x = self.rest(x, group, training)
        return x

    def rest(self, x, group, training):
        return self.unit(x, f'{group}/conv_bn', training)


class ResidualRecordNetwork(RecordNetwork):
    def rest(self, x, group, training):
        y = self.unit(x, f'{group}/residual/conv_bn_1', training)
        y = self.conv(y, f'{group}/residual/conv_bn_2/conv/kernel', 1)
        y = self.batch_norm(y, f'{group}/residual/conv_bn_2/norm', training)
        return self.activation(x + y)


def test_page10():
    """Whitening, pooling first, ghost batch norm, CELU, no scales, biases at 64 times the rate."""
    model = resnet9(
        widths=(4, 8, 8, 16),
        whitening=3,
        pool_first=True,
        normalization=GhostBatchNormalization(16, scale=False),
        activation=CELU(0.3),
        logit_scale=1 / 16,
    )
    optimizer = SGD(
        0.02,
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
        groups=[ParameterGroup('bias', 64, 1 / 64)],
    )
    prepare(model)
    reference = PageNetwork(
        model, 16, 0.9, 1e-5, lambda x: torch.where(x > 0, x, 0.3 * torch.expm1(x / 0.3))
    )
    offsets = [path for path in reference.trainable if path.endswith('beta')]
    kernels = [path for path in reference.trainable if path not in offsets]
    assert len(offsets) == 8
    groups = [
        {'params': [reference.tensors[path] for path in kernels], 'lr': 0.02, 'weight_decay': 5e-4},
        {
            'params': [reference.tensors[path] for path in offsets],
            'lr': 64 * 0.02,
            'weight_decay': 5e-4 / 64,
        },
    ]
    train_both(model, optimizer, reference, torch.optim.SGD(groups, momentum=0.9, nesterov=True))


@pytest.mark.parametrize('residual', [False, True])
def test_speednet(residual):
    """The negatives, the trained bias, GELU, statistics that forget quickly."""
    model = speednet(widths=(4, 8, 12), residual=residual)
    prepare(model)
    network = ResidualRecordNetwork if residual else RecordNetwork
    reference = network(model, None, 0.6, 1e-12, functional.gelu)
    parameters = [reference.tensors[path] for path in reference.trainable]
    theirs = torch.optim.SGD(parameters, lr=0.1, momentum=0.85, nesterov=True, weight_decay=1e-3)
    ours = SGD(0.1, momentum=0.85, nesterov=True, weight_decay=1e-3)
    # Three convolutions more round more.
    train_both(model, ours, reference, theirs, tolerance=3e-4 if residual else 1e-4)


def prepare(model):
    """Whitens, and gives the offsets and statistics values that a fault in them would show."""
    rng = np.random.default_rng(1)
    model.get_layer('whitening').adapt(batch(0)[0])
    for variable in model.variables:
        if variable.path.endswith(('beta', 'bias', 'moving_mean')):
            variable.assign(0.1 * rng.standard_normal(variable.shape))


def batch(step):
    rng = np.random.default_rng(step)
    images = rng.standard_normal((64, 32, 32, 3)).astype(np.float32)
    return images + np.roll(images, 1, axis=1), rng.integers(10, size=64)


def train_both(model, optimizer, reference, reference_optimizer, tolerance=1e-4):
    def close(ours, expected, message):
        expected = expected.detach().numpy()
        # The rounding of a sum is relative to its largest terms.
        atol = tolerance * np.abs(expected).max()
        np.testing.assert_allclose(ours, expected, rtol=0, atol=atol, err_msg=message)

    for step in range(STEPS):
        images, labels = batch(step)
        reference_optimizer.zero_grad()
        expected = reference.losses(images, labels)
        expected.mean().backward()
        ours = one_step(model, optimizer, images, labels)
        for variable, gradient in zip(model.trainable_variables, ours, strict=True):
            close(gradient, reference.tensors[variable.path].grad, f'gradient, {variable.path}')
        reference_optimizer.step()
        for variable in model.variables:
            close(array(variable), reference.tensors[variable.path], variable.path)
    images, _ = batch(STEPS)
    with torch.no_grad():
        close(array(model(images, training=False)), reference.logits(images, False), 'logits')


def one_step(model, optimizer, images, labels):
    """Our step, on any backend; returns the gradients."""

    def loss_fn(logits):
        return ops.mean(cross_entropy(labels, logits, label_smoothing=0.2))

    gradients = layer_contract.gradients(model, images, loss_fn)
    variables = model.trainable_variables
    optimizer.apply([ops.convert_to_tensor(gradient) for gradient in gradients], variables)
    return gradients


def array(tensor):
    return ops.convert_to_numpy(tensor).copy()
