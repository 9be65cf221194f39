"""The lab's gallery: what is logged and nothing else, with figures of that log."""

import pytest
from scripts import ROOT, loaded

from fenwicks import runlog

SCRIPT = '''"""Counting: is it much?

Small: not measured yet.

Full: not measured yet.
"""

import frame


def judge(runs):
    total = sum(run['sum'] for run in runs)
    return frame.Verdict(total > 10, f'the sum is {total}')


EXPERIMENT = frame.Experiment(
    name='08_counting_twice',
    question='Is it much?',
    source='https://example.org/',
    claims=(
        frame.Claim('it is much', 'the sum is above 10', judge),
        frame.Claim('it is little', 'it is not', lambda runs: frame.Verdict(False, 'see above')),
    ),
    small={'seeds': 1, 'limit': 64},
    full={'seeds': 2, 'limit': 128},
    variants=lambda settings: [{'number': 1}, {'number': 2}],
    train=None,
    draw=None,
)
'''
LINE = {
    'experiment': '08_counting_twice',
    'settings': {'limit': 64},
    'dataset': 'cifar10',
    'backend': 'tensorflow',
    'precision': 'bfloat16',
    'hardware': 'Xeon, 2 cores',
    'commit': 'a' * 40,
    'clean': True,
}


@pytest.fixture
def lab_tables(tmp_path, monkeypatch):
    """The tables' module, of a lab with one experiment and no log."""
    with loaded(ROOT / 'examples' / 'tables.py') as script:
        module = script.lab_tables
        (tmp_path / 'lab').mkdir()
        (tmp_path / '08_counting_twice.py').write_text(SCRIPT)
        (tmp_path / 'helper.py').write_text('')
        monkeypatch.setattr(module, 'LAB', tmp_path)
        monkeypatch.setattr(module.logged, 'RESULTS', tmp_path)
        module.experiment_of.cache_clear()
        yield module
        module.experiment_of.cache_clear()


def log(module, *changes, name='08_counting_twice-small', figures=True):
    """Logs two runs for each seed, and draws figures that hold no more than the log's digest."""
    path = module.logged.RESULTS / 'lab' / f'{name}.jsonl'
    for seed, change in enumerate(changes):
        for number in (1, 2):
            line = {**LINE, 'variant': {'number': number}, 'seed': seed, 'seconds': 90.0}
            runlog.append_line(path, {**line, 'result': {'sum': 3 * number}, **change})
    for ending in ('png', 'svg') if figures else ():
        path.with_suffix(f'.{ending}').write_text(f'a figure of {module.frame.digest(path)}')
    return path


def test_an_experiment_without_a_log(lab_tables):
    assert lab_tables.gallery() == (
        '### 8. Counting twice\n\n'
        'Is it much? What was claimed in [post 8](https://example.org/):\n\n'
        '1. It is much. *Rule:* the sum is above 10.\n'
        '2. It is little. *Rule:* it is not.\n\n'
        'No run is logged yet: `python examples/lab/08_counting_twice.py`.'
    )
    ((path, filled),) = lab_tables.scripts()
    assert filled == path.read_text() == SCRIPT


def test_an_experiment_and_what_is_logged(lab_tables):
    log(lab_tables, {}, {})
    log(
        lab_tables,
        {'hardware': 'H100', 'settings': {'limit': 128}, 'shared_machine': True, 'clean': False},
        name='08_counting_twice-full-gpu',
    )
    lines = lab_tables.gallery().splitlines()
    assert '[![Is it much?](../results/lab/08_counting_twice-small.png)]' in lines[7]
    assert '| 1 | **held** | The sum is 18 |' in lines
    assert '| 2 | **did not hold** | See above |' in lines
    row = next(line for line in lines if line.startswith('| small'))
    assert row == (
        '| small | 2 | 4 | 6.0 min | Xeon, 2 cores, tensorflow, bfloat16 | cifar10 | '
        '`python examples/lab/08_counting_twice.py --seeds=2` | aaaaaaa |'
    )
    row = next(line for line in lines if line.startswith('| full'))
    assert row == (
        '| full | 1 | 2 | 3.0 min, others ran beside | H100, tensorflow, bfloat16 | cifar10 | '
        '`python examples/lab/08_counting_twice.py --full --seeds=1` | aaaaaaa+ |'
    )
    assert '| 1 | **did not hold** | The sum is 9 |' in lines
    assert {'The small settings: limit 64.', 'The full settings: limit 128.'} <= set(lines)
    ((_, filled),) = lab_tables.scripts()
    assert 'Small: 1 of 2 claims held, n=2, 6.0 min on Xeon, 2 cores.\n\nFull: 0 of' in filled
    assert filled.partition('import frame')[2] == SCRIPT.partition('import frame')[2]


def test_figures_of_another_log_are_refused(lab_tables):
    path = log(lab_tables, {}, figures=False)
    with pytest.raises(ValueError, match=r'small\.png must be the figure of its log: run python '):
        lab_tables.gallery()
    log(lab_tables, {})
    path.with_suffix('.svg').write_text('a figure of yesterday')
    with pytest.raises(ValueError, match=r'small\.svg must be the .* --render --log='):
        lab_tables.gallery()


def test_logs_of_other_settings_or_of_two_machines_are_refused(lab_tables):
    path = log(lab_tables, {'settings': {'limit': 65}})
    with pytest.raises(ValueError, match=r'^`log` must hold runs of the same .*settings.limit=65'):
        lab_tables.gallery()
    path.unlink()
    log(lab_tables, {}, {'hardware': 'H100'})
    with pytest.raises(ValueError, match=r"^`log` must hold runs of the same .*hardware='H100'"):
        lab_tables.gallery()


def test_the_scripts_of_the_lab_say_what_they_ask():
    """Each has a header: what it asks, how to start it, where the claims are from, and results."""
    with loaded(ROOT / 'examples' / 'tables.py') as script:
        found = {path: script.lab_tables.experiment_of(path) for path in script.lab_tables.paths()}
    assert len(found) >= 4
    for path, experiment in found.items():
        text = path.read_text().partition('"""\n\n')[0]
        assert experiment.name == path.stem
        for word in (f'python examples/lab/{path.name}', '--full', experiment.source):
            assert word in text, (path.name, word)
        assert '\n\nSmall: ' in text
        assert '\n\nFull: ' in text
        assert {'seeds', 'limit'} <= experiment.small.keys() == experiment.full.keys()
        for claim in experiment.claims:
            assert claim.text[-1] not in '.!?'
            assert claim.rule[-1] not in '.!?'
