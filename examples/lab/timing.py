"""Seconds of a training step, of several networks in turn."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import dawnbench
import fitting
import keras

from fenwicks import data, training
from fenwicks.kernels import device


def prepare(
    model: keras.Model, batch_size: int, steps: int, seed: int, dataset: data.Dataset
) -> training.Trainer:
    """A Trainer that has the data of some steps and has taken one.

    Args:
        model: not used before.
        batch_size: images in a step.
        steps: how many.
        seed: of the augmentation.
        dataset: with images for as many steps.
    """
    trainer = fitting.make_trainer(
        model, dawnbench.optimizer(0.1, steps), batch_size, seed, dataset
    )
    count = batch_size * steps
    trainer.load(dataset.train_images[:count], dataset.train_labels[:count])
    # As profile_step.py does: operations within functions of their own have no place in the code.
    with device.override(in_place=True):
        trainer.compile()
    trainer.run_steps(0, 0, 1)  # prepares kernels and allocates memory
    return trainer


def in_turns(
    trainers: Mapping[str, training.Trainer], steps: int, turns: int
) -> dict[str, list[float]]:
    """Seconds of a step of each trainer, in each turn.

    They alternate, and so does who is first: a change of the machine's speed affects all alike.
    """
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    for turn in range(turns):
        for name in sorted(trainers, reverse=turn % 2 == 1):
            began = time.perf_counter()
            trainers[name].run_steps(0, 0, steps)
            seconds[name].append((time.perf_counter() - began) / steps)
    return seconds


def ratios(runs: Sequence[Mapping[str, Any]], name: str, other: str) -> list[float]:
    """How many times as long as a step of `other` one of `name` takes, in each turn of each run."""
    return [
        long / short
        for run in runs
        for long, short in zip(run['seconds'][name], run['seconds'][other], strict=True)
    ]
