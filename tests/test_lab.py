"""The lab's experiments: resumed, refused where settings differ, and judged by their rules."""

import dataclasses
import importlib.util

import keras
import numpy as np
import pytest
from absl.testing import flagsaver
from scripts import ROOT, loaded

from fenwicks import command, runlog

pytestmark = [
    pytest.mark.backend('tensorflow', 'jax'),
    pytest.mark.skipif(
        importlib.util.find_spec('matplotlib') is None, reason='Matplotlib is not installed'
    ),
]
TINY = {
    '01_baseline': {
        'seeds': 1, 'limit': 32, 'batch_size': 16, 'epochs': 2, 'width': 2, 'timed_width': 2,
        'turns': 2,
    },
    '02_mini_batches': {
        'seeds': 1, 'limit': 32, 'large': 32, 'small': 16, 'budget': 128, 'batch_sizes': [8, 16],
        'rates': [0.1], 'width': 2,
    },
    '03_regularisation_and_time': {
        'seeds': 1, 'limit': 32, 'batch_size': 16, 'long': 2, 'short': 1, 'width': 2, 'cutout': 2,
        'timed_batch_sizes': [16], 'timed_width': 2, 'turns': 2,
    },
    '04_architecture': {
        'seeds': 1, 'limit': 32, 'batch_size': 16, 'epochs': [1, 2], 'width': 1,
    },
    '05_hyper_parameters': {
        'seeds': 1, 'limit': 48, 'held_out': 16, 'epochs': 1, 'width': 1, 'cells': 3, 'sweeps': 1,
        'middle': {'rate': 0.1, 'loss_of_momentum': 0.5, 'decay': 0.01, 'batch_size': 16},
        'start': {'rate': 0.1, 'loss_of_momentum': 0.5, 'decay': 0.01, 'batch_size': 16},
        'bounds': {
            'rate': [0.1, 0.2], 'loss_of_momentum': [0.5, 0.5], 'decay': [0.005, 0.01],
            'batch_size': [16, 32],
        },
    },
    '06_weight_decay': {'seeds': 1, 'limit': 64, 'batch_size': 16, 'epochs': 2, 'width': 2},
    '07_batch_norm': {
        'seeds': 1, 'limit': 64, 'images': 16, 'width': 2, 'eigenvalues': 2, 'products': 6,
        'steps': 2, 'depth': 3, 'units': 8,
    },
}  # fmt: skip


@pytest.fixture(params=TINY)
def script(request):
    with loaded(ROOT / 'examples' / 'lab' / f'{request.param}.py') as module:
        module.frame.define_flags()
        yield module


def load(name):
    return loaded(ROOT / 'examples' / 'lab' / f'{name}.py')


def run(script, folder, *arguments):
    """Runs the script's experiment, in which only the first six runs are trained."""
    experiment, found = script.EXPERIMENT, []

    def train(*what):
        found.append(experiment.train(*what) if len(found) < 6 else found[-1])
        return found[-1]

    small = {**experiment.small, **TINY[experiment.name]}
    with flagsaver.flagsaver():
        arguments = ['lab', f'--out={folder}', '--dataset=digits', '--device=cpu', *arguments]
        command.parse_flags(arguments, 'lab')
        return script.frame.run(dataclasses.replace(experiment, small=small, train=train))


@pytest.mark.slow
def test_an_experiment_is_run_and_drawn(script, tmp_path):
    experiment = script.EXPERIMENT
    verdicts = run(script, tmp_path)
    assert len(verdicts) == len(experiment.claims)
    lines = runlog.read_lines(tmp_path / f'{experiment.name}-small.jsonl')
    assert len(lines) >= len(experiment.variants({**experiment.small, **TINY[experiment.name]}))
    for ending in ('png', 'svg'):
        assert (tmp_path / f'{experiment.name}-small.{ending}').stat().st_size > 5000
    assert run(script, tmp_path, '--render') == verdicts


@pytest.fixture
def frame():
    with load('06_weight_decay') as module:
        module.frame.define_flags()
        yield module.frame


def counting(frame, **changes):
    """An experiment that trains nothing: two runs a seed, and a third once these are there."""

    def train(settings, variant, seed, dataset):
        return {'sum': variant['number'] + seed}

    def judge(runs):
        total = sum(run['sum'] for run in runs)
        return frame.Verdict(total > 10, f'the sum is {total}')

    def more(settings, runs):
        return [{'number': 9}] if len(runs) > 1 else []

    def draw(runs):
        from matplotlib.figure import Figure

        figure = Figure()
        figure.subplots().plot([run['sum'] for run in runs])
        return figure

    fields = {
        'name': '99_counting',
        'question': 'Is it much?',
        'source': 'https://example.org/',
        'claims': (frame.Claim('it is much', 'the sum is above 10', judge),),
        'small': {'seeds': 2, 'limit': 64, 'step': 1},
        'full': {'seeds': 5, 'limit': 128, 'step': 2},
        'variants': lambda settings: [{'number': number} for number in (1, 2)],
        'train': train,
        'draw': draw,
        'more': more,
    }
    return frame.Experiment(**{**fields, **changes})


