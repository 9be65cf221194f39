"""Many damaged files, many epochs, many Trainers: what a reader and the memory bear.

    python tests/endurance.py files --count=1000000 --seed=1 --log=examples/results/under_fire.jsonl
    KERAS_BACKEND=jax python tests/endurance.py epochs --count=2000
    python tests/endurance.py trainers --count=100

`files`: mutated files of each kind that is read. Each must end in a documented error of one line,
or in data, within 5 s of CPU time; where the format has a checksum, in the data of the whole file.
`epochs` and `trainers`: by how much memory
grows over many epochs of one training, and over many Trainers made and dropped.

A line of JSON says what was found. What should not happen raises.
"""

import argparse
import gc
import json
import pathlib
import resource
import tempfile
import time
import warnings

import keras
import numpy as np
from fuzz_readers import MADE, readers
from training_toys import conv_model, dense_model, make, toy

from fenwicks import hardware, runlog

EXTREMES = [bytes([value]) * size for size in (1, 2, 4, 8) for value in (0, 0x7F, 0x80, 0xFF)]
SETTLED = {'epochs': 200, 'trainers': 20}  # until caches are full, and memory should stay flat


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


def fuzz(reader, count, folder, seed=0):
    """Reads `count` mutations; returns how many were refused."""
    draw = np.random.default_rng([seed, len(reader.name), *reader.name.encode()])
    path = folder / reader.file
    if reader.name == 'published folder':
        for name in ('data_batch_1.bin', 'data_batch_2.bin'):
            (folder / name).write_bytes(MADE.files[name])
    refused = 0
    for number in range(count):
        whole = reader.seeds[draw.integers(len(reader.seeds))]
        raw = mutated(draw, whole, reader.seeds[draw.integers(len(reader.seeds))])
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


def files(arguments):
    """As many mutations of each kind of file as make up the count; how many were refused."""
    kinds = readers()
    each = -(-arguments.count // len(kinds))
    refused = 0
    before = peak_gb()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # those of parsers
        for reader in kinds:
            with tempfile.TemporaryDirectory() as folder:
                refused += fuzz(reader, each, pathlib.Path(folder), arguments.seed)
    grown = peak_gb() - before
    assert grown < 1, f'{grown:.2f} GB'
    return {'n': each * len(kinds), 'kinds': len(kinds), 'refused': refused}


def peak_gb():
    """The most memory that this process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def resident_mb():
    """Memory of this process that is in use, after a collection of garbage."""
    gc.collect()
    pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def memory_over_epochs(count):
    """MB in use before and after so many epochs of one training."""
    trainer = make(dense_model())
    trainer.fit(*toy(), SETTLED['epochs'])
    before = resident_mb()
    trainer.fit(*toy(), count)
    return before, resident_mb()


def memory_over_trainers(count, make_model):
    """MB in use after a fifth of so many Trainers, or after 20, and after all."""
    seen = []
    for _ in range(count):
        trainer = make(make_model())
        trainer.fit(*toy(), 1)
        trainer.predict(toy()[0])
        seen.append(resident_mb())
    return seen[min(SETTLED['trainers'], count // 5) - 1], seen[-1]


def epochs(arguments):
    before, after = memory_over_epochs(arguments.count)
    return {'n': arguments.count, 'memory_mb': [round(before), round(after)]}


def trainers(arguments):
    before, after = memory_over_trainers(arguments.count, conv_model)
    return {'n': arguments.count, 'memory_mb': [round(before), round(after)]}


FIGURES = {'files': (files, 20_000), 'epochs': (epochs, 2000), 'trainers': (trainers, 100)}


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument('figure', choices=list(FIGURES))
    parser.add_argument('--count', type=int, help='Of files, epochs or Trainers.')
    parser.add_argument('--seed', type=int, default=0, help='Of the mutations.')
    parser.add_argument('--log', help='File of JSON lines to append the result to.')
    return parser.parse_args()


def main():
    arguments = parse()
    measure, default = FIGURES[arguments.figure]
    arguments.count = arguments.count or default
    code = hardware.provenance()
    began = time.monotonic()
    found = {
        'figure': arguments.figure,
        'backend': keras.backend.backend(),
        **measure(arguments),
        'seconds': round(time.monotonic() - began, 1),
        'hardware': hardware.describe(),
        **code,
    }
    if arguments.log:
        runlog.append_line(arguments.log, found)
    print(json.dumps(found))


if __name__ == '__main__':
    main()
