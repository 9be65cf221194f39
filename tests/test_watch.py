"""What the script shows of a training: test accuracy, TensorBoard, CSV, wandb, or nothing."""

import csv
import importlib.machinery
import importlib.util
import json
import struct
import sys
import types

import pytest
from scripts import ROOT, call, loaded, refused

pytestmark = pytest.mark.backend('tensorflow', 'jax')

SMALL = ('--dataset=digits', '--limit=96', '--batch_size=32', '--device=cpu', '--noreport')
SMALL += ('--precision=float32', '--recipe=fenwicks24_gpu', '--width=0.03', '--epochs=2')


@pytest.fixture(scope='module')
def script():
    with loaded(ROOT / 'examples' / 'cifar10.py') as module:
        yield module


def events(folder):
    """The values in the event files of a folder: (tag, step, number or None of a picture)."""
    event_pb2 = pytest.importorskip('tensorboardX.proto.event_pb2')
    for path in sorted(folder.iterdir()):
        held = path.read_bytes()
        while held:  # a length of 8 bytes, its checksum of 4, the event, its checksum of 4
            (length,) = struct.unpack('<Q', held[:8])
            event = event_pb2.Event.FromString(held[12 : 12 + length])
            held = held[16 + length :]
            for value in event.summary.value:
                is_number = value.WhichOneof('value') == 'simple_value'
                yield value.tag, event.step, value.simple_value if is_number else None


@pytest.fixture(scope='module')
def run(script, tmp_path_factory):
    """A run with every flag, and a stand-in for wandb that notes what it gets."""
    pytest.importorskip('tensorboardX')
    noted = []
    wandb = types.ModuleType('wandb')
    wandb.__spec__ = importlib.machinery.ModuleSpec('wandb', None)
    wandb.init = lambda **settings: (
        noted.append(settings)
        or types.SimpleNamespace(
            log=lambda values, step: noted.append((step, values)),
            finish=lambda: noted.append('finished'),
        )
    )
    out = tmp_path_factory.mktemp('watched') / 'out'
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, 'wandb', wandb)
        flags = ('--validate', '--csv', '--tensorboard', '--wandb')
        call(script, *SMALL, *flags, f'--out={out}')
    return out, json.loads((out / 'result.json').read_text()), noted


def test_the_result_has_the_test_accuracy_of_each_epoch(run):
    _, result, _ = run
    last = result['history'][-1]
    assert last['test_accuracy'] == pytest.approx(result['test_accuracy_plain'], abs=1e-6)
    assert last['test_loss'] == pytest.approx(result['test_loss_plain'], rel=1e-4)
    for flag in ('--validate', '--csv'):  # they don't change what is trained
        assert flag not in result['command']


def test_csv(run):
    out, result, _ = run
    rows = list(csv.DictReader((out / 'history.csv').read_text().splitlines()))
    assert [row['epoch'] for row in rows] == ['0', '1']
    for row, record in zip(rows, result['history'], strict=True):
        assert float(row['loss']) == pytest.approx(record['train_loss'], rel=1e-6)
        assert float(row['val_accuracy']) == pytest.approx(record['test_accuracy'], rel=1e-6)


@pytest.mark.usefixtures('script')
def test_csv_of_a_training_that_was_killed(tmp_path):
    """After the row of an epoch and before its checkpoint: trained again, it has one row."""
    path = tmp_path / 'history.csv'
    for resume, epochs in ((False, (0, 1, 2)), (True, (2, 3))):
        file = sys.modules['watch'].HistoryFile(path, resume)
        file.on_train_begin()
        for epoch in epochs:
            file.on_epoch_begin(epoch)
            logs = {'loss': epoch / 2, 'val_loss': 9} if epoch == 3 else {'loss': epoch / 2}
            file.on_epoch_end(epoch, logs)
    assert path.read_text().split() == [
        'epoch,loss,val_loss',
        *('0,0.0,NA', '1,0.5,NA', '2,1.0,NA', '3,1.5,9'),
    ]
    assert [each.name for each in tmp_path.iterdir()] == ['history.csv']


def test_tensorboard(run):
    out, result, _ = run
    values = list(events(out / 'tensorboard'))
    scalars = {(tag, step): number for tag, step, number in values if number is not None}
    for epoch, record in enumerate(result['history'], start=1):
        assert scalars['loss/train', epoch] == pytest.approx(record['train_loss'], rel=1e-5)
        assert scalars['accuracy/test', epoch] == pytest.approx(record['test_accuracy'], rel=1e-5)
    rates = [number for (tag, _), number in scalars.items() if tag == 'schedule/learning_rate']
    peak = result['settings']['recipe']['peak_learning_rate']
    assert len(rates) == 6  # steps
    assert 0.5 * peak < max(rates) <= 1.0001 * peak  # in float32
    pictures = {tag for tag, _, number in values if number is None}
    assert pictures == {'images/original', 'images/augmented'}


def test_wandb(run):
    _, result, (settings, *logged, end) = run
    assert settings['project'] == 'fenwicks'
    assert json.loads(json.dumps(settings['config'])) == result['settings']
    assert [step for step, _ in logged] == [1, 2]
    assert logged[-1][1]['val_loss'] == pytest.approx(result['history'][-1]['test_loss'], rel=1e-6)
    assert end == 'finished'


@pytest.mark.thorough
def test_quiet_is_one_line_at_the_end(script, tmp_path, capfd):
    out = tmp_path / 'out'
    call(script, *SMALL, '--verbosity=-1', f'--out={out}')
    shown = capfd.readouterr()
    assert shown.err == ''
    (line,) = shown.out.splitlines()
    assert line.startswith('test accuracy ')
    assert line.endswith(f'results in {out}')


def test_nothing_to_resume_is_said(script, tmp_path, capsys):
    call(script, *SMALL, '--resume', f'--out={tmp_path}')
    said = f'{tmp_path} holds nothing to resume: the training starts from the beginning\n'
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(('flag', 'package'), [('tensorboard', 'tensorboardX'), ('wandb', 'wandb')])
def test_a_missing_package_is_one_line(script, monkeypatch, flag, package):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, 'find_spec', lambda name: None if name == package else find(name)
    )
    line = refused(script, *SMALL, f'--{flag}')
    assert line == f'`{flag}` needs {package}: pip install {package}'
