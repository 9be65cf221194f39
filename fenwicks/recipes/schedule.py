"""When a recipe's learning rate bends, and when its kernels are scaled, in steps."""

from __future__ import annotations

import math
from typing import Any


def normalization_steps(recipe: Any, steps_per_epoch: int) -> list[int]:
    """The steps, from 0, at which Muon scales a recipe's kernels to their norm."""
    # As in its publication progress counts until the rate, without its floor, would be 0.
    fall = recipe.epochs - recipe.plateau_epochs - recipe.warmup_epochs
    end = recipe.warmup_epochs + fall / (1 - min(recipe.plateau_share, 0.99))
    if fall <= 0:
        end = recipe.epochs  # the rate never falls
    steps = [-1]
    for step in range(recipe.total_steps(steps_per_epoch)):
        progress = (step + 1) / (end * steps_per_epoch)
        if step - steps[-1] >= recipe.normalize_every + int(
            recipe.normalize_every_growth * progress
        ):
            steps.append(step)
    return steps[1:]


def knots(recipe: Any, steps_per_epoch: int) -> list[tuple[float, float]]:
    """The corners `(step, share of the peak rate)` of a recipe's schedule, in rising steps."""
    end = recipe.total_steps(steps_per_epoch)
    corners: list[tuple[float, float]] = [(0, 1.0)]
    if recipe.warmup_epochs:
        peak = math.floor(recipe.warmup_epochs * steps_per_epoch + 0.5)
        corners = [(0, recipe.start_share), (peak, 1.0)]
    if recipe.plateau_epochs:
        plateau = (recipe.epochs - recipe.plateau_epochs) * steps_per_epoch
        corners.append((plateau, recipe.plateau_share))
    corners.append((end, recipe.plateau_share))
    placed: list[tuple[float, float]] = []
    for step, share in corners:
        placed.append((max(step, placed[-1][0] + 1) if placed else step, share))
    return placed
