"""Mutated files: every reader ends in a documented error or in data that are right.

    FENWICKS_FUZZ=1000000 FENWICKS_FUZZ_SEED=1 python -m pytest -m slow tests/test_data_fuzz.py

spreads so many mutations over all readers. A mutation may take 5 s of CPU time; the process may
grow by 1 GB. `endurance.py` does the same outside pytest, and logs it.
"""

import os
import warnings

import pytest
from endurance import fuzz, peak_gb
from fuzz_readers import MADE, readers
from test_data_load import TEST, TRAIN

COUNT = int(os.environ.get('FENWICKS_FUZZ', 20_000))
SEED = int(os.environ.get('FENWICKS_FUZZ_SEED', 0))
READERS = readers()


@pytest.fixture(name='modest')
def _modest():
    """No more than 1 GB more memory, and none of the parsers' warnings."""
    before = peak_gb()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield
    grown = peak_gb() - before
    assert grown < 1, f'{grown:.2f} GB'


@pytest.mark.usefixtures('modest')
@pytest.mark.parametrize('reader', READERS, ids=lambda reader: reader.name)
def test_some_mutations(reader, tmp_path):
    assert fuzz(reader, 60, tmp_path, SEED) > 5


@pytest.mark.slow
@pytest.mark.usefixtures('modest')
@pytest.mark.parametrize('reader', READERS, ids=lambda reader: reader.name)
def test_many_mutations(reader, tmp_path):
    assert fuzz(reader, max(1, COUNT // len(READERS)), tmp_path, SEED) >= 0


def test_seeds_are_read(tmp_path):
    assert (TRAIN, TEST) == (20, 10)
    for reader in READERS:
        folder = tmp_path / reader.name
        folder.mkdir()
        for name in ('data_batch_1.bin', 'data_batch_2.bin'):
            (folder / name).write_bytes(MADE.files[name])
        for seed in reader.seeds:
            (folder / reader.file).write_bytes(seed)
            assert reader.right(reader.read(folder / reader.file)), reader.name
