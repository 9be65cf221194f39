"""Memory and estimated time of a training on a TPU, computed from its compiled program.

The time of a step is estimated per device:

```
priced    = the compiler's own estimate: the sum over the operations of the time that each takes at
            the device's peak rates, less its time for copies to and from a faster memory: they run
            beside other operations, which count as if they reached into the main memory; at least
            the roofline
unpriced  = memory traffic of max pooling's gradient / peak memory bandwidth, since the compiler has
            no estimate for that operation
network   = (n - 1) / n * bytes of the arrays that devices gather or reduce / peak bandwidth of the
            links of a chip in a corner of the n chips, since the compiler counts only the memory
            traffic of messages (an all-reduce counts twice: it reduces, then gathers)
step      = priced + unpriced + network
roofline  = flops / the device's peak rate, a lower bound
```

The compiler counts the body of a loop once, and a program is one loop over the steps of an epoch.
Its estimate is therefore that of one step, plus what happens once an epoch: the shuffle and a check
that all variables are finite, 0.03 ms for `speed94` on a v5e. It subtracts a second for each
operation that it has no estimate for, so `priced` begins with its figure modulo one second. Besides
max pooling's gradient these operations are the sort of the shuffle and calls that do nothing.

Real steps take longer: the estimate contains no pauses between operations. A run is the sum of its
steps, without compilation, evaluation and the transfer of the data to the device. Where a training
has several programs, for images of several sizes or variables that stop learning, each is compiled;
the figures of a step are means over the steps of the run, memory is that of the largest.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from typing import Any

import keras

from fenwicks import assemble
from fenwicks import precision as precisions
from fenwicks.recipes import Recipe
from fenwicks.tpu.chips import chip_of
from fenwicks.tpu.shapes import DATA_SHAPES, DataShape
from fenwicks.training.phases import Phases

ESTIMATED = ('step_seconds', 'epoch_seconds', 'run_seconds', 'cycles')


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Memory and time of a recipe's training on a topology. Times are estimated, memory is exact.

    Attributes:
        topology: generation and shape.
        devices: number of devices that share a batch: chips, or halves of them in v2,
            v3 and tpu7x.
        fits: whether the program fits the memory of a device; if not, all other figures except the
            next two and `compile_seconds` are `None`.
        memory_bytes: memory that the program needs on a device, the data set included.
        memory_limit_bytes: memory that a device has for programs.
        flops_per_step: floating-point operations of all devices together.
        step_seconds, epoch_seconds, run_seconds: estimated time of the training steps only.
        priced_seconds, unpriced_seconds, network_seconds: the terms of `step_seconds`.
        unpriced_operations: number of operations that the compiler has no estimate for.
        roofline_seconds: lower bound of `step_seconds`: the operations at the device's peak rate.
        cycles: cycles for which the compiler schedules the priced operations of a step. This
            second estimate accounts for how well the units are used, but the length of a cycle is
            unknown.
        collectives: number of messages among the devices in a step.
        compile_seconds: duration of the compilation on this machine.
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


def estimate(
    recipe: Recipe,
    topology: str,
    shape: DataShape = DATA_SHAPES['cifar10'],
    *,
    precision: str = 'bfloat16',
    batch_norm: str = 'per_replica',
    cache: str | os.PathLike | None = None,
    programs: Sequence[bytes] | None = None,
) -> Estimate:
    """Estimates memory and time of a recipe's training on a TPU by compiling its program.

    Compiling takes one and a half to seventeen minutes of a processor core, by recipe and topology.
    Don't call this in a process that uses a TPU: a process can load libtpu for one purpose only.

    Args:
        recipe: the settings.
        topology: such as `'v5e:2x4'`; see `fenwicks.tpu.CHIPS`.
        shape: the shape of the data set.
        precision: as `fenwicks.precision.set_precision` takes it.
        batch_norm: `'per_replica'` or `'synchronized'`, see `fenwicks.training.replicate`.
        cache: folder that keeps the compiler's figures, or `None`.
        programs: the recipe's programs in another framework, in the order of `program_steps`, for
            one device, as serialized StableHLO; see `fenwicks.tpu.tensorflow_program`. `None` for
            those of the JAX engine.

    Returns:
        An `Estimate`. If the program doesn't fit the memory, its `fits` is False.

    Raises:
        ImportError: libtpu isn't installed.
        ValueError: an argument breaks its rule, or Keras's backend isn't JAX.
    """
    if keras.backend.backend() != 'jax':
        raise ValueError(
            'programs for TPUs must be compiled on the jax backend: set KERAS_BACKEND=jax before '
            f'Keras is imported. Received: KERAS_BACKEND={keras.backend.backend()}'
        )
    from fenwicks.tpu import compiler  # see `replicas_on`

    devices, replicas = replicas_on(topology, recipe, batch_norm)
    parts = program_steps(recipe, shape)
    policy = keras.config.dtype_policy()
    try:
        if programs is None:
            chosen = precisions.set_precision(precision, 'tpu')
            trainer = assemble.build_trainer(
                recipe, shape.noise(), precision=chosen, replicas=replicas
            )
            traced = [
                trainer.program(shape.train_images, shape.image_shape, epoch, step)
                for epoch, step, _ in parts
            ]
        else:
            check_single_device(topology, devices)
            traced = [_imported(program, replicas.replicated) for program in programs]
        compiled = [  # this traces, too
            compiler.compile_program(program, arguments, devices, cache)
            for program, arguments in traced
        ]
    finally:
        keras.config.set_dtype_policy(policy)
    steps_per_epoch = recipe.steps_per_epoch(shape.train_images)
    estimates = [
        _estimate(figures, topology, devices, steps_per_epoch, steps)
        for figures, (_, _, steps) in zip(compiled, parts, strict=True)
    ]
    return added_up(estimates, [steps for _, _, steps in parts])


def program_steps(recipe: Recipe, shape: DataShape) -> list[tuple[int, int, int]]:
    """The programs of a recipe: an epoch and a step at which each is in use, and its steps."""
    steps_per_epoch = recipe.steps_per_epoch(shape.train_images)
    phases = Phases(recipe.image_size_epochs(), recipe.freeze_epochs())
    return phases.programs(recipe.total_steps(steps_per_epoch), steps_per_epoch)


def added_up(estimates: Sequence[Estimate], steps: Sequence[int]) -> Estimate:
    """The estimate of a training from those of its programs.

    Args:
        estimates: of each program, on one topology.
        steps: how many steps the training takes with each.
    """
    if len(estimates) == 1:
        return estimates[0]
    largest = max(estimates, key=lambda found: (not found.fits, found.memory_bytes))
    compile_seconds = sum(found.compile_seconds or 0.0 for found in estimates)
    if not largest.fits:
        return dataclasses.replace(largest, compile_seconds=compile_seconds)

    def mean(name):
        values = (getattr(found, name) for found in estimates)
        return sum(value * count for value, count in zip(values, steps, strict=True)) / sum(steps)

    names = ('flops_per_step', 'step_seconds', 'epoch_seconds', 'priced_seconds',
             'unpriced_seconds', 'network_seconds', 'roofline_seconds')  # fmt: skip
    return dataclasses.replace(
        largest,
        **{name: mean(name) for name in names},
        run_seconds=sum(found.run_seconds or 0.0 for found in estimates),
        unpriced_operations=max(found.unpriced_operations or 0 for found in estimates),
        cycles=round(mean('cycles')),
        collectives=max(found.collectives or 0 for found in estimates),
        compile_seconds=compile_seconds,
    )


def _imported(program, sharding):
    """The jitted function of serialized StableHLO, and its arguments, the state first."""
    import jax

    from fenwicks.tpu import stablehlo

    function, arguments = stablehlo.imported(program)
    arguments = [jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding) for a in arguments]
    state, others = arguments[:-7], arguments[-7:]
    program = jax.jit(
        lambda state, *others: function(*state, *others),
        donate_argnums=0,
        out_shardings=sharding,
    )
    return program, (state, *others)


def check_single_device(topology: str, devices: Sequence) -> None:
    """Raises unless a topology is one device, as imported programs require."""
    if len(devices) > 1:
        raise ValueError(
            '`topology` must be a single device for a program of TensorFlow, such as v5e:1x1. '
            f'Received: topology={topology}'
        )


def replicas_on(topology: str, recipe: Recipe, batch_norm: str = 'per_replica') -> tuple[list, Any]:
    """The devices of a topology, and the replicas that share a batch on them.

    Args:
        topology: such as `'v5e:2x4'`.
        recipe: the settings.
        batch_norm: `'per_replica'` or `'synchronized'`.

    Returns:
        A list of JAX devices, and the `Replicas` of `fenwicks.training`.

    Raises:
        ImportError: libtpu isn't installed.
        ValueError: the topology is unknown, or its devices can't share the batch equally.
    """
    # Imported here, so that a missing jax can be reported in one line.
    from fenwicks.tpu import compiler
    from fenwicks.training.replicas.jax import from_devices

    chip_of(topology)
    devices = compiler.topology_devices(topology)
    replicas = from_devices(devices, batch_norm)
    assemble.check_shares(recipe, replicas, topology)
    return devices, replicas


def _estimate(compiled, topology, devices, steps_per_epoch, steps):
    """The `Estimate` of a training of so many steps from the compiler's figures for its program."""
    from fenwicks.tpu.compiler import devices_per_chip  # see `replicas_on`

    chip, per_chip = chip_of(topology), devices_per_chip(devices)
    limit = compiled.memory_limit_bytes or chip.memory_gib * 2**30 // per_chip
    common = {
        'topology': topology,
        'devices': len(devices),
        'fits': compiled.fits and compiled.memory_bytes <= limit,
        'memory_bytes': compiled.memory_bytes,
        'memory_limit_bytes': limit,
        'compile_seconds': compiled.compile_seconds,
    }
    if not common['fits']:
        return Estimate(**common)
    roofline = compiled.flops / (chip.teraflops * 1e12 / per_chip)
    priced, unpriced_operations = split_seconds(compiled.optimal_seconds, roofline)
    bandwidth = chip.gigabytes_per_second * 1e9 / per_chip
    priced = max(roofline, priced - compiled.copied_bytes / bandwidth)
    unpriced = compiled.scatter_bytes / bandwidth
    network = _network_seconds(compiled.collective_bytes, topology, chip)
    step = priced + unpriced + network
    return Estimate(
        **common,
        flops_per_step=compiled.flops * len(devices),
        step_seconds=step,
        epoch_seconds=step * steps_per_epoch,
        run_seconds=step * steps,
        priced_seconds=priced,
        unpriced_seconds=unpriced,
        network_seconds=network,
        unpriced_operations=unpriced_operations,
        roofline_seconds=roofline,
        cycles=compiled.cycles,
        collectives=compiled.collectives,
    )


