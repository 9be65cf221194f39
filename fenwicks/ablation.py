"""What each trick is worth: the recipes to compare, and the comparison of their runs."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fenwicks._checks import sequence
from fenwicks.recipes.presets import PRESETS, get
from fenwicks.recipes.recipe import Recipe
from fenwicks.recipes.tricks import TRICKS, find
from fenwicks.runlog import markdown


@dataclasses.dataclass(frozen=True)
class Arm:
    """One recipe of the grid, and the preset that it is compared with.

    Attributes:
        preset: name of the recipe that it starts from.
        added: the trick added to it, if any.
        removed: the trick removed from it, if any.
    """

    preset: str
    added: str = ''
    removed: str = ''

    @property
    def trick(self) -> str:
        """The trick in which the arm differs from its preset; empty for the preset itself."""
        return self.added or self.removed

    @property
    def name(self) -> str:
        """The name of the arm's recipe, as `recipes.get` makes it."""
        added = f'+{self.added}' if self.added else ''
        removed = f'-{self.removed}' if self.removed else ''
        return self.preset + removed + added

    def recipe(self) -> Recipe:
        """The arm's recipe."""
        return get(
            self.preset,
            added=[self.added] if self.added else [],
            removed=[self.removed] if self.removed else [],
        )


def grid(
    baseline: str = 'page24', full: str = 'page10', tricks: Sequence[str] = tuple(TRICKS)
) -> list[Arm]:
    """The baseline, each trick added to it, the full recipe, and each trick removed from it.

    Added are the tricks that `recipes.get` can add to the baseline; removed are those that the
    baseline lacks.

    Args:
        baseline: name of a preset without the tricks; empty where tricks are only removed.
        full: name of a preset with them.
        tricks: names of the tricks of interest.

    Raises:
        ValueError: a name is unknown, a trick is named twice, or `full` has no trick that
            `baseline` lacks.
    """
    tricks = sequence('tricks', tricks, 'names of tricks')
    for trick in tricks:
        find(trick)
        if tricks.count(trick) > 1:
            raise ValueError(f'`tricks` must name each once. Received: {trick}')
    for argument, preset in (('baseline', baseline), ('full', full)):
        if preset not in PRESETS and (argument, preset) != ('baseline', ''):
            raise ValueError(
                f'`{argument}` must be one of {", ".join(PRESETS)}. Received: {argument}={preset}'
            )
    present = PRESETS[baseline].tricks if baseline else ()
    removable = [trick for trick in PRESETS[full].tricks if trick not in present]
    if not removable:
        more = f'more tricks than {baseline}' if baseline else 'tricks'
        raise ValueError(f'`full` must be a recipe with {more}. Received: full={full}')
    added = [Arm(baseline, added=trick) for trick in tricks if _can_be_added(trick, baseline)]
    return [
        *([Arm(baseline), *added] if baseline else []),
        Arm(full),
        *(Arm(full, removed=trick) for trick in removable if trick in tricks),
    ]


def _can_be_added(trick, preset):
    try:
        get(preset, added=[trick])
    except ValueError:
        return False
    return True


