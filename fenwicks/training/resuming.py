"""Where a training goes on: the checkpoint that it writes, and what must be as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from fenwicks import _keras
from fenwicks.training import checkpoint as checkpoints
from fenwicks.training import checks
from fenwicks.training.engines.select import in_one_call
from fenwicks.training.hooks import list_name
from fenwicks.training.selection import HardExamples
from fenwicks.training.steps import StepRunner

_OPTIONAL = ('image_sizes', 'freeze', 'accumulate', 'share', 'proxy_share')  # of `_settings`


class ResumableRunner(StepRunner):
    """A `StepRunner` whose state can be saved and restored: a `Trainer` without `fit`.

    Attributes:
        train_seconds: of training, in all calls of `fit`.
    """

    train_seconds = 0.0
    _finalized = False  # whether averages of the optimizer (`use_ema`) have replaced the weights
    _rate_held: Any = None  # the rate or the schedule that `_read_rate` reads
    _read_rate: Callable[[], Any]

    def _claim(self, checkpoint, resumes, epochs):
        """A context in which no other training can write the checkpoint, where this one will.

        Args:
            checkpoint: its path; `None` where this process writes none.
            resumes: whether the training goes on from it.
            epochs: of the training in all.
        """
        if checkpoint is None:
            return contextlib.nullcontext()
        state = checkpoints.load_state(checkpoint) if resumes else {'history': self.records}
        goes_on = len(state.get('history', ())) < epochs
        return checkpoints.claimed(checkpoint) if goes_on else contextlib.nullcontext()

    def _check_whole_epoch(self):
        """Raises unless the present weights are those of the end of an epoch."""
        if self._half_trained:
            raise ValueError(
                'the Trainer must go on from a whole epoch: make a new one, or pass the '
                f'`checkpoint` and resume=True. Received: a half-trained epoch '
                f'{len(self.records) + 1}'
            )

    def _check_can_go_on(self, steps):
        """Raises where a training that came to its end can't be made longer, to `steps` steps."""
        epochs, done = (count / self._steps_per_epoch for count in (steps, self._steps_done))
        if not done.is_integer():
            raise ValueError(
                'a training that ended with a part of an epoch must not go on. '
                f'Received: epochs={epochs:g} after {done:g}'
            )
        if self._finalized:
            raise ValueError(
                'a Trainer whose optimizer has use_ema must train in one go, at the end of which '
                'its averages replace the weights: make a new one, or pass the `checkpoint` and '
                f'resume=True. Received: epochs={epochs:g} after {done:g}'
            )

    def _check_initial_epoch(self, initial_epoch):
        if initial_epoch is not None and initial_epoch != len(self.records):
            raise ValueError(
                f'`initial_epoch` must be {len(self.records)}, the epochs trained so far (resume a '
                '`checkpoint` to go on from others), or None. '
                f'Received: initial_epoch={initial_epoch!r}'
            )

    def _settings(self, feed, fingerprint):
        """What must be equal for a resumed training to end with the same numbers."""
        phases = {'image_sizes': self.image_sizes, 'freeze': self.freeze}
        parts = {'accumulate': self.accumulate} if self.accumulate > 1 else {}
        hard = {}
        if isinstance(self.model, HardExamples):
            hard = {'share': self.model.share, 'proxy_share': self.model.proxy_share}
        return {
            **{name: pairs for name, pairs in phases.items() if pairs},
            **parts,
            **hard,
            'backend': keras.backend.backend(),  # each draws other random numbers
            'seed': self.seed,
            'batch_size': self.batch_size,
            'steps_per_epoch': self._steps_per_epoch,
            **feed.origin(),
            'settings': fingerprint,
        }

    def _save(self, path, settings, hooks):
        state = {
            **settings,
            'history': self.records,
            'steps_done': self._steps_done,
            'steps_taken': self._steps_taken,
            'train_seconds': self.train_seconds,
            **hooks.state(),
        }
        checkpoints.save(path, self.variables, state, hooks.lists())

    def _restore(self, path, settings):
        state = checkpoints.load_state(path)
        if 'format' not in state:  # of an earlier version, which noted less
            settings = {key: settings[key] for key in settings if key in state}
        dropped = {name: None for name in _OPTIONAL if name in state and name not in settings}
        checkpoints.check_settings(f'the checkpoint {path}', state, {**settings, **dropped})
        checkpoints.assign(self.variables, checkpoints.load_values(path, self.variables))
        self.records = state['history']
        # An earlier version trained for whole epochs only.
        whole_epochs = len(self.records) * self._steps_per_epoch
        self._steps_done = state.get('steps_done', whole_epochs)
        self._steps_taken = state.get('steps_taken', self._steps_done)
        self.train_seconds = state['train_seconds']
        self._half_trained = self._finalized = False
        places = self._averages.places(self.model)
        for number, entry in enumerate(state.get('callbacks', ())):
            entry['lists'] = {
                name: checkpoints.load_list(
                    path, list_name(number, name), [tuple(v.shape) for v in places[place]]
                )
                for name, place in entry['lists'].items()
            }
        return state

    def _not_finite(self):
        """The first of the training's variables that holds infinities or NaN; the weights first."""
        for variable in (*self.model.trainable_variables, *self.variables):
            if (
                keras.backend.is_float_dtype(variable.dtype)
                and not np.isfinite(
                    keras.ops.convert_to_numpy(keras.ops.cast(variable, 'float32'))
                ).all()
            ):
                return variable

    def _learning_rate(self):
        first, *_ = checks.updating(self.optimizer)
        held = _keras.constant_or_schedule(first)
        if held is not self._rate_held:  # a callback may set another schedule
            self._rate_held = held
            self._read_rate = in_one_call(lambda: keras.ops.convert_to_tensor(first.learning_rate))
        return float(keras.ops.convert_to_numpy(self._read_rate()))

    def _finalize(self):
        """Puts the averages of an optimizer of Keras with `use_ema` in the weights' place."""
        if self._finalized:
            return
        self.optimizer.finalize_variable_values(self.model.trainable_variables)
        if any(optimizer.use_ema for optimizer in checks.updating(self.optimizer)):
            self._finalized = True
            for weight in self.model.trainable_variables:  # a copy, not the average's memory
                weight.assign(keras.ops.copy(weight.value))