def _network_seconds(message, topology, chip):
    """Time to send arrays of `message` bytes, limited by the chip with the fewest neighbors."""
    axes = [int(side) for side in topology.partition(':')[2].split('x')]
    chips = math.prod(axes)
    # A chip has two links along each axis; at the end of an axis it uses one, alone on it none.
    links = sum(side > 1 for side in axes) / (2 * len(axes))
    if not links:
        return 0.0
    return (chips - 1) / chips * message / (links * chip.links_gigabytes_per_second * 1e9)


def split_seconds(optimal_seconds: float, at_least: float) -> tuple[float, int]:
    """Splits the compiler's figure into a time and the number of seconds subtracted from it.

        optimal_seconds = seconds - operations, with the smallest seconds >= at_least

    Args:
        optimal_seconds: the compiler's figure, which lacks one second for each operation without
            an estimate.
        at_least: a lower bound of the time, such as the roofline.

    Returns:
        The seconds, and the number of operations without an estimate.

    Example:

    >>> seconds, operations = split_seconds(-2.99, at_least=0.004)
    >>> round(seconds, 6), operations
    (0.01, 3)
    """
    seconds = optimal_seconds % 1.0
    seconds += max(0, math.ceil(at_least - seconds), math.floor(optimal_seconds))
    return seconds, round(seconds - optimal_seconds)
