"""A callback that averages weights while Keras's own `fit` trains them."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import ops

from fenwicks import _keras, _keras_optimizers
from fenwicks._checks import flag
from fenwicks._typing import Tensor
from fenwicks.optimizers.averaging import (
    Rule,
    check_rule,
    float_variables,
    frozen_variables,
    initial_averages,
    warn_if_none,
)


class WeightAveraging(keras.callbacks.Callback):
    """Averages the weights during Keras's `fit`, and validates the averages.

    After every `rule.every`-th batch the averages are updated. Validation sees the averaged model,
    and so do all callbacks at the end of a validated epoch, whatever their order: `ModelCheckpoint`
    saves, and `EarlyStopping(restore_best_weights=True)` restores, the weights that were validated.
    Training then goes on from its own weights. At the end of an epoch without validation callbacks
    see the training weights.

    After the last epoch, before any callback's `on_train_end`, the averages are put in place (with
    `swap_at_end`) or the training weights. Weights that another callback restores in its
    `on_train_end` therefore stay, whatever the order of the callbacks: `EarlyStopping` with
    `restore_best_weights=True` ends with the weights of the best epoch as it saw them, averages
    where the epoch was validated and training weights where it was not.

    With `swap_at_end`, `restore()` then puts the last training weights back, and a further `fit`
    with the same callback continues from them; without it a further `fit` continues from the
    weights in place. The averages and the count of steps go on as they were. A new callback starts
    from the model as it is. A `fit` that was interrupted in a validation, or before the next epoch
    began, leaves the averages in place: call `restore()` before a `fit` without this callback.

    `keras.callbacks.BackupAndRestore` saves neither the averages nor, where they are validated, the
    training weights: resuming an interrupted `fit` with it is refused. That is noticed by the
    resumed epoch, or within the first epoch by the optimizer's count of updates.

    Args:
        rule: `EMA(...)`, `Lookahead(...)`, or another object with their attributes and `update`.
        swap_at_end: bool, whether the averages are put in place after the last epoch. If not,
            `use_averages()` puts them there.

    Raises:
        ValueError: `rule` is not a rule; or, when `fit` starts, `rule.every` is not a multiple of
            the model's `steps_per_execution`, the callback has averaged another model, the
            optimizer averages weights too (`use_ema`), or the model is not built and the rule
            needs the weights with which training begins (`Lookahead`); or `fit` is resumed.

    Example:

    ```python
    averaging = fenwicks.optimizers.WeightAveraging(fenwicks.optimizers.EMA(0.99, every=5))
    model.fit(images, labels, epochs=10, callbacks=[averaging])
    model.evaluate(test_images, test_labels)  # the averaged model
    averaging.restore()
    model.evaluate(test_images, test_labels)  # the weights of the last step
    ```
    """

    def __init__(self, rule: Rule, swap_at_end: bool = True) -> None:
        super().__init__()
        check_rule('rule', rule)
        self.rule = rule
        self.swap_at_end = flag('swap_at_end', swap_at_end)
        self.step = 0
        self._variables: list[keras.Variable] = []
        self._averages: Sequence[Tensor] = []
        self._raw: list[Tensor] | None = None  # the training weights, while others are in place
        self._fitting = self._within_epoch = self._evaluating = False
        self._updates: int | None = None  # made by the optimizer before `fit`

    def set_model(self, model: keras.Model) -> None:
        """Notes the optimizer's count of updates, which a callback that resumes a `fit` changes."""
        super().set_model(model)
        self._evaluating = True  # unless `on_train_begin` follows
        if self.step == 0:
            self._updates = _updates(model)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Starts the averages, or continues them."""
        together = getattr(self.model, 'steps_per_execution', 1)
        if self.rule.every % together:
            raise ValueError(
                "`every` must be a multiple of the model's steps_per_execution. "
                f'Received: every={self.rule.every}, steps_per_execution={together}'
            )
        if _averages_by_itself(self.model.optimizer):
            raise ValueError(
                'WeightAveraging must be the only average: leave out `use_ema` of the optimizer, '
                'which replaces the weights at the end of `fit`. Received: use_ema=True'
            )
        if not self.model.built:
            self._check_not_needed_yet()
        if not _keras.call_after_last_epoch(self.model, self._finish):
            raise ValueError(
                'WeightAveraging must be the only average: train once for each rule, from the same '
                'seed. Received: two WeightAveraging callbacks'
            )
        self._find_variables()
        self.restore()
        self._restart_frozen()
        self._fitting, self._within_epoch, self._evaluating = True, False, False

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Puts the training weights back in place, and counts the steps from here."""
        resumed = epoch and epoch == _keras.resumed_epoch(self.model)
        if self.step == 0 and (resumed or _updates(self.model) != self._updates):
            raise ValueError(
                'WeightAveraging must see the training from its start: BackupAndRestore does not '
                "save the averages, so leave one of the two out, or resume a Trainer's checkpoint. "
                f'Received: a `fit` resumed at epoch {epoch}'
            )
        self.restore()
        self._within_epoch = True
        self._epoch_start = self.step

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Puts the training weights back after an evaluation within the epoch."""
        self.restore()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Updates the averages after every `every`-th step."""
        if not batch or not self._variables:
            self._find_variables()  # `fit` builds some models in their first step
        before, self.step = self.step, self._epoch_start + batch + 1
        # Several steps may have run in one execution, fewer at the end of an epoch.
        if before // self.rule.every == self.step // self.rule.every:
            return
        self._sync()
        values: Sequence[Tensor] = [ops.convert_to_tensor(v) for v in self._variables]
        self._averages, values = self.rule.update(self._averages, values, self.step - 1)
        if self.rule.replaces_values:
            self._assign(values)

    def on_test_begin(self, logs: dict | None = None) -> None:
        """Puts the averages in place."""
        self._swapped_for_test = self._raw is None and bool(self._averages)
        if self._swapped_for_test:
            self.use_averages()

    def on_test_end(self, logs: dict | None = None) -> None:
        """Puts the training weights back after an evaluation that isn't part of `fit`.

        In `fit` the averages stay until the next epoch, so that all callbacks see at the end of
        this one what was validated.
        """
        if self._swapped_for_test and (self._evaluating or not self._fitting):
            self.restore()
        self._evaluating = False

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Notes that the epoch was not interrupted."""
        self._within_epoch = False

    def on_train_end(self, logs: dict | None = None) -> None:
        """Leaves in place what is there, but for a `fit` of no epoch or a loop of your own."""
        self._finish()

    def _finish(self) -> None:
        """Puts the averages in place, if so chosen, or the training weights; once in a `fit`.

        Before any `on_train_end`: afterwards nobody could tell what another callback has restored
        from what was in place, where the best weights are the last.
        """
        if not self._fitting or self._within_epoch:
            return
        self._fitting = False
        warn_if_none(self.rule, self.step)
        if self._raw is None:
            if self.swap_at_end:
                self.use_averages()
        # Unless a callback has put others in place at the end of a validated epoch.
        elif not self.swap_at_end and self._hold(self._averages):
            self.restore()

    def use_averages(self) -> None:
        """Puts the averages in place of the training weights, which are kept for `restore`.

        Before the first update there are no averages, and the weights stay.

        Raises:
            ValueError: the callback has not been used in a `fit`.
        """
        if not self._averages:
            raise ValueError('averages come with `fit`: train the model with this callback first')
        if self.step < self.rule.every:
            return
        self._sync()
        if self._raw is None:
            self._raw = self._copies()
        self._assign([ops.copy(average) for average in self._averages])

    def restore(self) -> None:
        """Puts the training weights back in place, unless they are in place already."""
        if self._raw is not None:
            self._sync()
            self._assign(self._raw)
            self._raw = None

    def _find_variables(self) -> None:
        """Lists what is averaged, and starts the averages of variables that are new."""
        variables = float_variables(self.model)
        known = {id(v): a for v, a in zip(self._variables, self._averages, strict=True)}
        if not known.keys() <= {id(variable) for variable in variables}:
            raise ValueError(
                'a WeightAveraging callback must stay with its model: make another one. '
                f'Received: model={self.model.name}'
            )
        new = [variable for variable in variables if id(variable) not in known]
        if new and self._fitting:
            self._check_not_needed_yet()
            self._sync()
        started = dict(zip(map(id, new), initial_averages(new), strict=True))
        self._variables = variables
        self._averages = [{**known, **started}[id(variable)] for variable in variables]

    def _restart_frozen(self) -> None:
        """Sets the averages of frozen layers to their values, which the rule might move."""
        if self.rule.replaces_values:
            frozen = set(map(id, frozen_variables(self.model)))
            self._averages = [
                initial_averages([v])[0] if id(v) in frozen else average
                for v, average in zip(self._variables, self._averages, strict=True)
            ]

    def _check_not_needed_yet(self) -> None:
        if getattr(self.rule, 'needs_initial_values', True):
            raise ValueError(
                f'{type(self.rule).__name__} starts from the weights with which training begins, '
                'so the model must be built before `fit`: call it on a batch, or give it an Input. '
                f'Received: model={self.model.name}, which is built by the first step'
            )

    def _copies(self) -> list[Tensor]:
        return [ops.copy(ops.convert_to_tensor(variable)) for variable in self._variables]

    def _hold(self, values: Sequence[Tensor]) -> bool:
        """Whether the variables still have these values."""
        return all(
            _equal(ops.convert_to_tensor(variable), ops.cast(value, variable.dtype))
            for variable, value in zip(self._variables, values, strict=True)
        )

    def _assign(self, values: Sequence[Tensor]) -> None:
        for variable, value in zip(self._variables, values, strict=True):
            variable.assign(ops.cast(value, variable.dtype))

    def _sync(self) -> None:
        # On JAX the compiled step holds the state of the model while `fit` runs.
        if hasattr(self.model, 'jax_state_sync'):
            self.model.jax_state_sync()


def _equal(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are equal, NaN included."""
    both_nan = ops.logical_and(ops.isnan(a), ops.isnan(b))
    return bool(ops.all(ops.logical_or(ops.equal(a, b), both_nan)))


def _updates(model: keras.Model) -> int | None:
    """How many updates the model's optimizer has made."""
    optimizer = model.optimizer
    return None if optimizer is None else int(ops.convert_to_numpy(optimizer.iterations))


def _averages_by_itself(optimizer: keras.optimizers.Optimizer | None) -> bool:
    """Whether the optimizer, or one within it, keeps averages of the weights."""
    if optimizer is None:
        return False
    return any(
        getattr(x, 'use_ema', False) for x in _keras_optimizers.updating_optimizers(optimizer)
    )
