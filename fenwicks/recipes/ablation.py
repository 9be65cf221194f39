"""What each trick is worth: the recipes to compare, and the comparison of their runs."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

from fenwicks.recipes.presets import PRESETS
from fenwicks.recipes.tricks import TRICKS, find


@dataclasses.dataclass(frozen=True)
class Arm:
    """One recipe of the grid, beside the one that it is compared with.

    Attributes:
        preset: name of the recipe that it starts from.
        added: the trick added to it, if any.
        removed: the trick taken from it, if any.
    """

    preset: str
    added: str = ''
    removed: str = ''

    @property
    def trick(self) -> str:
        """The trick that tells the arm from its preset; none for the preset itself."""
        return self.added or self.removed

    @property
    def recipe(self) -> str:
        """The recipe's name, as `recipes.get` makes it."""
        return (
            self.preset
            + (f'+{self.added}' if self.added else '')
            + (f'-{self.removed}' if self.removed else '')
        )


def grid(
    baseline: str = 'page24', full: str = 'page10', tricks: Sequence[str] = tuple(TRICKS)
) -> list[Arm]:
    """The baseline, each trick added to it, the full recipe, and each trick taken from it.

    What is added is every trick that the baseline lacks and that touches none of its own; what is
    taken away are those that the baseline lacks.

    Args:
        baseline: name of a preset without the tricks.
        full: name of a preset with them.
        tricks: names of those of interest.

    Raises:
        ValueError: a trick is unknown or named twice, or `full` has no trick that `baseline` lacks.
    """
    for trick in tricks:
        find(trick)
        if tricks.count(trick) > 1:
            raise ValueError(f'`tricks` must name each once. Received: {trick}')
    own = PRESETS[baseline].tricks
    removable = [trick for trick in PRESETS[full].tricks if trick not in own]
    if not removable:
        raise ValueError(
            f'`full` must be a recipe with more tricks than {baseline}. Received: full={full}'
        )
    touched = {field for trick in own for field in TRICKS[trick].patch}
    addable = [trick for trick in tricks if not touched & set(TRICKS[trick].patch)]
    return [
        Arm(baseline),
        *(Arm(baseline, added=trick) for trick in addable),
        Arm(full),
        *(Arm(full, removed=trick) for trick in removable if trick in tricks),
    ]


@dataclasses.dataclass(frozen=True)
class Row:
    """What the runs of one arm say.

    Attributes:
        arm: the arm.
        n: its number of runs that came to an end.
        mean: mean test accuracy in percent; not a number where all runs diverged, nor are then
            the difference and the seconds.
        difference: mean less that of the arm's preset, in points; for a preset itself 0.
        error: two standard errors of the difference (of the mean, for a preset); infinite where
            no arm was run twice.
        seconds: median seconds of training.
        diverged: number of further runs whose loss became infinite.
    """

    arm: Arm
    n: int
    mean: float
    difference: float
    error: float
    seconds: float
    diverged: int = 0

    @property
    def resolved(self) -> bool:
        """Whether the difference is larger than its error."""
        return bool(self.arm.trick) and abs(self.difference) > self.error


def summarize(arms: Sequence[Arm], runs: Iterable[Mapping]) -> list[Row]:
    """A row for each arm that has runs, as has its preset, in the order of the arms.

    The spread of a single run is estimated from all arms together, since a few runs of one arm
    say little of it: `s**2` is the mean over the arms of their variances, weighted by their
    degrees of freedom, and a difference of means has the error `2 * s * sqrt(1/n + 1/n_preset)`.

    Args:
        arms: the grid.
        runs: dicts with at least `recipe`, `test_accuracy` (a fraction, `None` of a run that
            diverged, which counts in no mean), `epochs` and `train_seconds`.

    Raises:
        ValueError: a run is none of an ablation, or runs of one recipe differ in their epochs.

    Example:

    >>> from fenwicks.recipes.ablation import Arm, summarize
    >>> common = {'epochs': 24, 'train_seconds': 9}
    >>> plain = [{'recipe': 'page24', 'test_accuracy': a, **common} for a in (0.6, 0.62)]
    >>> celu = [{'recipe': 'page24+celu', 'test_accuracy': a, **common} for a in (0.7, 0.72)]
    >>> row = summarize([Arm('page24'), Arm('page24', added='celu')], plain + celu)[1]
    >>> round(row.mean, 2), round(row.difference, 2), round(row.error, 2), row.resolved
    (71.0, 10.0, 2.83, True)
    """
    runs = list(runs)
    _check_runs(runs)
    diverged = [run['recipe'] for run in runs if run['test_accuracy'] is None]
    runs = [run for run in runs if run['test_accuracy'] is not None]
    found = {arm: [run for run in runs if run['recipe'] == arm.recipe] for arm in arms}
    scores = {arm: [100 * run['test_accuracy'] for run in found[arm]] for arm in arms}
    freedom = sum(max(0, len(values) - 1) for values in scores.values())
    squares = sum(
        statistics.variance(values) * (len(values) - 1)
        for values in scores.values()
        if len(values) > 1
    )
    deviation = math.sqrt(squares / freedom) if freedom else math.inf
    rows = []
    for arm in arms:
        values, preset = scores[arm], scores.get(Arm(arm.preset), [])
        failed = diverged.count(arm.recipe)
        if not (values or failed) or not (preset or diverged.count(arm.preset)):
            continue
        mean, preset_mean = (statistics.mean(each or [math.nan]) for each in (values, preset))
        share = 1 / len(values) + (1 / len(preset) if arm.trick else 0) if values and preset else 0
        rows.append(
            Row(
                arm=arm,
                n=len(values),
                mean=mean,
                difference=mean - preset_mean,
                error=2 * deviation * math.sqrt(share) if share else math.inf,
                seconds=statistics.median(
                    [run['train_seconds'] for run in found[arm]] or [math.nan]
                ),
                diverged=failed,
            )
        )
    return rows


def _check_runs(runs):
    """Raises unless the runs are an ablation's, and those of each recipe of one length."""
    epochs = {}
    for run in runs:
        missing = {'recipe', 'epochs', 'test_accuracy'} - run.keys()
        if missing:
            raise ValueError(
                'the log must hold the runs of an ablation. '
                f'Received: a line without {", ".join(sorted(missing))}'
            )
        known = epochs.setdefault(run['recipe'], run['epochs'])
        if run['epochs'] != known:
            raise ValueError(
                f"a recipe's runs must have one number of epochs: pass another log. "
                f'Received: {run["recipe"]} with {known} and {run["epochs"]}'
            )
