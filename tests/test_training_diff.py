"""The diff in the Trainer's page: both programs run, and two lines tell them apart."""

import os
import pathlib
import re
import subprocess
import sys

import keras
import pytest

ROOT = pathlib.Path(__file__).parent.parent
PAGE = ROOT / 'fenwicks' / 'training' / 'README.md'
AFTER = """
assert isinstance(history, keras.callbacks.History)
assert history.epoch == [0, 1]
assert {'loss', 'accuracy', 'val_loss', 'val_accuracy'} <= set(history.history)
assert history.history['loss'][1] < history.history['loss'][0] < 2.4, history.history
assert history.history['val_loss'][1] < history.history['val_loss'][0] + 0.02, history.history
"""


def programs():
    (diff,) = re.findall(r'^```diff\n(.*?)^```$', PAGE.read_text(), re.M | re.S)
    lines = diff.splitlines()
    assert sum(line.startswith('+') for line in lines) == 2
    assert sum(line.startswith('-') for line in lines) == 2
    for leaves_out in '+-':
        yield '\n'.join(line[1:] for line in lines if not line.startswith(leaves_out))


@pytest.mark.thorough
@pytest.mark.backend('tensorflow', 'jax')
@pytest.mark.parametrize('number', [0, 1], ids=['keras', 'trainer'])
def test_the_program_before_and_after(number, tmp_path):
    environment = os.environ | {
        'PYTHONPATH': str(ROOT),
        'KERAS_BACKEND': keras.backend.backend(),
        'FENWICKS_OFFLINE': '1',
        'FENWICKS_DATA': str(tmp_path),
        'HOME': str(tmp_path),
    }
    program = list(programs())[number] + AFTER
    command = [sys.executable, '-c', program]
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
