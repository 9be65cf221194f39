"""Training on the hardest images of each batch, which a small network finds."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras
from keras import ops

from fenwicks._checks import finite_number
from fenwicks._typing import Config, Tensor

# Of inputs and targets, those that train the model, and a further loss.
Chooser: TypeAlias = Callable[[Tensor, Sequence[Tensor]], tuple[Tensor, Sequence[Tensor], Any]]


@keras.saving.register_keras_serializable(package='fenwicks')
class HardExamples(keras.Model):
    """A network that the `Trainer` trains on what a small network, its proxy, finds hardest.

    In a training step the whole batch passes through the proxy. The images with the largest losses
    there, a `share` of the batch, train the network; the first images of the batch, a
    `proxy_share` of it, train the proxy, by the same optimizer. Any other image costs no more than
    a pass through the proxy. Loss, accuracy and metrics of the training are those of the images
    that train the network. Otherwise, in `predict`, `evaluate` and Keras's own methods, this is
    the network, and the proxy idles.

    Each replica, and each part of a batch with `accumulate`, chooses among its own images.

    Args:
        network: a functional Keras model, the one to be trained. It is what to save or export
            afterwards.
        proxy: a much smaller Keras model of the same inputs and outputs. Make it within
            `keras.name_scope('proxy')`, so that no two variables have one path.
        share: of a batch, how much trains the network, in (0, 1).
        proxy_share: of a batch, how much trains the proxy, in (0, 1].
        **kwargs: `name` of `keras.Model`; by default the network's.

    Raises:
        ValueError: the two don't fit each other, or a share is out of range.

    Example:

    ```python
    with keras.name_scope('proxy'):
        proxy = fenwicks.models.speednet((None, None, 3), 10, widths=(32, 64, 64))
    model = fenwicks.training.HardExamples(network, proxy, share=0.5)
    trainer = fenwicks.training.Trainer(model, optimizer, batch_size=2000)  # 1,000 train it
    trainer.fit(images, labels, epochs=40)
    model.network.save('network.keras')
    ```

    Reference:
        The record for 96 % of https://github.com/KellerJordan/cifar10-airbench, where every fourth
        batch trains the proxy. A quarter of each costs as much, and all steps are alike.
    """

    def __init__(
        self,
        network: keras.Model,
        proxy: keras.Model,
        share: float = 0.5,
        proxy_share: float = 0.25,
        **kwargs: Any,
    ) -> None:
        _check(network, proxy)
        inputs = keras.Input(network.input_shape[1:], name='images')
        super().__init__(inputs, network(inputs), **{'name': network.name, **kwargs})
        self.network, self.proxy = network, proxy
        self.share = finite_number('share', share, above=0, below=1)
        self.proxy_share = finite_number('proxy_share', proxy_share, above=0, high=1)

    def count(self, images: int) -> int:
        """How many of a number of images train the network, at least 1."""
        return max(1, round(self.share * images))

    def hardest(self, loss: keras.losses.Loss, inputs: Tensor, targets: Sequence[Tensor]) -> tuple:
        """The hardest inputs and their targets, and the loss of the proxy on its own part.

        It is the mean of its images' losses, or of a `loss` that sums their sum.

        Args:
            loss: of the Trainer.
            inputs: `(batch, ...)`.
            targets: the labels and, where there are any, the weights of the images, which their
                losses are multiplied by.
        """
        own = max(1, round(self.proxy_share * inputs.shape[0]))
        losses = [self._hardness(loss, inputs[:own], [target[:own] for target in targets])]
        reduced = ops.sum if getattr(loss, 'reduction', None) == 'sum' else ops.mean
        proxy_loss = reduced(losses[0])
        if own < inputs.shape[0]:
            losses.append(self._hardness(loss, inputs[own:], [target[own:] for target in targets]))
        hardness = ops.stop_gradient(ops.concatenate(losses))
        _, rows = ops.top_k(hardness, self.count(inputs.shape[0]))
        chosen = tuple(ops.take(target, rows, axis=0) for target in targets)
        return ops.take(inputs, rows, axis=0), chosen, proxy_loss

    def _hardness(self, loss, inputs, targets):
        """The loss of the proxy on each image, in training, times its weight if it has one."""
        labels, *weights = targets
        losses = loss.call(labels, ops.cast(self.proxy(inputs, training=True), 'float32'))
        if len(losses.shape) != 1:
            raise ValueError(
                '`loss` must have a value for each image, to choose the hardest. '
                f'Received: {loss.name}, whose `call` returns the shape {tuple(losses.shape)}'
            )
        for weight in weights:
            losses = losses * weight
        return losses

    def get_config(self) -> Config:
        return {
            'name': self.name,
            'network': keras.saving.serialize_keras_object(self.network),
            'proxy': keras.saving.serialize_keras_object(self.proxy),
            'share': self.share,
            'proxy_share': self.proxy_share,
        }

    @classmethod
    def from_config(cls, config: Config, custom_objects: dict | None = None) -> HardExamples:
        models = {
            name: keras.saving.deserialize_keras_object(config[name], custom_objects)
            for name in ('network', 'proxy')
        }
        return cls(**{**config, **models})


def _check(network, proxy):
    for name, model in (('network', network), ('proxy', proxy)):
        if not isinstance(model, keras.Model) or not hasattr(model, 'input_shape'):
            raise ValueError(
                f'`{name}` must be a functional Keras model. Received: {name}={model!r}'
            )
    if (network.input_shape, network.output_shape) != (proxy.input_shape, proxy.output_shape):
        raise ValueError(
            '`proxy` must have the inputs and outputs of the network, '
            f'{network.input_shape[1:]} and {network.output_shape[1:]}. '
            f'Received: {proxy.input_shape[1:]} and {proxy.output_shape[1:]}'
        )
    paths = {variable.path for variable in network.variables}
    if both := [variable.path for variable in proxy.variables if variable.path in paths]:
        raise ValueError(
            "`proxy` must have paths of its own: make it within keras.name_scope('proxy'). "
            f'Received: two variables {both[0]}'
        )


def chooser(model: keras.Model, loss: Any) -> Chooser:
    """A function from inputs and targets to those that train a model, and a further loss.

    Args:
        model: of the Trainer.
        loss: of the Trainer.

    Raises:
        ValueError: the loss of each image can't be told, and the model chooses by it.
    """
    if not isinstance(model, HardExamples):
        return _all
    if not isinstance(loss, keras.losses.Loss):
        raise ValueError(
            '`loss` must be a keras.losses.Loss, which has a value for each image, to choose the '
            f'hardest. Received: loss={loss!r}'
        )
    return functools.partial(model.hardest, loss)


def trained_images(model: keras.Model, batch_size: int, part: int) -> int:
    """How many images of a batch train a model that is called with `part` images at a time."""
    chooses = isinstance(model, HardExamples)
    return model.count(part) * (batch_size // part) if chooses else batch_size


def _all(inputs, targets):
    return inputs, targets, 0.0
