"""Curves: the lines are the numbers that came in, on the axes that the labels name."""

import math

import keras
import numpy as np
import pytest

from fenwicks import ablation, plots, schedules
from fenwicks.training import History


def history(losses, **more):
    return [
        {'epoch': n + 1, 'train_loss': loss, **{key: value[n] for key, value in more.items()}}
        for n, loss in enumerate(losses)
    ]


def legend_texts(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_schedule_shows_each_step_that_a_training_takes():
    one_cycle = schedules.OneCycle(0.4, total_steps=40, warmup_steps=10)
    (axes,) = plots.schedule(one_cycle, 40, steps_per_epoch=8).axes
    (line,) = axes.lines
    np.testing.assert_allclose(line.get_xdata(), np.arange(40) / 8)
    np.testing.assert_allclose(line.get_ydata(), one_cycle(np.arange(40)))
    assert axes.get_xlabel() == 'epoch'
    assert axes.get_ylabel() == 'learning rate'
    assert axes.get_legend() is None
    assert axes.get_ylim()[0] == 0


def test_schedule_of_a_long_training_keeps_its_corners():
    peaked = schedules.PiecewiseLinear([(0, 0.0), (12_345, 1.0), (12_346, 0.2), (100_000, 0.0)])
    (axes,) = plots.schedule(peaked, 100_000).axes
    assert axes.lines[0].get_ydata().max() == 1.0
    assert len(axes.lines[0].get_xdata()) < 2000
    assert axes.get_xlabel() == 'step'


def test_a_line_of_one_point_is_seen():
    drawn = plots.schedule(lambda step: 0.1, 1), plots.learning_rate_finder([0.1], [2.0])
    for (axes,) in (figure.axes for figure in drawn):
        assert [line.get_marker() for line in axes.lines] == ['.']
    (axes,) = plots.schedule(lambda step: 0.1, 100).axes
    assert axes.lines[0].get_marker() == ''


def test_schedules_of_keras_and_plain_functions_are_named_in_a_legend():
    several = {
        'cosine': keras.optimizers.schedules.CosineDecay(0.4, 20),
        'drop': lambda step: 0.4 if step < 10 else 0.04,
    }
    (axes,) = plots.schedule(several, 20, label='rate').axes
    assert legend_texts(axes) == ['cosine', 'drop']
    assert axes.lines[0].get_ydata()[0] == pytest.approx(0.4)
    assert axes.lines[1].get_ydata().tolist() == [0.4] * 10 + [0.04] * 10
    assert axes.lines[0].get_linestyle() != axes.lines[1].get_linestyle()


def test_learning_curve_of_a_run_shows_its_numbers_in_percent():
    run = history([2.0, 1.0], train_accuracy=[0.5, 0.75], test_accuracy=[0.25, 0.5])
    (axes,) = plots.learning_curves(run, ['train_accuracy', 'test_accuracy']).axes
    train, test = axes.lines
    assert train.get_xdata().tolist() == [1, 2]
    assert train.get_ydata().tolist() == [50, 75]
    assert test.get_ydata().tolist() == [25, 50]
    assert axes.get_xlabel() == 'epoch'
    assert axes.get_ylabel() == 'accuracy, %'
    assert legend_texts(axes) == ['accuracy on training images', 'test accuracy']
    (axes,) = plots.learning_curves(run, 'train_loss').axes
    assert axes.get_ylabel() == 'loss on training images'
    assert axes.get_legend() is None


def test_learning_curves_of_many_runs_are_a_mean_within_two_standard_errors():
    runs = {'a': [history([2.0, 1.0]), history([4.0, 1.0])], 'b': history([3.0, 3.0])}
    (axes,) = plots.learning_curves(runs, ['train_loss']).axes
    assert [line.get_ydata().tolist() for line in axes.lines] == [[3, 1], [3, 3]]
    assert legend_texts(axes) == ['a', 'b']
    (band,) = axes.collections  # a single run has none
    heights = {y for x, y in band.get_paths()[0].vertices if x == 1}
    error = 2 * math.sqrt(2) / math.sqrt(2)
    assert sorted(heights) == pytest.approx([3 - error, 3 + error])


@pytest.mark.parametrize(
    ('runs', 'metrics', 'message'),
    [
        ([], ['train_loss'], '`runs` must hold a history of an epoch or more. Received: none'),
        ({'a': []}, ['train_loss'], '`runs` must hold a history of an epoch or more'),
        (history([1.0]), ['loss'], '`metrics` must be among those of all runs: train_loss. Rec'),
        (history([1.0]), [], '`metrics` must be among those of all runs: train_loss. Rec'),
        (
            {'a': [history([1.0]), history([1.0, 2.0])]},
            ['train_loss'],
            "`runs` of one name must have the same epochs. Received: 'a' with runs of the epochs "
            '1 to 1, 1 to 2',
        ),
        (
            history([1.0], train_accuracy=[1.0]),
            ['train_loss', 'train_accuracy'],
            '`metrics` must be all accuracies or none: they share an axis',
        ),
    ],
)
def test_learning_curves_refuse_what_they_cannot_draw(runs, metrics, message):
    with pytest.raises(ValueError) as raised:
        plots.learning_curves(runs, metrics)
    assert message in str(raised.value)


def test_learning_rate_finder_ends_where_the_loss_explodes():
    rates, losses = np.geomspace(1e-4, 1, 5), [2.3, 2.3, 1.3, 100.0, math.nan]
    (axes,) = plots.learning_rate_finder(rates, losses, suggestion=3e-3).axes
    curve, mark = axes.lines
    np.testing.assert_allclose(curve.get_xdata(), rates[:4])
    assert curve.get_ydata().tolist() == losses[:4]
    assert axes.get_xscale() == 'log'
    assert axes.get_ylim() == pytest.approx((1.05, 2.55))
    assert mark.get_xdata() == [3e-3, 3e-3]
    assert legend_texts(axes) == ['suggestion: 0.003']
    assert (axes.get_xlabel(), axes.get_ylabel()) == ('learning rate', 'loss')


@pytest.mark.parametrize(
    ('rates', 'losses', 'suggestion', 'message'),
    [
        ([0.1, 1], [2], None, '`losses` must be as many as the learning rates'),
        ([0.0, 1], [2, 1], None, '`learning_rates` must be finite numbers above 0'),
        ([0.1, 1], [2, 1], -1, '`suggestion` must be finite numbers above 0'),
        ([0.1], [math.nan], None, '`losses` must hold a finite number. Received: none'),
    ],
)
def test_learning_rate_finder_refuses_what_it_cannot_draw(rates, losses, suggestion, message):
    with pytest.raises(ValueError) as raised:
        plots.learning_rate_finder(rates, losses, suggestion)
    assert message in str(raised.value)


def test_accuracy_against_time_has_a_point_with_errors_for_each_recipe():
    runs = [
        {'recipe': 'slow', 'test_accuracy': 0.9375, 'train_seconds': 100.0},
        {'recipe': 'fast', 'test_accuracy': 0.25, 'train_seconds': 10.0},
        {'recipe': 'fast', 'test_accuracy': 0.75, 'train_seconds': 20.0},
        {'recipe': 'fast', 'test_accuracy': None, 'train_seconds': 1.0},
    ]
    (axes,) = plots.accuracy_against_time(runs, target=0.9).axes
    slow, fast = axes.containers
    assert slow[0].get_xydata().tolist() == [[100, 93.75]]
    assert fast[0].get_xydata().tolist() == [[15, 50]]
    across, up = (bar.get_segments()[0] for bar in fast[2])
    assert across[:, 0].tolist() == pytest.approx([5, 25])  # 2 * sd / sqrt(2), sd = 5 * sqrt(2)
    assert up[:, 1].tolist() == pytest.approx([0, 100])
    assert legend_texts(axes) == ['slow (n = 1)', 'fast (n = 2)']
    assert slow[0].get_marker() != fast[0].get_marker()
    assert (axes.get_xlabel(), axes.get_ylabel()) == ('training, s', 'test accuracy, %')
    assert '90 %' in [text.get_text() for text in axes.texts]
    with pytest.raises(ValueError, match='a run without train_seconds'):
        plots.accuracy_against_time([{'recipe': 'a', 'test_accuracy': 0.9}])
    with pytest.raises(ValueError, match='`runs` must hold a run that came to its end'):
        plots.accuracy_against_time(runs[3:])


def test_names_that_begin_with_an_underscore_are_in_the_legend():
    """Matplotlib leaves such labels out."""
    history = [{'epoch': 1, 'loss': 1.0}]
    runs = [{'recipe': '_mine', 'test_accuracy': 0.9, 'train_seconds': 10.0}]
    rate = {'_flat': lambda step: 1.0, 'b': lambda step: 2.0}
    for figure, expected in (
        (plots.learning_curves({'_a': history, 'b': history}, ['loss']), ['_a', 'b']),
        (plots.schedule(rate, 2), ['_flat', 'b']),
        (plots.accuracy_against_time(runs), ['_mine (n = 1)']),
    ):
        assert legend_texts(figure.axes[0]) == expected


def test_differences_show_each_trick_with_its_error():
    runs = [
        {'recipe': recipe, 'test_accuracy': accuracy, 'train_seconds': 9, 'epochs': 24}
        for recipe, mean in (('page24', 0.5), ('page24+celu', 0.75), ('page24+ema', 0.5))
        for accuracy in (mean - 1 / 64, mean + 1 / 64)
    ]
    arms = [ablation.Arm('page24', added=trick) for trick in ('', 'celu', 'ema')]
    rows = ablation.summarize(arms, runs)
    (axes,) = plots.differences(rows).axes
    celu, ema = axes.containers
    assert celu[0].get_xydata().tolist() == [[25, 0]]
    assert ema[0].get_xydata().tolist() == [[0, 1]]
    (bar,) = celu[2]
    assert bar.get_segments()[0][:, 0].tolist() == [25 - rows[1].error, 25 + rows[1].error]
    assert [celu[0].get_marker(), ema[0].get_marker()] == ['o', 'x']  # resolved, and not
    assert [label.get_text() for label in axes.get_yticklabels()] == ['page24+celu', 'page24+ema']
    assert axes.get_xlabel().startswith('difference in test accuracy, points')
    with pytest.raises(ValueError, match='`rows` must hold a trick'):
        plots.differences(rows[:1])


def test_long_names_stand_below_the_axes_and_hide_no_line():
    name = 'fenwicks24_gpu (dataset cifar10, train_images 10000) (n = 1)'
    runs = {name: history([2.0, 1.0]), 'page10': history([1.5, 0.5])}
    figure = plots.learning_curves(runs, ('train_loss',))
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert axes.get_legend().get_window_extent().y1 < axes.get_window_extent().y0
    (axes,) = plots.learning_curves(
        {'a': history([2.0, 1.0]), 'b': history([1.5, 0.5])}, ('train_loss',)
    ).axes
    axes.get_figure().draw_without_rendering()
    assert axes.get_legend().get_window_extent().y0 > axes.get_window_extent().y0


def test_learning_curves_take_what_fit_returns():
    of_trainer = History([{'epoch': 1, 'train_loss': 2.0}, {'epoch': 2, 'train_loss': 1.5}])
    of_keras = keras.callbacks.History()
    of_keras.epoch = [4, 5]  # `initial_epoch=4`
    of_keras.history = {'loss': [1.0, 0.5], 'val_loss': [0.75]}  # `validation_freq=2`
    (axes,) = plots.learning_curves({'a': of_trainer, 'b': [of_keras]}, ['loss']).axes
    assert [line.get_xdata().tolist() for line in axes.lines] == [[1, 2], [5, 6]]
    assert [line.get_ydata().tolist() for line in axes.lines] == [[2, 1.5], [1, 0.5]]
    (axes,) = plots.learning_curves(of_keras, ['loss']).axes
    assert len(axes.lines) == 1
    with pytest.raises(ValueError, match=r'of all runs: loss\. Received: val_loss'):
        plots.learning_curves(of_keras, ['val_loss'])


@pytest.mark.parametrize(
    ('runs', 'received'),
    [
        ({'loss': [2.0, 1.5]}, "float under 'loss'"),  # the attribute `history` of a History
        ([{'train_loss': 2.0}], 'dict'),
        (keras.callbacks.Callback(), 'Callback'),
    ],
)
def test_what_is_no_history_is_refused(runs, received):
    with pytest.raises(ValueError, match=f'`runs` must hold histories: .* Received: {received}$'):
        plots.learning_curves(runs, ['loss'])


def test_a_schedule_that_is_no_function_is_refused():
    with pytest.raises(ValueError, match=r'`schedule` must be a function.* Received: 0\.1$'):
        plots.schedule({'rate': 0.1}, 10)
