"""Compares the training throughput of fenwicks with that of plain PyTorch.

    pip install torch==2.13.0     # the other side of the comparison; any recent version will do
    python examples/benchmarks/throughput.py --precision=float32

Both train the same ResNet-9 at the same batch size and precision, each in its own process. After
one warm-up the processes take turns, so that changes of the machine's speed affect both. The
fenwicks side is the Trainer's compiled loop, including shuffle, crop, flip and cutout. The PyTorch
side is only a step on a batch in memory, in PyTorch's fastest memory layout (channels_last). The
script prints one JSON object; `--log` appends it to a JSON-lines file. Without PyTorch it measures
fenwicks alone and says so.
"""

from __future__ import annotations

import startup  # noqa: F401

import contextlib
import importlib.util
import json
import statistics
import sys
import time

import turns
from absl import flags

from fenwicks import command, hardware, runlog

FLAGS = flags.FLAGS
flags.DEFINE_enum('precision', 'float32', ['float32', 'bfloat16'], 'Of both sides.')
flags.DEFINE_integer('batch_size', 512, 'Images in a step.', lower_bound=1)
flags.DEFINE_integer('rounds', 5, 'How many turns each side takes.', lower_bound=1)
flags.DEFINE_integer('steps', 2, 'Steps in a turn.', lower_bound=1)
flags.DEFINE_string('log', None, 'JSON-lines file to append the result to.')
flags.DEFINE_enum('side', None, ['fenwicks', 'pytorch'], 'Internal: be one side of the comparison.')


def fenwicks_side():
    """Returns a function that trains for some steps."""
    from fenwicks import assemble, devices, precision, recipes, tpu

    devices.select_device('cpu')  # as PyTorch's side
    precision.set_precision(FLAGS.precision)
    dataset = tpu.DataShape(FLAGS.batch_size * FLAGS.steps, (32, 32, 3), 10).noise()
    recipe = recipes.get('fenwicks24_gpu').with_batch_size(FLAGS.batch_size)
    trainer = assemble.build_trainer(recipe, dataset)
    trainer.load(dataset.train_images, dataset.train_labels)

    def train(steps):
        trainer.run_steps(epoch=0, start=0, stop=steps)

    return train


def pytorch_side():
    """Returns a function that trains for some steps."""
    import pytorch_trainer
    import torch
    from torch import nn
    from torch.nn import functional

    pytorch_trainer.use_all_threads()

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


def make_side():
    """Warms up, and returns what the parent may ask for."""
    train = {'fenwicks': fenwicks_side, 'pytorch': pytorch_side}[FLAGS.side]()
    train(1)

    def take_turn():
        started = time.perf_counter()
        train(FLAGS.steps)
        return time.perf_counter() - started

    return {'take_turn': take_turn, 'memory': hardware.peak_memory_mb}


def main():
    if FLAGS.side:
        turns.serve(make_side)
        return
    if FLAGS.log:
        runlog.start_log(FLAGS.log)
    result = compare()
    print(json.dumps(result, indent=1))
    if FLAGS.log:
        runlog.append_line(FLAGS.log, result)


def compare():
    """Runs the sides in turn and returns the result."""
    names = ['fenwicks']
    if importlib.util.find_spec('torch'):
        names.append('pytorch')
    else:
        print('PyTorch is not installed: no comparison', file=sys.stderr)
    arguments = [f'--{flag}={FLAGS[flag].value}' for flag in ('precision', 'batch_size', 'steps')]
    with contextlib.ExitStack() as stack:
        sides = [stack.enter_context(turns.Side(name, __file__, arguments)) for name in names]
        rounds = [[side.ask('take_turn') for side in sides] for _ in range(FLAGS.rounds)]
        memory = [side.ask('memory') for side in sides]
    result = {
        'benchmark': 'throughput',
        'network': 'resnet9',
        'hardware': hardware.describe(),
        'precision': FLAGS.precision,
        'batch_size': FLAGS.batch_size,
        'rounds': FLAGS.rounds,
        'steps_per_round': FLAGS.steps,
        'timed': 'whole training steps; augmentation on the fenwicks side only',
        **hardware.provenance(),
    }
    images = FLAGS.steps * FLAGS.batch_size
    for name, seconds, peak in zip(names, zip(*rounds, strict=True), memory, strict=True):
        result[f'{name}_images_per_second'] = round(images / statistics.median(seconds), 2)
        result[f'{name}_peak_memory_mb'] = peak
    if len(names) == 2:
        # The ratio within each round, so that changes of the machine's speed cancel.
        result['ratio'] = round(statistics.median(torch / ours for ours, torch in rounds), 3)
    return result


if __name__ == '__main__':
    command.run(main, 'throughput.py')
