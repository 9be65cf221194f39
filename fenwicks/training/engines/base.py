"""What the two engines have in common: their interface and what is chosen before the first step."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import keras
import numpy as np

from fenwicks import _keras
from fenwicks import augment as augmentation
from fenwicks._typing import Tensor
from fenwicks.optimizers.patterns import matches
from fenwicks.training.answers import counter
from fenwicks.training.averages import Averages
from fenwicks.training.checks import fits
from fenwicks.training.metrics import MetricSet
from fenwicks.training.replicas.base import Replicas
from fenwicks.training.selection import chooser

# A `keras.losses.Loss`, or a function of labels and logits.
Loss: TypeAlias = Callable[..., Tensor]


# Data on the device, as values of an engine's `data_attributes`.
Placed: TypeAlias = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Settings:
    """What an engine is made of: the arguments of the `Trainer`, checked and complete.

    Attributes:
        model, optimizer, loss, normalize, augment, batch_size, seed, replicas, accumulate: as of
            `Trainer`.
        averages: the `Averages` that the Trainer keeps.
        metrics: the `MetricSet`.
        kind: how correct answers are counted, see `targets.kind_of`.
        jit_compile: whether one XLA program holds the loop over the steps; `None` for the engine's
            choice, see `Trainer`.
        size: to which augmented images are resized, in pixels; `None` for their own.
        frozen: patterns of the variables that aren't trained.
    """

    model: keras.Model
    optimizer: keras.optimizers.Optimizer
    loss: Loss
    normalize: Callable
    augment: Callable
    batch_size: int
    seed: int
    averages: Averages
    metrics: MetricSet
    kind: str
    replicas: Replicas
    jit_compile: bool | None
    accumulate: int = 1
    size: int | None = None
    frozen: tuple[str, ...] = ()


class Epoch(NamedTuple):
    """An epoch of a training, as the compiled programs know it.

    Attributes:
        number: int32 scalar, counted from 0.
        run_seed: int32 scalar, the `Trainer`'s seed. JAX's programs take it as an argument, so that
            those of one seed serve for all.
        steps_before: int32 scalar, the steps that the `Trainer` took before this epoch.
    """

    number: Tensor
    run_seed: Tensor
    steps_before: Tensor


class StepTotals(NamedTuple):
    """What a call of the compiled loop returns.

    Attributes:
        loss_sum: the sum of losses that the call began with, plus those of its steps, in float32.
            The sum is the same however an epoch is cut into calls.
        correct: number of correct predictions of the call.
        steps: number of steps taken.
        last_loss: loss of the last step. One that is not finite ends the call after its step.
        finite: whether all floats of the state are finite after the call: weights, statistics,
            the optimizer's variables and averages.
    """

    loss_sum: float
    correct: int
    steps: int
    last_loss: float
    finite: bool


class ChunkArrays(NamedTuple):
    """The batches of some steps of a stream, in the host's memory, for each device its part.

    Attributes:
        images: `(devices, rows, height, width, channels)`, of the devices of this process.
        targets: tuple of the labels `(devices, rows, ...)` and, where there are any, the weights of
            the images `(devices, rows)`.
        indices: int32 `(devices, rows)`, the places of the images in the data set.
        first: the step of the epoch with which they begin.
    """

    images: np.ndarray
    targets: tuple[np.ndarray, ...]
    indices: np.ndarray
    first: int


class Engine:
    """Runs steps of training and batches of inference for the `Trainer`.

    Options are chosen here, at construction, so that the training step itself holds none.

    Args:
        settings: a `Settings`.

    Attributes:
        on_cpu: bool, whether the engine runs on a CPU.
        outputs: number of the model's outputs for an image; set it before the program is compiled.
        data_attributes: names of the attributes that hold the data, which `load` sets.
        frozen: the places, among the model's trainable variables, of those that keep their values.
    """

    on_cpu: bool
    data_attributes: tuple[str, ...]

    def __init__(self, settings: Settings):
        self.model, self.optimizer, self.loss = settings.model, settings.optimizer, settings.loss
        self.normalize = functools.partial(_normalized, settings.normalize)
        augment = augmentation.with_labels(settings.augment)
        self.augment = augment if settings.size is None else _resized(augment, settings.size)
        self.mixes_labels = augmentation.takes_labels(settings.augment)
        self.choose = chooser(self.model, settings.loss)
        self.count_correct = counter(settings.kind, settings.loss)
        self.metrics, self.outputs = settings.metrics, 0
        self.batch_size, self.seed = settings.batch_size, settings.seed
        self.averages, self.replicas = settings.averages, settings.replicas
        self.frozen = frozenset(
            place
            for place, variable in enumerate(self.model.trainable_variables)
            if any(matches(match, variable.path) for match in settings.frozen)
        )

    def keep_frozen(self, before: Sequence, after: Sequence) -> list:
        """What is in `after` for each trainable variable, or in `before` for frozen ones."""
        return [
            old if place in self.frozen else new
            for place, (old, new) in enumerate(zip(before, after, strict=True))
        ]

    def load(self, images: np.ndarray, targets: tuple[np.ndarray, ...]) -> None:
        """Places training data on the device.

        Args:
            images: uint8 `(count, height, width, channels)`.
            targets: the labels and, where there are any, the weights of the images.
        """
        raise NotImplementedError

    def place_chunk(self, chunk: ChunkArrays) -> Placed:
        """Places a part of a stream on the device. The engine itself stays as it is, so that
        another thread may call this while it trains."""
        raise NotImplementedError

    def placed(self) -> Placed:
        """The data that the engine trains on."""
        return {name: getattr(self, name) for name in self.data_attributes}

    def use(self, placed: Placed) -> None:
        """Trains from now on on data that an engine of this kind has placed on the device."""
        for name in self.data_attributes:
            setattr(self, name, placed[name])

    def compile(self):
        """Traces and compiles the training program for the loaded data, without taking a step."""
        raise NotImplementedError

    def run(
        self, epoch: int, start: int, stop: int, steps_before: int, loss_sum: float = 0.0
    ) -> StepTotals:
        """Trains from step `start` to before step `stop` of `epoch`, both counted from 0.

        Args:
            epoch, start, stop: integers; the loop ends early after a loss that is not finite.
            steps_before: steps that the Trainer took before this epoch; averages count them.
            loss_sum: sum of the losses of the epoch's earlier steps.
        """
        raise NotImplementedError

    def program(self, count: int, image_shape: tuple[int, int, int]) -> tuple[Callable, tuple]:
        """The training program and its abstract arguments; see `Trainer.program`."""
        raise NotImplementedError

    def graph(self):
        """The graph of the training program, see `Trainer.graph`."""
        raise ValueError(
            'a graph must be of the tensorflow backend. '
            f'Received: KERAS_BACKEND={keras.backend.backend()}'
        )

    def gradients(self, images: np.ndarray, labels: np.ndarray) -> tuple[float, list[np.ndarray]]:
        """Loss and its gradients on a batch; see `Trainer.gradients`."""
        raise NotImplementedError

    def predict(self, images: np.ndarray, views: Sequence[Callable]) -> np.ndarray:
        """Logits of several views of a batch.

        Args:
            images: uint8 `(batch, height, width, channels)`.
            views: functions of batches of normalised images.

        Returns:
            A float32 NumPy array `(views, batch, classes)`.
        """
        raise NotImplementedError

    def hold(self, images: np.ndarray, targets: tuple[np.ndarray, ...]) -> Any:
        """Places images to be scored on the device, and what they are compared with.

        Args:
            images: uint8 `(count, height, width, channels)`.
            targets: the labels and, where there are any, the weights of the images.
        """
        raise NotImplementedError

    def score(self, held: Any, batch_size: int) -> tuple[float, int, list]:
        """What all images that were placed by `hold` score together.

        Args:
            held: what `hold` returned.
            batch_size: images of a forward pass, at most.

        Returns:
            The loss, the number of correct answers, and the results of the metrics.
        """
        raise NotImplementedError

    def correct(self, outputs: np.ndarray, labels: np.ndarray) -> int:
        """The number of correct answers among the model's outputs `(count, outputs)`."""
        tensors = map(keras.ops.convert_to_tensor, (outputs, labels))
        return keras.ops.convert_to_numpy(self.count_correct(*tensors)).item()

    def epoch_seed(self, epoch: Epoch):
        """The seed of an epoch: of its shuffle, and folded with the step those of its steps."""
        return augmentation.fold((epoch.run_seed, 0), epoch.number)

    def inputs(self, images, labels, indices, epoch, step_seed):
        """The model's input in training: `images` normalised and augmented; and the labels.

        Args:
            images: `(batch, height, width, channels)`, uint8 or as a source gives them.
            labels: int32 `(batch,)` or float32 `(batch, outputs)`.
            indices: int32 `(batch,)`, the places of the images in the data set.
            epoch: the `Epoch`.
            step_seed: int32 `(2,)`.
        """
        images = self.normalize(images)
        with _keras.changed_variables() as changed:
            inputs, labels = self.augment(
                images,
                self.one_hot(labels),
                step_seed,
                epoch.number,
                indices,
                (epoch.run_seed, 1),
            )
        if changed:
            raise ValueError(
                '`augment` must draw from its `seed` alone, and create or change no variable of a '
                f'Keras layer. Received: a function that does ({", ".join(changed)})'
            )
        shape = getattr(inputs, 'shape', None)
        if shape is None or not len(shape) or shape[0] != images.shape[0]:
            raise ValueError(
                f'`augment` must return the {images.shape[0]} images that it is given. '
                f'Received: {inputs if shape is None else shape}'
            )
        takes = getattr(self.model, 'input_shape', (None, *shape[1:]))[1:]
        if not fits(takes, shape[1:]):
            raise ValueError(
                f'`augment` must return images of the shape ({", ".join(map(str, takes))}) that '
                f'the model takes. Received: {tuple(shape[1:])}'
            )
        return inputs, labels

    def one_hot(self, labels):
        """Labels as the augmentation takes them: floats for each class where it mixes them."""
        if self.mixes_labels and len(labels.shape) == 1:
            return keras.ops.one_hot(labels, self.outputs, dtype='float32')
        return labels