def start(frame, experiment, *arguments):
    with flagsaver.flagsaver():
        command.parse_flags(['lab', '--dataset=digits', '--device=cpu', *arguments], 'lab')
        return frame.run(experiment)


@pytest.mark.thorough
def test_a_log_from_the_first_run_to_the_verdict(frame, tmp_path, capsys):
    out = f'--out={tmp_path}'
    verdicts = start(frame, counting(frame), out)
    assert verdicts == [frame.Verdict(True, 'the sum is 27')]
    said = capsys.readouterr().out.splitlines()
    assert said[-4:] == [
        'Is it much? (https://example.org/)',
        'claim: it is much',
        'rule: the sum is above 10',
        'held, n=2: the sum is 27',
    ]
    log = tmp_path / '99_counting-small.jsonl'
    lines = runlog.read_lines(log)
    assert [(line['seed'], line['variant']['number']) for line in lines] == [
        *((0, number) for number in (1, 2, 9)),
        *((1, number) for number in (1, 2, 9)),
    ]
    assert all(line['commit'] and line['seconds'] >= 0 for line in lines)
    assert {line['precision'] for line in lines} == {'float32'}
    assert not any('shared_machine' in line for line in lines)
    first = log.with_suffix('.svg').read_bytes()
    assert frame.digest(log).encode() in first
    assert frame.digest(log).encode() in log.with_suffix('.png').read_bytes()
    assert start(frame, counting(frame), out, '--render') == verdicts
    assert log.with_suffix('.svg').read_bytes() == first  # drawn anew, byte for byte


def test_each_run_has_the_precision_that_is_logged(frame, tmp_path):
    seen = []

    def train(settings, variant, seed, dataset):
        seen.append(keras.config.dtype_policy().name)
        return {'sum': 20}

    start(frame, counting(frame, precision='bfloat16', train=train), f'--out={tmp_path}')
    assert set(seen) == {'mixed_bfloat16'}


def test_an_experiment_may_need_all_its_images(frame, tmp_path):
    small = {'seeds': 1, 'limit': 10_000, 'step': 1}
    with pytest.raises(ValueError) as raised:
        start(frame, counting(frame, small=small, needs_all=True), f'--out={tmp_path}')
    told = '`dataset` must have 10000 training images or more. Received: digits, 1501 images'
    assert str(raised.value) == told
    assert not list(tmp_path.iterdir())


@pytest.mark.thorough
def test_an_interrupted_experiment_goes_on(frame, tmp_path):
    def interrupted(settings, variant, seed, dataset):
        if (variant['number'], seed) == (9, 1):
            raise KeyboardInterrupt
        return {'sum': 1}

    log = tmp_path / 'mine.jsonl'
    arguments = [f'--log={log}', '--shared_machine']
    with pytest.raises(KeyboardInterrupt):
        start(frame, counting(frame, train=interrupted), *arguments)
    assert len(runlog.read_lines(log)) == 5
    # Until then the seed that is whole counts, and only that.
    assert start(frame, counting(frame), *arguments, '--render')[0].because == 'the sum is 3'
    assert start(frame, counting(frame), *arguments)[0].because == f'the sum is {5 + 9 + 1}'
    lines = runlog.read_lines(log)
    assert len(lines) == 6
    assert all(line['shared_machine'] for line in lines)
    # More seeds are added to what there is.
    assert len(start(frame, counting(frame), *arguments, '--seeds=3')) == 1
    assert len(runlog.read_lines(log)) == 9


@pytest.mark.thorough
@pytest.mark.parametrize(
    ('change', 'named'),
    [
        ({'small': {'seeds': 2, 'limit': 64, 'step': 3}}, 'settings.step=1 instead of 3'),
        ({'precision': 'bfloat16'}, "precision='float32' instead of 'bfloat16'"),
        ({'name': '98_other'}, "experiment='99_counting' instead of '98_other'"),
    ],
)
def test_a_log_of_other_runs_is_refused(frame, tmp_path, change, named):
    log = f'--log={tmp_path / "log.jsonl"}'
    start(frame, counting(frame), log)
    before = (tmp_path / 'log.jsonl').read_text()
    with pytest.raises(ValueError, match=rf'^`log` must hold runs of the same .*a run of {named}'):
        start(frame, counting(frame, **change), log)
    assert (tmp_path / 'log.jsonl').read_text() == before


