"""Kills at random instants: the training goes on, and ends as if it had never been stopped.

pytest -m slow tests/test_kills.py                       # 20 kills
FENWICKS_KILLS=200 pytest -m slow tests/test_kills.py    # as many as one likes

These are of the whole script, which takes long to start; `under_fire.py` kills the Trainer alone.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from scripts import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.backend('tensorflow', 'jax')]

KILLS = int(os.environ.get('FENWICKS_KILLS', '20'))
SCRIPT = ROOT / 'examples' / 'cifar10.py'
FLAGS = (
    *('--dataset=digits', '--limit=96', '--batch_size=32', '--device=cpu', '--precision=float32'),
    *('--recipe=page10', '--width=0.03', '--epochs=40', '--noreport'),
)


def start(out, *flags):
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *FLAGS, f'--out={out}', *flags],
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process):
    _, stderr = process.communicate(timeout=600)
    assert process.returncode == 0, stderr


def result(out):
    return json.loads((out / 'result.json').read_text())


def weights(out):
    return keras.saving.load_model(out / 'model.keras').get_weights()


def check_alike(out, whole):
    assert sorted(path.name for path in out.iterdir()) == [
        'README.md',
        'model.keras',
        'report.npz',
        'result.json',
    ]
    for key in ('test_accuracy', 'test_loss', 'test_accuracy_plain', 'test_loss_plain'):
        assert result(out)[key] == result(whole)[key]
    losses = [[epoch['train_loss'] for epoch in result(each)['history']] for each in (out, whole)]
    assert losses[0] == losses[1]
    for mine, theirs in zip(weights(out), weights(whole), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """A training that was never stopped, and how long that takes."""
    out = tmp_path_factory.mktemp('whole') / 'out'
    began = time.monotonic()
    finished(start(out))
    return out, time.monotonic() - began


def test_kills_at_random_instants(whole, tmp_path):
    out, seconds = whole
    chance = random.Random(0)
    kills = trainings = 0
    while kills < KILLS:
        cut = tmp_path / str(trainings)
        trainings += 1
        resume = ()
        while not (cut / 'result.json').exists():
            process = start(cut, *resume)
            try:
                process.wait(timeout=chance.uniform(0, 1.2 * seconds))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                kills += 1
            _, stderr = process.communicate(timeout=600)
            assert process.returncode in (0, -signal.SIGKILL), stderr
            resume = ('--resume',) if cut.is_dir() else ()
            if kills >= KILLS and process.returncode:
                finished(start(cut, *resume))
        check_alike(cut, out)
    print(f'{kills} kills in {trainings} trainings')


@pytest.mark.parametrize('sign', [signal.SIGINT, signal.SIGTERM])
def test_interrupts_at_random_instants_end_in_one_line(whole, tmp_path, sign):
    _, seconds = whole
    chance = random.Random(1)
    for number in range(max(3, KILLS // 4)):
        out = tmp_path / str(number)
        process = start(out)
        time.sleep(0.3 + chance.uniform(0, seconds))  # Python itself takes a moment to start
        process.send_signal(sign)
        _, stderr = process.communicate(timeout=600)
        if process.returncode == 0:  # it had ended before
            continue
        assert process.returncode == 128 + sign, stderr
        assert 'Traceback' not in stderr
        last = stderr.splitlines()[-1]
        assert last.startswith('cifar10.py: interrupted'), stderr
        assert last.endswith((' go on', 'start it again')), stderr
