"""The ablation: the grid, what its runs say, and how it is printed and drawn."""

import math

import pytest

from fenwicks import ablation, recipes
from fenwicks.ablation import Arm


def run(recipe, accuracy, seconds=10.0):
    return {'recipe': recipe, 'epochs': 8, 'test_accuracy': accuracy, 'train_seconds': seconds}


ARMS = [Arm('page24'), Arm('page24', added='celu'), Arm('page24', added='whitening')]
RUNS = [
    *(run('page24', accuracy) for accuracy in (0.60, 0.61, 0.62)),
    *(run('page24+celu', accuracy) for accuracy in (0.70, 0.71, 0.72)),
    *(run('page24+whitening', accuracy, 20.0) for accuracy in (0.61, 0.62)),
]


# Too few to resolve what is added.
REMOVED = [*ARMS[::2], Arm('page10'), Arm('page10', removed='celu')]
REMOVED_RUNS = [
    *RUNS[:3],
    *RUNS[6:],
    *(run('page10', accuracy) for accuracy in (0.70, 0.71)),
    *(run('page10-celu', accuracy) for accuracy in (0.60, 0.61)),
]


def test_the_grid_adds_and_takes_every_trick():
    arms = ablation.grid()
    assert [arm.added for arm in arms if arm.added] == [
        name for name, trick in recipes.TRICKS.items() if not trick.network
    ]
    assert [arm.removed for arm in arms if arm.removed] == list(recipes.PRESETS['page10'].tricks)
    assert [arm for arm in arms if not arm.trick] == [Arm('page24'), Arm('page10')]
    for arm in arms:
        assert arm.recipe().name == arm.name
        assert (arm.recipe() == recipes.get(arm.preset)) == (not arm.trick)


def test_the_grid_adds_no_trick_that_contradicts_the_baseline():
    arms = ablation.grid('page14', 'page10')  # has whitening already, and neither average nor views
    assert [arm.added for arm in arms if arm.added] == [
        *('ema', 'flip_tta', 'alternating_flip', 'growing_images', 'jitter', 'six_view_tta'),
        *('doubtful_tta', 'lookahead', 'tail'),
    ]
    assert [arm.removed for arm in arms if arm.removed] == ['ema', 'flip_tta']


def test_a_grid_that_only_removes():
    arms = ablation.grid('', 'speed94')
    assert arms[0] == Arm('speed94')
    assert [arm.removed for arm in arms[1:]] == list(recipes.PRESETS['speed94'].tricks)
    for arm in arms:
        assert arm.recipe().name == arm.name


@pytest.mark.parametrize('kind', [set, dict.fromkeys, tuple])
def test_tricks_of_any_kind(kind):
    assert [arm.trick for arm in ablation.grid('', tricks=kind(['celu']))] == ['', 'celu']


def test_a_text_is_no_list_of_tricks():
    with pytest.raises(ValueError, match=r'^`tricks` must '):
        ablation.grid(tricks='celu')


def test_a_grid_without_tricks():
    with pytest.raises(ValueError) as raised:
        ablation.grid('page10', 'page24')
    assert str(raised.value) == (
        '`full` must be a recipe with more tricks than page10. Received: full=page24'
    )


def test_means_differences_and_errors():
    plain, celu, whitening = ablation.summarize(ARMS, RUNS)
    # Variances 1, 1 and 0.5 with 2, 2 and 1 degrees of freedom.
    deviation = math.sqrt((2 * 1 + 2 * 1 + 1 * 0.5) / 5)
    assert (plain.n, celu.n, whitening.n) == (3, 3, 2)
    assert plain.mean == pytest.approx(61)
    assert (plain.difference, plain.resolved) == (0, False)
    assert plain.error == pytest.approx(2 * deviation / math.sqrt(3))
    assert celu.difference == pytest.approx(10)
    assert celu.error == pytest.approx(2 * deviation * math.sqrt(1 / 3 + 1 / 3))
    assert celu.resolved
    assert whitening.difference == pytest.approx(0.5)
    assert whitening.error == pytest.approx(2 * deviation * math.sqrt(1 / 2 + 1 / 3))
    assert not whitening.resolved
    assert whitening.seconds == 20


