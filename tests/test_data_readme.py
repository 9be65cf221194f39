"""The page about data: each of its programs runs, alone, on a folder of pictures."""

import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from test_data_images import file_of

ROOT = pathlib.Path(__file__).parents[1]
PAGE = (ROOT / 'fenwicks' / 'data' / 'README.md').read_text()
PROGRAMS = re.findall(r'^```python\n(.*?)^```', PAGE, re.MULTILINE | re.DOTALL)


def test_there_are_programs():
    assert len(PROGRAMS) == 5


@pytest.mark.thorough
@pytest.mark.parametrize('program', PROGRAMS, ids=range(len(PROGRAMS)))
def test_programs(program, tmp_path):
    draw = np.random.default_rng(0)
    for number in range(60):
        path = tmp_path / 'pictures' / ('cat', 'dog', 'ship')[number % 3] / f'{number}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file_of(draw.integers(0, 256, (40, 50, 3), np.uint8)))
    done = subprocess.run(
        [sys.executable, '-c', program],
        cwd=tmp_path,
        env=os.environ | {'PYTHONPATH': str(ROOT), 'FENWICKS_DATA': str(tmp_path / 'cache')},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    if 'shared(' in program:
        assert done.stdout.count('images on both sides: []') == 5
    if 'write_shards' in program:
        assert 'ImageArrays(60 images, shape=(32, 32, 3), 3 classes' in done.stdout
    if 'files_dataset' in program:
        assert done.stdout.splitlines()[-1] == '3 1'  # 48 images, and 12