@dataclasses.dataclass(frozen=True)
class Row:
    """The runs of one arm, summarized.

    Attributes:
        arm: the arm.
        n: number of runs that finished.
        mean: mean test accuracy in percent. NaN where all runs diverged, and so are `difference`
            and `seconds`.
        difference: mean minus that of the arm's preset, in points; 0 for a preset itself.
        error: two standard errors of the difference (of the mean, for a preset); infinite where
            no arm was run twice.
        seconds: median seconds of training, of the runs that had the machine to themselves. NaN
            where none had.
        diverged: number of further runs that diverged.
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
    """A row for each arm that has runs and whose preset has some, in the order of the arms.

    The standard deviation of a single run is estimated from all arms and presets together, since a
    few runs of one arm say little about it: `s**2` is the mean of their variances, weighted by
    their degrees of freedom. A difference of means has the error `2 * s * sqrt(1/n + 1/n_preset)`.

    Args:
        arms: the grid.
        runs: dicts with at least `recipe`, `test_accuracy` (a fraction; `None` for a run that
            diverged, which is left out of the mean), `epochs` and `train_seconds`. The seconds of
            a run whose `shared_machine` is true don't count.

    Raises:
        ValueError: a run isn't one of an ablation, or runs of one recipe differ in their epochs.

    Example:

    >>> from fenwicks.ablation import Arm, summarize
    >>> common = {'epochs': 24, 'train_seconds': 9}
    >>> plain = [{'recipe': 'page24', 'test_accuracy': a, **common} for a in (0.6, 0.62)]
    >>> celu = [{'recipe': 'page24+celu', 'test_accuracy': a, **common} for a in (0.7, 0.72)]
    >>> row = summarize([Arm('page24'), Arm('page24', added='celu')], plain + celu)[1]
    >>> round(row.mean, 2), round(row.difference, 2), round(row.error, 2), row.resolved
    (71.0, 10.0, 2.83, True)
    """
    runs = list(runs)
    _check_runs(runs)
    found: dict[str, list] = {name: [] for arm in arms for name in (arm.preset, arm.name)}
    failed = dict.fromkeys(found, 0)
    for run in runs:
        if run['recipe'] in found:
            if run['test_accuracy'] is None:
                failed[run['recipe']] += 1
            else:
                found[run['recipe']].append(run)
    scores = {name: [100 * run['test_accuracy'] for run in each] for name, each in found.items()}
    freedom = sum(max(0, len(values) - 1) for values in scores.values())
    squares = sum(
        statistics.variance(values) * (len(values) - 1)
        for values in scores.values()
        if len(values) > 1
    )
    deviation = math.sqrt(squares / freedom) if freedom else math.inf
    rows = []
    for arm in arms:
        values, preset = scores[arm.name], scores[arm.preset]
        if not (values or failed[arm.name]) or not (preset or failed[arm.preset]):
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
                seconds=statistics.median(_seconds_alone(found[arm.name]) or [math.nan]),
                diverged=failed[arm.name],
            )
        )
    return rows


def _seconds_alone(runs):
    return [run['train_seconds'] for run in runs if not run.get('shared_machine')]


_KINDS: dict[str, Any] = {
    'recipe': str,
    'epochs': int | float,
    'test_accuracy': int | float,
    'train_seconds': int | float,
}


def _check_runs(runs):
    """Raises unless the runs are of an ablation, and those of a recipe have as many epochs."""
    epochs: dict[str, int] = {}
    for run in runs:
        diverged = 'test_accuracy' in run and run['test_accuracy'] is None
        may_lack = {'test_accuracy', 'train_seconds'} if diverged else set()
        missing = _KINDS.keys() - run.keys() - may_lack
        if missing:
            raise ValueError(
                'the log must hold the runs of an ablation. '
                f'Received: a line without {", ".join(sorted(missing))}'
            )
        for key, kind in _KINDS.items():
            value = run.get(key)
            if value is None and key in may_lack:
                continue
            if isinstance(value, bool) or not isinstance(value, kind):
                raise ValueError(
                    'the log must hold the runs of an ablation. '
                    f'Received: a line with {key}={value!r}'
                )
        known = epochs.setdefault(run['recipe'], run['epochs'])
        if run['epochs'] != known:
            raise ValueError(
                f"a recipe's runs must have one number of epochs: pass another log. "
                f'Received: {run["recipe"]} with {known} and {run["epochs"]}'
            )


def difference(row: Row) -> str:
    """A row's difference and its error, in parentheses where the error is larger."""
    if math.isnan(row.difference):
        return 'diverged'
    text = f'{row.difference:+.2f}{_error(row)}'
    return text if row.resolved else f'({text})'


def mean(row: Row) -> str:
    """A row's mean; for a preset, which is compared with nothing, with its error."""
    if not row.n:
        return 'diverged'
    return f'{row.mean:.2f}{"" if row.arm.trick else _error(row)}'


def _error(row):
    return f' ± {row.error:.2f}' if math.isfinite(row.error) else ''


def comparison_table(rows: Sequence[Row]) -> str:
    """The rows of an ablation as a Markdown table."""
    cells = []
    for row in rows:
        arm = row.arm
        sign = f'{arm.preset} + ' if arm.added else f'{arm.preset} without '
        cells.append(
            [
                f'{sign}{arm.trick}' if arm.trick else f'**{arm.preset}**',
                f'{row.n}' + (f' ({row.diverged} diverged)' if row.diverged else ''),
                mean(row),
                difference(row) if arm.trick else '',
                '' if math.isnan(row.seconds) else _seconds_text(row.seconds),
            ]
        )
    header = ['trick', 'n', 'test accuracy, %', 'difference, points', 'training, s']
    return markdown(header, cells)


def _seconds_text(seconds):
    return f'{seconds:.0f}' if seconds >= 10 else f'{seconds:.2g}'


def tricks_table(rows: Sequence[Row]) -> str:
    """Tricks: what each does, where it is, what was published, what was measured here.

    Each preset to which tricks were added, or from which they were removed, has a column of
    differences. Tricks of which nothing was published by itself, and no difference is larger than
    its error, are left out.
    """
    found = {
        (row.arm.trick, row.arm.preset, bool(row.arm.added)): row for row in rows if row.arm.trick
    }
    columns = list(dict.fromkeys((preset, added) for _, preset, added in found))

    def measured(name, preset, added):
        row = found.get((name, preset, added))
        return f'{difference(row)}, n={row.n or row.diverged}' if row else 'not measured'

    cells = [
        [
            f'`{name}`',
            trick.summary,
            f'`{trick.symbol}`',
            trick.published or 'part of a record, not separately',
            *(measured(name, *column) for column in columns),
        ]
        for name, trick in TRICKS.items()
        if trick.published
        or any(found[name, *column].resolved for column in columns if (name, *column) in found)
    ]
    titles = [f'`{preset}` with{"" if added else "out"} it' for preset, added in columns]
    return markdown(['trick', 'what it does', 'in `fenwicks`', 'published', *titles], cells)