def _resized(augment, size):
    """`augment`, then a plain bilinear resize to `size` x `size` pixels."""

    def augment_and_resize(images, labels, seed, epoch, indices, run_seed):
        images, labels = augment(images, labels, seed, epoch, indices, run_seed)
        return augmentation.resize(images, size, size, antialias=False), labels

    return augment_and_resize


def _normalized(normalize, images):
    """`normalize(images)`; raises where it makes a layer, whose weights nobody would keep."""
    with _keras.changed_variables() as changed:
        images = normalize(images)
    if changed:
        raise ValueError(
            '`normalize` must create or change no variable of a Keras layer. '
            f'Received: a function that does ({", ".join(changed)})'
        )
    return images


def batch_starts(count: int, batch_size: int) -> tuple[np.ndarray, int]:
    """Where the batches of all images begin, and how many images each has, at most `batch_size`.

    All are of one size, for one program; the last one overlaps with that before it.

    >>> batch_starts(10, 4)
    (array([0, 4, 6], dtype=int32), 4)
    """
    batches = -(-count // batch_size)
    size = -(-count // batches)
    return np.minimum(np.arange(batches, dtype=np.int32) * size, count - size), size


def without_overlap(batches: Sequence[Tensor], count: int) -> Tensor:
    """The rows of all batches that `batch_starts` made of `count` images, each once."""
    *whole, last = batches
    return keras.ops.concatenate([*whole, last[last.shape[0] * len(batches) - count :]])
