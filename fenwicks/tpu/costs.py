"""Memory and time of a training on a TPU, from its program alone.

How a step's time is estimated, per device:

```
priced    = the compiler's own estimate, the sum over operations of the time that each would take
            at the device's peak rates
unpriced  = memory traffic of max pooling's gradient / peak bandwidth: the compiler has no estimate
            for that operation
network   = (n - 1) / n * bytes of the arrays that devices gather or add up / peak bandwidth of the
            links of a chip in the corner of n chips: the compiler counts their memory traffic
            alone. (Arrays that every device wants the sum of are added up, then gathered.)
step      = priced + unpriced + network
roofline  = flops / the device's peak rate: no program is faster
```

The compiler prices the body of a loop once, and a program is one loop over the steps of an epoch:
so its estimate is that of a step, and of what an epoch does besides (the shuffle: microseconds).
It takes a second away for each operation that it can't price, which is why `priced` is its figure
modulo one second; these operations are, besides max pooling's gradient, the sort of the shuffle
and calls that do nothing.

Real steps take longer than that: the estimate knows of no pauses between operations. And a run is
its steps: it leaves out compilation, evaluation and the way of the data to the device.
"""

from __future__ import annotations

import dataclasses
import math
import re

import keras
import numpy as np

from fenwicks import assemble, data
from fenwicks import precision as precisions
from fenwicks.recipes import Recipe
from fenwicks.tpu.chips import chip_of

