"""Where a training is, but for the values of its variables."""

from __future__ import annotations

import dataclasses
import math
from typing import Any


@dataclasses.dataclass
class State:
    """Where a training is, but for the values of its variables.

    Attributes:
        records: a dict for each epoch so far, see `Trainer.fit`.
        steps_per_epoch: with the present data; 0 before there are any.
        steps_done: steps of the epochs in `records`, as if all were of the present data.
        steps_taken: steps on all data, which the averages count.
        train_seconds: of training, in all calls of `fit`.
        first_step_at: `time.perf_counter()` at the end of the first step; `None` before it.
        ended_in_part: whether the last epoch in `records` is a part of one.
        half_trained: whether steps have begun after the last epoch in `records`.
        finalized: whether averages of the optimizer (`use_ema`) have replaced the weights.
    """

    records: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    steps_per_epoch: int = 0
    steps_done: int = 0
    steps_taken: int = 0
    train_seconds: float = 0.0
    first_step_at: float | None = None
    ended_in_part: bool = False
    half_trained: bool = False
    finalized: bool = False

    def take_data(self, steps_per_epoch: int) -> None:
        """Notes the steps of an epoch with the data from now on."""
        self.steps_done = self.steps_done_with(steps_per_epoch)
        self.steps_per_epoch = steps_per_epoch

    def steps_done_with(self, steps_per_epoch: int) -> int:
        """The steps of the epochs so far if an epoch had so many."""
        if not self.ended_in_part:
            return len(self.records) * steps_per_epoch
        return math.floor(self.steps_done * steps_per_epoch / self.steps_per_epoch + 0.5)

    def add_epoch(self, record: dict[str, Any], steps: int) -> None:
        """Notes an epoch of so many steps that was trained to its end."""
        self.half_trained = False
        self.ended_in_part = steps < self.steps_per_epoch
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

    def restore(self, saved: dict[str, Any], steps_per_epoch: int) -> None:
        """Goes back to what `to_save` returned, in a training with so many steps in an epoch."""
        self.records, self.steps_per_epoch = saved['history'], steps_per_epoch
        whole_epochs = len(self.records) * steps_per_epoch
        # An earlier version trained for whole epochs only.
        self.steps_done = saved.get('steps_done', whole_epochs)
        self.ended_in_part = self.steps_done < whole_epochs
        self.steps_taken = saved.get('steps_taken', self.steps_done)
        self.train_seconds = saved['train_seconds']
        self.half_trained = self.finalized = False

    def check_whole_epoch(self) -> None:
        """Raises a `ValueError` unless the present weights are those of the end of an epoch."""
        if self.half_trained:
            raise ValueError(
                'the Trainer must go on from a whole epoch: make a new one, or pass the '
                f'`checkpoint` and resume=True. Received: a half-trained epoch '
                f'{len(self.records) + 1}'
            )

    def check_can_go_on(self, total_steps: int, steps_per_epoch: int) -> None:
        """Raises a `ValueError` where a training that came to its end can't be made longer.

        Args:
            total_steps: of the longer training.
            steps_per_epoch: with its data.
        """
        done, epochs = (
            steps / steps_per_epoch
            for steps in (self.steps_done_with(steps_per_epoch), total_steps)
        )
        if self.ended_in_part:
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


def check_initial_epoch(initial_epoch: int | None, done: int) -> None:
    """Raises a `ValueError` unless `initial_epoch` is `done`, the epochs so far, or `None`."""
    if initial_epoch is not None and initial_epoch != done:
        raise ValueError(
            f'`initial_epoch` must be {done}, the epochs trained so far (resume a `checkpoint` to '
            f'go on from others), or None. Received: initial_epoch={initial_epoch!r}'
        )