def test_one_run_of_each_resolves_nothing():
    rows = ablation.summarize(ARMS[:2], [RUNS[0], RUNS[3]])
    assert [row.error for row in rows] == [math.inf, math.inf]
    assert not any(row.resolved for row in rows)
    plain, celu = ablation.comparison_table(rows).splitlines()[2:]
    assert plain.startswith('| **page24** | 1 | 60.00 |  |')
    assert celu.startswith('| page24 + celu | 1 | 70.00 | (+10.00) |')


def test_arms_without_runs_are_left_out_and_diverged_ones_counted():
    runs = [*RUNS[:6], run('page24+celu', None)]
    rows = ablation.summarize(ARMS, runs)
    assert [(row.arm.trick, row.n, row.diverged) for row in rows] == [('', 3, 0), ('celu', 3, 1)]


def test_a_preset_that_is_no_arm_is_compared_with_all_the_same():
    everything = ablation.summarize(ARMS[:2], RUNS[:6])
    assert ablation.summarize(ARMS[1:2], RUNS[:6]) == everything[1:]


def test_arms_that_always_diverge_have_rows():
    runs = [*RUNS[:3], run('page24+celu', None), run('page24+celu', None)]
    rows = ablation.summarize(ARMS, runs)
    assert [(row.arm.trick, row.n, row.diverged) for row in rows] == [('', 3, 0), ('celu', 0, 2)]
    line = ablation.comparison_table(rows).splitlines()[3]
    assert line == '| page24 + celu | 0 (2 diverged) | diverged | diverged |  |'
    assert '| diverged, n=2 |' in ablation.tricks_table(rows)
    # And those of a preset that always does can be compared with nothing.
    runs = [run('page24', None), *RUNS[3:6]]
    plain, celu = ablation.summarize(ARMS, runs)
    assert (plain.n, plain.diverged, celu.n) == (0, 1, 3)
    assert not celu.resolved
    assert '| page24 + celu | 3 | 71.00 | diverged | 10 |' in ablation.comparison_table(
        [plain, celu]
    )


def test_runs_of_different_lengths():
    with pytest.raises(ValueError, match=r'one number of epochs: .* page24 with 8 and 2$'):
        ablation.summarize(ARMS, [*RUNS, {**RUNS[0], 'epochs': 2}])


def test_a_log_of_something_else():
    with pytest.raises(ValueError, match=r'of an ablation\. Received: a line without epochs, '):
        ablation.summarize(ARMS, [{'benchmark': 'throughput', 'test_accuracy': 0.9}])


@pytest.mark.parametrize(
    ('key', 'value'),
    [('train_seconds', None), ('epochs', None), ('recipe', None), ('test_accuracy', True)],
)
def test_a_run_of_an_ablation_has_all_its_values(key, value):
    with pytest.raises(ValueError, match=f'Received: a line with {key}={value}$'):
        ablation.summarize(ARMS, [*RUNS, {**RUNS[0], key: value}])


def test_the_table_marks_what_is_not_resolved():
    lines = ablation.comparison_table(ablation.summarize(ARMS, RUNS)).splitlines()
    assert lines[2].startswith('| **page24** | 3 | 61.00 ± 1.10 |')
    assert lines[3] == '| page24 + celu | 3 | 71.00 | +10.00 ± 1.55 | 10 |'
    assert lines[4] == '| page24 + whitening | 2 | 61.50 | (+0.50 ± 1.73) | 20 |'


def test_the_table_of_tricks_says_what_was_not_measured():
    table = ablation.tricks_table(ablation.summarize(ARMS, RUNS))
    lines = {line.split('`')[1]: line for line in table.splitlines()[2:]}
    assert set(lines) == {name for name, trick in recipes.TRICKS.items() if trick.published}
    assert lines['celu'].endswith('| +10.00 ± 1.55, n=3 |')
    assert lines['whitening'].endswith('| (+0.50 ± 1.73), n=2 |')
    assert 'layers.CELU' in lines['celu']
    assert lines['growing_images'].endswith('| not measured |')
    both = ablation.tricks_table(ablation.summarize(REMOVED, REMOVED_RUNS))
    header = both.splitlines()[0]
    assert header.endswith('| published | `page24` with it | `page10` without it |')