ESTIMATED = ('step_seconds', 'epoch_seconds', 'run_seconds', 'cycles')


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What the training of a recipe takes on a topology. Times are estimated, memory is exact.

    Attributes:
        topology: generation and shape.
        devices: how many share a batch: chips, or cores where those are devices of their own.
        fits: whether the program fits their memory; where not, the figures besides the next two
            and `compile_seconds` are `None`.
        memory_bytes: what the program takes on a device, the data set included.
        memory_limit_bytes: what a device has for programs.
        flops_per_step: of all devices together.
        step_seconds, epoch_seconds, run_seconds: estimated; of training steps alone.
        priced_seconds, unpriced_seconds, network_seconds: of which a step is the sum.
        unpriced_operations: number of operations that the compiler has no estimate for.
        roofline_seconds: lower bound of a step: its products at the device's peak rate.
        cycles: that the compiler schedules the priced operations of a step for: a second opinion,
            which knows how full the units are. How long a cycle is, it doesn't say.
        collectives: messages among the devices in a step.
        compile_seconds: what compiling took here.
    """

    topology: str
    devices: int
    fits: bool
    memory_bytes: int
    memory_limit_bytes: int
    flops_per_step: float | None = None
    step_seconds: float | None = None
    epoch_seconds: float | None = None
    run_seconds: float | None = None
    priced_seconds: float | None = None
    unpriced_seconds: float | None = None
    network_seconds: float | None = None
    unpriced_operations: int | None = None
    roofline_seconds: float | None = None
    cycles: int | None = None
    collectives: int | None = None
    compile_seconds: float | None = None


@dataclasses.dataclass(frozen=True)
class DataShape:
    """All that the program depends on of a data set.

    Args:
        train_images: number of training images.
        image_shape: `(height, width, channels)` of each.
        num_classes: number of classes.
    """

    train_images: int
    image_shape: tuple[int, int, int]
    num_classes: int

    def stand_in(self) -> data.Dataset:
        """A data set of that shape, of noise."""
        count = self.train_images
        noise = np.random.default_rng(0).integers(0, 256, (257, *self.image_shape), np.uint8)
        images = np.resize(noise, (count, *self.image_shape))
        labels = np.arange(count, dtype=np.int32) % self.num_classes
        names = tuple(str(label) for label in range(self.num_classes))
        return data.Dataset('noise', images, labels, images[:1], labels[:1], names, 'noise')

    @classmethod
    def named(cls, name: str) -> DataShape:
        """The shape of the data set called `name`, or written out in it.

        Example:

        >>> DataShape.named('50000x32x32x3x10') == DATA_SHAPES['cifar10']
        True
        """
        if name in DATA_SHAPES:
            return DATA_SHAPES[name]
        if not re.fullmatch(r'[1-9]\d*(x[1-9]\d*){4}', name):
            raise ValueError(
                f'`dataset` must be {", ".join(DATA_SHAPES)}, or images, height, width, channels '
                f'and classes such as 50000x32x32x3x10. Received: dataset={name}'
            )
        images, *image_shape, classes = map(int, name.split('x'))
        return cls(images, tuple(image_shape), classes)


DATA_SHAPES = {
    'cifar10': DataShape(50_000, (32, 32, 3), 10),
    'cifar100': DataShape(50_000, (32, 32, 3), 100),
    'digits': DataShape(1_501, (32, 32, 3), 10),
}


def estimate(
    recipe: Recipe,
    topology: str,
    shape: DataShape = DATA_SHAPES['cifar10'],
    *,
    precision='bfloat16',
    batch_norm='per_replica',
    cache=None,
    program=None,
) -> Estimate:
    """Compiles the training program of a recipe for a TPU and says what it takes there.

    Compiling takes one to three minutes of a processor core. Leave a process that is to use a TPU
    itself alone: libtpu can't be had twice.

    Args:
        recipe: the settings.
        topology: such as `'v5e:2x4'`; see `fenwicks.tpu.CHIPS`.
        shape: of the data set.
        precision: as `fenwicks.precision.set_precision` takes it.
        batch_norm: `'per_replica'` or `'synchronized'`, see `fenwicks.training.replicate`.
        cache: folder in which the compiler's answers are kept, or `None`.
        program: the recipe's program in another framework, for one device, as serialized
            StableHLO; see `fenwicks.tpu.tensorflow_program`. `None` for the JAX engine's.

    Returns:
        An `Estimate`. A program that doesn't fit the memory is no error.

    Raises:
        ImportError: libtpu isn't installed.
        ValueError: an argument breaks its rule, or Keras isn't on its JAX backend.
    """
    if keras.backend.backend() != 'jax':
        raise ValueError(
            'programs for TPUs must be compiled on the jax backend: set KERAS_BACKEND=jax before '
            f'Keras is imported. Received: KERAS_BACKEND={keras.backend.backend()}'
        )
    from fenwicks.tpu import compiler  # see `shared_by`

    chip = chip_of(topology)
    devices, replicas = shared_by(topology, recipe, batch_norm)
    if program is None:
        chosen = precisions.set_precision(precision, 'tpu')
        trainer = assemble.build_trainer(
            recipe, shape.stand_in(), precision=chosen, replicas=replicas
        )
        traced, arguments = trainer._engine.program(shape.train_images, shape.image_shape)
    else:
        check_single(topology, devices)
        traced, arguments = _imported(program, replicas.everywhere)
    compiled = compiler.compile_program(traced, arguments, devices, cache)
    return _estimate(
        compiled,
        topology,
        len(devices),
        chip,
        compiler.devices_per_chip(devices),
        recipe.steps_per_epoch(shape.train_images),
        recipe.epochs,
    )


def _imported(program, sharding):
    """Jitted function and arguments of serialized StableHLO, the state first."""
    import jax

    from fenwicks.tpu import stablehlo

    function, arguments = stablehlo.imported(program)
    arguments = [jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding) for a in arguments]
    state, others = arguments[:-6], arguments[-6:]
    program = jax.jit(
        lambda state, *others: function(*state, *others),
        donate_argnums=0,
        out_shardings=sharding,
    )
    return program, (state, *others)


def check_single(topology: str, devices):
    """Raises unless a topology is one device, which is all that an imported program is for."""
    if len(devices) > 1:
        raise ValueError(
            '`topology` must be a single device for a program of TensorFlow, such as v5e:1x1. '
            f'Received: topology={topology}'
        )


def shared_by(topology: str, recipe: Recipe, batch_norm='per_replica'):
    """The devices of a topology, and how they share a batch: `training.sharding.Replicas`.

    Raises:
        ImportError: libtpu isn't installed.
        ValueError: there is no such topology, or its devices can't share the batch equally.
    """
    # Here, so that whoever lacks jax can be told in one line.
    from fenwicks.tpu import compiler
    from fenwicks.training.replicas import jax as sharding

    chip_of(topology)
    devices = compiler.topology_devices(topology)
    replicas = sharding.replicas(devices, batch_norm)
    assemble.check_shares(recipe, replicas, topology)
    return devices, replicas


def _estimate(compiled, topology, devices, chip, devices_per_chip, steps, epochs):
    """What the compiler said, for a whole training."""
    limit = compiled.memory_limit_bytes or chip.memory_gib * 2**30 // devices_per_chip
    common = {
        'topology': topology,
        'devices': devices,
        'fits': compiled.fits and compiled.memory_bytes <= limit,
        'memory_bytes': compiled.memory_bytes,
        'memory_limit_bytes': limit,
        'compile_seconds': compiled.compile_seconds,
    }
    if not common['fits']:
        return Estimate(**common)
    roofline = compiled.flops / (chip.teraflops * 1e12 / devices_per_chip)
    priced, unpriced_operations = untangle(compiled.optimal_seconds, roofline)
    bandwidth = chip.gigabytes_per_second * 1e9 / devices_per_chip
    unpriced = compiled.scatter_bytes / bandwidth
    network = _network_seconds(compiled.collective_bytes, topology, chip)
    step = priced + unpriced + network
    return Estimate(
        **common,
        flops_per_step=compiled.flops * devices,
        step_seconds=step,
        epoch_seconds=step * steps,
        run_seconds=step * steps * epochs,
        priced_seconds=priced,
        unpriced_seconds=unpriced,
        network_seconds=network,
        unpriced_operations=unpriced_operations,
        roofline_seconds=roofline,
        cycles=compiled.cycles,
        collectives=compiled.collectives,
    )


def _network_seconds(message, topology, chip):
    """Of sending arrays of so many bytes, at the pace of a chip with the fewest neighbors."""
    axes = [int(side) for side in topology.partition(':')[2].split('x')]
    chips = math.prod(axes)
    # A chip has two links along each axis; in a corner it has one, and none along an axis of 1.
    links = sum(side > 1 for side in axes) / (2 * len(axes))
    if not links:
        return 0.0
    return (chips - 1) / chips * message / (links * chip.links_gigabytes_per_second * 1e9)


def untangle(optimal_seconds: float, at_least: float) -> tuple[float, int]:
    """The seconds in the compiler's figure, and how many seconds were taken away from them.

    Args:
        optimal_seconds: the figure: seconds, less one for each operation without an estimate.
        at_least: a lower bound of the seconds, which settles how many whole ones there are.

    Example:

    >>> seconds, operations = untangle(-2.99, at_least=0.004)
    >>> round(seconds, 6), operations
    (0.01, 3)
    """
    seconds = optimal_seconds % 1.0
    seconds += max(0, math.ceil(at_least - seconds), math.floor(optimal_seconds))
    return seconds, round(seconds - optimal_seconds)
