"""Training throughput of fenwicks and of plain PyTorch, side by side.

    pip install torch==2.13.0     # the other side of the comparison; any recent version will do
    python examples/benchmarks/throughput.py --precision=float32

Both train the same ResNet-9 at the same batch size and precision, each in a process of its own
that is warmed up once and then takes turns with the other, so that a machine that changes speed
changes it for both. The fenwicks side is the Trainer's own compiled loop, shuffle, crop, flip and
cutout included; the PyTorch side is a bare step on a batch that is already there, in the memory
layout that is PyTorch's fastest (channels_last). Prints one JSON object; `--log` appends it to a
JSON-lines file. Without PyTorch it measures fenwicks alone and says so.
"""

from __future__ import annotations

import datetime
import importlib.util
import json
import pathlib
import statistics
import subprocess
import sys
import time

from absl import app, flags

from fenwicks import report

FLAGS = flags.FLAGS
flags.DEFINE_enum('precision', 'float32', ['float32', 'bfloat16'], 'Of both sides.')
flags.DEFINE_integer('batch_size', 512, 'Images in a step.')
flags.DEFINE_integer('rounds', 5, 'How many turns each side takes.')
flags.DEFINE_integer('steps', 2, 'Steps in a turn.')
flags.DEFINE_string('log', None, 'JSON-lines file to append the result to.')
flags.DEFINE_enum('side', None, ['fenwicks', 'pytorch'], 'Internal: be one side of the comparison.')


def fenwicks_side():
    """Returns a function that trains for some steps."""
    import numpy as np

    from fenwicks import assemble, data, precision, recipes

    precision.set_precision(FLAGS.precision)
    random = np.random.default_rng(0)
    count = FLAGS.batch_size * FLAGS.steps
    images = random.integers(0, 256, (count, 32, 32, 3), np.uint8)
    labels = random.integers(0, 10, count, np.int32)
    names = tuple(str(n) for n in range(10))
    dataset = data.Dataset('random', images, labels, images[:1], labels[:1], names, 'made')
    recipe = recipes.get('fenwicks24').with_batch_size(FLAGS.batch_size)
    trainer = assemble.assemble(recipe, dataset)
    engine = trainer._engine
    engine.load(images, labels)

    def train(steps):
        engine.run(epoch=0, start=0, stop=steps)

    return train


def pytorch_side():
    """Returns a function that trains for some steps."""
    import torch
    from torch import nn
    from torch.nn import functional

    def conv_bn(inputs, outputs):
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )

    class Residual(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.branch = nn.Sequential(conv_bn(width, width), conv_bn(width, width))

        def forward(self, images):
            return images + self.branch(images)

    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.dense = nn.Linear(512, 10, bias=False)

        def forward(self, images):
            return 0.125 * self.dense(images.amax((2, 3)))

    model = nn.Sequential(
        conv_bn(3, 64),
        nn.Sequential(conv_bn(64, 128), nn.MaxPool2d(2), Residual(128)),
        nn.Sequential(conv_bn(128, 256), nn.MaxPool2d(2)),
        nn.Sequential(conv_bn(256, 512), nn.MaxPool2d(2), Residual(512)),
        Head(),
    ).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=0.000125
    )
    images = torch.randn(FLAGS.batch_size, 3, 32, 32).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (FLAGS.batch_size,))

    def train(steps):
        for _ in range(steps):
            with torch.autocast('cpu', torch.bfloat16, enabled=FLAGS.precision == 'bfloat16'):
                loss = functional.cross_entropy(model(images).float(), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    return train


def serve_side():
    """Warms up, then trains for a turn at each line of standard input and prints its seconds."""
    train = {'fenwicks': fenwicks_side, 'pytorch': pytorch_side}[FLAGS.side]()
    train(1)
    print('ready', flush=True)
    for line in sys.stdin:
        if line.strip() == 'memory':
            print(report.peak_memory_mb(), flush=True)
            continue
        started = time.perf_counter()
        train(FLAGS.steps)
        print(time.perf_counter() - started, flush=True)


class Side:
    """A process that trains when it is told to."""

    def __init__(self, name):
        self.name, self.seconds = name, []
        shared = ('precision', 'batch_size', 'steps')
        arguments = [f'--{flag}={FLAGS[flag].value}' for flag in shared]
        self.process = subprocess.Popen(
            [sys.executable, __file__, f'--side={name}', *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if self._line() != 'ready':
            raise RuntimeError(f'the {name} side did not start')

    def _line(self):
        return self.process.stdout.readline().strip()

    def ask(self, question):
        self.process.stdin.write(question + '\n')
        self.process.stdin.flush()
        return float(self._line())

    def take_turn(self):
        self.seconds.append(self.ask('train'))

    def images_per_second(self):
        return FLAGS.steps * FLAGS.batch_size / statistics.median(self.seconds)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def main(argv):
    if FLAGS.side:
        serve_side()
        return
    sides = [Side('fenwicks')]
    if importlib.util.find_spec('torch'):
        sides.append(Side('pytorch'))
    else:
        print('PyTorch is not installed: no comparison', file=sys.stderr)
    for _ in range(FLAGS.rounds):
        for side in sides:
            side.take_turn()
    result = {
        'benchmark': 'throughput',
        'network': 'resnet9',
        'date': datetime.date.today().isoformat(),
        'hardware': report.hardware(),
        'precision': FLAGS.precision,
        'batch_size': FLAGS.batch_size,
        'rounds': FLAGS.rounds,
        'steps_per_round': FLAGS.steps,
        'timed': 'whole training steps; augmentation on the fenwicks side only',
        'versions': report.versions(),
    }
    for side in sides:
        result[f'{side.name}_images_per_second'] = round(side.images_per_second(), 2)
        result[f'{side.name}_peak_memory_mb'] = side.ask('memory')
        side.close()
    if len(sides) == 2:
        # Of each round's pair, so that the machine's drift cancels.
        pairs = zip(sides[0].seconds, sides[1].seconds, strict=True)
        result['ratio'] = round(statistics.median(torch / ours for ours, torch in pairs), 3)
    print(json.dumps(result, indent=1))
    if FLAGS.log:
        with pathlib.Path(FLAGS.log).open('a') as file:
            file.write(json.dumps(result) + '\n')


if __name__ == '__main__':
    app.run(main)
