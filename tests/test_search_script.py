"""The scripts that train variants one after another: what is planned, logged, and gone on with."""

import types

import numpy as np
import pytest
from scripts import ROOT, call, loaded, refused

from fenwicks import recipes, runlog, training
from fenwicks.kernels import device

FOLDER = ROOT / 'examples' / 'benchmarks'
SMALL = ('--dataset=digits', '--device=cpu')
pytestmark = pytest.mark.backend('tensorflow')


@pytest.fixture
def made(monkeypatch):
    """The trainings that a script makes, which take no time: recipe, seed, precision, has_amx."""
    monkeypatch.syspath_prepend(str(FOLDER))
    trained = []

    def make(side, recipe, dataset, values, seed):
        def run():
            trained.append((recipe, seed, values.precision, device.has_amx()))
            accuracy = 0.9 + 0.01 * seed + 0.001 * (values.precision == 'float32')
            return {
                'recipe': recipe.name,
                'seed': seed,
                'test_accuracy': accuracy,
                'test_accuracy_plain': accuracy - 0.01,
                'train_seconds': 100.0 + len(trained),
            }

        return types.SimpleNamespace(run=run)

    import trainings

    monkeypatch.setattr(trainings, 'make', make)
    return trained


def test_variants_of_a_recipe():
    with loaded(FOLDER / 'search.py') as script:
        assert script.parse('speed94_muon') == recipes.get('speed94_muon')
        changed = script.parse('speed94_muon -gelu +silu epochs=8 batch_size=1000 momentum=0.8')
        for text in script.VARIANTS:
            script.parse(text)
        assert script.whole_epochs(script.parse('speed94_muon')) == 8
        grown = script.parse('speed94_muon +growing_images')
        sizes = {24: 3, 28: 2, 32: 3}  # and how many epochs have them
        expected = sum(epochs * (size / 32) ** 2 for size, epochs in sizes.items())
        assert script.whole_epochs(grown) == pytest.approx(expected)
        assert script.parse('speed94_muon width=0.25').widths == (16, 64, 64)
    assert changed.name == 'speed94_muon-gelu+silu'
    assert (changed.epochs, changed.batch_size, changed.momentum) == (8, 1000, 0.8)
    assert changed.peak_learning_rate == pytest.approx(53)
    assert (changed.activation, changed.first_activation) == ('silu', 'gelu')


def test_a_search_goes_on(made, tmp_path, capsys, monkeypatch):
    log, file = tmp_path / 'log.jsonl', '~/variants.txt'
    monkeypatch.setenv('HOME', str(tmp_path))
    (tmp_path / 'variants.txt').write_text('speed94_muon  # as it is\n\nspeed94_muon   epochs=4\n')
    with loaded(FOLDER / 'search.py') as script:
        call(script, *SMALL, f'--log={log}', f'--file={file}')
        call(script, *SMALL, f'--log={log}', f'--file={file}', '--seeds=0,1')
        capsys.readouterr()
        call(script, *SMALL, f'--log={log}', f'--file={file}', '--render')
    assert [(recipe.epochs, seed) for recipe, seed, *_ in made] == [(8, 0), (4, 0), (8, 1), (4, 1)]
    lines = runlog.read_lines(log)
    assert [line['variant'] for line in lines] == ['speed94_muon', 'speed94_muon epochs=4'] * 2
    assert recipes.Recipe.from_dict(lines[1]['settings']['recipe']).epochs == 4
    *_, plain, short = capsys.readouterr().out.splitlines()
    assert plain == '| speed94_muon | 8.00 | 2 | 90.50 ± 1.00 | 102 |'
    assert short == '| speed94_muon epochs=4 | 4.00 | 2 | 90.50 ± 1.00 | 103 |'


