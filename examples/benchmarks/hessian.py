"""Times the leading eigenvalues of the Hessian of a narrow ResNet-9.

    python examples/benchmarks/hessian.py --data_dir=FOLDER --log=hessian.jsonl

At initialisation, in training mode, on the first training images: ten eigenpairs by Lanczos until
their residuals are a hundredth of the largest. Prints them; `--log` appends a JSON line.
"""

from __future__ import annotations

import startup  # noqa: F401

import time

import keras
import numpy as np
from absl import flags

from fenwicks import (
    augment,
    command,
    data,
    devices,
    diagnostics,
    hardware,
    losses,
    models,
    runlog,
)

FLAGS = flags.FLAGS
flags.DEFINE_integer('images', 512, 'Images that the loss is a mean over.', lower_bound=2)
flags.DEFINE_integer('count', 10, 'Number of eigenpairs.', lower_bound=1)
flags.DEFINE_integer('max_products', 100, 'Products with the Hessian, at most.', lower_bound=1)
flags.DEFINE_float('width', 0.25, "Factor on the network's number of filters.")
flags.DEFINE_string('data_dir', None, 'Folder that holds the data set, in any published form.')
flags.DEFINE_string('log', None, 'JSON-lines file to append the result to.')


def main():
    provenance = hardware.provenance()
    device = devices.select_device()
    dataset = data.load(data_dir=FLAGS.data_dir)
    mean, std = data.mean_std(dataset.train_images)
    images = dataset.train_images[: FLAGS.images]
    inputs = keras.ops.convert_to_numpy(augment.normalize(images, mean=mean, std=std))
    labels = np.asarray(dataset.train_labels[: FLAGS.images], 'int32')
    keras.utils.set_random_seed(0)
    widths = [max(1, round(FLAGS.width * width)) for width in (64, 128, 256, 512)]
    model = models.resnet9(dataset.image_shape, dataset.num_classes, widths)
    began = time.perf_counter()
    hessian = diagnostics.Hessian(model, losses.CrossEntropy(), inputs, labels, training=True)
    found = diagnostics.leading_eigenpairs(
        hessian.product,
        hessian.size,
        FLAGS.count,
        tolerance=1e-2,
        max_products=FLAGS.max_products,
    )
    seconds = time.perf_counter() - began
    pairs = zip(found.values, found.residuals, strict=True)
    rows = [[f'{value:.4g}', f'{residual:.2g}'] for value, residual in pairs]
    print(runlog.markdown(['eigenvalue', 'residual'], rows))
    size = f'{hessian.size:,} weights, {len(inputs)} images'
    print(f'{size}: {found.products} products, {seconds:.0f} s')
    if FLAGS.log:
        result = {
            'benchmark': 'hessian',
            'dataset': dataset.name,
            'backend': keras.backend.backend(),
            'width': FLAGS.width,
            'images': len(inputs),
            'weights': hessian.size,
            'eigenvalues': found.values.tolist(),
            'residuals': found.residuals.tolist(),
            'products': found.products,
            'seconds': seconds,
            'hardware': hardware.describe(device, 1),
            **provenance,
        }
        runlog.append_line(FLAGS.log, result)


if __name__ == '__main__':
    command.run(main, 'hessian.py')
