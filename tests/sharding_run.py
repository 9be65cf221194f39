"""Trains on one device and on four of this machine, and prints the losses as JSON.

`test_sharding.py` runs it on JAX, with `--xla_force_host_platform_device_count=4`. Every image is
in every batch, so that the shuffle doesn't matter.
"""

import json
import re

import jax
import jax.numpy as jnp
import keras
import numpy as np

from fenwicks import augment, layers, optimizers, training
from fenwicks.training.replicas import jax as sharding

STEPS = 4
# Of a kernel whose four inputs are divided among four devices, of one with three, of a bias.
GRADIENTS = [jnp.full((4, 2), 1 / 3), jnp.full((3, 2), 1 / 3), jnp.full((5,), 1 / 3)]


def network(normalization):
    keras.utils.set_random_seed(1)
    parts = [keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3), normalization]
    return keras.Sequential([*parts, keras.layers.Flatten(), keras.layers.Dense(5)])


def losses(normalization, replicas, transform=None):
    """The loss after each of some steps, and the last running statistics."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (32, 8, 8, 3), np.uint8)
    labels = random.integers(0, 5, 32, np.int32)
    model = network(normalization)
    trainer = training.Trainer(
        model,
        optimizers.SGD(0.02, momentum=0.9),
        batch_size=32,
        augment=transform or (lambda images, seed: images),
        averaging=optimizers.EMA(0.5, every=2),
        replicas=replicas,
        jit_compile=True,  # as on an accelerator
    )
    trainer.load(images, labels)
    trainer.compile()
    found = []
    for epoch in range(STEPS):  # of a step each
        totals = trainer.run_steps(epoch, 0, 1)
        found.append([totals.loss_sum, totals.correct])
    averages = trainer.variables[len(model.variables + trainer.optimizer.variables) :]
    statistics = [*model.non_trainable_variables, *averages]
    statistics = np.concatenate([np.ravel(variable) for variable in statistics])
    return {'losses': found, 'statistics': statistics.tolist()}


def train_on(replicas):
    """Losses of one model under trainers that divide its kernels, don't, and do so again."""
    model = network(layers.BatchNormalization())
    images = np.random.default_rng(0).integers(0, 256, (32, 8, 8, 3), np.uint8)
    labels = np.arange(32, dtype=np.int32) % 5
    losses = []
    for clipnorm in (None, 100.0, None):
        optimizer = optimizers.SGD(0.02, momentum=0.9, clipnorm=clipnorm)
        trainer = training.Trainer(model, optimizer, batch_size=32, replicas=replicas)
        losses += trainer.fit(images, labels, 2).history['loss']
    return losses


def interrupted(replicas):
    """Whether a model predicts after an interrupt while its program runs, as on accelerators."""
    model = network(layers.BatchNormalization())
    images = np.random.default_rng(0).integers(0, 256, (32, 8, 8, 3), np.uint8)
    labels = np.arange(32, dtype=np.int32) % 5
    optimizer = optimizers.SGD(0.02, momentum=0.9)
    trainer = training.Trainer(
        model, optimizer, batch_size=32, replicas=replicas, jit_compile=True, seconds_per_call=5.0
    )
    trainer.fit(images, labels, 1)
    wait, before = jax.block_until_ready, trainer.predict(images)

    def interrupt(tree):
        raise KeyboardInterrupt

    jax.block_until_ready = interrupt
    try:
        trainer.fit(images, labels, 2)
    except KeyboardInterrupt:
        after = trainer.predict(images)
        return bool(np.isfinite(after).all() and not np.array_equal(before, after))
    finally:
        jax.block_until_ready = wait
    return False


def messages(replicas, optimizer):
    """Kinds and shapes of what the devices exchange in a step, the head's in float32."""
    keras.utils.set_random_seed(1)
    parts = [layers.ConvBN(filters, dtype='mixed_bfloat16') for filters in (4, 8)]
    parts += [keras.layers.GlobalMaxPooling2D(), layers.Classifier(5)]
    model = keras.Sequential([keras.Input((8, 8, 3)), *parts])
    trainer = training.Trainer(model, optimizer, batch_size=32, replicas=replicas)
    program, arguments = trainer.program(32, (8, 8, 3))
    text = program.lower(*arguments).as_text()
    pattern = r'stablehlo.(all_reduce|reduce_scatter|all_gather)\b.*?\) -> tensor<(\S+)>'
    return [' '.join(found) for found in re.findall(pattern, text, re.DOTALL)]


def mean_gradients(replicas):
    """Of devices whose gradients are `GRADIENTS`, twice, three times and four times them."""
    dtypes = ['bfloat16'] * 3

    def mean(weights):
        share = (1 + jax.lax.axis_index('replicas')).astype('float32')
        gradients = [gradient * share for gradient in GRADIENTS]
        return replicas.mean_gradients(gradients, axes, dtypes), replicas.all_gather(
            weights, axes, dtypes
        )

    axes = [replicas.sharded_axis(gradient.shape) for gradient in GRADIENTS]
    weights = [jnp.arange(gradient.size, dtype='float32') for gradient in GRADIENTS]
    weights = [w.reshape(g.shape) for w, g in zip(weights, GRADIENTS, strict=True)]
    means, whole = jax.jit(replicas.map_replicas(mean, axes))(weights)
    shards = [mean.addressable_shards[0].data.shape for mean in means]
    return [[mean.tolist() for mean in means], [w.tolist() for w in whole], shards]


def counts():
    """How many devices share a batch by default, of a processor cut up and of accelerators."""
    devices = jax.devices
    jax.devices = lambda kind: devices('cpu')
    try:
        return [sharding.replicate(None, 'per_replica', kind).count for kind in ('cpu', 'tpu')]
    finally:
        jax.devices = devices


def run():
    one = sharding.from_devices(jax.devices()[:1])
    four = sharding.from_devices(jax.devices()[:4])
    synchronized = sharding.from_devices(jax.devices()[:4], 'synchronized')

    def draw(seed):
        return seed, jax.lax.all_gather(four.local_seed(seed[0]), 'replicas')

    return {
        'ghosts_on_one': losses(layers.GhostBatchNormalization(8), one),
        'shares_on_four': losses(layers.BatchNormalization(), four),
        'whole_on_one': losses(layers.BatchNormalization(), one),
        'whole_on_four': losses(layers.BatchNormalization(), synchronized),
        'flipped_on_one': losses(layers.BatchNormalization(), one, augment.random_flip),
        'flipped_on_four': losses(layers.BatchNormalization(), synchronized, augment.random_flip),
        'mean_gradients': mean_gradients(four),
        'messages_of_sgd': messages(four, optimizers.SGD(0.1, momentum=0.9)),
        'messages_of_clipped_sgd': messages(four, optimizers.SGD(0.1, global_clipnorm=1.0)),
        'counts': counts(),
        'trained_on_by_one': train_on(one),
        'trained_on_by_four': train_on(sharding.from_devices(jax.devices()[:4], 'synchronized')),
        'trained_on_divided': train_on(four),
        'predicts_when_interrupted': interrupted(four),
        'seeds': jax.jit(four.map_replicas(draw, [None]))([jnp.array([3, 4])])[1].tolist(),
    }


if __name__ == '__main__':
    print(json.dumps(run()))