def test_a_variant_that_diverges_is_a_result(made, tmp_path, monkeypatch, capsys):
    import trainings

    whole = trainings.make

    def make(side, recipe, *others):
        if recipe.epochs == 4:
            return types.SimpleNamespace(run=diverge)
        return whole(side, recipe, *others)

    def diverge():
        raise training.DivergedError('the loss is no longer finite')

    monkeypatch.setattr(trainings, 'make', make)
    options = [*SMALL, f'--log={tmp_path / "log.jsonl"}', '--variant=speed94_muon epochs=4']
    with loaded(FOLDER / 'search.py') as script:
        for _ in range(2):  # the second time it trains nothing
            call(script, *options, '--variant=speed94_muon')
            *_, short, plain = capsys.readouterr().out.splitlines()
            assert short == '| speed94_muon epochs=4 | 4.00 | 0 | diverged | - |'
            assert plain.endswith('| 1 | 90.00 | 101 |')
    line = runlog.read_lines(tmp_path / 'log.jsonl')[0]
    assert line['test_accuracy'] is None
    assert {'hardware', 'precision', 'settings', 'versions', 'commit'} <= line.keys()


def test_a_search_never_goes_on_with_other_data(made, tmp_path):
    options = [*SMALL, f'--log={tmp_path / "log.jsonl"}', '--variant=speed94_muon']
    with loaded(FOLDER / 'search.py') as script:
        call(script, *options)
        for other in ('--limit=100', '--test_limit=100'):
            said = refused(script, *options, '--seeds=0,1', other)
            assert said.startswith('`log` must hold runs of the same settings, data and hardware: ')
    assert len(made) == 1


@pytest.mark.parametrize(
    ('name', 'changes', 'said'),
    [
        ('search.py', ['--precision=bfloat16'], "precision='float32' instead of 'bfloat16'"),
        ('rounding_study.py', ['--recipe=page10'], "recipe='speed94' instead of 'page10', "),
        ('rounding_study.py', ['--epochs=2'], 'settings.recipe.epochs=8.875 instead of 2, '),
    ],
)
def test_runs_of_other_settings_are_no_runs_of_an_arm(made, tmp_path, name, changes, said):
    options = [*SMALL, f'--log={tmp_path / "log.jsonl"}', '--precision=float32']
    with loaded(FOLDER / name) as script:
        call(script, *options, *(['--variant=speed94'] if name == 'search.py' else []))
        before = len(made)
        line = refused(script, *options, *changes)
        assert f'with a run of {said}' in line
    assert len(made) == before


def test_runs_of_another_machine_are_no_runs_of_an_arm(made, tmp_path):
    log = tmp_path / 'log.jsonl'
    options = [*SMALL, f'--log={log}', '--variant=speed94_muon', '--seeds=0,1']
    with loaded(FOLDER / 'search.py') as script:
        call(script, *options)
        line = runlog.read_lines(log)[0]
        log.write_text('')
        runlog.append_line(log, {**line, 'hardware': 'another'})
        assert "with a run of hardware='another' instead of" in refused(script, *options)
        log.write_text('')
        fields = line['settings']['recipe']
        del fields['hard_share'], line['data_digest']  # as an earlier version logged it
        runlog.append_line(log, line)
        call(script, *options)
    assert [line['seed'] for line in runlog.read_lines(log)] == [0, 1]


@pytest.mark.parametrize(
    ('variant', 'message'),
    [
        ('fast', r'`variant` must be one of'),
        (
            'speed94_muon +gelu',
            '`variant` must name tricks that speed94_muon lacks. Received: gelu',
        ),
        ('speed94_muon depth=3', '`variant` must be field=value'),
        ('speed94_muon momentum=x', '`variant` must give `momentum` a number'),
        ('speed94_muon width=x', '`variant` must give `width` a number'),
        (' ', '`variant` must be a recipe and its changes. Received: variant='),
    ],
)
def test_bad_variants_are_refused_before_any_training(made, tmp_path, variant, message):
    with loaded(FOLDER / 'search.py') as script:
        said = refused(script, *SMALL, f'--log={tmp_path / "x"}', f'--variant={variant}')
    assert said.startswith(message)
    assert not made


@pytest.mark.parametrize('name', ['search.py', 'rounding_study.py'])
@pytest.mark.parametrize('seeds', ['', '0,a', '-1'])
def test_seeds_that_are_none_are_refused(made, tmp_path, name, seeds):
    with loaded(FOLDER / name) as script:
        said = refused(script, *SMALL, f'--log={tmp_path / "x"}', f'--seeds={seeds}')
    assert said == f'`seeds` must be integers >= 0, one at least. Received: seeds={seeds}'
    assert not made


