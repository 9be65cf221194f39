"""The checkpoint of a training: what it holds, and what must be as it was to go on from it."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import keras

from fenwicks.training import checkpoint as checkpoints
from fenwicks.training.hooks import Hooks, list_name
from fenwicks.training.interrupts import deferred_interrupts
from fenwicks.training.selection import HardExamples
from fenwicks.training.state import State, check_initial_epoch

_OPTIONAL = ('image_sizes', 'freeze', 'accumulate', 'share', 'proxy_share')  # of `settings_of`


class Checkpoint:
    """The file that a training rewrites after each epoch, and may go on from.

    Args:
        path: of the file; `None` for none.
        settings: what `settings_of` returned.
        state: the training's, which `restore` changes.
        variables: the training's.
        places: lists of variables by name, as of `Hooks`.
        writes: whether this process writes it.
    """

    def __init__(
        self,
        path: pathlib.Path | None,
        settings: dict[str, Any],
        state: State,
        variables: Sequence[keras.Variable],
        places: dict[str, Sequence[keras.Variable]],
        writes: bool,
    ):
        self.path, self.settings, self.writes = path, settings, writes
        self.state, self.variables, self.places = state, variables, places

    def claimed_for(self, epochs: int, resumes: bool) -> AbstractContextManager[None]:
        """A context in which no other training can write the file, where this one will.

        Args:
            epochs: of the training in all.
            resumes: whether it goes on from the file.
        """
        if self.path is None or not self.writes:
            return contextlib.nullcontext()
        done = len(self.state.records)
        if resumes:
            done = len(checkpoints.load_state(self.path).get('history', ()))
        return checkpoints.claimed(self.path) if done < epochs else contextlib.nullcontext()

    def save(self, hooks: Hooks) -> None:
        """Rewrites the file, in the process that writes it."""
        if self.path is not None and self.writes:
            state = {**self.settings, **self.state.to_save(), **hooks.state()}
            checkpoints.save(self.path, self.variables, state, hooks.lists())

    def restore(
        self, initial_epoch: int | None, total_steps: int, steps_per_epoch: int
    ) -> dict[str, Any]:
        """Sets state and variables to what the file holds, or leaves all as it was.

        Args:
            initial_epoch: as of `Trainer.fit`.
            total_steps: of the training that goes on.
            steps_per_epoch: with the present data.

        Returns:
            What callbacks knew, see `Hooks.begin`.

        Raises:
            ValueError: the file is damaged, of a training with other settings or variables, after
                another epoch, or of one that can't go on.
            OSError: it can't be opened.
        """
        assert self.path is not None  # nothing to go on from
        saved = checkpoints.load_state(self.path)
        settings = self.settings
        if 'format' not in saved:  # of an earlier version, which noted less
            settings = {key: settings[key] for key in settings if key in saved}
        dropped = {name: None for name in _OPTIONAL if name in saved and name not in settings}
        checkpoints.check_settings(f'the checkpoint {self.path}', saved, {**settings, **dropped})
        check_initial_epoch(initial_epoch, len(saved['history']))
        values = checkpoints.load_values(self.path, self.variables)
        for number, entry in enumerate(saved.get('callbacks', ())):
            entry['lists'] = {
                name: checkpoints.load_list(
                    self.path,
                    list_name(number, name),
                    [tuple(variable.shape) for variable in self.places[place]],
                )
                for name, place in entry['lists'].items()
            }
        found = dataclasses.replace(self.state)
        found.restore(saved, steps_per_epoch)
        if found.steps_done < total_steps:
            found.check_can_go_on(total_steps, steps_per_epoch)
        with deferred_interrupts():  # variables and state belong together
            checkpoints.assign(self.variables, values)
            self.state.restore(saved, steps_per_epoch)
        return saved


def settings_of(trainer: Any, feed: Any, fingerprint: Any) -> dict[str, Any]:
    """What must be equal for a resumed training to end with the same numbers.

    Args:
        trainer: the `Trainer`.
        feed: of its data, an `ArrayFeed` or a `StreamFeed`.
        fingerprint: the user's description of the run, of what JSON can hold.
    """
    phases = {'image_sizes': trainer.image_sizes, 'freeze': trainer.freeze}
    parts = {'accumulate': trainer.accumulate} if trainer.accumulate > 1 else {}
    hard = {}
    if isinstance(trainer.model, HardExamples):
        hard = {'share': trainer.model.share, 'proxy_share': trainer.model.proxy_share}
    return {
        **{name: pairs for name, pairs in phases.items() if pairs},
        **parts,
        **hard,
        'backend': keras.backend.backend(),  # each draws other random numbers
        'seed': trainer.seed,
        'batch_size': trainer.batch_size,
        'steps_per_epoch': feed.steps,
        **feed.origin(),
        'settings': fingerprint,
    }
