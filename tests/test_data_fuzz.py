"""Mutated files: every reader ends in a documented error or in data that are right.

    FENWICKS_FUZZ=1000000 FENWICKS_FUZZ_SEED=1 python -m pytest -m slow tests/test_data_fuzz.py

spreads so many mutations over all readers. A mutation may take 5 s of CPU time; the process may
grow by 1 GB.
"""

import os
import resource
import time
import warnings

import numpy as np
import pytest
from fuzz_readers import MADE, readers
from test_data_load import TEST, TRAIN

COUNT = int(os.environ.get('FENWICKS_FUZZ', 20_000))
SEED = int(os.environ.get('FENWICKS_FUZZ_SEED', 0))
READERS = readers()
EXTREMES = [bytes([value]) * size for size in (1, 2, 4, 8) for value in (0, 0x7F, 0x80, 0xFF)]


def mutated(draw, raw, other):
    """A file with one to four things wrong."""
    raw = bytearray(raw)
    for _ in range(draw.integers(1, 5)):
        place = int(draw.integers(len(raw) + 1))
        kind = draw.integers(7)
        if kind <= 1 and place < len(raw):
            raw[place] ^= 1 << int(draw.integers(8))
        elif kind == 2:
            extreme = EXTREMES[draw.integers(len(EXTREMES))]
            raw[place : place + len(extreme)] = extreme
        elif kind == 3:
            del raw[place : place + int(draw.integers(1, 40))]
        elif kind == 4:
            raw[place:place] = draw.integers(0, 256, draw.integers(1, 20), np.uint8).tobytes()
        elif kind == 5:
            start = int(draw.integers(len(other) + 1))
            raw[place:place] = other[start : start + int(draw.integers(1, 60))]
        elif draw.random() < 0.3:
            del raw[place:]
    return bytes(raw)


def fuzz(reader, count, folder):
    """Reads `count` mutations; returns how many were refused."""
    draw = np.random.default_rng([SEED, len(reader.name), *reader.name.encode()])
    path = folder / reader.file
    if reader.name == 'published folder':
        for name in ('data_batch_1.bin', 'data_batch_2.bin'):
            (folder / name).write_bytes(MADE.files[name])
    refused = 0
    for number in range(count):
        seed = reader.seeds[draw.integers(len(reader.seeds))]
        raw = mutated(draw, seed, reader.seeds[draw.integers(len(reader.seeds))])
        path.write_bytes(raw)
        start = time.process_time()
        try:
            result = reader.read(path)
        except (ValueError, OSError) as error:
            message = str(error)
            refused += 1
        else:
            message = ''
            assert reader.right(result), f'{reader.name} {number}: wrong data in {raw!r:.300}'
        taken = time.process_time() - start
        assert taken < 5, f'{reader.name} {number}: {taken} s for {raw!r:.300}'
        assert '\n' not in message, message
        if message and reader.name != 'example':
            assert str(folder) in message, message
    return refused


@pytest.fixture(name='modest')
def _modest():
    """No more than 1 GB more memory, and none of the parsers' warnings."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    assert grown < 1, f'{grown:.2f} GB'


@pytest.mark.usefixtures('modest')
@pytest.mark.parametrize('reader', READERS, ids=lambda reader: reader.name)
def test_some_mutations(reader, tmp_path):
    assert fuzz(reader, 60, tmp_path) > 5


@pytest.mark.slow
@pytest.mark.usefixtures('modest')
@pytest.mark.parametrize('reader', READERS, ids=lambda reader: reader.name)
def test_many_mutations(reader, tmp_path):
    assert fuzz(reader, max(1, COUNT // len(READERS)), tmp_path) >= 0


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
