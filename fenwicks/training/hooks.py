"""Runs Keras's callbacks at the ends of epochs, and keeps what they know in the checkpoint."""

from __future__ import annotations

import inspect
import math
import numbers
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from fenwicks import _keras
from fenwicks.optimizers import WeightAveraging
from fenwicks.training.callbacks import TrainerCallback
from fenwicks.training.epochs import DivergedError

_BATCH_HOOKS = (
    'on_batch_begin',
    'on_batch_end',
    'on_train_batch_begin',
    'on_train_batch_end',
    'on_test_batch_begin',
    'on_test_batch_end',
)
# Keras's callbacks whose batch hooks can be left out: `_check_settings` refuses the settings with
# which they would matter.
_HARMLESS = (
    keras.callbacks.ModelCheckpoint,
    keras.callbacks.TensorBoard,
    keras.callbacks.TerminateOnNaN,
)
# What tells them to work at batches.
_FREQUENCIES = (
    (keras.callbacks.ModelCheckpoint, 'save_freq'),
    (keras.callbacks.TensorBoard, 'update_freq'),
)
_REFUSED = (
    (
        keras.callbacks.BackupAndRestore,
        'pass `checkpoint` and resume=True instead, which also keep the averages, the random state '
        'and what callbacks know',
    ),
    (WeightAveraging, 'pass its rule as `averaging` of the Trainer, whose steps are compiled'),
    (keras.callbacks.ProgbarLogger, 'the Trainer shows a progress bar of its own'),
)


def check_callbacks(callbacks: Any) -> list[keras.callbacks.Callback]:
    """The callbacks as a list, where each can work from the ends of epochs.

    Raises:
        ValueError: one is no callback of Keras, or needs to be called at each batch.
    """
    callbacks = keras.tree.flatten(callbacks) if callbacks else []
    for callback in callbacks:
        if not isinstance(callback, keras.callbacks.Callback):
            raise ValueError(
                f'`callbacks` must be keras.callbacks.Callback objects. Received: {callback!r}'
            )
        for kind, reason in _REFUSED:
            if isinstance(callback, kind):
                raise ValueError(f'`callbacks` must be without {kind.__name__}: {reason}')
        _check_settings(callback)
        for hook in _BATCH_HOOKS:
            if _needs(callback, hook):
                raise ValueError(
                    '`callbacks` must work from the ends of epochs: the steps between them run in '
                    'one compiled loop, which calls nothing. '
                    f'Received: a {type(callback).__name__} with {hook}'
                )
    return callbacks


def _check_settings(callback):
    """Raises where a callback of Keras was told to work at each batch."""
    for kind, name in _FREQUENCIES:
        if isinstance(callback, kind) and getattr(callback, name) != 'epoch':
            raise ValueError(
                f"`callbacks` must have {name}='epoch', since the steps of an epoch run in one "
                f'compiled loop. Received: a {type(callback).__name__} with '
                f'{name}={getattr(callback, name)!r}'
            )
    if isinstance(callback, keras.callbacks.TensorBoard) and _keras.profiles_batches(callback):
        raise ValueError(
            '`callbacks` must have profile_batch=0, since the steps of an epoch run in one '
            f'compiled loop. Received: a {type(callback).__name__} that profiles batches'
        )


def _needs(callback, hook):
    """Whether a callback does something of its own in a hook."""
    function = _function(getattr(callback, hook))
    return all(
        function is not _function(getattr(kind, hook))
        for kind in (keras.callbacks.Callback, *_HARMLESS)
        if isinstance(callback, kind)
    )


def _function(method):
    return getattr(method, '__func__', method)


