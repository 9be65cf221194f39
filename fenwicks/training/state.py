"""Where a training is, but for the values of its variables."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass
class State:
    """Where a training is, but for the values of its variables.

    Attributes:
        records: a dict for each epoch so far, see `Trainer.fit`.
        steps_per_epoch: with the present data; 0 before there are any.
        steps_done: as many as the epochs in `records` have with the present data.
        steps_taken: of all data and those of `Trainer.run_steps`, which the averages count.
        train_seconds: of training, in all calls of `fit`.
        first_step_at: `time.perf_counter()` at the end of the first step; `None` before it.
        half_trained: whether steps have been taken since the last epoch in `records`.
        finalized: whether averages of the optimizer (`use_ema`) have replaced the weights.
    """

    records: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    steps_per_epoch: int = 0
    steps_done: int = 0
    steps_taken: int = 0
    train_seconds: float = 0.0
    first_step_at: float | None = None
    half_trained: bool = False
    finalized: bool = False

    def take_data(self, steps_per_epoch: int) -> None:
        """Notes the steps of an epoch with the data from now on."""
        if self.steps_done == len(self.records) * self.steps_per_epoch:  # whole epochs
            self.steps_done = len(self.records) * steps_per_epoch
        self.steps_per_epoch = steps_per_epoch

    def add_epoch(self, record: dict[str, Any], steps: int) -> None:
        """Notes an epoch of so many steps that was trained to its end."""
        self.half_trained = False
        self.steps_done += steps
        self.steps_taken += steps
        self.train_seconds += record['seconds']
        self.records.append(record)

    def to_save(self) -> dict[str, Any]:
        """What a checkpoint holds of it, at the end of an epoch."""
        return {
            'history': self.records,
            'steps_done': self.steps_done,
            'steps_taken': self.steps_taken,
            'train_seconds': self.train_seconds,
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Goes back to what `to_save` returned; the data are already known."""
        self.records = saved['history']
        # An earlier version trained for whole epochs only.
        self.steps_done = saved.get('steps_done', len(self.records) * self.steps_per_epoch)
        self.steps_taken = saved.get('steps_taken', self.steps_done)
        self.train_seconds = saved['train_seconds']
        self.half_trained = self.finalized = False

    def check_has_data(self) -> None:
        """Raises a `ValueError` where no data are loaded."""
        if not self.steps_per_epoch:
            raise ValueError(
                'the Trainer must have data to train on: call `load` first. Received: no data'
            )

    def check_whole_epoch(self) -> None:
        """Raises a `ValueError` unless the present weights are those of the end of an epoch."""
        if self.half_trained:
            raise ValueError(
                'the Trainer must go on from a whole epoch: make a new one, or pass the '
                f'`checkpoint` and resume=True. Received: a half-trained epoch '
                f'{len(self.records) + 1}'
            )

    def check_initial_epoch(self, initial_epoch: int | None) -> None:
        """Raises a `ValueError` unless `initial_epoch` is the number of epochs so far."""
        if initial_epoch is not None and initial_epoch != len(self.records):
            raise ValueError(
                f'`initial_epoch` must be {len(self.records)}, the epochs trained so far (resume a '
                '`checkpoint` to go on from others), or None. '
                f'Received: initial_epoch={initial_epoch!r}'
            )

    def check_can_go_on(self, steps: int) -> None:
        """Raises a `ValueError` where a training that ended can't be made longer, to `steps`."""
        epochs, done = (count / self.steps_per_epoch for count in (steps, self.steps_done))
        if not done.is_integer():
            raise ValueError(
                'a training that ended with a part of an epoch must not go on. '
                f'Received: epochs={epochs:g} after {done:g}'
            )
        if self.finalized:
            raise ValueError(
                'a Trainer whose optimizer has use_ema must train in one go, at the end of which '
                'its averages replace the weights: make a new one, or pass the `checkpoint` and '
                f'resume=True. Received: epochs={epochs:g} after {done:g}'
            )