@pytest.mark.thorough
def test_a_log_of_data_that_changed_since_is_refused(frame, tmp_path):
    log = tmp_path / 'log.jsonl'
    start(frame, counting(frame), f'--log={log}')
    line = runlog.read_lines(log)[0]
    runlog.append_line(log, {**line, 'seed': 7, 'data_digest': '0' * 16})
    with pytest.raises(
        ValueError, match=r"`log` must hold runs of the same .*a run of data_digest='0000"
    ):
        start(frame, counting(frame), f'--log={log}')
    del line['data_digest']  # as an earlier version logged it
    log.unlink()
    runlog.append_line(log, line)
    start(frame, counting(frame), f'--log={log}')
    start(frame, counting(frame), f'--log={log}', '--render')


@pytest.mark.thorough
def test_runs_of_two_machines_are_never_pooled(frame, tmp_path, monkeypatch):
    log = f'--log={tmp_path / "log.jsonl"}'
    start(frame, counting(frame), log)
    lines = runlog.read_lines(tmp_path / 'log.jsonl')
    monkeypatch.setattr(frame.hardware, 'describe', lambda *_: 'another processor')
    with pytest.raises(ValueError, match=r"`log` must hold runs of the same .*a run of hardware='"):
        start(frame, counting(frame), log, '--seeds=3')
    runlog.append_line(tmp_path / 'log.jsonl', {**lines[0], 'hardware': 'another', 'seed': 7})
    with pytest.raises(ValueError, match=r"a run of hardware='another' instead of "):
        start(frame, counting(frame), log, '--render')


def test_a_log_without_a_whole_seed_has_no_verdict(frame, tmp_path):
    runlog.start_log(tmp_path / 'log.jsonl')
    with pytest.raises(ValueError, match=r'`log` must hold all runs of a seed, .*with 0 runs'):
        start(frame, counting(frame), f'--log={tmp_path / "log.jsonl"}', '--render')
    with pytest.raises(ValueError, match=r'`seeds` must be a positive integer. Received: seeds=0'):
        start(frame, counting(frame), '--seeds=0')


@pytest.mark.parametrize('key', ['variant', 'seed', 'result'])
def test_a_line_that_is_no_run_is_refused(frame, tmp_path, key):
    run = {'variant': {'number': 1}, 'seed': 0, 'result': {'sum': 1}, key: None}
    with pytest.raises(ValueError, match=f'`log` must hold runs, each with its {key}. .*=None$'):
        frame.check_lines(tmp_path / 'log.jsonl', [run], {})


def test_an_empty_path_is_refused(frame):
    for flag in ('out', 'log'):
        with pytest.raises(SystemExit, match=f"`{flag}` must not be empty. Received: {flag}=''"):
            start(frame, counting(frame), f'--{flag}=')


def test_a_growing_rate_is_weight_decay_in_other_units():
    """Of a loss that ignores the length of the weights, exactly."""
    matrix = np.diag([1.0, 2.0, 5.0])

    def gradient(w):
        unit = w / np.linalg.norm(w)
        slope = matrix @ unit
        return (slope - (unit @ slope) * unit) / np.linalg.norm(w)

    rates, decay = [0.1, 0.3, 0.3, 0.05, 0.2], 0.4
    with load('06_weight_decay') as script:
        grown = script.growing_rates(rates, decay)
    one = other = np.array([1.0, 1.0, 1.0])
    for rate, growing in zip(rates, grown, strict=True):
        one = one - rate * (gradient(one) + decay * one)
        other = other - growing * gradient(other)
    assert np.linalg.norm(other) > 1.2 * np.linalg.norm(one)
    np.testing.assert_allclose(one / np.linalg.norm(one), other / np.linalg.norm(other), rtol=1e-12)


def decay_runs(lars=0.9, turn=0.1):
    return [
        {'optimizer': name, 'seed': seed, 'accuracy': accuracy, 'turns': [turn], 'predicted': 0.1}
        for name, accuracy in (('sgd', 0.9), ('lars', lars), ('growing', 0.905))
        for seed in range(2)
    ]


@pytest.mark.parametrize(
    ('runs', 'held'),
    [
        (decay_runs(), [True, True, True]),
        (decay_runs(lars=0.8), [True, False, True]),
        (decay_runs(lars=None), [True, False, True]),
        (decay_runs(turn=0.15), [False, True, True]),
        (decay_runs()[:2], [True, False, False]),
    ],
)
def test_the_rules_of_weight_decay(runs, held):
    with load('06_weight_decay') as script:
        assert judged(script, runs) == held


def judged(script, runs):
    return [claim.judge(runs).held for claim in script.EXPERIMENT.claims]
