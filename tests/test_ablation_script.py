"""The ablation's script: every run is kept, and a second call goes on where the first stopped."""

import json

import pytest
from scripts import ROOT, call, loaded, refused

from fenwicks import runlog
from fenwicks.training import DivergedError

pytestmark = pytest.mark.backend('tensorflow', 'jax')

SMALL = (
    *('--dataset=digits', '--limit=64', '--width=0.03', '--epochs=1', '--precision=float32'),
    *('--device=cpu', '--full=page25', '--tricks=group_augmentation,pool_first'),
)
ARMS = [
    'page24',
    'page24+group_augmentation',
    'page24+pool_first',
    'page25',
    'page25-group_augmentation',
    'page25-pool_first',
]
OTHER = (
    '`log` must hold runs of the same settings, data and hardware: pass another file. Received: '
)


@pytest.fixture(scope='module')
def script():
    with loaded(ROOT / 'examples' / 'ablation.py') as module:
        yield module


@pytest.mark.thorough
def test_it_goes_on_where_it_stopped(script, tmp_path, capsys, monkeypatch):
    log = tmp_path / 'log.jsonl'
    really_train, reached = script.train, {}

    def train(recipe, dataset, precision, seed):
        if not reached:  # the other arms reach the same, or this would take minutes
            reached.update(really_train(recipe, dataset, precision, seed))
        return {**reached, 'recipe': recipe.name, 'epochs': recipe.epochs, 'seed': seed}

    def interrupted_at_the_third(recipe, *others):
        if recipe.name == ARMS[2]:
            raise KeyboardInterrupt
        return train(recipe, *others)

    monkeypatch.setattr(script, 'train', interrupted_at_the_third)
    with pytest.raises(SystemExit) as raised:
        call(script, f'--log={log}', '--runs=1', *SMALL)
    assert raised.value.code == 130  # 128 and the number of SIGINT, as in a shell
    *_, last = capsys.readouterr().err.splitlines()  # after the epochs' lines
    assert last == 'ablation.py: interrupted: the same command goes on'
    assert [run['recipe'] for run in runlog.read_lines(log)] == ARMS[:2]
    first = log.read_text()

    monkeypatch.setattr(script, 'train', train)
    call(script, f'--log={log}', '--runs=1', *SMALL)
    assert log.read_text().startswith(first)
    runs = runlog.read_lines(log)
    assert [run['recipe'] for run in runs] == ARMS
    assert {run['seed'] for run in runs} == {0}
    assert all(0 <= run['test_accuracy'] <= 1 and run['train_seconds'] > 0 for run in runs)
    table = capsys.readouterr().out.splitlines()[-8:]
    assert table[0] == '| trick | n | test accuracy, % | difference, points | training, s |'
    assert table[2].startswith('| **page24** | 1 | ')

    whole = log.read_text()
    call(script, f'--log={log}', '--render', '--full=page25')
    assert log.read_text() == whole
    assert capsys.readouterr().out.splitlines() == table


@pytest.mark.thorough
def test_a_run_that_diverges_is_a_result(script, tmp_path, monkeypatch):
    def diverge(self, *arguments):
        raise DivergedError('the training loss must stay finite')

    monkeypatch.setattr('fenwicks.training.Trainer.fit', diverge)
    log = tmp_path / 'log.jsonl'
    call(script, f'--log={log}', '--runs=1', *SMALL)
    assert [run['test_accuracy'] for run in runlog.read_lines(log)] == [None] * len(ARMS)


def test_a_log_of_another_budget(script, tmp_path):
    log = tmp_path / 'log.jsonl'
    log.write_text(json.dumps({'recipe': 'page24', 'seed': 0, 'epochs': 1}) + '\n')
    line = refused(script, f'--log={log}', '--runs=1', *SMALL)
    assert line.startswith(OTHER)


def test_a_log_of_other_epochs(script, tmp_path, monkeypatch):
    trained = []

    def train(recipe, dataset, precision, seed):
        trained.append(recipe.name)
        described = {'recipe': recipe.name, 'epochs': recipe.epochs, 'seed': seed}
        return {**described, 'test_accuracy': 0.5, 'train_seconds': 1.0}

    monkeypatch.setattr(script, 'train', train)
    log = tmp_path / 'log.jsonl'
    call(script, f'--log={log}', '--runs=1', *SMALL)
    line = refused(script, f'--log={log}', '--runs=1', *SMALL, '--epochs=2')
    assert line.startswith(OTHER)
    assert 'with a run of epochs=1 instead of 2, settings.recipe.epochs=1 instead' in line
    line = refused(script, f'--log={log}', '--runs=1', *SMALL, '--set=momentum=0.8')
    assert line.endswith('with a run of settings.recipe.momentum=0.9 instead of 0.8')
    assert trained == ARMS


def test_a_log_of_data_that_changed_since(script, tmp_path, monkeypatch):
    reached = {'test_accuracy': 0.5, 'train_seconds': 1.0}
    monkeypatch.setattr(
        script,
        'train',
        lambda recipe, dataset, precision, seed: {
            'recipe': recipe.name,
            'epochs': recipe.epochs,
            'seed': seed,
            **reached,
        },
    )
    log = tmp_path / 'log.jsonl'
    call(script, f'--log={log}', '--runs=1', *SMALL)
    lines = runlog.read_lines(log)
    log.write_text(json.dumps({**lines[0], 'data_digest': '0' * 16}) + '\n')
    line = refused(script, f'--log={log}', '--runs=1', *SMALL)
    assert line.startswith(OTHER)
    del lines[0]['data_digest']  # as an earlier version logged it
    log.write_text(json.dumps(lines[0]) + '\n')
    call(script, f'--log={log}', '--runs=1', *SMALL)
    assert len(runlog.read_lines(log)) == len(lines)


def test_a_log_that_cannot_be_written(script, tmp_path, monkeypatch):
    monkeypatch.setattr(script, 'train', lambda *arguments: pytest.fail('trained'))
    line = refused(script, f'--log={tmp_path / "no" / "log.jsonl"}', '--runs=1', *SMALL)
    assert line.startswith('the log must be a file that can be written to. ')


@pytest.mark.parametrize(
    ('flags', 'line'),
    [
        (['--runs=0'], 'flag --runs=0: 0 is not a positive integer'),
        (['--full=fast'], '`full` must be one of fenwicks24, '),
        (['--tricks=celu,celu'], '`tricks` must name each once. Received: celu'),
        (['--plot=no/folder/a.png'], '`plot` must lie in a folder that exists.'),
        (['--full=page24'], '`full` must be a recipe with more tricks than page24.'),
        (['--baseline=', '--full=page24'], '`full` must be a recipe with tricks. Received: full='),
        (['--log='], "`log` must not be empty. Received: log=''"),
        (['--epochs=0'], '`epochs` must be a number in (0, 2**20). Received: epochs=0.0'),
        (['--width=-1'], '`width` must be a number in (0, 2**20). Received: width=-1.0'),
        (['--limit=3'], '`batch_size` must be at most the 3 training images'),
        (['--dataset=mnist'], '`dataset` must be one of auto, '),
        (['7'], 'there are no arguments besides flags. Received: 7'),
    ],
)
def test_bad_input_is_one_line(script, tmp_path, flags, line):
    log = tmp_path / 'log.jsonl'
    assert refused(script, f'--log={log}', *SMALL, *flags).startswith(line)
    assert not log.exists()


def test_a_log_that_is_not_there(script, tmp_path):
    line = refused(script, f'--log={tmp_path / "none.jsonl"}', '--render')
    assert 'No such file' in line