def test_the_arms_of_the_rounding_study(made, tmp_path, capsys):
    log = tmp_path / 'log.jsonl'
    with loaded(FOLDER / 'rounding_study.py') as script:
        call(script, *SMALL, f'--log={log}', '--seeds=0,1', '--epochs=2')
        message = refused(script, *SMALL, f'--log={log}', '--arms=float8')
    assert [(precision, has_amx) for _, _, precision, has_amx in made[:3]] == [
        *(('bfloat16', True), ('bfloat16', False), ('float32', False)),
    ]
    assert {recipe.epochs for recipe, *_ in made} == {2}
    assert [line['arm'] for line in runlog.read_lines(log)] == [
        *('sliding', 'winograd', 'float32') * 2,
    ]
    assert capsys.readouterr().out.splitlines()[-3:] == [
        '| sliding | 2 | 90.50 ± 1.00 | -0.10 ± 0.00 | -0.10 ± 0.00 |',
        '| winograd | 2 | 90.50 ± 1.00 | -0.10 ± 0.00 | -0.10 ± 0.00 |',
        '| float32 | 2 | 90.60 ± 1.00 | - | - |',
    ]
    assert message == '`arms` must be of sliding, winograd, float32. Received: arms=float8'


def test_the_parts_of_a_training_are_timed_in_turn(monkeypatch, tmp_path, capsys):
    """Those in which the whitening's bias has stopped take less time than where it learns."""
    monkeypatch.syspath_prepend(str(FOLDER))
    import trainings

    def make(side, recipe, dataset, values):
        learns_on = recipe.whitening_bias_epochs == recipe.epochs

        def take_steps(epoch, step, count):
            early = (epoch, step) == (0, 0)
            return count * (1.0 if early or learns_on else 0.8) * (0.5 if epoch < 3 else 1)

        return types.SimpleNamespace(
            parts=lambda: [(0, 0, 7), (0, 7, 89), (3, 0, 96)],
            take_steps=take_steps,
            total_steps=lambda: 192,
            describe=lambda: {'recipe': recipe.name},
        )

    monkeypatch.setattr(trainings, 'make', make)
    log = tmp_path / 'log.jsonl'
    with loaded(FOLDER / 'parts.py') as script:
        call(script, *SMALL, '--recipe=speed94_2026', f'--log={log}')
    assert capsys.readouterr().out.splitlines()[2:] == [
        '| 24 | 0, 0 | 7 | 0.500 | 0.500 | 1.000 |',
        '| 24 | 0, 7 | 89 | 0.400 | 0.500 | 0.800 |',
        '| 28 | 3, 0 | 96 | 0.800 | 1.000 | 0.800 |',
        '| all |  | 192 | 115.9 | 144.0 | 0.805 |',
    ]
    (line,) = runlog.read_lines(log)
    assert line['train_seconds'] == pytest.approx(7 * 0.5 + 89 * 0.4 + 96 * 0.8)


def test_what_a_margin_costs_and_saves():
    with loaded(FOLDER / 'doubtful.py') as script:
        # Two images; the views turn the prediction of the first, whose plain one is doubtful.
        plain = np.array([[0.1, 0.0, -9.0], [4.0, 0.0, -9.0]], np.float32)
        turned = np.array([[0.0, 3.0, -9.0], [4.0, 0.0, -9.0]], np.float32)
        views = np.stack([plain, *[turned] * 5])
        labels = np.array([1, 0])
        low, high = (script.compare(views, labels, margin) for margin in (0.01, 0.5))
        assert script.table([low, high]).count('\n') == 3
    assert (low['doubtful'], low['passes'], low['differ']) == (0, 1, 0.5)
    assert (low['accuracy'], low['from_all_views']) == (50, -50)
    assert (high['doubtful'], high['passes'], high['differ']) == (0.5, 3.5, 0)
    assert (high['accuracy'], high['from_all_views']) == (100, 0)
