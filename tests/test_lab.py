"""The lab's experiments: resumed, refused where settings differ, and judged by their rules."""

import dataclasses
import importlib.util

import numpy as np
import pytest
from absl import flags
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
    '06_weight_decay': {'seeds': 1, 'limit': 64, 'batch_size': 16, 'epochs': 2, 'width': 2},
    '07_batch_norm': {
        'seeds': 1, 'limit': 16, 'width': 2, 'eigenvalues': 2, 'products': 6, 'steps': 2,
    },
}  # fmt: skip


@pytest.fixture(params=TINY)
def script(request):
    with loaded(ROOT / 'examples' / 'lab' / f'{request.param}.py') as module:
        module.frame.define_flags()
        yield module


def load(name):
    return loaded(ROOT / 'examples' / 'lab' / f'{name}.py')


def run(script, folder, *arguments, **settings):
    experiment = script.EXPERIMENT
    small = {**experiment.small, **TINY[experiment.name], **settings}
    with flagsaver.flagsaver():
        arguments = ['lab', f'--out={folder}', '--dataset=digits', '--device=cpu', *arguments]
        command.parse_flags(arguments, 'lab')
        return script.frame.run(dataclasses.replace(experiment, small=small))


@pytest.mark.slow
def test_an_experiment_is_resumed_and_drawn(script, tmp_path, capsys, monkeypatch):
    name = script.EXPERIMENT.name
    verdict = run(script, tmp_path)
    log = tmp_path / f'{name}-small.jsonl'
    lines = runlog.read_lines(log)
    assert len(lines) == len(script.variants({}))
    assert all(line['commit'] and line['seconds'] > 0 for line in lines)
    for ending in ('png', 'svg'):
        assert (tmp_path / f'{name}-small.{ending}').stat().st_size > 5000
    said = capsys.readouterr().out.splitlines()
    assert said[-4] == script.EXPERIMENT.question
    assert said[-1].startswith(f'{"held" if verdict.held else "did not hold"}, n=1: ')

    whole = log.read_text()
    log.write_text(whole[: whole.index('\n') + 1])  # as after an interrupt

    def train(settings, variant, seed, dataset):
        return next(line['result'] for line in lines if line['variant'] == variant)

    experiment = dataclasses.replace(script.EXPERIMENT, train=train)
    monkeypatch.setattr(script, 'EXPERIMENT', experiment)
    assert run(script, tmp_path) == verdict
    assert [line['variant'] for line in runlog.read_lines(log)] == script.variants({})
    assert run(script, tmp_path, '--render') == verdict
    with pytest.raises(ValueError, match=r'small\.jsonl must hold runs of these settings only'):
        run(script, tmp_path, limit=12)
    assert not flags.FLAGS.full


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
        (decay_runs(), True),
        (decay_runs(lars=0.8), False),
        (decay_runs(lars=None), False),
        (decay_runs(turn=0.15), False),
        (decay_runs()[:2], False),
    ],
)
def test_the_rule_of_weight_decay(runs, held):
    with load('06_weight_decay') as script:
        assert script.judge(runs).held == held


def norm_runs(steep=30.0, slow=0.1, share=0.9):
    numbers = {'norm': (1.0, 2.0), 'frozen': (steep, slow), 'none': (20.0, 0.1)}
    return [
        {
            'network': name,
            'seed': 0,
            'eigenvalues': [leading, 0.1],
            'predicted': 2 / leading,
            'measured': measured,
            'shares': [share, share],
        }
        for name, (leading, measured) in numbers.items()
    ]


@pytest.mark.parametrize(
    ('runs', 'held'),
    [
        (norm_runs(), True),
        (norm_runs(steep=2.0), False),
        (norm_runs(slow=1.0), False),
        (norm_runs(share=0.3), False),
        (norm_runs(slow=float('nan')), False),
        (norm_runs()[:2], False),
    ],
)
def test_the_rule_of_batch_norm(runs, held):
    with load('07_batch_norm') as script:
        assert script.judge(runs).held == held