class Hooks:
    """Calls the callbacks of a `fit`, in their order.

    Args:
        callbacks: checked callbacks.
        trainer: the `Trainer`, whose model they see.
        places: lists of variables by name. The checkpoint keeps a callback's list of arrays where
            their shapes are those of one of these lists, as of weights that it will restore.
        params: dict of `epochs` and `steps`, which the callbacks see too.
    """

    def __init__(
        self,
        callbacks: Sequence[keras.callbacks.Callback],
        trainer: Any,
        places: dict[str, Sequence[keras.Variable]],
        params: dict[str, Any],
    ):
        self.callbacks, self.model, self._places = callbacks, trainer.model, places
        self._at_begin: list[dict[str, Any]] = []
        self._ended_by: keras.callbacks.Callback | None = None
        for callback in callbacks:
            callback.set_params(params)
            callback.set_model(trainer.model)
            if isinstance(callback, TrainerCallback):
                callback.set_trainer(trainer)

    @property
    def stopped(self) -> bool:
        """Whether a callback has ended the training."""
        return bool(self.callbacks) and self.model.stop_training

    def call(self, hook: str, *arguments: Any) -> None:
        """Calls one hook of every callback."""
        for callback in self.callbacks:
            getattr(callback, hook)(*arguments)
            if self._ended_by is None and self.model.stop_training:
                self._ended_by = callback

    def begin(self, state: dict[str, Any]) -> None:
        """Calls `on_train_begin`, and gives the callbacks back what they knew.

        A callback gets what one of its class and `monitor` knew; of several the one that was made
        with the same arguments, or else the first. A training that a callback ended stays at its
        end where that one is there again, made with the same arguments.

        Args:
            state: holds what `state` returned in the training that goes on, with the arrays
                themselves for its lists; or is empty.
        """
        if self.callbacks:
            self.model.stop_training = False
        self.call('on_train_begin', {})
        self._at_begin = [_known(callback) for callback in self.callbacks]
        known = list(state.get('callbacks', ()))
        for callback in self.callbacks:
            kind, given = type(callback).__name__, _arguments(callback)
            alike = [
                entry
                for entry in known
                if entry['class'] == kind
                # An earlier version noted no arguments.
                and entry.get('arguments', given).get('monitor') == given.get('monitor')
            ]
            if not alike:
                continue
            entry = next((each for each in alike if each.get('arguments') == given), alike[0])
            known.remove(entry)
            lists = {name: list(map(np.array, found)) for name, found in entry['lists'].items()}
            vars(callback).update(entry['known'] | lists)
            if entry.get('ended') and entry['arguments'] == given:
                self._ended_by, self.model.stop_training = callback, True

    def diverged(self, error: DivergedError) -> bool:
        """Tells `TerminateOnNaN` of a loss that isn't finite; returns whether it ends the training.

        That callback raises an error of its own if it was made with `raise_error`.
        """
        kind = keras.callbacks.TerminateOnNaN
        told = [callback for callback in self.callbacks if isinstance(callback, kind)]
        for callback in told:
            callback.on_batch_end(error.step, {'loss': math.nan})
        return bool(told)

    def state(self) -> dict[str, Any]:
        """What the callbacks have learnt since `begin`, as JSON holds it.

        These are the attributes that hold plain numbers, aren't arguments of the constructor, and
        have changed: the `best` and `wait` of Keras's callbacks, say. `lists` has the rest.
        """
        if not self.callbacks:
            return {}
        return {
            'callbacks': [
                {
                    'class': type(callback).__name__,
                    'arguments': _arguments(callback),
                    'ended': callback is self._ended_by,
                    'known': _changed(before, _known(callback)),
                    'lists': {name: place for name, place, _ in self._lists(callback)},
                }
                for callback, before in zip(self.callbacks, self._at_begin, strict=True)
            ],
        }

    def lists(self) -> dict[str, list[np.ndarray]]:
        """The lists of weights that callbacks keep, such as `best_weights`, by names for a file."""
        return {
            list_name(number, name): values
            for number, callback in enumerate(self.callbacks)
            for name, _, values in self._lists(callback)
        }

    def _lists(self, callback):
        """Name, place and arrays of each list of weights that a callback holds."""
        for name, values in vars(callback).items():
            # Of copies: a list of the model's own variables is up to date by itself.
            if isinstance(values, list) and all(isinstance(each, np.ndarray) for each in values):
                shapes = [value.shape for value in values]
                for place, variables in self._places.items():
                    if shapes and shapes == [tuple(variable.shape) for variable in variables]:
                        yield name, place, values
                        break


def list_name(number: int, name: str) -> str:
    """The name in the checkpoint of a list that the callback of a number keeps."""
    return f'callback_{number}_{name}'


def _changed(before, now):
    return {
        name: value
        for name, value in now.items()
        if name not in before or not _same(before[name], value)
    }


def _same(a, b):
    return type(a) is type(b) and (a == b or (a != a and b != b))


def _known(callback):
    """The plain numbers among a callback's attributes that aren't its constructor's arguments."""
    arguments = _argument_names(callback)
    return {
        name: _plain(value)
        for name, value in vars(callback).items()
        if name not in arguments and (value is None or isinstance(_plain(value), numbers.Real))
    }


def _arguments(callback):
    """The plain ones of the arguments that a callback was made with, as JSON holds them."""
    plain = {
        name: _plain(getattr(callback, name, None)) for name in sorted(_argument_names(callback))
    }
    # Without a sign: Keras's callbacks turn that of `min_delta` once they know their mode.
    return {
        name: abs(value) if isinstance(value, numbers.Real) else value
        for name, value in plain.items()
        if value is None or isinstance(value, numbers.Real | str)
    }


def _argument_names(callback):
    return {
        name
        for kind in type(callback).__mro__
        if '__init__' in vars(kind) and kind is not object
        for name in inspect.signature(kind).parameters
    }


def _plain(value):
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        return value.item()
    return value
