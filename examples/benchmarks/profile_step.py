"""Where each millisecond of a training step goes, on a CPU.

    python examples/benchmarks/profile_step.py --recipe=fenwicks24
    python examples/benchmarks/profile_step.py --recipe=speed94 --precision=bfloat16 --steps=2
    python examples/benchmarks/profile_step.py --recipe=speed94 --stock   # TensorFlow's kernels
    python examples/benchmarks/profile_step.py --recipe=speed94 --epoch=0   # images of 24x24

It takes some steps of the recipe on random images with the Trainer's compiled loop, first without
and then under TensorFlow's profiler. The table divides the elapsed time among the operations; while
two operations run at once, each gets half of it. The arithmetic rate is the number of operations of
the convolutions and dense layers, counted as sliding windows, over the seconds of a whole step. For
comparison the script measures the rate of one large matrix product on the same machine.
"""

from __future__ import annotations

import startup  # noqa: F401

import json
import statistics
import time

import keras
import numpy as np
from absl import flags
from model_layers import inner_layers, layers_with_paths

from fenwicks import assemble, command, devices, hardware, precision, runlog, tpu, training
from fenwicks.kernels import device
from fenwicks.recipes import flags as recipe_flags

FLAGS = flags.FLAGS
recipe_flags.define('fenwicks24')
flags.adopt_module_key_flags(recipe_flags)
flags.DEFINE_string('precision', 'auto', f'One of {", ".join(precision.PRECISIONS)}.')
flags.DEFINE_bool('stock', False, "With TensorFlow's own kernels, not those of fenwicks.layers.")
flags.DEFINE_integer(
    'epoch',
    None,
    'Whose steps, from 0, where images grow; by default of the last whole epoch.',
    lower_bound=0,
)
flags.DEFINE_integer('steps', 3, 'Steps to time, and as many to profile.', lower_bound=1)
flags.DEFINE_integer('top', 25, 'How many operations to list.', lower_bound=1)
flags.DEFINE_integer(
    'peak_size', 4096, 'Rows of the matrices whose product gives the peak.', lower_bound=1
)
flags.DEFINE_bool('json', False, 'Print one JSON object instead of the tables.')
flags.DEFINE_string('log', None, 'JSON-lines file to append the result to.')


def main():
    if keras.backend.backend() != 'tensorflow':
        raise ValueError(
            'the profile must be taken on the tensorflow backend. '
            f'Received: KERAS_BACKEND={keras.backend.backend()}'
        )
    if FLAGS.log:
        runlog.start_log(FLAGS.log)
    result = profile()
    print(json.dumps(result, indent=1) if FLAGS.json else as_text(result))
    if FLAGS.log:
        runlog.append_line(FLAGS.log, result)


def profile():
    """Times and profiles the recipe that the flags name."""
    import op_times

    provenance = hardware.provenance()
    recipe = recipe_flags.chosen(FLAGS)
    epoch = max(0, int(recipe.epochs) - 1) if FLAGS.epoch is None else FLAGS.epoch
    sizes = [size for start, size in recipe.image_size_epochs() if start <= epoch]
    side = sizes[-1] if sizes else 32
    devices.select_device('cpu')
    chosen_precision = precision.set_precision(FLAGS.precision)

    trainer = assemble.build_trainer(
        recipe, random_dataset(recipe.batch_size), precision=chosen_precision
    )
    flops = flops_of_image(trainer.model, side)
    scopes = op_times.note_scopes(trainer.model)
    images = random_dataset(recipe.batch_size * FLAGS.steps)
    trainer.load(images.train_images, images.train_labels)
    # Layers choose their kernels when they are traced.
    with device.override(in_place=True, **({'on_cpu': False} if FLAGS.stock else {})):
        compile_seconds = timed(trainer.compile, epoch)
    trainer.run_steps(epoch, 0, 1)  # prepares kernels and allocates memory

    multiply = large_product(chosen_precision)
    step_seconds, product_seconds = [], []
    # Alternating, so that changes of the machine's speed affect both.
    for step in range(FLAGS.steps):
        step_seconds.append(timed(trainer.run_steps, epoch, step, step + 1))
        product_seconds.append(timed(multiply))
    operations, kinds = op_times.profile_steps(trainer, scopes, epoch, FLAGS.steps)

    best = statistics.median(step_seconds)
    step_flops = recipe.batch_size * sum(flops.values())
    peak = 2 * FLAGS.peak_size**3 / min(product_seconds)
    return {
        'benchmark': 'profile_step',
        'recipe': recipe.name,
        'widths': list(recipe.widths),
        'batch_size': recipe.batch_size,
        'image_size': side,
        'precision': chosen_precision,
        'kernels': 'stock' if FLAGS.stock else 'fenwicks',
        'hardware': hardware.describe(),
        'steps': FLAGS.steps,
        'step_seconds': best,
        'traced_step_seconds': sum(kinds.values()) / 1000,
        'images_per_second': recipe.batch_size / best,
        'compile_seconds': compile_seconds,
        'step_flops': step_flops,
        'flops_per_image': flops,
        'flops_per_second': step_flops / best,
        'peak_flops_per_second': peak,
        'efficiency': step_flops / best / peak,
        'peak_memory_mb': hardware.peak_memory_mb(),
        'milliseconds': {kind: round(spent, 3) for kind, spent in kinds.items()},
        'operations': operations[: FLAGS.top],
        **provenance,
    }


