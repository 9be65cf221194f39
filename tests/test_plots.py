"""What all plots share: figures without a display, axes, themes, and the missing Matplotlib."""

import functools
import itertools
import re
import subprocess
import sys

import matplotlib.pyplot
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from scripts import ROOT

from fenwicks import ablation, augment, plots, schedules

HISTORY = [{'epoch': n, 'train_loss': 1 / n, 'train_accuracy': 1 - 0.5 / n} for n in (1, 2, 3)]
IMAGES = np.arange(4 * 8 * 8 * 3, dtype=np.uint8).reshape(4, 8, 8, 3)
LABELS = np.array([0, 1, 1, 0])
LOGITS = np.array([[0.0, 2.0], [0.0, 1.0], [3.0, 0.0], [1.0, 0.0]])
NAMES = ['cat', 'dog']
RUNS = [
    {'recipe': recipe, 'test_accuracy': accuracy, 'train_seconds': 60, 'epochs': 24}
    for recipe in ('page24', 'page24+celu')
    for accuracy in (0.93, 0.94)
]
ROWS = ablation.summarize([ablation.Arm('page24'), ablation.Arm('page24', added='celu')], RUNS)
AUGMENT = functools.partial(augment.random_crop, padding=2)

DRAWN = {
    'accuracy_against_time': lambda **how: plots.accuracy_against_time(RUNS, 0.94, **how),
    'animate': lambda **how: plots.animate(IMAGES[:, None], **how),
    'animate_augmentation': lambda **how: plots.animate_augmentation(
        IMAGES, AUGMENT, 100.0, 50.0, **how
    ),
    'augmentation': lambda **how: plots.augmentation(IMAGES, AUGMENT, 100.0, 50.0, **how),
    'class_counts': lambda **how: plots.class_counts(LABELS, NAMES, **how),
    'confusion_matrix': lambda **how: plots.confusion_matrix(
        LABELS, LOGITS.argmax(axis=1), NAMES, **how
    ),
    'differences': lambda **how: plots.differences(ROWS, **how),
    'filters': lambda **how: plots.filters(np.eye(12).reshape(2, 2, 3, 12), **how),
    'images': lambda **how: plots.images(IMAGES, ['a', 'b', 'c', 'd'], **how),
    'learning_curves': lambda **how: plots.learning_curves({'run': [HISTORY] * 2}, **how),
    'learning_rate_finder': lambda **how: plots.learning_rate_finder(
        [0.1, 1, 10], [2, 1, 5], 0.5, **how
    ),
    'mistakes': lambda **how: plots.mistakes(IMAGES, LABELS, LOGITS, NAMES, **how),
    'schedule': lambda **how: plots.schedule(schedules.OneCycle(0.4, 100, 20), 100, 10, **how),
}


def drawn(name, **how):
    made = DRAWN[name](**how)
    return made if isinstance(made, Figure) else made.figure


def luminance(colour):
    """Relative luminance of WCAG 2, in [0, 1]."""
    channels = np.array(to_rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(colour, other):
    low, high = sorted(luminance(each) + 0.05 for each in (colour, other))
    return high / low


def texts(figure):
    """Every text that the figure shows."""
    figure.canvas.draw()
    found = figure.findobj(Text)
    return [text for text in found if text.get_text() and text.get_visible()]


def test_every_function_is_tried_here():
    functions = {name for name in plots.__all__ if name[0].islower()} - {'check_path', 'save'}
    assert functions == set(DRAWN)


@pytest.mark.parametrize('name', DRAWN)
@pytest.mark.parametrize('theme', plots.THEMES)
def test_text_can_be_read_on_the_theme_paper(name, theme):
    figure = drawn(name, theme=theme)
    paper = plots.THEMES[theme].paper
    assert contrast(figure.get_facecolor(), paper) == 1
    shown = texts(figure)
    assert shown or name.startswith('animate')
    for text in shown:
        assert contrast(text.get_color(), paper) >= 7, text.get_text()


@pytest.mark.parametrize('name', DRAWN)
def test_draws_into_the_axes_that_it_is_given(name):
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert drawn(name, axes=right) is figure
    assert len(figure.axes) == 2
    assert not left.has_data()
    assert right.has_data()


@pytest.mark.parametrize('name', DRAWN)
def test_shows_itself_in_a_notebook(name):
    assert drawn(name)._repr_png_().startswith(b'\x89PNG')


@pytest.mark.parametrize('name', DRAWN)
def test_refuses_an_unknown_theme(name):
    with pytest.raises(ValueError, match=r'`theme` must be one of light, dark\. Received: theme='):
        drawn(name, theme='sepia')


@pytest.mark.parametrize('theme', plots.THEMES.values(), ids=plots.THEMES)
def test_colours_differ_in_grey_and_from_the_paper(theme):
    for colour in theme.series:
        assert contrast(colour, theme.paper) >= 3
    for colour, other in itertools.combinations(theme.series, 2):
        assert contrast(colour, other) >= 1.3, (colour, other)
    assert contrast(theme.ink, theme.paper) >= 7


@pytest.mark.parametrize('name', DRAWN)
def test_no_figure_stays_open_in_pyplot(name):
    drawn(name)
    assert not matplotlib.pyplot.get_fignums()  # Keras imports pyplot, so it is there to be asked


@pytest.mark.parametrize('path', sorted((ROOT / 'fenwicks' / 'plots').glob('*.py')), ids=str)
def test_pyplot_is_not_imported(path):
    assert not re.search(r'^\s*(import|from) .*pyplot', path.read_text(), re.MULTILINE)


@pytest.mark.thorough
def test_a_missing_matplotlib_is_one_line_that_says_what_to_install():
    code = (
        'import sys; sys.modules["matplotlib"] = None\n'
        'import fenwicks\n'
        'try: from fenwicks import plots\n'
        'except ImportError as error: print(error)'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout == 'plots need Matplotlib: pip install matplotlib\n'


@pytest.mark.parametrize('suffix', ['png', 'svg', 'pdf', 'PNG'])
def test_figures_are_saved_by_suffix(tmp_path, suffix):
    path = tmp_path / f'figure.{suffix}'
    plots.save(drawn('schedule'), path)
    starts = {'png': b'\x89PNG', 'svg': b'<?xml', 'pdf': b'%PDF'}
    assert path.read_bytes().startswith(starts[suffix.lower()])
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_paths_that_cannot_be_saved_to_are_refused_before_the_work(tmp_path):
    with pytest.raises(ValueError, match=r'`path` must end in one of .*\.svg.* Received: '):
        plots.check_path(tmp_path / 'figure.docx')
    with pytest.raises(ValueError, match='`path` must lie in a folder that exists'):
        plots.save(drawn('schedule'), tmp_path / 'none' / 'figure.png')
    with pytest.raises(
        ValueError, match=r'`path` must be the path of a file\. Received: .* a folder$'
    ):
        plots.check_path(tmp_path)
