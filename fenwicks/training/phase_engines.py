"""An engine for each phase of a training: for images of a size, for the variables it trains."""

from __future__ import annotations

import dataclasses
import itertools
import numbers
import sys

import numpy as np

from fenwicks.training.chunks import Chunks
from fenwicks.training.engines.base import Engine, Settings, StepTotals
from fenwicks.training.engines.select import make_engine
from fenwicks.training.freezing import Compiled
from fenwicks.training.phases import Freeze, ImageSizes, Phase, Phases


class PhaseEngines:
    """An engine for each phase of the training; they all train one model with one optimizer.

    Each engine's program is compiled for one size of images and one choice of trained variables, so
    that no step has to test for either.

    Args:
        settings: an engine's `Settings`.
        image_sizes: checked pairs of epoch and size; empty for the images' own size throughout.
        freeze: checked pairs of epoch and pattern; empty for all variables throughout.

    Attributes:
        held: the `Compiled`, what the engines' programs hold.
        data_bytes: of the arrays that `load` has placed on the device.
        has_data: whether there are data to train on.
        steps_per_epoch: to be set before any step other than the first of an epoch is asked for.
    """

    def __init__(self, settings: Settings, image_sizes: ImageSizes, freeze: Freeze = ()):
        self.settings, self.phases = settings, Phases(image_sizes, freeze)
        self.steps_per_epoch = 1
        self.rebuild()

    def rebuild(self) -> None:
        """Makes the engines anew, without data, for what `held` found to have changed."""
        self.held = Compiled(self.settings.optimizer, self.settings.model)
        self._engines = {
            phase: make_engine(dataclasses.replace(self.settings, **phase._asdict()))
            for phase in self.phases.all
        }
        self._latest: Engine | None = None
        self._compiled: set[Phase] = set()
        self._chunks: Chunks | None = None  # of a stream
        self.data_bytes, self.has_data = 0, False

    def at(self, epoch: int, step: int = 0, steps_per_epoch: int | None = None) -> Engine:
        """The engine of a step of an epoch, both from 0; of other data with their steps."""
        phases = self.phases.of_epoch(epoch, steps_per_epoch or self.steps_per_epoch)
        begun = [phase for first, phase in phases if first <= step]
        return self._engines[begun[-1]]

    def run(
        self, epoch: int, start: int, stop: int, steps_before: int, loss_sum: float = 0.0
    ) -> StepTotals:
        """Takes steps of an epoch, each with the engine of its phase; see `Engine.run`."""
        ends = [first for first, _ in self._of_epoch(epoch) if start < first < stop]
        correct, taken = 0, 0
        for first, end in itertools.pairwise((start, *ends, stop)):
            engine = self.at(epoch, first)
            if end > first and engine is not self._latest:
                self._begin(engine)
            totals = engine.run(epoch, first, end, steps_before, loss_sum)
            loss_sum = totals.loss_sum
            taken += totals.steps
            correct += totals.correct
            if totals.steps < end - first:  # the loss isn't finite
                break
        return totals._replace(correct=correct, steps=taken)

    def _begin(self, engine):
        """Notes that an engine takes the next steps, and which variables it leaves alone."""
        self._latest = engine
        with self.settings.replicas.scope():
            self.settings.averages.restart_frozen(
                [engine.model.trainable_variables[place] for place in engine.frozen]
            )

    def _of_epoch(self, epoch):
        return self.phases.of_epoch(epoch, self.steps_per_epoch)

    def load(self, images: np.ndarray, targets: tuple[np.ndarray, ...], outputs: int) -> None:
        """Places the data on the device, once for all engines.

        Args:
            images, targets: as of `Engine.load`.
            outputs: number of the model's outputs for an image.
        """
        self.unload()  # first, since a device may have no room for both
        first, *others = self._engines.values()
        first.load(images, targets)
        for engine in self._engines.values():
            engine.outputs = outputs
        for other in others:
            other.use(first.placed())
        self.data_bytes, self.has_data = sum(array.nbytes for array in (images, *targets)), True

    def stream(self, chunks: Chunks, epoch: int, outputs: int) -> None:
        """Trains on the chunks of a stream from now on, from the beginning of an epoch."""
        self.unload()
        self._chunks = chunks
        for engine in self._engines.values():
            engine.outputs = outputs
        self.prepare(epoch, 0)
        self.has_data = True

    def unload(self) -> None:
        """Drops the data."""
        for engine in self._engines.values():
            engine.use(dict.fromkeys(engine.data_attributes))
        self._chunks, self.data_bytes, self.has_data = None, 0, False
        self._compiled.clear()

    def check_steps(self, epoch: int, start: int, stop: int) -> None:
        """Raises a `ValueError` unless the training can take these steps now."""
        self.check_has_data()
        self.settings.averages.check_not_in_place()
        given = {'epoch': epoch, 'start': start, 'stop': stop}
        are_integers = all(
            isinstance(each, numbers.Integral) and not isinstance(each, bool)
            for each in given.values()
        )
        if not (are_integers and epoch >= 0 and 0 <= start <= stop <= self.steps_per_epoch):
            received = ', '.join(f'{name}={value!r}' for name, value in given.items())
            raise ValueError(
                '`epoch`, `start` and `stop` must be integers, epoch >= 0 and '
                f'0 <= start <= stop <= {self.steps_per_epoch}, the steps of an epoch. '
                f'Received: {received}'
            )

    def check_has_data(self) -> None:
        """Raises a `ValueError` where there are no data to train on."""
        if not self.has_data:
            raise ValueError(
                'the Trainer must have data to train on: call `load` first. Received: no data'
            )

    def prepare(self, epoch: int, step: int) -> int:
        """Has the data of a step on the device; returns how many steps can follow it there."""
        if self._chunks is None:
            return sys.maxsize
        placed, steps = self._chunks.at(epoch, step)
        if placed is not None:
            for engine in self._engines.values():  # all, so that none keeps an earlier chunk
                engine.use(placed)
        return steps

    def compile(self, epoch: int) -> None:
        """Compiles the programs of an epoch, unless that is done."""
        for _, phase in self._of_epoch(epoch):
            if phase not in self._compiled:
                self.prepare(epoch, 0)
                self._engines[phase].compile()
                self._compiled.add(phase)