def random_dataset(count):
    """Random images of CIFAR-10's shape."""
    return tpu.DataShape(count, (32, 32, 3), 10).noise()


def flops_of_image(model, side):
    """As `count_flops`; where a part of each batch trains the network, the mean over the batch."""
    if not isinstance(model, training.HardExamples):
        return count_flops(model, side)
    large, small = (count_flops(part, side) for part in (model.network, model.proxy))
    shares = dict.fromkeys(small, model.proxy_share) | {'forward': 1.0}
    return {kind: model.share * large[kind] + shares[kind] * small[kind] for kind in large}


def count_flops(model, side=32) -> dict[str, int]:
    """Counts the multiplications and additions of a step per image, by purpose.

    Images have `side` pixels a side where the model takes any. A multiply-add of a convolution, as
    a sliding window, or of a dense layer counts as two. The gradient with respect to a layer's
    input counts only if a layer before it is trainable.
    """
    calls = []
    usual = (side, side, 3)
    shape = [size or other for size, other in zip(model.input_shape[1:], usual, strict=True)]

    def noting(layer):
        call = layer.call

        def noted(*args, **kwargs):
            outputs = call(*args, **kwargs)
            calls.append((layer, outputs.shape))
            return outputs

        layer.call = noted
        return call

    counted = [layer for layer, _ in layers_with_paths(model) if not inner_layers(layer)]
    originals = [noting(layer) for layer in counted]
    try:
        model(np.zeros((1, *shape), np.float32), training=False)
    finally:
        for layer, original in zip(counted, originals, strict=True):
            layer.call = original
    flops = {'forward': 0, 'input gradient': 0, 'kernel gradient': 0}
    trains_before = False
    for layer, shape in calls:
        kernel = getattr(layer, 'kernel', None)
        if kernel is not None:
            # Each element of the output is a sum over all of the kernel's axes but the last.
            products = 2 * int(np.prod(shape[1:])) * int(np.prod(kernel.shape[:-1]))
            flops['forward'] += products
            flops['input gradient'] += products * trains_before
            flops['kernel gradient'] += products * bool(kernel.trainable)
        trains_before = trains_before or bool(layer.trainable_variables)
    return flops


def large_product(chosen_precision):
    """A function that multiplies two large matrices, warmed up."""
    import tensorflow as tf

    size = FLAGS.peak_size
    a, b = (tf.cast(tf.random.normal((size, size)), chosen_precision) for _ in range(2))
    multiply = tf.function(lambda: tf.matmul(a, b), autograph=False)
    multiply()
    return multiply


def timed(function, *args):
    """Seconds that a call takes."""
    began = time.perf_counter()
    function(*args)
    return time.perf_counter() - began


def as_text(result):
    """The result as aligned tables."""
    total = 1000 * result['traced_step_seconds']
    lines = [
        f'{result["recipe"]} (widths {", ".join(map(str, result["widths"]))}), batch '
        f'{result["batch_size"]}, images of {result["image_size"]} pixels, '
        f'{result["precision"]}, {result["hardware"]}',
        f'{result["step_seconds"]:.3f} s a step (median of {result["steps"]}; under the profiler '
        f'{result["traced_step_seconds"]:.3f} s), {result["images_per_second"]:.0f} images/s, '
        f'{result["peak_memory_mb"] / 1024:.1f} GiB',
        f'{result["step_flops"] / 1e9:.0f} GFLOP a step at '
        f'{result["flops_per_second"] / 1e9:.0f} GFLOP/s: '
        f'{result["efficiency"]:.2f} of the {result["peak_flops_per_second"] / 1e9:.0f} GFLOP/s of '
        'a large matrix product',
        '',
        f'{"kind":30} {"ms/step":>10} {"share":>7}',
    ]
    for kind, spent in result['milliseconds'].items():
        lines.append(f'{kind:30} {spent:10.1f} {spent / total:7.1%}')
    lines.append(f'{"all":30} {total:10.1f} {1:7.1%}')
    lines += ['', f'{"operation":28} {"ms/step":>9} {"runs":>5}  {"kind":28} line, layer']
    for op in result['operations']:
        lines.append(
            f'{op["type"]:28} {op["milliseconds"]:9.1f} {op["runs"]:5.0f}  {op["kind"]:28} '
            f'{op["line"]:20} {op["layer"]}'.rstrip()
        )
    return '\n'.join(lines)


if __name__ == '__main__':
    command.run(main, 'profile_step.py')
